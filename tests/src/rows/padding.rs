//! Ethernet's padding of short packets: no part of them, whether the fast path takes them or not.

use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_ebpf::datapath::Hook;

use super::Row;
use super::external::{from_client, pair, to_worker, to_worker1};
use crate::fixture::{CLIENT, GATEWAY, GATEWAY_MAC, WORKER1, WORKER1_MAC, gateway};
use crate::packet::{ip, ipv4_frame};

/// The rows.
pub fn rows() -> Vec<Row> {
    [external_rows(), underlay_rows()].concat()
}

/// As a NIC gets it, with what need not be zeros behind the packet.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    assert!(frame.len() < eth::MIN_FRAME_LEN, "{} bytes need no padding", frame.len());
    frame.resize(eth::MIN_FRAME_LEN, 0x5a);
    frame
}

fn external_rows() -> Vec<Row> {
    let to_worker = |name, packets: (Vec<u8>, Vec<u8>)| {
        let frame = padded(from_client(&packets.0));
        Row { frame, ..to_worker(name, &to_worker1(), packets) }
    };
    vec![
        to_worker("padding behind TCP without payload", pair(|ip| ip.tcp(40_000, 80, &[], b""))),
        to_worker("padding behind UDP of 17 bytes", pair(|ip| ip.udp(1, 2, b"seventeen bytes.."))),
        to_worker("padding behind empty UDP", pair(|ip| ip.udp(1, 2, b""))),
        to_worker("padding behind ICMP", pair(|ip| ip.echo_request(b"x"))),
    ]
}

fn underlay_rows() -> Vec<Row> {
    let nodes = |name, packet: Vec<u8>, verdict| {
        let frame = padded(ipv4_frame(WORKER1_MAC, GATEWAY_MAC, &packet));
        Row::pass(name, Hook::Underlay, gateway(), frame, verdict)
    };
    let between = ip(WORKER1, GATEWAY);
    vec![
        nodes(
            "padding behind TCP between nodes",
            between.tcp(40_000, 6443, &[], b""),
            Verdict::PassNotTunnel,
        ),
        nodes("padding behind UDP between nodes", between.udp(53, 40_000, b"x"), Verdict::PassNotTunnel),
        nodes(
            "padding would make a UDP header",
            between.raw(17, &[0x17, 0xc1, 0x17, 0xc1]),
            Verdict::PassNotTunnel,
        ),
        nodes(
            "padding behind UDP from a client's port",
            ip(CLIENT, GATEWAY).udp(6081, 53, b""),
            Verdict::PassNotTunnel,
        ),
    ]
}
