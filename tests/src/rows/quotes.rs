//! ICMP errors: what they quote is translated with them. etherparse builds the quoted packet once as each side knows it.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::{DestUnreachableHeader, ParameterProblemHeader, TimeExceededCode};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, redirect, redirect_neighbor};
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, EIP2, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, OUTSIDE, POD0,
    POD1, POD2, SLOT0, SLOT1, SLOT2, UNDERLAY, WORKER1, WORKER1_MAC, WORKER2, WORKER2_MAC, gateway, worker1,
};
use crate::packet::{Geneve, Ip, geneve, ip, ipv4_frame};

/// A router between client and gateway.
const ROUTER: [u8; 4] = [192, 168, 100, 7];

/// The rows.
pub fn rows() -> Vec<Row> {
    [inward_rows(), refused_rows(), outward_rows(), between_rows(), router_rows(), egress_rows()].concat()
}

fn unreachable() -> Icmpv4Type {
    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port)
}

fn kinds() -> [(&'static str, Icmpv4Type); 4] {
    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    [
        ("port unreachable", unreachable()),
        ("fragmentation needed", Icmpv4Type::DestinationUnreachable(needed)),
        ("time exceeded", Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit)),
        (
            "parameter problem",
            Icmpv4Type::ParameterProblem(ParameterProblemHeader::PointerIndicatesError(20)),
        ),
    ]
}

/// What is quoted: a name, how it is built, how many bytes of it.
type Quoted = (&'static str, fn(Ip) -> Vec<u8>, usize);

/// Every kind of packet that may be quoted.
const QUOTED: [Quoted; 11] = [
    ("of UDP", |ip| ip.udp(7, 9, b"payload"), 28),
    ("of UDP, whole", |ip| ip.udp(7, 9, b"odd"), 31),
    ("of UDP without checksum", |ip| ip.udp_without_checksum(7, 9, b"payload"), 28),
    ("of UDP cut before its checksum", |ip| ip.udp(7, 9, b"payload"), 26),
    ("of TCP, 8 bytes: no checksum there", |ip| ip.tcp(7, 9, &[], b"payload"), 28),
    ("of TCP, whole header", |ip| ip.tcp(7, 9, &[], b"payload"), 40),
    ("of an echo: no pseudo-header", |ip| ip.echo_request(b"payload"), 28),
    ("of GRE", |ip| ip.raw(47, &[3; 20]), 28),
    ("of a header alone", |ip| ip.udp(7, 9, b"payload"), 20),
    ("with options", |ip| Ip { options: vec![1; 40], ..ip }.udp(7, 9, b"payload"), 68),
    ("of a later fragment", |ip| Ip { fragment_offset: 9, ..ip }.raw(17, &[1; 24]), 28),
];

fn names() -> [&'static str; 11] {
    QUOTED.map(|(name, ..)| name)
}

/// The error before and after: outer addresses, quoted addresses, both twice.
fn pair(
    kind: &Icmpv4Type,
    (outer, quoted): ([Ip; 2], [Ip; 2]),
    (_, build, len): Quoted,
) -> (Vec<u8>, Vec<u8>) {
    let [before, after] = quoted.map(|ip| build(ip)[..len].to_vec());
    (outer[0].icmp(kind.clone(), &before), outer[1].icmp(kind.clone(), &after))
}

fn to_worker1() -> Geneve {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

fn from_worker1() -> Geneve {
    geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker()
}

fn inward(name: &'static str, (before, after): (Vec<u8>, Vec<u8>)) -> Row {
    let frames = (ipv4_frame(CLIENT_MAC, NIC_MAC, &before), to_worker1().carry(&after));
    Row::change(name, Hook::External, gateway(), frames, (Verdict::ToWorker, redirect(UNDERLAY)))
        .counts_in(SLOT1, 14 + before.len())
}

fn inward_rows() -> Vec<Row> {
    let outer = || [ip(ROUTER, EIP1), ip(ROUTER, POD1).ttl(63)];
    let quoted = || [EIP1, POD1].map(|source| ip(source, OUTSIDE).ttl(1));
    let of_each = QUOTED
        .iter()
        .zip(names())
        .map(|(what, name)| inward(name, pair(&unreachable(), (outer(), quoted()), *what)));
    let each_kind = kinds().map(|(name, kind)| inward(name, pair(&kind, (outer(), quoted()), QUOTED[0])));
    let (before, after) = pair(
        &unreachable(),
        ([ip(CLIENT, EIP0), ip(CLIENT, POD0)], [EIP0, POD0].map(|source| ip(source, CLIENT))),
        QUOTED[0],
    );
    let counted = 14 + before.len();
    let frames = [before, after].map(|packet| ipv4_frame(CLIENT_MAC, NIC_MAC, &packet));
    let local = Row::change(
        "an error to a pod on the gateway",
        Hook::External,
        gateway(),
        frames.into(),
        (Verdict::ToLocalPod, Exit::PASS),
    )
    .counts_in(SLOT0, counted);
    of_each.chain(each_kind).chain([local, wrong_checksums()]).collect()
}

/// Wrong checksums stay as wrong as they were: no increment repairs what it does not look at.
fn wrong_checksums() -> Row {
    let mut row = inward(
        "wrong checksums stay wrong",
        pair(
            &unreachable(),
            ([ip(ROUTER, EIP1), ip(ROUTER, POD1).ttl(63)], [EIP1, POD1].map(|source| ip(source, OUTSIDE))),
            QUOTED[0],
        ),
    );
    // The message's unused word changes on its way, after the checksum was computed.
    row.frame[14 + 20 + 7] = 1;
    let inner = gateway_common::wire::geneve::INNER_IP;
    row.out[inner + 20 + 7] = 1;
    row
}

fn refused_rows() -> Vec<Row> {
    let refused = |name, verdict, kind: Icmpv4Type, quoted: &[u8]| {
        let frame = ipv4_frame(CLIENT_MAC, NIC_MAC, &ip(ROUTER, EIP1).icmp(kind, quoted));
        Row::drop(name, Hook::External, gateway(), frame, verdict)
    };
    let ours = ip(EIP1, OUTSIDE).udp(7, 9, b"payload");
    let quench = Icmpv4Type::Unknown { type_u8: 4, code_u8: 0, bytes5to8: [0; 4] };
    let turn = Icmpv4Type::Unknown { type_u8: 5, code_u8: 1, bytes5to8: CLIENT };
    let mut version = ours[..28].to_vec();
    version[0] = 0x65;
    let mut header = ours[..28].to_vec();
    header[0] = 0x44;
    let short = Verdict::DropShortQuote;
    vec![
        refused("quote shorter than an IPv4 header", short, unreachable(), &ours[..19]),
        refused("nothing quoted", short, unreachable(), &[]),
        refused("quote is no IPv4", short, unreachable(), &version),
        refused("quoted header of 16 bytes", short, unreachable(), &header),
        refused(
            "about a packet the EIP has not sent",
            Verdict::DropForeignQuote,
            unreachable(),
            &ip(EIP2, OUTSIDE).udp(7, 9, b"x")[..28],
        ),
        refused("redirect", Verdict::DropRedirect, turn, &ours[..28]),
        refused("source quench", Verdict::DropSourceQuench, quench, &ours[..28]),
        behind_the_end(),
    ]
}

/// To a pod on the gateway, whose frames are not trimmed: padding that would complete the quote.
fn behind_the_end() -> Row {
    let ours = ip(EIP0, OUTSIDE).udp(7, 9, b"payload");
    let packet = [&ip(ROUTER, EIP0).icmp(unreachable(), &ours[..19]), &ours[19..28]].concat();
    let frame = ipv4_frame(CLIENT_MAC, NIC_MAC, &packet);
    let name = "what lies behind the packet's end is not quoted";
    Row::drop(name, Hook::External, gateway(), frame, Verdict::DropShortQuote)
}

fn outward(name: &'static str, (before, after): (Vec<u8>, Vec<u8>)) -> Row {
    let frames = (from_worker1().carry(&before), ipv4_frame(NIC_MAC, CLIENT_MAC, &after));
    Row::change(name, Hook::Underlay, gateway(), frames, (Verdict::ToExternal, redirect(EXTERNAL)))
        .counts_out(SLOT1, 14 + before.len())
}

fn outward_rows() -> Vec<Row> {
    let outer = || [ip(POD1, CLIENT).ttl(63), ip(EIP1, CLIENT).ttl(62)];
    let quoted = || [POD1, EIP1].map(|destination| ip(CLIENT, destination).ttl(62));
    let of_each = QUOTED
        .iter()
        .zip(names())
        .map(|(what, name)| outward(name, pair(&unreachable(), (outer(), quoted()), *what)));
    let each_kind = kinds().map(|(name, kind)| outward(name, pair(&kind, (outer(), quoted()), QUOTED[0])));
    let foreign = ip(POD1, CLIENT).ttl(63).icmp(unreachable(), &ip(CLIENT, POD2).udp(7, 9, b"x")[..28]);
    let refused = Row {
        // The tunnel's headers are off by then.
        out: ipv4_frame(NIC_MAC, CLIENT_MAC, &foreign),
        ..Row::drop(
            "about a packet that went to another pod",
            Hook::Underlay,
            gateway(),
            from_worker1().carry(&foreign),
            Verdict::DropForeignQuote,
        )
    };
    of_each.chain(each_kind).chain([refused]).collect()
}

/// From an EIP pod to another, by its EIP: the packet quoted has an address of each.
fn between_rows() -> Vec<Row> {
    let (before, after) = pair(
        &unreachable(),
        ([ip(POD1, EIP2).ttl(63), ip(EIP1, POD2).ttl(62)], [ip(EIP2, POD1), ip(POD2, EIP1)]),
        QUOTED[0],
    );
    let counted = 14 + before.len();
    let to_worker2 = geneve((GATEWAY_MAC, WORKER2_MAC), (GATEWAY, WORKER2));
    let frames = (from_worker1().carry(&before), to_worker2.carry(&after));
    let row = Row::change(
        "an error to another EIP: both addresses of the quote",
        Hook::Underlay,
        gateway(),
        frames,
        (Verdict::ToEip, redirect(UNDERLAY)),
    );
    vec![row.counts_out(SLOT1, counted).counts_in(SLOT2, counted)]
}

/// From a router on the way to the pod: RFC 5508, REQ-5 c.
fn router_rows() -> Vec<Row> {
    let from = |source: [u8; 4]| {
        let outer = [ip(source, CLIENT), ip(NIC_IP, CLIENT).ttl(63)];
        pair(&unreachable(), (outer, [ip(CLIENT, POD1), ip(CLIENT, EIP1)]), QUOTED[0])
    };
    let elsewhere = ip(WORKER1, CLIENT).icmp(unreachable(), &ip(CLIENT, POD2).udp(7, 9, b"x")[..28]);
    let echo = ip(WORKER1, CLIENT).echo_request(b"01234567890123456789");
    let spoofed = |name, packet: &[u8]| {
        let frame = from_worker1().carry(packet);
        Row::drop(name, Hook::Underlay, gateway(), frame, Verdict::DropSpoofedSource)
    };
    vec![
        outward("the pod's node reports: the router port speaks", from(WORKER1)),
        outward("a router of the CNI reports: the router port speaks", from([10, 244, 1, 1])),
        spoofed("a node reports on another node's pod", &elsewhere),
        spoofed("a node's ping is no report", &echo),
    ]
}

fn egress_rows() -> Vec<Row> {
    let report = |source, destination: [u8; 4], pod: [u8; 4]| {
        ip(source, destination).icmp(unreachable(), &ip(destination, pod).udp(7, 9, b"x")[..28])
    };
    let routed = |packet: &[u8]| ipv4_frame(WORKER1_MAC, GATEWAY_MAC, packet);
    let ours = report(WORKER1, CLIENT, POD1);
    let worker = Row::change(
        "the node's own error about an EIP pod goes by the gateway",
        Hook::UnderlayEgress,
        worker1(),
        (routed(&ours), from_worker1().carry(&ours)),
        (Verdict::ToGateway, redirect_neighbor(UNDERLAY, [0; 4])),
    )
    .counts_out(SLOT1, 14 + ours.len());
    let pass = |name, packet: &[u8], verdict| {
        Row::pass(name, Hook::UnderlayEgress, worker1(), routed(packet), verdict)
    };
    let port = |name, source, becomes| {
        let (before, after) = pair(
            &unreachable(),
            ([ip(source, CLIENT), ip(becomes, CLIENT)], [ip(CLIENT, POD0), ip(CLIENT, EIP0)]),
            QUOTED[0],
        );
        let counted = 14 + before.len();
        let frames = [before, after].map(|packet| ipv4_frame(NIC_MAC, CLIENT_MAC, &packet));
        Row::change(name, Hook::RouterPortEgress, gateway(), frames.into(), (Verdict::ToExternal, Exit::PASS))
            .counts_out(SLOT0, counted)
    };
    vec![
        worker,
        pass("its error about another pod", &report(WORKER1, CLIENT, [10, 244, 1, 11]), Verdict::PassNotPod),
        pass("its error to a node", &report(WORKER1, WORKER2, POD1), Verdict::PassInternal),
        port("an error of the gateway's own pod", POD0, EIP0),
        port("the gateway's own error about its pod", GATEWAY, NIC_IP),
        port("a CNI router's error about the gateway's pod", [10, 244, 0, 1], NIC_IP),
    ]
}
