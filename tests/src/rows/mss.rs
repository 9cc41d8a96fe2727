//! The maximum segment size of a SYN, lowered to what the tunnel carries.

use etherparse::TcpOptionElement;
use gateway_common::tables::CONFIG_KEEP_MSS;

use super::Row;
use super::external::{to_worker, to_worker1};
use super::underlay::{from_worker1, outward, to_external};
use crate::fixture::{CLIENT, EIP1, POD1, TUNNEL_MTU};
use crate::packet::ip;

/// The rows.
pub fn rows() -> Vec<Row> {
    [inward_rows(), outward_rows()].concat()
}

fn inward_rows() -> Vec<Row> {
    let limit = (TUNNEL_MTU - 40) as u16;
    let syn = |mss| {
        [TcpOptionElement::MaximumSegmentSize(mss), TcpOptionElement::SelectiveAcknowledgementPermitted]
    };
    let clamped = |name, before, after| {
        let packets = (
            ip(CLIENT, EIP1).tcp(1, 80, &syn(before), b""),
            ip(CLIENT, POD1).ttl(63).tcp(1, 80, &syn(after), b""),
        );
        to_worker(name, &to_worker1(), packets)
    };
    let raw = |name, before: &[u8], after: &[u8]| {
        to_worker(
            name,
            &to_worker1(),
            (ip(CLIENT, EIP1).syn_raw(before), ip(CLIENT, POD1).ttl(63).syn_raw(after)),
        )
    };
    let [hi, lo] = limit.to_be_bytes();
    let mut kept = clamped("MSS stays where clamping is switched off", 1460, 1460);
    kept.tables.config.flags |= CONFIG_KEEP_MSS;
    vec![
        clamped("MSS of a SYN is lowered", 1460, limit),
        clamped("MSS that fits stays", limit, limit),
        clamped("MSS is never raised", 536, 536),
        kept,
        raw("MSS at an odd offset", &[1, 2, 4, 0x05, 0xb4, 1, 1, 0], &[1, 2, 4, hi, lo, 1, 1, 0]),
        raw("no MSS option", &[3, 3, 7, 1], &[3, 3, 7, 1]),
        raw(
            "an option of length zero ends the search",
            &[9, 0, 2, 4, 0xff, 0xff, 0, 0],
            &[9, 0, 2, 4, 0xff, 0xff, 0, 0],
        ),
        raw(
            "MSS behind the end of the list is no option",
            &[0, 2, 4, 0xff, 0xff, 0, 0, 0],
            &[0, 2, 4, 0xff, 0xff, 0, 0, 0],
        ),
    ]
}

fn outward_rows() -> Vec<Row> {
    let syn = |mss| [TcpOptionElement::MaximumSegmentSize(mss)];
    let with_syn = outward(CLIENT, |ip| ip.tcp(80, 40_000, &syn(1460), b""));
    let mut kept = to_external("MSS stays where clamping is switched off", &from_worker1(), with_syn);
    kept.tables.config.flags |= CONFIG_KEEP_MSS;
    vec![
        to_external(
            "MSS of a SYN-ACK is lowered",
            &from_worker1(),
            (
                ip(POD1, CLIENT).ttl(63).tcp(80, 40_000, &syn(1460), b""),
                ip(EIP1, CLIENT).ttl(62).tcp(80, 40_000, &syn(TUNNEL_MTU as u16 - 40), b""),
            ),
        ),
        kept,
    ]
}
