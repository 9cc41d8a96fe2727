//! Sources and destinations that no router forwards (RFC 1812 section 5.3.7), on every hook.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::DestUnreachableHeader;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::Hook;

use super::{Row, named};
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, POD0, POD1, Tables, WORKER1,
    WORKER1_MAC, gateway, worker1,
};
use crate::packet::{Ip, geneve, ip, ipv4_frame};

/// The first and the last of each range, and what is neither.
const MARTIANS: [(&str, [u8; 4]); 12] = [
    ("0.0.0.0", [0; 4]),
    ("0.255.255.255", [0, 255, 255, 255]),
    ("127.0.0.0", [127, 0, 0, 0]),
    ("127.0.0.1", [127, 0, 0, 1]),
    ("127.255.255.255", [127, 255, 255, 255]),
    ("224.0.0.0", [224, 0, 0, 0]),
    ("224.0.0.18", [224, 0, 0, 18]),
    ("239.255.255.255", [239, 255, 255, 255]),
    ("240.0.0.0", [240, 0, 0, 0]),
    ("255.255.255.254", [255, 255, 255, 254]),
    ("255.255.255.255", [255; 4]),
    ("the external subnet's broadcast address", [192, 168, 100, 255]),
];

/// Neighbours of those, which are ordinary.
const ORDINARY: [(&str, [u8; 4]); 7] = [
    ("1.0.0.0", [1, 0, 0, 0]),
    ("126.255.255.255", [126, 255, 255, 255]),
    ("128.0.0.0", [128, 0, 0, 0]),
    ("223.255.255.255", [223, 255, 255, 255]),
    ("192.168.101.255", [192, 168, 101, 255]),
    ("192.168.100.127", [192, 168, 100, 127]),
    ("10.0.0.255", [10, 0, 0, 255]),
];

/// The rows.
pub fn rows() -> Vec<Row> {
    [external_rows(), underlay_rows(), egress_rows(), ordinary_rows()].concat()
}

fn dropped(name: String, hook: Hook, tables: Tables, frame: Vec<u8>) -> Row {
    Row::drop(named(name), hook, tables, frame, Verdict::DropMartian)
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ipv4_frame(CLIENT_MAC, NIC_MAC, packet)
}

fn from_worker1(packet: &[u8]) -> Vec<u8> {
    geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker().carry(packet)
}

fn from_gateway(packet: &[u8]) -> Vec<u8> {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1)).carry(packet)
}

fn udp(ip: &Ip) -> Vec<u8> {
    ip.udp(5_000, 53, b"query")
}

/// An error about a packet from the client to `pod`.
fn report(source: [u8; 4], destination: [u8; 4], pod: [u8; 4]) -> Vec<u8> {
    let unreachable = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
    ip(source, destination).icmp(unreachable, &udp(&ip(destination, pod))[..28])
}

fn external_rows() -> Vec<Row> {
    let from = |(what, source): (&str, [u8; 4])| {
        [("a pod on a worker", EIP1), ("a pod on the gateway", EIP0), ("nic-ip", NIC_IP)].map(|(whom, to)| {
            let packet = ip(source, to).echo_request(b"who am I");
            dropped(format!("from {what} to {whom}"), Hook::External, gateway(), from_client(&packet))
        })
    };
    let expired = udp(&ip([127, 0, 0, 1], EIP1).ttl(1));
    let foreign = udp(&ip([0; 4], [192, 168, 100, 9]));
    let mut rows: Vec<_> = MARTIANS.into_iter().flat_map(from).collect();
    rows.push(dropped("no error to 127.0.0.1".to_owned(), Hook::External, gateway(), from_client(&expired)));
    let ours = udp(&ip(NIC_IP, EIP1));
    rows.push(dropped("from nic-ip to an EIP".to_owned(), Hook::External, gateway(), from_client(&ours)));
    rows.push(Row::pass(
        "from 0.0.0.0 to nobody of ours: the kernel's",
        Hook::External,
        gateway(),
        from_client(&foreign),
        Verdict::PassNotForUs,
    ));
    rows
}

fn underlay_rows() -> Vec<Row> {
    let each = |(what, addr): (&str, [u8; 4])| {
        let row =
            |text: &str, tables, frame| dropped(format!("{text} {what}"), Hook::Underlay, tables, frame);
        [
            row("a node forges", gateway(), from_worker1(&udp(&ip(addr, CLIENT).ttl(63)))),
            row("a router reports from", gateway(), from_worker1(&report(addr, CLIENT, POD1))),
            row("a pod sends to", gateway(), from_worker1(&udp(&ip(POD1, addr).ttl(63)))),
            row("no error about a packet to", gateway(), from_worker1(&udp(&ip(POD1, addr).ttl(1)))),
            row("the gateway sends from", worker1(), from_gateway(&udp(&ip(addr, POD1).ttl(63)))),
        ]
    };
    MARTIANS.into_iter().flat_map(each).collect()
}

fn egress_rows() -> Vec<Row> {
    let routed = |packet: &[u8]| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let out = |packet: &[u8]| ipv4_frame(NIC_MAC, CLIENT_MAC, packet);
    let each = |(what, addr): (&str, [u8; 4])| {
        let worker =
            |text: &str, frame| dropped(format!("{text} {what}"), Hook::UnderlayEgress, worker1(), frame);
        let port =
            |text: &str, frame| dropped(format!("{text} {what}"), Hook::RouterPortEgress, gateway(), frame);
        [
            worker("a pod sends to", routed(&udp(&ip(POD1, addr).ttl(63)))),
            worker("a report from", routed(&report(addr, CLIENT, POD1))),
            port("a pod sends to", out(&udp(&ip(POD0, addr).ttl(63)))),
            port("a report from", out(&report(addr, CLIENT, POD0))),
            port("to an EIP from", out(&udp(&ip(addr, EIP1)))),
        ]
    };
    let node = udp(&ip(WORKER1, [224, 0, 0, 5]).ttl(1));
    let port = udp(&ip(NIC_IP, [224, 0, 0, 5]).ttl(1));
    let pass = |name, hook, tables, frame| Row::pass(name, hook, tables, frame, Verdict::PassNotPod);
    let mut rows: Vec<_> = MARTIANS.into_iter().flat_map(each).collect();
    rows.push(pass("the node's own multicast", Hook::UnderlayEgress, worker1(), routed(&node)));
    rows.push(pass("the node's own multicast", Hook::RouterPortEgress, gateway(), out(&port)));
    rows
}

/// What an address next to a martian one does is what any does: forwarded, with the same checksums.
fn ordinary_rows() -> Vec<Row> {
    let each = |(what, addr): (&'static str, [u8; 4])| {
        super::path::all().into_iter().filter_map(move |mut path| {
            let [before, after] = &mut path.headers;
            match (before.source, before.destination) {
                (CLIENT, _) => (before.source, after.source) = (addr, addr),
                // On the external link it would have a next hop of its own, which the tables lack.
                (_, CLIENT) if addr[..3] != CLIENT[..3] => {
                    (before.destination, after.destination) = (addr, addr);
                }
                _ => return None,
            }
            Some(path.row(&format!("{what} is ordinary"), true, udp))
        })
    };
    ORDINARY.into_iter().flat_map(each).collect()
}
