//! Sound packets: every protocol, options, fragments, TTLs, DSCP and ECN, sizes.

use etherparse::TcpOptionElement::MaximumSegmentSize;
use gateway_tests::packet::{Ip, ip};

use super::{List, PORT, Sent, Way};

/// An SCTP INIT (RFC 9260) from port 40005 to 5000, with the CRC32c that it has.
const SCTP_INIT: [u8; 32] = [
    0x9c, 0x45, 0x13, 0x88, 0, 0, 0, 0, 0xa4, 0x56, 0x2d, 0x7b, 1, 0, 0, 0x14, 0x11, 0x22, 0x33, 0x44, 0, 1,
    0, 0, 0, 0x0a, 0, 0x0a, 0, 0, 0, 1,
];
/// A VRRP version 2 advertisement (RFC 3768); its checksum does not cover addresses.
const VRRP: [u8; 20] = [0x21, 7, 100, 1, 0, 1, 0x56, 0x44, 192, 168, 100, 9, 0, 0, 0, 0, 0, 0, 0, 0];

/// Header and UDP header.
const HEADERS: usize = 28;

pub(super) fn add(list: &mut List) {
    for way in Way::BOTH {
        protocols(list, way);
        headers(list, way);
        fragments(list, way);
        sizes(list, way);
    }
}

fn protocols(list: &mut List, way: Way) {
    let ip = way.ip();
    let mut one = |name: &str, packet: &dyn Fn(u16) -> Vec<u8>| {
        let packet = packet(list.port());
        list.add(way.named(name), vec![way.send(&packet)]);
    };
    one("TCP SYN, MSS 1460", &|port| ip.tcp(port, PORT, &[MaximumSegmentSize(1460)], b""));
    one("TCP SYN, MSS 1200", &|port| ip.tcp(port, PORT, &[MaximumSegmentSize(1200)], b""));
    one("TCP segment of no connection", &|port| ip.tcp(port, PORT, &[], b"segment"));
    one("UDP", &|port| ip.udp(port, PORT, b"datagram"));
    one("UDP without checksum", &|port| ip.udp_without_checksum(port, PORT, b"datagram"));
    one("SCTP INIT", &|_| ip.raw(132, &SCTP_INIT));
    one("GRE", &|_| ip.raw(47, &[&[0, 0, 8, 0][..], &inside()].concat()));
    // The port's number as a security association of its own.
    one("ESP", &|port| {
        ip.raw(50, &[&u32::from(port).to_be_bytes()[..], &[0, 0, 0, 1], &[0xa5; 32]].concat())
    });
    one("VRRP", &|_| ip.raw(112, &VRRP));
    one("protocol 253", &|_| ip.raw(253, b"an experiment"));
    let answer = way.back();
    let echo = vec![way.send(&ip.echo_request(b"echo")), answer.send(&answer.ip().echo_reply(b"echo"))];
    list.add(way.named("ICMP echo, and its reply"), echo);
}

/// A packet to be carried by GRE.
fn inside() -> Vec<u8> {
    ip([10, 9, 9, 1], [10, 9, 9, 2]).udp(7, PORT, b"inside")
}

fn headers(list: &mut List, way: Way) {
    let mut one = |name: &str, ip: Ip| {
        let packet = ip.udp(list.port(), PORT, b"datagram");
        list.add(way.named(name), vec![way.send(&packet)]);
    };
    for ttl in [1, 2, 3, 64] {
        one(&format!("TTL {ttl}"), way.ip().ttl(ttl));
    }
    for (name, tos) in [("DSCP EF", 0xb8), ("ECT(0)", 2), ("ECT(1)", 1), ("CE", 3)] {
        one(name, Ip { tos, ..way.ip() });
    }
    for (name, options) in [
        ("option router alert", vec![148, 4, 0, 0]),
        ("option record route", vec![7, 7, 4, 0, 0, 0, 0, 0]),
        ("option no operation", vec![1, 1, 1, 0]),
    ] {
        one(name, Ip { options, ..way.ip() });
    }
}

/// A datagram in three fragments.
fn fragments(list: &mut List, way: Way) {
    for (name, order, length) in [
        ("fragments in order", [0, 1, 2], 1208),
        ("fragments, the last one first", [2, 1, 0], 1208),
        ("fragments of 820 bytes", [0, 1, 2], 800),
    ] {
        let port = list.port();
        let whole = way.ip().udp(port, PORT, &vec![0x61; 2 * length + 300])[20..].to_vec();
        let pieces: Vec<_> = whole.chunks(length).collect();
        let send = |&index: &usize| fragment(way, port, index, &pieces);
        list.add(way.named(name), order.iter().map(send).collect());
    }
}

fn fragment(way: Way, identification: u16, index: usize, pieces: &[&[u8]]) -> Sent {
    let header = Ip {
        dont_fragment: false,
        more_fragments: index + 1 < pieces.len(),
        fragment_offset: u16::try_from(index * pieces[0].len() / 8).expect("13 bits"),
        identification,
        ..way.ip()
    };
    way.send(&header.raw(17, pieces[index]))
}

/// The underlay's MTU is 1500: our tunnel carries 1450 bytes, that of OVN, whose Geneve has an option, 1442.
fn sizes(list: &mut List, way: Way) {
    for length in [1442, 1450, 1451, 1500] {
        for (name, dont_fragment) in [("DF", true), ("no DF", false)] {
            let header = Ip { dont_fragment, identification: list.port(), ..way.ip() };
            let packet = header.udp(list.port(), PORT, &vec![0x62; length - HEADERS]);
            list.add(way.named(&format!("{length} bytes, {name}")), vec![way.send(&packet)]);
        }
    }
}
