//! Fragments, as sequences: each fragment of a datagram becomes that fragment of the translated datagram, whatever came
//! before it and whatever it overlaps. Nothing is kept between two packets, so no order can matter.

use super::Row;
use super::path::Path;
use crate::packet::Ip;

/// A fragment: which datagram, offset in units of 8 bytes, end in bytes (the datagram's own at most).
type Piece = (usize, u16, usize);

/// Named sequences of fragments.
const SEQUENCES: [(&str, &[Piece]); 6] = [
    ("in order", &[(0, 0, 16), (0, 2, 32), (0, 4, 99)]),
    ("reversed", &[(0, 4, 99), (0, 2, 32), (0, 0, 16)]),
    ("two datagrams interleaved", &[(0, 0, 24), (1, 0, 24), (1, 3, 99), (0, 3, 99)]),
    ("a later one overlaps the first", &[(0, 0, 24), (0, 1, 32), (0, 4, 99)]),
    ("one twice", &[(0, 0, 24), (0, 3, 99), (0, 3, 99)]),
    ("the last one alone", &[(2, 5, 99)]),
];

/// The datagrams: a name and a builder. TCP's checksum lies in its first 18 bytes.
const DATAGRAMS: [fn(&Ip) -> Vec<u8>; 3] = [
    |ip| ip.udp(40_000, 53, b"a datagram that comes in pieces"),
    |ip| Ip { identification: 0x4321, ..ip.clone() }.tcp(40_000, 80, &[], b"another, of the same size"),
    |ip| Ip { identification: 7, ..ip.clone() }.echo_request(b"and a ping that is longer than one piece"),
];

/// The rows.
pub fn rows() -> Vec<Row> {
    super::path::all().iter().flat_map(of_path).collect()
}

fn of_path(path: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, pieces) in SEQUENCES {
        for (number, piece) in (1..).zip(pieces) {
            let name = format!("fragments {name}, {number} of {}", pieces.len());
            rows.push(path.row(&name, false, |ip| cut(ip, *piece)));
        }
    }
    rows
}

/// A fragment of the whole datagram, as a router would make it.
fn cut(ip: &Ip, (datagram, offset, end): Piece) -> Vec<u8> {
    let whole = DATAGRAMS[datagram](ip);
    let payload = &whole[20..];
    let end = end.min(payload.len());
    let header = Ip {
        identification: u16::from_be_bytes([whole[4], whole[5]]),
        dont_fragment: false,
        more_fragments: end < payload.len(),
        fragment_offset: offset,
        ..ip.clone()
    };
    header.raw(whole[9], &payload[usize::from(offset) * 8..end])
}
