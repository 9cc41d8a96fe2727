//! What a gateway does so many times a second: ICMP errors of its own, each kind for itself, and asking the kernel.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use gateway_common::addr::Mac;
use gateway_common::limit::Limited;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::{error, from_client, to_worker1};
use super::fragmentation::copied;
use super::underlay::from_worker1;
use super::{Row, redirect, redirect_neighbor};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP1, NIC_MAC, POD0, POD1, ROUTER_PORT, SLOT1, TUNNEL_MTU, Tables, UNDERLAY, gateway,
    spent_gateway, unresolved_gateway,
};
use crate::packet::{ip, ipv4_frame};

/// A frame whose TTL runs out at the gateway.
pub fn expiring() -> Vec<u8> {
    from_client(&ip(CLIENT, EIP1).ttl(1).udp(1, 33_434, b"probe"))
}

/// A gateway that may send so many errors a second, and has sent none.
pub fn limited(errors_per_second: u32) -> Tables {
    let mut tables = gateway();
    tables.config.errors_per_second = errors_per_second;
    tables
}

/// What the limit allows, and what it has nothing to do with.
fn allowed() -> Vec<Row> {
    let expired = Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
    let probe = ip(CLIENT, EIP1).ttl(1).udp(1, 33_434, b"probe");
    let about_error = ip(CLIENT, EIP1).ttl(1).icmp(expired.clone(), &[0x45; 28]);
    let pair = |destination, ttl| ip(CLIENT, destination).ttl(ttl).udp(1, 2, b"ordinary");
    vec![
        Row::change(
            "the one error of a second",
            Hook::External,
            limited(1),
            (from_client(&probe), error(expired, &probe)),
            (Verdict::TimeExceeded, Exit::REFLECT),
        ),
        Row::drop(
            "enough errors sent: what gets none keeps its reason",
            Hook::External,
            spent_gateway(),
            from_client(&about_error),
            Verdict::DropExpired,
        ),
        Row::change(
            "enough errors sent: other packets go on",
            Hook::External,
            spent_gateway(),
            (from_client(&pair(EIP1, 64)), to_worker1().carry(&pair(POD1, 63))),
            (Verdict::ToWorker, redirect(UNDERLAY)),
        )
        .counts_in(SLOT1, pair(POD1, 63).len() + 14),
    ]
}

/// Errors of each kind and place, over the limit: dropped as they came.
fn refused() -> Vec<Row> {
    let drop = |name, hook, frame| Row::drop(name, hook, spent_gateway(), frame, Verdict::DropErrorLimit);
    let big = vec![0; TUNNEL_MTU as usize - 27];
    let jumbo = from_worker1().carry(&ip(POD1, CLIENT).udp(1, 2, &vec![0; 1_473]));
    let routed =
        |source, destination| ipv4_frame(NIC_MAC, CLIENT_MAC, &ip(source, destination).udp(1, 2, &big));
    vec![
        drop("enough errors sent: TTL 1", Hook::External, expiring()),
        drop(
            "enough errors sent: too long with DF",
            Hook::External,
            from_client(&ip(CLIENT, EIP1).udp(1, 2, &big)),
        ),
        drop(
            "enough errors sent: a pod's TTL runs out",
            Hook::Underlay,
            from_worker1().carry(&ip(POD1, CLIENT).ttl(1).udp(1, 33_434, b"probe")),
        ),
        drop("enough errors sent: a pod's packet is too long", Hook::Underlay, jumbo),
        drop(
            "enough errors sent: a local pod's packet is too long",
            Hook::RouterPortEgress,
            routed(POD0, EIP1),
        ),
    ]
}

/// A flood of one kind leaves the others theirs.
fn each_for_itself() -> Vec<Row> {
    let spent = |what: &[Limited]| gateway().spent(what);
    let big = ip(CLIENT, EIP1).udp(1, 2, &vec![0; TUNNEL_MTU as usize - 27]);
    let probe = ip(CLIENT, EIP1).ttl(1).udp(1, 33_434, b"probe");
    let needed = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: TUNNEL_MTU as u16,
    });
    let expired = Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
    let answered = |name, what: &[Limited], (kind, packet): (Icmpv4Type, &Vec<u8>), verdict| {
        let frames = (from_client(packet), error(kind, packet));
        Row::change(name, Hook::External, spent(what), frames, (verdict, Exit::REFLECT))
    };
    use Limited::{FragmentationNeeded, Fragments, NextHops, TimeExceeded};
    vec![
        answered(
            "enough said of TTLs: path MTU discovery goes on",
            &[TimeExceeded, Fragments, NextHops],
            (needed, &big),
            Verdict::FragmentationNeeded,
        ),
        answered(
            "enough said of lengths: traceroute goes on",
            &[FragmentationNeeded, Fragments, NextHops],
            (expired, &probe),
            Verdict::TimeExceeded,
        ),
    ]
}

/// What only the kernel can do, over the limit; by TC, as XDP leaves it to that.
fn slow_path() -> Vec<Row> {
    use Limited::{FragmentationNeeded, Fragments, NextHops, TimeExceeded};
    let drop = |name, hook, tables: Tables, what: &[Limited], frame| {
        Row::drop(name, hook, tables.spent(what), frame, Verdict::DropSlowPathLimit).only(Kind::Tc)
    };
    let mut cut = ip(CLIENT, EIP1);
    cut.dont_fragment = false;
    let big = cut.udp(1, 2, &vec![0; TUNNEL_MTU as usize - 27]);
    let ordinary = ip(CLIENT, EIP1).udp(1, 2, b"ordinary");
    let out = from_worker1().carry(&ip(POD1, CLIENT).udp(1, 2, b"out"));
    let others = [TimeExceeded, FragmentationNeeded];
    let (no_copies, no_hops) =
        (&[others[0], others[1], NextHops][..], &[others[0], others[1], Fragments][..]);
    vec![
        drop("copies made enough", Hook::External, gateway(), &[Fragments], from_client(&big)),
        copied(
            "copies are not errors, nor next hops",
            Hook::External,
            &gateway().spent(no_copies),
            (&from_client(&big), &from_client(&big)),
            2,
        ),
        drop(
            "a node's MAC asked for enough",
            Hook::External,
            unresolved_gateway(),
            &[NextHops],
            from_client(&ordinary),
        ),
        drop("a host's MAC asked for enough", Hook::Underlay, unresolved_gateway(), &[NextHops], out.clone()),
        Row::change(
            "next hops are not errors, nor copies",
            Hook::Underlay,
            unresolved_gateway().spent(no_hops),
            (out, ipv4_frame(NIC_MAC, Mac([0; 6]), &ip(EIP1, CLIENT).ttl(63).udp(1, 2, b"out"))),
            (Verdict::ToExternal, redirect_neighbor(ROUTER_PORT, CLIENT)),
        )
        .counts_out(SLOT1, 14 + ip(POD1, CLIENT).udp(1, 2, b"out").len())
        .only(Kind::Tc),
    ]
}

/// Rows about the limits.
pub fn rows() -> Vec<Row> {
    [allowed(), refused(), each_for_itself(), slow_path()].concat()
}
