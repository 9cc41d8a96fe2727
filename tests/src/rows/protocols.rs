//! Protocols without ports, or that few translators know, on every way: all of IP goes through.

use etherparse::checksum::Sum16BitWords;

use super::Row;
use crate::packet::Ip;

const UDP_LITE: u8 = 136;

/// Protocols with no checksum over the pseudo-header: name, number, payload.
const OPAQUE: [(&str, u8, &[u8]); 12] = [
    ("HOPOPT", 0, &[1; 8]),
    ("IGMP", 2, &[0x16, 0, 0xf9, 0xfd, 224, 0, 0, 2]),
    ("IP in IP", 4, &[0x45; 28]),
    ("IPv6 in IP", 41, &[0x60; 40]),
    ("GRE", 47, b"\0\0\x08\0 payload"),
    ("ESP", 50, &[9; 33]),
    ("AH", 51, &[9; 28]),
    ("OSPF", 89, &[2, 1, 0, 44]),
    ("VRRP", 112, &[9; 20]),
    ("SCTP", 132, &[9; 32]),
    ("a protocol nobody knows", 253, &[9; 7]),
    ("protocol 255 without payload", 255, &[]),
];

/// The rows.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in super::path::all() {
        rows.extend(
            OPAQUE.map(|(name, number, payload)| path.row(name, false, |ip| ip.raw(number, payload))),
        );
        for (what, coverage) in [("all", 0), ("the header", 8), ("odd bytes", 11)] {
            let name = format!("UDP-Lite's checksum over {what}");
            rows.push(path.row(&name, false, |ip| udp_lite(ip, coverage, b"a payload")));
        }
        rows.push(path.row("UDP without checksum", false, |ip| ip.udp_without_checksum(1, 2, b"x")));
        rows.push(path.row("an echo request", true, |ip| ip.echo_request(b"01234567")));
        rows.push(path.row("TCP", true, |ip| ip.tcp(80, 40_000, &[], b"odd")));
        rows.push(path.row("UDP of an odd length", true, |ip| ip.udp(53, 40_000, b"odd")));
    }
    rows
}

/// RFC 3828: the checksum covers the pseudo-header, with the whole length, and the first `coverage` bytes; 0: all.
fn udp_lite(ip: &Ip, coverage: u16, payload: &[u8]) -> Vec<u8> {
    let [[s0, s1], [d0, d1], [c0, c1]] = [5_004_u16, 5_005, coverage].map(u16::to_be_bytes);
    let mut datagram = [&[s0, s1, d0, d1, c0, c1, 0, 0], payload].concat();
    let covered = if coverage == 0 { datagram.len() } else { usize::from(coverage) };
    let len = u16::try_from(datagram.len()).expect("payload fits");
    let sum = Sum16BitWords::new()
        .add_4bytes(ip.source)
        .add_4bytes(ip.destination)
        .add_2bytes([0, UDP_LITE])
        .add_2bytes(len.to_be_bytes())
        .add_slice(&datagram[..covered]);
    // etherparse sums in memory order.
    datagram[6..8].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    ip.raw(UDP_LITE, &datagram)
}
