//! The frames that are measured and what they become, built with etherparse: of the first EIP, by UDP.

use etherparse::EtherType;
use gateway_common::{addr::Mac, wire::eth};
use gateway_tests::{
    fixture::{CLIENT, CLIENT_MAC, GATEWAY, GATEWAY_MAC, NIC_MAC, POD1, WORKER1, WORKER1_MAC},
    packet::{Geneve, frame, geneve, ip, ipv4_frame},
};

use super::population::{FIRST_EIP, FIRST_NODE, FIRST_POD, Member};

/// Makes a frame of 64 bytes, without a tunnel.
pub(crate) const PAYLOAD: [u8; 22] = *b"twenty-two bytes of it";
/// The host's own MAC on the external NIC, which is not the router port's.
const HOST_MAC: Mac = Mac([0x02, 0, 0, 0, 1, 0x11]);

/// A frame, and what it leaves as.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) before: Vec<u8>,
    pub(crate) after: Vec<u8>,
}

impl Pair {
    /// What stays as it is.
    fn same(frame: Vec<u8>) -> Self {
        Self { before: frame.clone(), after: frame }
    }
}

/// From a client to an EIP: through the tunnel to its node.
pub(crate) fn inbound() -> Pair {
    inbound_by(&geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, FIRST_NODE.octets())))
}

/// The same as the plain programs do it: no outer UDP checksum.
pub(crate) fn plain_inbound() -> Pair {
    inbound_by(&geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, FIRST_NODE.octets())).without_checksum())
}

fn inbound_by(tunnel: &Geneve) -> Pair {
    let first = Member(0);
    Pair { before: to_eip(first), after: tunnel.carry(&request(first.pod(), 63)) }
}

/// From a client to an EIP, as it leaves the client.
pub(crate) fn to_eip(member: Member) -> Vec<u8> {
    ipv4_frame(CLIENT_MAC, NIC_MAC, &request(member.eip(), 64))
}

fn request(to: [u8; 4], ttl: u8) -> Vec<u8> {
    ip(CLIENT, to).ttl(ttl).udp(40_000, 53, &PAYLOAD)
}

/// From a pod on its node to a client: out of the tunnel.
pub(crate) fn outbound() -> Pair {
    let first = Member(0);
    Pair { before: from_pod(first), after: ipv4_frame(NIC_MAC, CLIENT_MAC, &response(first.eip(), 62)) }
}

/// From a pod to a client, in the tunnel from its node.
pub(crate) fn from_pod(member: Member) -> Vec<u8> {
    from_worker(member).carry(&response(member.pod(), 63))
}

/// The tunnel from a pod's node.
pub(crate) fn from_worker(member: Member) -> Geneve {
    geneve((WORKER1_MAC, GATEWAY_MAC), (member.node(), GATEWAY)).from_worker()
}

/// From a pod or an EIP to a client.
pub(crate) fn response(from: [u8; 4], ttl: u8) -> Vec<u8> {
    ip(from, CLIENT).ttl(ttl).udp(53, 40_000, &PAYLOAD)
}

/// From the gateway to a pod on a worker, as the worker's kernel gets it.
pub(crate) fn at_worker() -> Pair {
    let packet = ip(CLIENT, POD1).ttl(63).udp(40_000, 53, &PAYLOAD);
    let tunnel = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, WORKER1));
    Pair { before: tunnel.carry(&packet), after: ipv4_frame(GATEWAY_MAC, WORKER1_MAC, &packet) }
}

/// Who has the first EIP: padded to 64 bytes, as on a wire.
pub(crate) fn who_has() -> Pair {
    let packet = |operation, (mac, sender): (Mac, [u8; 4]), (to, target): (Mac, [u8; 4])| {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &mac.0, &sender, &to.0, &target, &[0; 22]].concat()
    };
    let (client, eip) = ((CLIENT_MAC, CLIENT), FIRST_EIP.octets());
    let request = packet(1, client, (Mac([0; 6]), eip));
    let reply = packet(2, (NIC_MAC, eip), client);
    Pair {
        before: frame(CLIENT_MAC, Mac::BROADCAST, EtherType::ARP, &request),
        after: frame(NIC_MAC, CLIENT_MAC, EtherType::ARP, &reply),
    }
}

/// TCP between nodes: nothing of ours.
pub(crate) fn foreign_on_underlay() -> Pair {
    let packet = ip(WORKER1, GATEWAY).tcp(40_000, 6443, &[], &PAYLOAD[..10]);
    Pair::same(ipv4_frame(WORKER1_MAC, GATEWAY_MAC, &packet))
}

/// A TCP acknowledgement from a client to an EIP, padded as on a wire.
pub(crate) fn acknowledgement() -> Pair {
    let packet = |to, ttl| ip(CLIENT, to).ttl(ttl).tcp(40_000, 80, &[], b"");
    let tunnel = geneve((GATEWAY_MAC, WORKER1_MAC), (GATEWAY, FIRST_NODE.octets()));
    Pair {
        before: padded(ipv4_frame(CLIENT_MAC, NIC_MAC, &packet(FIRST_EIP.octets(), 64))),
        after: tunnel.carry(&packet(FIRST_POD.octets(), 63)),
    }
}

/// A TCP acknowledgement between nodes, padded as on a wire.
pub(crate) fn foreign_acknowledgement() -> Pair {
    let packet = ip(WORKER1, GATEWAY).tcp(40_000, 6443, &[], b"");
    Pair::same(padded(ipv4_frame(WORKER1_MAC, GATEWAY_MAC, &packet)))
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(eth::MIN_FRAME_LEN, 0);
    frame
}

/// TCP to the host itself, by its external NIC.
pub(crate) fn foreign_on_external() -> Pair {
    let packet = ip(CLIENT, [192, 168, 100, 11]).tcp(40_000, 22, &[], &PAYLOAD[..10]);
    Pair::same(ipv4_frame(CLIENT_MAC, HOST_MAC, &packet))
}

/// To a client, with the addresses of the Ethernet header swapped.
pub(crate) fn swapped() -> Pair {
    let Pair { before, .. } = inbound();
    let after = [&before[6..12], &before[..6], &before[12..]].concat();
    Pair { before, after }
}

/// What nothing happens to.
pub(crate) fn untouched() -> Pair {
    Pair::same(inbound().before)
}
