//! Frames arriving on the underlay NIC, on the gateway and on a worker.

use etherparse::{EtherType, Icmpv4Type, TcpOptionElement};
use gateway_common::addr::Mac;
use gateway_common::tables::CONFIG_XDP_TO_EXTERNAL;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::without;
use super::{Row, inject, redirect, redirect_neighbor};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EIP2, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, OUTSIDE, POD0,
    POD1, POD2, ROUTER_PORT, SLOT0, SLOT1, SLOT2, UNDERLAY, WORKER1, WORKER1_MAC, WORKER2, WORKER2_MAC,
    gateway, unresolved_gateway, worker1,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

const HOOK: Hook = Hook::Underlay;

/// The rows.
pub fn rows() -> Vec<Row> {
    [
        to_external_rows(),
        twin_rows(),
        to_eip_rows(),
        to_pod_rows(),
        error_rows(),
        sender_rows(),
        geneve_rows(),
        foreign_rows(),
    ]
    .concat()
}

pub(super) fn from_worker1() -> Geneve {
    geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker()
}

fn from_gateway() -> Geneve {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

/// What pod 1 sends, already routed once by its worker, and how it leaves.
pub(super) fn outward(to: [u8; 4], build: impl Fn(Ip) -> Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    (build(ip(POD1, to).ttl(63)), build(ip(EIP1, to).ttl(62)))
}

pub(super) fn to_external(name: &'static str, tunnel: &Geneve, (before, after): (Vec<u8>, Vec<u8>)) -> Row {
    let frames = (tunnel.carry(&before), ipv4_frame(NIC_MAC, CLIENT_MAC, &after));
    let exit = redirect(EXTERNAL);
    Row::change(name, HOOK, gateway(), frames, (Verdict::ToExternal, exit))
        .counts_out(SLOT1, 14 + before.len())
}

fn to_external_rows() -> Vec<Row> {
    let udp = |ip: Ip| ip.udp(53, 40_000, b"answer");
    vec![
        to_external("pod to a host on the external link", &from_worker1(), outward(CLIENT, udp)),
        to_external("pod to a host behind the physical gateway", &from_worker1(), outward(OUTSIDE, udp)),
        to_external(
            "TCP from the pod",
            &from_worker1(),
            outward(CLIENT, |ip| ip.tcp(80, 40_000, &[], b"200 OK")),
        ),
        to_external(
            "an echo reply from the pod",
            &from_worker1(),
            outward(CLIENT, |ip| ip.echo_reply(b"pong")),
        ),
        to_external(
            "UDP without checksum",
            &from_worker1(),
            outward(CLIENT, |ip| ip.udp_without_checksum(1, 2, b"x")),
        ),
        to_external("no outer UDP checksum", &from_worker1().without_checksum(), outward(CLIENT, udp)),
        to_external(
            "an option that may be ignored",
            &from_worker1().with_options(&[0; 8], false),
            outward(CLIENT, udp),
        ),
    ]
}

/// What XDP leaves to the TC twin, and what that makes of it.
fn twin_rows() -> Vec<Row> {
    let udp = |ip: Ip| ip.udp(53, 40_000, b"answer");
    let unresolved = |name, to, next_hop| {
        let (before, after) = outward(to, udp);
        Row {
            tables: unresolved_gateway(),
            out: ipv4_frame(NIC_MAC, Mac([0; 6]), &after),
            exit: redirect_neighbor(ROUTER_PORT, next_hop),
            ..to_external(name, &from_worker1(), (before, after))
        }
        .only(Kind::Tc)
    };
    vec![
        unresolved("neighbour unknown: TC lets the kernel resolve it", CLIENT, CLIENT),
        unresolved("neighbour unknown: off link by the physical gateway", OUTSIDE, CLIENT),
        Row::pass(
            "neighbour unknown: XDP passes the untouched packet",
            HOOK,
            unresolved_gateway(),
            from_worker1().carry(&outward(CLIENT, udp).0),
            Verdict::PassUnresolved,
        )
        .only(Kind::Xdp),
        Row::pass(
            "an external NIC that takes no frames from XDP: left to TC",
            HOOK,
            without(CONFIG_XDP_TO_EXTERNAL),
            from_worker1().carry(&outward(CLIENT, udp).0),
            Verdict::PassToTwin,
        )
        .only(Kind::Xdp),
    ]
}

fn to_eip_rows() -> Vec<Row> {
    let udp = |ip: Ip| ip.udp(5_000, 6_000, b"hello");
    let before = |to| udp(ip(POD1, to).ttl(63));
    let turned = |name, to, tunnel: Geneve, pod, slot| {
        let frames = (from_worker1().carry(&before(to)), tunnel.carry(&udp(ip(EIP1, pod).ttl(62))));
        Row::change(name, HOOK, gateway(), frames, (Verdict::ToEip, redirect(UNDERLAY)))
            .counts_out(SLOT1, 14 + before(to).len())
            .counts_in(slot, 14 + before(to).len())
    };
    let injected = |name, to, verdict, packet: Vec<u8>| {
        let frames = (from_worker1().carry(&before(to)), ipv4_frame(Mac::TUNNEL_WORKER, NIC_MAC, &packet));
        Row::change(name, HOOK, gateway(), frames, (verdict, inject(ROUTER_PORT)))
            .counts_out(SLOT1, 14 + packet.len())
            .only(Kind::Tc)
    };
    let twin = |name, to| {
        Row::pass(name, HOOK, gateway(), from_worker1().carry(&before(to)), Verdict::PassToTwin)
            .only(Kind::Xdp)
    };
    let to_worker2 = geneve((GATEWAY_MAC, WORKER2_MAC), (GATEWAY, WORKER2));
    let to_worker1 = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1));
    let syn = |ip: Ip, mss| ip.tcp(80, 40_000, &[TcpOptionElement::MaximumSegmentSize(mss)], b"");
    let (connects, clamped) = (syn(ip(POD1, EIP0).ttl(63), 1460), syn(ip(EIP1, POD0).ttl(63), 1410));
    let told = Row {
        frame: from_worker1().carry(&connects),
        ..injected("MSS of a SYN to an EIP on the gateway is lowered", EIP0, Verdict::ToEip, clamped)
    };
    let here = injected("pod to an EIP on the gateway", EIP0, Verdict::ToEip, udp(ip(EIP1, POD0).ttl(63)));
    vec![
        turned("pod to an EIP on another worker", EIP2, to_worker2, POD2, SLOT2),
        turned("pod to its own EIP", EIP1, to_worker1, POD1, SLOT1),
        here.counts_in(SLOT0, 14 + before(EIP0).len()),
        told.counts_in(SLOT0, 14 + connects.len()),
        injected("pod to nic-ip", NIC_IP, Verdict::ToNicIp, udp(ip(EIP1, NIC_IP).ttl(63))),
        twin("pod to an EIP on the gateway: not XDP's", EIP0),
        twin("pod to nic-ip: not XDP's", NIC_IP),
    ]
}

fn to_pod_rows() -> Vec<Row> {
    let arrive = |name, tunnel: &Geneve, packet: Vec<u8>| {
        let frames = (tunnel.carry(&packet), ipv4_frame(GATEWAY_MAC, WORKER1_MAC, &packet));
        Row::change(name, HOOK, worker1(), frames, (Verdict::FromGateway, Exit::PASS))
            .counts_in(SLOT1, 14 + packet.len())
    };
    let drop = |name, tunnel: Geneve, packet: Vec<u8>, verdict| {
        Row::drop(name, HOOK, worker1(), tunnel.carry(&packet), verdict)
    };
    let udp = |to| ip(CLIENT, to).ttl(63).udp(40_000, 53, b"query");
    let from_worker2 = geneve((WORKER2_MAC, WORKER1_MAC), (WORKER2, WORKER1));
    vec![
        arrive("from the gateway to the pod", &from_gateway(), udp(POD1)),
        arrive("with options to skip", &from_gateway().with_options(&[0; 252], false), udp(POD1)),
        arrive(
            "a later fragment",
            &from_gateway(),
            Ip { fragment_offset: 9, ..ip(CLIENT, POD1) }.raw(17, &[1; 24]),
        ),
        arrive("from the pod's own EIP", &from_gateway(), ip(EIP1, POD1).udp(1, 2, b"self")),
        drop("for a pod that is not here", from_gateway(), udp(POD2), Verdict::DropNoSuchPod),
        drop("from a node that is no gateway", from_worker2, udp(POD1), Verdict::DropSpoofedSource),
    ]
}

fn error_rows() -> Vec<Row> {
    let expired = Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit);
    let mut header = ip(NIC_IP, POD1);
    (header.identification, header.dont_fragment) = (0, false);
    let packet = ip(POD1, CLIENT).ttl(1).udp(1, 33_434, b"probe");
    let frames = (from_worker1().carry(&packet), from_gateway().carry(&header.icmp(expired, &packet[..28])));
    let answer = (Verdict::TimeExceeded, redirect(UNDERLAY));
    let mut jumbo = gateway();
    jumbo.config.tunnel_mtu = 8950;
    let big = ip(POD1, CLIENT).ttl(63).udp(1, 2, &[0; 2000]);
    let needed =
        Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
            next_hop_mtu: 1500,
        });
    let big_frames = (from_worker1().carry(&big), from_gateway().carry(&header.icmp(needed, &big[..28])));
    vec![
        Row::change("a pod's TTL runs out at the gateway", HOOK, gateway(), frames, answer),
        Row::change(
            "too long for the external network: the pod is told",
            HOOK,
            jumbo,
            big_frames,
            (Verdict::FragmentationNeeded, redirect(UNDERLAY)),
        ),
        Row::drop(
            "no error about a packet too short to quote",
            HOOK,
            gateway(),
            from_worker1().carry(&ip(POD1, CLIENT).ttl(1).raw(47, &[0; 4])),
            Verdict::DropExpired,
        ),
    ]
}

fn sender_rows() -> Vec<Row> {
    let packet = ip(POD1, CLIENT).ttl(63).udp(53, 40_000, b"answer");
    let drop = |name, tunnel: Geneve, packet: &[u8], verdict| {
        Row::drop(name, HOOK, gateway(), tunnel.carry(packet), verdict)
    };
    let stranger = geneve((Mac([2; 6]), GATEWAY_MAC), ([172, 18, 0, 99], GATEWAY)).from_worker();
    let from_worker2 = geneve((WORKER2_MAC, GATEWAY_MAC), (WORKER2, GATEWAY)).from_worker();
    // By which rows say that a pod is here, and that its gateway is not known.
    let nobody = || geneve((WORKER1_MAC, GATEWAY_MAC), ([0; 4], GATEWAY)).from_worker();
    let [of_local, to_local] = [ip(POD0, CLIENT), ip(CLIENT, POD0)]
        .map(|ip| ip.ttl(63).udp(1, 2, b"as long as the fast path wants it"));
    vec![
        drop("from an address that is no node", stranger, &packet, Verdict::DropUnknownVtep),
        drop("from 0.0.0.0, for a pod of this node", nobody(), &of_local, Verdict::DropUnknownVtep),
        drop("from 0.0.0.0, to a pod of this node", nobody(), &to_local, Verdict::DropUnknownVtep),
        drop("inner source lives on another node", from_worker2, &packet, Verdict::DropSpoofedSource),
        drop(
            "inner source is nobody",
            from_worker1(),
            &ip([10, 244, 1, 99], CLIENT).udp(1, 2, b"x"),
            Verdict::DropSpoofedSource,
        ),
        drop(
            "inner source is the EIP itself",
            from_worker1(),
            &ip(EIP1, CLIENT).udp(1, 2, b"x"),
            Verdict::DropSpoofedSource,
        ),
    ]
}

fn geneve_rows() -> Vec<Row> {
    let packet = ip(POD1, CLIENT).ttl(63).udp(53, 40_000, b"answer");
    let drop = |name, tunnel: Geneve, packet: &[u8], verdict| {
        Row::drop(name, HOOK, gateway(), tunnel.carry(packet), verdict)
    };
    let mut broken = packet.clone();
    broken[3] = 0xff;
    vec![
        drop(
            "a critical option",
            from_worker1().with_options(&[0; 4], true),
            &packet,
            Verdict::DropCriticalOption,
        ),
        drop(
            "Geneve version 1",
            Geneve { head: [0x40, 0, 0x65, 0x58], ..from_worker1() },
            &packet,
            Verdict::DropGeneveVersion,
        ),
        drop(
            "a control packet",
            Geneve { head: [0, 0x80, 0x65, 0x58], ..from_worker1() },
            &packet,
            Verdict::DropGeneveControl,
        ),
        drop(
            "payload is no Ethernet",
            Geneve { head: [0, 0, 0x08, 0], ..from_worker1() },
            &packet,
            Verdict::DropNotIpv4Inside,
        ),
        drop(
            "IPv6 inside",
            Geneve { inner_type: EtherType::IPV6, ..from_worker1() },
            &packet,
            Verdict::DropNotIpv4Inside,
        ),
        drop("inner length longer than the frame", from_worker1(), &broken, Verdict::DropMalformed),
        drop(
            "options longer than the frame",
            Geneve { head: [0x3f, 0, 0x65, 0x58], ..from_worker1() },
            &packet,
            Verdict::DropMalformed,
        ),
    ]
}

fn foreign_rows() -> Vec<Row> {
    let packet = ip(POD1, CLIENT).ttl(63).udp(53, 40_000, b"answer");
    let pass = |name, frame, verdict| Row::pass(name, HOOK, gateway(), frame, verdict);
    let nodes = |packet: Vec<u8>| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, &packet);
    let elsewhere = geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, [172, 18, 0, 12])).from_worker();
    vec![
        pass(
            "another virtual network",
            Geneve { vni: 7, ..from_worker1() }.carry(&packet),
            Verdict::PassForeignVni,
        ),
        pass(
            "another UDP port",
            Geneve { port: 4789, ..from_worker1() }.carry(&packet),
            Verdict::PassNotTunnel,
        ),
        pass("Geneve to another address", elsewhere.carry(&packet), Verdict::PassNotTunnel),
        pass(
            "TCP between nodes",
            nodes(ip(WORKER1, GATEWAY).tcp(40_000, 6443, &[], b"x")),
            Verdict::PassNotTunnel,
        ),
        pass(
            "a fragment between nodes",
            nodes(Ip { more_fragments: true, ..ip(WORKER1, GATEWAY) }.raw(17, &[0x17, 0xc1, 0x17, 0xc1])),
            Verdict::PassNotTunnel,
        ),
        pass(
            "UDP cut short",
            nodes(ip(WORKER1, GATEWAY).raw(17, &[0x17, 0xc1, 0x17, 0xc1])),
            Verdict::PassNotTunnel,
        ),
        pass(
            "ARP on the underlay",
            crate::packet::frame(WORKER1_MAC, Mac::BROADCAST, EtherType::ARP, &[0; 28]),
            Verdict::PassNotIpv4,
        ),
    ]
}
