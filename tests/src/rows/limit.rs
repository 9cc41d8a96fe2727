//! ICMP errors of the gateway's own, of which it sends so many a second.

use etherparse::Icmpv4Type;
use etherparse::icmpv4::TimeExceededCode;
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::{error, from_client, to_worker1};
use super::underlay::from_worker1;
use super::{Row, redirect};
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP1, NIC_MAC, POD0, POD1, SLOT1, TUNNEL_MTU, Tables, UNDERLAY, gateway,
    silenced_gateway,
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
            silenced_gateway(),
            from_client(&about_error),
            Verdict::DropExpired,
        ),
        Row::change(
            "enough errors sent: other packets go on",
            Hook::External,
            silenced_gateway(),
            (from_client(&pair(EIP1, 64)), to_worker1().carry(&pair(POD1, 63))),
            (Verdict::ToWorker, redirect(UNDERLAY)),
        )
        .counts_in(SLOT1, pair(POD1, 63).len() + 14),
    ]
}

/// Errors of each kind and place, over the limit: dropped as they came.
fn refused() -> Vec<Row> {
    let drop = |name, hook, frame| Row::drop(name, hook, silenced_gateway(), frame, Verdict::DropErrorLimit);
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

/// Rows about the limit.
pub fn rows() -> Vec<Row> {
    [allowed(), refused()].concat()
}
