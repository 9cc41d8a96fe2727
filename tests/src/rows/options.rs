//! IPv4 options, on every way: they go through, but for those that show or choose the way through the cluster.

use gateway_common::verdict::Verdict;

use super::Row;
use crate::packet::Ip;

/// Options that go through: name and bytes.
const KEPT: [(&str, &[u8]); 8] = [
    ("router alert", &[148, 4, 0, 0]),
    ("CIPSO", &[134, 6, 0, 0, 0, 1, 0, 0]),
    ("an option nobody knows", &[158, 3, 9, 0]),
    ("40 bytes of no operation", &[1; 40]),
    ("record route behind the list's end", &[1, 0, 7, 3]),
    ("record route longer than the header", &[7, 9, 4, 0, 0, 0, 0, 0]),
    ("record route of length one", &[7, 1, 4, 0]),
    ("a last byte like record route", &[1, 1, 1, 7]),
];

/// Options that are refused: name and bytes.
const REFUSED: [(&str, &[u8]); 8] = [
    ("record route", &[7, 7, 4, 10, 0, 0, 1, 0]),
    ("record route without room", &[7, 3, 4, 0]),
    ("record route up to the header's end", &FULL),
    ("record route behind 37 of no operation", &LATE),
    ("timestamp", &[68, 12, 5, 0, 10, 0, 0, 1, 0, 0, 0, 9]),
    ("loose source route", &[131, 7, 4, 10, 0, 0, 1, 0]),
    ("strict source route", &[137, 7, 8, 10, 0, 0, 1, 0]),
    ("source route behind others", &[148, 4, 0, 0, 1, 158, 3, 9, 131, 3, 4, 0]),
];

/// Record route with room for nine addresses, behind "no operation".
const FULL: [u8; 40] = {
    let mut full = [10; 40];
    (full[0], full[1], full[2], full[3]) = (1, 7, 39, 40);
    full
};
/// The latest that a whole option can stand.
const LATE: [u8; 40] = {
    let mut late = [1; 40];
    (late[37], late[38], late[39]) = (7, 3, 4);
    late
};

/// The rows.
pub fn rows() -> Vec<Row> {
    let datagram = |ip: &Ip, options: &[u8]| Ip { options: options.to_vec(), ..ip.clone() }.udp(7, 9, b"x");
    let mut rows = Vec::new();
    for path in super::path::all() {
        rows.extend(KEPT.map(|(name, options)| path.row(name, true, |ip| datagram(ip, options))));
        rows.extend(REFUSED.map(|(name, options)| {
            let Row { name, hook, tables, frame, .. } = path.row(name, true, |ip| datagram(ip, options));
            Row::drop(name, hook, tables, frame, Verdict::DropIpOption)
        }));
    }
    rows
}
