//! Frames arriving on the external NIC.

use etherparse::{EtherType, Icmpv4Type, icmpv4};
use gateway_common::ABI_VERSION;
use gateway_common::addr::Mac;
use gateway_common::tables::CONFIG_XDP_TO_UNDERLAY;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::{Row, redirect, redirect_neighbor};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP0, EIP1, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, POD0, POD1, SLOT0, SLOT1,
    TUNNEL_MTU, Tables, UNDERLAY, WORKER1, WORKER1_MAC, gateway, unresolved_gateway,
};
use crate::packet::{Geneve, frame, geneve, ip, ipv4_frame};

const HOOK: Hook = Hook::External;

/// The rows.
pub fn rows() -> Vec<Row> {
    [
        to_worker_rows(),
        twin_rows(),
        checksum_rows(),
        fragment_rows(),
        error_rows(),
        pass_rows(),
        malformed_rows(),
    ]
    .concat()
}

pub(super) fn from_client(packet: &[u8]) -> Vec<u8> {
    ipv4_frame(CLIENT_MAC, NIC_MAC, packet)
}

pub(super) fn to_worker1() -> Geneve {
    geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1))
}

/// A packet to [`EIP1`] and the same packet as it leaves towards its pod.
pub(super) fn pair(build: impl Fn(crate::packet::Ip) -> Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    (build(ip(CLIENT, EIP1)), build(ip(CLIENT, POD1).ttl(63)))
}

pub(super) fn to_worker(name: &'static str, tunnel: &Geneve, (before, after): (Vec<u8>, Vec<u8>)) -> Row {
    let counted = 14 + before.len();
    let frames = (from_client(&before), tunnel.carry(&after));
    Row::change(name, HOOK, gateway(), frames, (Verdict::ToWorker, redirect(UNDERLAY)))
        .counts_in(SLOT1, counted)
}

/// The gateway's tables without a flag of `config`.
pub(super) fn without(flag: u32) -> Tables {
    let mut tables = gateway();
    tables.config.flags &= !flag;
    tables
}

fn to_worker_rows() -> Vec<Row> {
    let udp = || pair(|ip| ip.udp(40_000, 53, b"query"));
    let (local_in, local_out) =
        (ip(CLIENT, EIP0).udp(40_000, 53, b"query"), ip(CLIENT, POD0).udp(40_000, 53, b"query"));
    let local = Row::change(
        "to a pod on the gateway: translated, the kernel routes it",
        HOOK,
        gateway(),
        (from_client(&local_in), from_client(&local_out)),
        (Verdict::ToLocalPod, Exit::PASS),
    );
    vec![
        to_worker("UDP to an EIP", &to_worker1(), udp()),
        to_worker(
            "TCP to an EIP",
            &to_worker1(),
            pair(|ip| ip.tcp(40_000, 80, &[], b"GET / HTTP/1.0\r\n\r\n")),
        ),
        to_worker("TCP without payload", &to_worker1(), pair(|ip| ip.tcp(40_000, 80, &[], b""))),
        to_worker("ping of an EIP", &to_worker1(), pair(|ip| ip.echo_request(b"0123456789"))),
        to_worker("the last TTL that goes on", &to_worker1(), {
            let build = |ip: crate::packet::Ip| ip.udp(1, 2, b"x");
            (build(ip(CLIENT, EIP1).ttl(2)), build(ip(CLIENT, POD1).ttl(1)))
        }),
        to_worker("DSCP and ECN are copied to the outer header", &to_worker1(), {
            pair(|ip| crate::packet::Ip { tos: 0xb9, ..ip }.udp(40_000, 53, b"query"))
        }),
        to_worker("the longest packet the tunnel carries", &to_worker1(), {
            pair(|ip| ip.udp(40_000, 53, &vec![0xa5; TUNNEL_MTU as usize - 28]))
        }),
        local.counts_in(SLOT0, 14 + local_in.len()),
    ]
}

/// What XDP leaves to the TC twin, and what that makes of it.
fn twin_rows() -> Vec<Row> {
    let udp = || pair(|ip| ip.udp(40_000, 53, b"query"));
    let unresolved = |kind| {
        let kernel_writes = geneve((Mac([0; 6]), Mac([0; 6])), (GATEWAY, WORKER1));
        let row = match kind {
            Kind::Xdp => {
                Row::pass("", HOOK, unresolved_gateway(), from_client(&udp().0), Verdict::PassUnresolved)
            }
            Kind::Tc => Row {
                tables: unresolved_gateway(),
                exit: redirect_neighbor(UNDERLAY, [0; 4]),
                ..to_worker("", &kernel_writes, udp())
            },
        };
        row.only(kind)
    };
    vec![
        Row { name: "next hop unknown: XDP passes the untouched packet", ..unresolved(Kind::Xdp) },
        Row {
            name: "a NIC that takes no frames from XDP: left to TC",
            tables: without(CONFIG_XDP_TO_UNDERLAY),
            verdict: Verdict::PassToTwin,
            ..unresolved(Kind::Xdp)
        },
        Row {
            name: "a NIC that takes no frames from XDP: TC sends",
            tables: without(CONFIG_XDP_TO_UNDERLAY),
            ..to_worker("", &to_worker1(), udp())
        }
        .only(Kind::Tc),
        Row { name: "next hop unknown: TC lets the kernel resolve it", ..unresolved(Kind::Tc) },
    ]
}

fn checksum_rows() -> Vec<Row> {
    let plain = to_worker1().without_checksum();
    let mut padded =
        to_worker("Ethernet padding stays behind", &to_worker1(), pair(|ip| ip.udp(1, 2, b"hi")));
    padded.frame.resize(60, 0x5a);
    let options = |ip| crate::packet::Ip { options: vec![1, 1, 1, 0], ..ip };
    vec![
        padded,
        to_worker(
            "UDP without checksum stays so, outside too",
            &plain,
            pair(|ip| ip.udp_without_checksum(1, 2, b"hi")),
        ),
        to_worker(
            "UDP whose new checksum would be zero",
            &to_worker1(),
            pair(|ip| ip.udp(1, 2, &zero_sum())),
        ),
        to_worker("IPv4 options are kept", &to_worker1(), pair(|ip| options(ip).udp(1, 2, b"hi"))),
        to_worker("GRE has no checksum of ours", &plain, pair(|ip| ip.raw(47, b"\0\0\x08\0 payload"))),
        to_worker("SCTP's CRC does not cover addresses", &plain, pair(|ip| ip.raw(132, &[9; 32]))),
        to_worker("VRRP", &plain, pair(|ip| ip.raw(112, &[9; 20]))),
        to_worker("a protocol nobody knows", &plain, pair(|ip| ip.raw(253, &[9; 7]))),
        to_worker("a packet without payload", &plain, pair(|ip| ip.raw(253, &[]))),
        to_worker("TCP too short for its header has no checksum", &plain, pair(|ip| ip.raw(6, &[0; 12]))),
        to_worker("ESP", &plain, pair(|ip| ip.raw(50, &[9; 33]))),
        to_worker("UDP-Lite's checksum covers the pseudo-header", &plain, {
            let (mut before, mut after) = pair(|ip| ip.udp(1, 2, b"hi"));
            for packet in [&mut before, &mut after] {
                let checksum = gateway_common::csum::update(
                    u16::from_be_bytes([packet[10], packet[11]]),
                    &[packet[8], 17],
                    &[packet[8], 136],
                );
                packet[9] = 136;
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            (before, after)
        }),
    ]
}

/// A fragment has no outer checksum: the whole datagram's is in the first, and covers all.
fn fragment_rows() -> Vec<Row> {
    let plain = to_worker1().without_checksum();
    let fragment = |offset: u16, more| {
        move |ip| crate::packet::Ip {
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: offset,
            ..ip
        }
    };
    let [mut first, later] = [(0, true), (3, false)].map(|(offset, more)| {
        let shape = fragment(offset, more);
        pair(|ip| shape(ip).raw(17, &[0x9c, 0x40, 0, 53, 0, 44, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8]))
    });
    // The first fragment has the UDP checksum, which covers bytes that are elsewhere: RFC 1624 by hand.
    let checksum = gateway_common::csum::update(0x1234, &EIP1, &POD1);
    first.1[26..28].copy_from_slice(&checksum.to_be_bytes());
    vec![
        to_worker("a first fragment too short for its UDP header", &plain, {
            let shape = fragment(0, true);
            pair(|ip| shape(ip).raw(17, &[0x9c, 0x40, 0, 53]))
        }),
        to_worker("a first fragment", &plain, first),
        to_worker("a later fragment", &plain, later),
    ]
}

/// A payload by which the datagram to the pod has a checksum of zero, which UDP sends as 0xffff.
fn zero_sum() -> Vec<u8> {
    let sums_to_zero = |payload: &[u8]| {
        let packet = ip(CLIENT, POD1).udp(1, 2, payload);
        packet[26..28] == [0xff, 0xff]
    };
    (0..=u16::MAX)
        .map(|word| word.to_be_bytes().to_vec())
        .find(|payload| sums_to_zero(payload))
        .unwrap_or_default()
}

/// The gateway's ICMP error about a packet of the client's.
pub(super) fn error(message: Icmpv4Type, packet: &[u8]) -> Vec<u8> {
    let mut header = ip(NIC_IP, CLIENT);
    (header.identification, header.dont_fragment) = (0, false);
    let quoted = usize::from(packet[0] & 15) * 4 + 8;
    ipv4_frame(NIC_MAC, CLIENT_MAC, &header.icmp(message, &packet[..quoted]))
}

fn error_rows() -> Vec<Row> {
    let expired = Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit);
    let needed = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: TUNNEL_MTU as u16,
    });
    let row = |name, verdict, message, packet: Vec<u8>| {
        let frames = (from_client(&packet), error(message, &packet));
        Row::change(name, HOOK, gateway(), frames, (verdict, Exit::REFLECT))
    };
    let drop =
        |name, verdict, packet: Vec<u8>| Row::drop(name, HOOK, gateway(), from_client(&packet), verdict);
    let with_options = crate::packet::Ip { options: vec![1; 40], ..ip(CLIENT, EIP1).ttl(1) };
    let big = vec![0; TUNNEL_MTU as usize - 27];
    let mut big_fragment = ip(CLIENT, EIP1);
    big_fragment.fragment_offset = 5;
    vec![
        row(
            "TTL 1: time exceeded",
            Verdict::TimeExceeded,
            expired.clone(),
            ip(CLIENT, EIP1).ttl(1).udp(1, 33_434, b"probe"),
        ),
        row(
            "TTL 1 to a pod on the gateway: time exceeded, from the router port too",
            Verdict::TimeExceeded,
            expired.clone(),
            ip(CLIENT, EIP0).ttl(1).udp(1, 33_434, b"probe"),
        ),
        row(
            "TTL 0: time exceeded",
            Verdict::TimeExceeded,
            expired.clone(),
            ip(CLIENT, EIP1).ttl(0).echo_request(b"probe"),
        ),
        row(
            "TTL 1 with 40 bytes of options: all quoted",
            Verdict::TimeExceeded,
            expired.clone(),
            with_options.udp(1, 2, b"p"),
        ),
        row(
            "too long with DF: fragmentation needed",
            Verdict::FragmentationNeeded,
            needed,
            ip(CLIENT, EIP1).udp(1, 2, &big),
        ),
        drop("no error about a later fragment", Verdict::DropTooBig, big_fragment.raw(17, &vec![0; 1440])),
        drop(
            "no error about an ICMP error",
            Verdict::DropExpired,
            ip(CLIENT, EIP1).ttl(1).icmp(expired, &[0x45; 28]),
        ),
        drop(
            "no error about a packet too short to quote",
            Verdict::DropExpired,
            ip(CLIENT, EIP1).ttl(1).raw(47, &[0; 4]),
        ),
        drop("no error to nobody", Verdict::DropMartian, ip([0; 4], EIP1).ttl(1).udp(1, 2, b"probe")),
    ]
}

fn pass_rows() -> Vec<Row> {
    let udp = ip(CLIENT, EIP1).udp(1, 2, b"hi");
    let pass = |name, tables: Tables, frame, verdict| Row::pass(name, HOOK, tables, frame, verdict);
    let mut standby = gateway();
    standby.config.flags = 0;
    let mut other_abi = gateway();
    other_abi.config.abi = ABI_VERSION + 1;
    vec![
        pass(
            "not an EIP",
            gateway(),
            from_client(&ip(CLIENT, [192, 168, 100, 9]).udp(1, 2, b"hi")),
            Verdict::PassNotForUs,
        ),
        pass(
            "sent to another station",
            gateway(),
            ipv4_frame(CLIENT_MAC, Mac([2; 6]), &udp),
            Verdict::PassNotForUs,
        ),
        pass("broadcast", gateway(), ipv4_frame(CLIENT_MAC, Mac::BROADCAST, &udp), Verdict::PassNotForUs),
        pass(
            "IPv6",
            gateway(),
            frame(CLIENT_MAC, NIC_MAC, EtherType::IPV6, &[0x60; 60]),
            Verdict::PassNotIpv4,
        ),
        pass(
            "a VLAN tag",
            gateway(),
            frame(CLIENT_MAC, NIC_MAC, EtherType::VLAN_TAGGED_FRAME, &[0; 60]),
            Verdict::PassNotIpv4,
        ),
        pass("not the owner", standby, from_client(&udp), Verdict::PassDisabled),
        pass("tables of another version", other_abi, from_client(&udp), Verdict::PassDisabled),
        pass("no configuration", Tables::default(), from_client(&udp), Verdict::PassDisabled),
    ]
}

fn malformed_rows() -> Vec<Row> {
    let udp = ip(CLIENT, EIP1).udp(1, 2, b"hi");
    let broken = |name, at: usize, byte| {
        let mut packet = udp.clone();
        packet[at] = byte;
        Row::drop(name, HOOK, gateway(), from_client(&packet), Verdict::DropMalformed)
    };
    vec![
        broken("IP version 6 in an IPv4 frame", 0, 0x65),
        broken("IPv4 header of 16 bytes", 0, 0x44),
        broken("total length shorter than the header", 3, 19),
        broken("total length longer than the frame", 3, 31),
        // The kernel's test run gives TC no IPv4 frame without a whole header.
        Row::drop(
            "cut within the IPv4 header",
            HOOK,
            gateway(),
            from_client(&udp[..19]),
            Verdict::DropMalformed,
        )
        .only(Kind::Xdp),
    ]
}
