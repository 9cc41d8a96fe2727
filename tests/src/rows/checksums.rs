//! Where one's-complement arithmetic has two zeros (RFC 1624): fields of 0x0000 and 0xffff, before and after, on every way.
//! The builder sums all bytes anew; the datapath must come to the same by increments.

use super::Row;
use super::path::Path;
use crate::packet::Ip;

/// Offset of the checksum in the IPv4 header.
const IP_FIELD: usize = 10;

/// An L4 protocol: name, offset of the checksum in its packets, builder with a payload of one word, its way to write zero.
type L4 = (&'static str, usize, fn(&Ip, [u8; 2]) -> Vec<u8>, [u8; 2]);

const TCP: L4 = ("TCP", 36, |ip, word| ip.tcp(80, 40_000, &[], &word), [0, 0]);
const UDP: L4 = ("UDP", 26, |ip, word| ip.udp(53, 40_000, &word), [0xff, 0xff]);

/// The rows.
pub fn rows() -> Vec<Row> {
    super::path::all().iter().flat_map(of_path).collect()
}

fn field(packet: &[u8], at: usize) -> [u8; 2] {
    [packet[at], packet[at + 1]]
}

fn of_path(path: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, at, build, zero) in [TCP, UDP] {
        for (when, side) in [("before", 0), ("after", 1)] {
            // A payload of what the checksum would be without it makes the sum all ones.
            let word = field(&build(&path.headers[side], [0, 0]), at);
            let row = path.row(&format!("{what}'s checksum is zero {when}"), true, |ip| build(ip, word));
            assert_eq!(field(&build(&path.headers[side], word), at), zero);
            rows.push(row);
        }
    }
    rows.push(all_ones(path));
    rows.extend([("before", 0), ("after", 1)].map(|(when, side)| ip_zero(path, when, side)));
    rows
}

/// Where the kernel computes TCP's checksum, a sum of all ones becomes 0xffff, UDP's way to write zero: the same to a
/// receiver. A way that leaves the checksum alone leaves this one too.
fn all_ones(path: &Path) -> Row {
    let (_, at, build, _) = TCP;
    let word = field(&build(&path.headers[0], [0, 0]), at);
    let [mut before, mut after] = path.headers.each_ref().map(|ip| build(ip, word));
    before[at..at + 2].copy_from_slice(&[0xff; 2]);
    if field(&after, at) == [0, 0] {
        after[at..at + 2].copy_from_slice(&[0xff; 2]);
    }
    path.row_of("TCP's checksum of zero is written 0xffff", true, (&before, &after))
}

/// An identification of what the header's checksum would be without it.
fn ip_zero(path: &Path, when: &str, side: usize) -> Row {
    let with = |ip: &Ip, identification| Ip { identification, ..ip.clone() }.udp(53, 40_000, b"zero");
    let identification = u16::from_be_bytes(field(&with(&path.headers[side], 0), IP_FIELD));
    path.row(&format!("the IPv4 header's checksum is zero {when}"), true, |ip| with(ip, identification))
}
