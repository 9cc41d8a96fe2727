//! The time to live at its end, on the underlay: the external hook's rows are in `external`.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::TimeExceededCode;
use gateway_common::addr::Mac;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, inject, named, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, EIP0, EIP1, EIP2, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, POD1, ROUTER_PORT, SLOT1, UNDERLAY,
    WORKER1, WORKER1_MAC, gateway, worker1,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

const HOOK: Hook = Hook::Underlay;

/// The rows.
pub fn rows() -> Vec<Row> {
    [expired_rows(), last_hop_rows(), router_rows(), arrival_rows()].concat()
}

fn from_worker1() -> Geneve {
    geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker()
}

fn to_worker1() -> Geneve {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

fn probe(ip: &Ip) -> Vec<u8> {
    ip.udp(40_000, 33_434, b"probe")
}

/// With no hop left the pod hears of it, wherever the packet was to go.
fn expired_rows() -> Vec<Row> {
    let expired = Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
    let whither =
        [("the client", CLIENT), ("another EIP", EIP2), ("its own", EIP1), ("one on the gateway", EIP0)];
    let row = |(ttl, (whom, to)): (u8, (&str, [u8; 4]))| {
        let packet = probe(&ip(POD1, to).ttl(ttl));
        let mut header = ip(NIC_IP, POD1);
        (header.identification, header.dont_fragment) = (0, false);
        let told = to_worker1().carry(&header.icmp(expired.clone(), &packet[..28]));
        let frames = (from_worker1().carry(&packet), told);
        let name = named(format!("TTL {ttl} from a pod to {whom}"));
        Row::change(name, HOOK, gateway(), frames, (Verdict::TimeExceeded, redirect(UNDERLAY)))
    };
    [0, 1].into_iter().flat_map(|ttl| whither.map(|whom| (ttl, whom))).map(row).collect()
}

/// Two hops left, on every way: the last router may still take its own.
fn last_hop_rows() -> Vec<Row> {
    let row = |mut path: super::path::Path| {
        let taken = path.headers[0].ttl - path.headers[1].ttl;
        (path.headers[0].ttl, path.headers[1].ttl) = (2, 2 - taken);
        path.row("TTL 2", true, probe)
    };
    super::path::all().into_iter().map(row).collect()
}

/// What is for the router itself goes no further hop: RFC 1812 section 4.2.2.9 has it received.
fn router_rows() -> Vec<Row> {
    let row = |ttl| {
        let before = probe(&ip(POD1, NIC_IP).ttl(ttl));
        let after = ipv4_frame(Mac::TUNNEL_WORKER, NIC_MAC, &probe(&ip(EIP1, NIC_IP).ttl(ttl)));
        let frame = from_worker1().carry(&before);
        let name = named(format!("TTL {ttl} from a pod to nic-ip"));
        let passes = Row::pass(name, HOOK, gateway(), frame.clone(), Verdict::PassToTwin).only(Kind::Xdp);
        let outcome = (Verdict::ToNicIp, inject(ROUTER_PORT));
        let injected = Row::change(name, HOOK, gateway(), (frame, after), outcome).only(Kind::Tc);
        [passes, injected.counts_out(SLOT1, 14 + before.len())]
    };
    [0, 1].into_iter().flat_map(row).collect()
}

/// On the worker the kernel is the router and says what is to be said.
fn arrival_rows() -> Vec<Row> {
    let row = |ttl| {
        let packet = probe(&ip(CLIENT, POD1).ttl(ttl));
        let frames = (to_worker1().carry(&packet), ipv4_frame(GATEWAY_MAC, WORKER1_MAC, &packet));
        let name = named(format!("TTL {ttl} to a pod: the kernel's"));
        Row::change(name, HOOK, worker1(), frames, (Verdict::FromGateway, Exit::PASS))
            .counts_in(SLOT1, 14 + packet.len())
    };
    [0, 1].into_iter().map(row).collect()
}
