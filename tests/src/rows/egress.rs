//! Packets the kernel has routed out: by a worker's underlay NIC, and by the gateway's router port.

use etherparse::{EtherType, Icmpv4Type, icmpv4};
use gateway_common::addr::Mac;
use gateway_common::tables::CONFIG_OPEN;
use gateway_common::verdict::Verdict;
use gateway_common::wire::arp;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, inject, redirect, redirect_neighbor};
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, OUTSIDE, POD0, POD1, ROUTER_PORT,
    SLOT0, SLOT1, TUNNEL_MTU, UNDERLAY, WORKER1, WORKER1_MAC, gateway, unresolved_gateway, worker1,
};
use crate::packet::{Ip, frame, geneve, ip, ipv4_frame};

/// The rows.
pub fn rows() -> Vec<Row> {
    [underlay_rows(), router_port_rows(), turned_rows()].concat()
}

fn underlay_rows() -> Vec<Row> {
    const HOOK: Hook = Hook::UnderlayEgress;
    let to_gateway = geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker();
    let routed = |packet: &[u8]| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let leaves = |name, packet: Vec<u8>| {
        let frames = (routed(&packet), to_gateway.carry(&packet));
        Row::change(name, HOOK, worker1(), frames, (Verdict::ToGateway, Exit::PASS))
            .counts_out(SLOT1, 14 + packet.len())
    };
    let pass = |name, packet: Vec<u8>, verdict| Row::pass(name, HOOK, worker1(), routed(&packet), verdict);
    let udp = |from, to| ip(from, to).ttl(63).udp(5_000, 53, b"query");
    let mut without =
        leaves("UDP without checksum: none outside", ip(POD1, CLIENT).udp_without_checksum(1, 2, b"x"));
    without.out =
        to_gateway.clone().without_checksum().carry(&ip(POD1, CLIENT).udp_without_checksum(1, 2, b"x"));
    let own = (udp(POD1, EIP1), udp(EIP1, POD1));
    let turned = Row::change(
        "to its own EIP: turned round here",
        HOOK,
        worker1(),
        (routed(&own.0), ipv4_frame(GATEWAY_MAC, WORKER1_MAC, &own.1)),
        (Verdict::ToEip, inject(UNDERLAY)),
    )
    .counts_out(SLOT1, 14 + own.0.len())
    .counts_in(SLOT1, 14 + own.0.len());
    vec![
        leaves("an EIP pod's UDP to the world", udp(POD1, OUTSIDE)),
        leaves("an EIP pod's TCP to the world", ip(POD1, CLIENT).ttl(63).tcp(80, 40_000, &[], b"200 OK")),
        leaves("an EIP pod's ping", ip(POD1, CLIENT).ttl(63).echo_request(b"ping")),
        leaves("an EIP is the world", udp(POD1, EIP0)),
        without,
        turned,
        pass("to another pod: never by the gateway", udp(POD1, [10, 244, 2, 11]), Verdict::PassInternal),
        pass("to a Service: never by the gateway", udp(POD1, [10, 96, 0, 10]), Verdict::PassInternal),
        pass("to a node: never by the gateway", udp(POD1, [172, 18, 0, 22]), Verdict::PassInternal),
        pass("a pod without EIP", udp([10, 244, 1, 11], CLIENT), Verdict::PassNotPod),
        pass("the node itself", udp(WORKER1, GATEWAY), Verdict::PassNotPod),
        Row::pass(
            "ARP",
            HOOK,
            worker1(),
            frame(WORKER1_MAC, Mac::BROADCAST, EtherType::ARP, &[0; 28]),
            Verdict::PassNotIpv4,
        ),
        Row::pass(
            "on the gateway, its own EIP pod leaves by the router port",
            HOOK,
            gateway(),
            routed(&udp(POD0, CLIENT)),
            Verdict::PassNotPod,
        ),
    ]
}

const ROUTER: Hook = Hook::RouterPortEgress;

fn router_port_rows() -> Vec<Row> {
    let out = |packet: &[u8]| ipv4_frame(NIC_MAC, CLIENT_MAC, packet);
    let build = |from| ip(from, CLIENT).ttl(63).udp(53, 40_000, b"answer");
    let leaves = Row::change(
        "an EIP pod of the gateway leaves with its EIP",
        ROUTER,
        gateway(),
        (out(&build(POD0)), out(&build(EIP0))),
        (Verdict::ToExternal, Exit::PASS),
    );
    let pass = |name, frame, verdict| Row::pass(name, ROUTER, gateway(), frame, verdict);
    let mut open = gateway();
    open.config.flags |= CONFIG_OPEN;
    let stays =
        |name, source| Row::drop(name, ROUTER, gateway(), out(&build(source)), Verdict::DropInsideSource);
    vec![
        leaves.counts_out(SLOT0, 14 + build(POD0).len()),
        pass("the router port itself", out(&ip(NIC_IP, CLIENT).echo_request(b"x")), Verdict::PassNotPod),
        pass("translated on its way here already", out(&build(EIP1)), Verdict::PassNotPod),
        stays("a pod of another node", POD1),
        stays("a pod without EIP that nobody has masqueraded", [10, 244, 0, 11]),
        stays("a node", WORKER1),
        Row {
            tables: open,
            ..pass("a node answers, where nic-ip is open", out(&build(WORKER1)), Verdict::PassNotPod)
        },
        pass("who has the client: asked outside", ask(NIC_IP, CLIENT), Verdict::PassNotIpv4),
        pass("our own gratuitous ARP goes out", ask(EIP1, EIP1), Verdict::PassNotIpv4),
        Row::change(
            "who has an EIP: answered here",
            ROUTER,
            gateway(),
            (ask(NIC_IP, EIP1), arp_frame(arp::REPLY, (NIC_MAC, EIP1), (NIC_MAC, NIC_IP), NIC_MAC)),
            (Verdict::ArpReply, inject(ROUTER_PORT)),
        ),
    ]
}

fn arp_frame(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), to: Mac) -> Vec<u8> {
    let [o0, o1] = operation.to_be_bytes();
    let body = [&[0, 1, 8, 0, 6, 4, o0, o1][..], &sender.0.0, &sender.1, &target.0.0, &target.1].concat();
    frame(NIC_MAC, to, EtherType::ARP, &body)
}

fn ask(sender_ip: [u8; 4], target_ip: [u8; 4]) -> Vec<u8> {
    arp_frame(arp::REQUEST, (NIC_MAC, sender_ip), (Mac([0; 6]), target_ip), Mac::BROADCAST)
}

fn turned_rows() -> Vec<Row> {
    let out = |packet: &[u8]| ipv4_frame(NIC_MAC, NIC_MAC, packet);
    let udp = |ip: Ip| ip.ttl(63).udp(5_000, 6_000, b"hello");
    let macs = (GATEWAY_MAC, WORKER1_MAC);
    let to_worker = |name, from, source, macs, exit| {
        let before = udp(ip(from, EIP1));
        let frames = (out(&before), geneve(macs, (GATEWAY, WORKER1)).carry(&udp(ip(source, POD1))));
        Row::change(name, ROUTER, gateway(), frames, (Verdict::ToEip, exit))
            .counts_in(SLOT1, 14 + before.len())
    };
    let counted = 14 + udp(ip(POD0, EIP1)).len();
    let own = Row::change(
        "an EIP pod of the gateway to its own EIP",
        ROUTER,
        gateway(),
        (out(&udp(ip(POD0, EIP0))), out(&udp(ip(EIP0, POD0)))),
        (Verdict::ToEip, inject(ROUTER_PORT)),
    );
    let unresolved = Row {
        tables: unresolved_gateway(),
        ..to_worker(
            "next hop unknown",
            POD0,
            EIP0,
            (Mac([0; 6]), Mac([0; 6])),
            redirect_neighbor(UNDERLAY, [0; 4]),
        )
    };
    let big = ip(POD0, EIP1).udp(1, 2, &vec![0; TUNNEL_MTU as usize - 27]);
    let mut header = ip(NIC_IP, POD0);
    (header.identification, header.dont_fragment) = (0, false);
    let needed = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: TUNNEL_MTU as u16,
    });
    let told = ipv4_frame(Mac::TUNNEL_WORKER, NIC_MAC, &header.icmp(needed, &big[..28]));
    vec![
        to_worker("an EIP pod of the gateway to an EIP on a worker", POD0, EIP0, macs, redirect(UNDERLAY))
            .counts_out(SLOT0, counted),
        to_worker("the router port to an EIP on a worker", NIC_IP, NIC_IP, macs, redirect(UNDERLAY)),
        unresolved.counts_out(SLOT0, counted),
        own.counts_out(SLOT0, counted).counts_in(SLOT0, counted),
        Row::change(
            "too long for the tunnel: the pod is told",
            ROUTER,
            gateway(),
            (out(&big), told),
            (Verdict::FragmentationNeeded, inject(ROUTER_PORT)),
        ),
    ]
}
