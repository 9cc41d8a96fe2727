//! What XDP leaves to TC because the NIC that is to send it takes no such frame from XDP: none at all, or none of several
//! buffers, as a jumbo frame is.

use etherparse::EtherType;
use gateway_common::addr::Mac;
use gateway_common::tables::{
    CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_UNDERLAY, CONFIG_XDP_TO_EXTERNAL,
};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Exit, Hook};

use super::external::{from_client, without};
use super::{Row, redirect};
use crate::engines::Kind;
use crate::fixture::{
    CLIENT, CLIENT_MAC, EIP1, EIP2, EXTERNAL, GATEWAY, GATEWAY_MAC, NIC_IP, NIC_MAC, POD1, SLOT1, Tables,
    UNDERLAY, WORKER1, WORKER1_MAC,
};
use crate::packet::{frame, geneve, ip, ipv4_frame};

/// Bytes of a datagram that lies in several buffers.
const JUMBO: usize = 8_000;
/// Bytes of one that lies in a single buffer.
const SHORT: usize = 100;

/// The rows.
pub fn rows() -> Vec<Row> {
    [piece_rows(), answer_rows()].concat()
}

/// The gateway on networks of 9000, without a flag of `config`.
fn on_jumbo_networks(flag: u32) -> Tables {
    let mut tables = without(flag);
    (tables.config.external_mtu, tables.config.tunnel_mtu) = (9_000, 8_950);
    tables
}

/// A datagram to an EIP, as it goes on.
fn to_worker(name: &'static str, flag: u32, len: usize) -> Row {
    let [before, after] =
        [ip(CLIENT, EIP1), ip(CLIENT, POD1).ttl(63)].map(|ip| ip.udp(40_000, 53, &vec![0xa5; len]));
    let tunnel = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1));
    let frames = (from_client(&before), tunnel.carry(&after));
    let outcome = (Verdict::ToWorker, redirect(UNDERLAY));
    Row::change(name, Hook::External, on_jumbo_networks(flag), frames, outcome)
        .counts_in(SLOT1, 14 + before.len())
        .only(Kind::Xdp)
}

/// A pod's datagram, as it goes on.
fn to_external(name: &'static str, flag: u32, len: usize) -> Row {
    let [before, after] =
        [ip(POD1, CLIENT).ttl(63), ip(EIP1, CLIENT).ttl(62)].map(|ip| ip.udp(53, 40_000, &vec![0xa5; len]));
    let tunnel = geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker();
    let frames = (tunnel.carry(&before), ipv4_frame(NIC_MAC, CLIENT_MAC, &after));
    let outcome = (Verdict::ToExternal, redirect(EXTERNAL));
    Row::change(name, Hook::Underlay, on_jumbo_networks(flag), frames, outcome)
        .counts_out(SLOT1, 14 + before.len())
        .only(Kind::Xdp)
}

/// The same frame, left to TC as it came.
fn left_to_twin(name: &'static str, row: Row) -> Row {
    Row::pass(name, row.hook, row.tables, row.frame, Verdict::PassToTwin).only(Kind::Xdp)
}

/// Frames of several buffers go by a NIC that takes them from XDP, and are left to TC before one that does not.
fn piece_rows() -> Vec<Row> {
    let (external, underlay) = (CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_UNDERLAY);
    let between = geneve((WORKER1_MAC, GATEWAY_MAC), (WORKER1, GATEWAY)).from_worker();
    let to_eip = between.carry(&ip(POD1, EIP2).ttl(63).udp(53, 40_000, &[0xa5; JUMBO]));
    let turned = Row { frame: to_eip, ..to_external("", underlay, JUMBO) };
    let ping = Row {
        frame: from_client(&ip(CLIENT, NIC_IP).echo_request(&[0xa5; JUMBO])),
        ..to_worker("", external, JUMBO)
    };
    vec![
        to_worker("a jumbo frame, in several buffers", external, JUMBO),
        left_to_twin("a jumbo frame to a NIC that takes one buffer", to_worker("", underlay, JUMBO)),
        to_worker("a frame of one buffer to a NIC that takes one", underlay, SHORT),
        to_external("a pod's jumbo frame, in several buffers", underlay, JUMBO),
        left_to_twin("a pod's jumbo frame to a NIC that takes one buffer", to_external("", external, JUMBO)),
        to_external("a pod's frame of one buffer to a NIC that takes one", external, SHORT),
        left_to_twin("a pod's jumbo frame to another EIP, by a NIC that takes one buffer", turned),
        left_to_twin("a jumbo ping of nic-ip, by a NIC that takes one buffer", ping),
    ]
}

/// Answers leave by the NIC the question came by, which may be one that takes nothing from XDP. What TC answers is in the
/// rows of the answers: it does not look at the flag.
fn answer_rows() -> Vec<Row> {
    let who_has = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &CLIENT_MAC.0, &CLIENT, &[0; 6], &EIP1].concat();
    let who_has = frame(CLIENT_MAC, Mac::BROADCAST, EtherType::ARP, &who_has);
    let reply = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &NIC_MAC.0, &EIP1, &CLIENT_MAC.0, &CLIENT].concat();
    let reply = frame(NIC_MAC, CLIENT_MAC, EtherType::ARP, &reply);
    let tables = || without(CONFIG_XDP_TO_EXTERNAL);
    let pass =
        |name, frame| Row::pass(name, Hook::External, tables(), frame, Verdict::PassToTwin).only(Kind::Xdp);
    vec![
        pass("who has an EIP, by a NIC that takes no frames from XDP", who_has.clone()),
        Row::change(
            "who has an EIP, by a NIC that takes no frames from XDP: TC answers",
            Hook::External,
            tables(),
            (who_has, reply),
            (Verdict::ArpReply, Exit::REFLECT),
        )
        .only(Kind::Tc),
        pass(
            "ping of nic-ip, by a NIC that takes no frames from XDP",
            from_client(&ip(CLIENT, NIC_IP).echo_request(b"abcdefgh")),
        ),
        pass(
            "the last TTL to an EIP, by a NIC that takes no frames from XDP",
            from_client(&ip(CLIENT, EIP1).ttl(1).udp(1, 2, b"hello")),
        ),
        pass(
            "too long for the tunnel, by a NIC that takes no frames from XDP",
            from_client(&ip(CLIENT, EIP1).udp(40_000, 53, &[0xa5; 1_440])),
        ),
    ]
}
