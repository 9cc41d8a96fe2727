//! What is sent into a chain, and how it is to leave it.

use std::iter;

use gateway_common::addr::Mac;
use gateway_tests::{
    fixture::{CLIENT_MAC, GATEWAY_MAC, VNI, WORKER1_MAC},
    packet::ipv4_frame,
};

use super::ends::{Expected, Word};
use crate::packets::{
    frames::{self, Pair},
    population::{FIRST_EIP, FIRST_POD, Member},
};

/// EIPs of every chain; a power of two.
pub(crate) const EIPS: u32 = 1024;
/// UDP port of VXLAN (RFC 7348).
pub(crate) const VXLAN_PORT: u16 = 4789;
/// UDP port of Geneve (RFC 8926).
pub(crate) const GENEVE_PORT: u16 = 6081;

/// Bytes that a tunnel puts before the inner Ethernet frame: Geneve without options and VXLAN are alike.
pub(crate) const TUNNEL: u32 = 50;
const SOURCE_AT: u32 = 26;
const DESTINATION_AT: u32 = 30;
const PORTS_AT: u32 = 34;
/// Of so many addresses.
const NETMASK: [u8; 4] = (!(EIPS - 1)).to_be_bytes();
/// Of the client, and of the pod: what `frames` uses.
const PORTS: [u16; 2] = [40_000, 53];

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to a pod.
    In,
    /// From a pod to the client.
    Out,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::In, Self::Out];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What a gateway does with packets, apart from forwarding them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// EIP ↔ pod, and a tunnel with this UDP port.
    Translate(u16),
    /// Nothing; towards the client it gets them in our tunnel, and they stay in it.
    ForwardTunnel,
    /// Nothing, there is no tunnel.
    Forward,
}

/// Frames of 64 bytes, in a tunnel 114: of each EIP one, in random order.
pub(crate) fn sent(way: Way, work: Work) -> Vec<Vec<u8>> {
    let frame = |member| match (way, work) {
        (Way::In, _) => frames::to_eip(member),
        (Way::Out, Work::Translate(VXLAN_PORT)) => vxlan_from_worker(member),
        (Way::Out, Work::Translate(_) | Work::ForwardTunnel) => frames::from_pod(member),
        (Way::Out, Work::Forward) => {
            ipv4_frame(WORKER1_MAC, GATEWAY_MAC, &frames::response(member.eip(), 63))
        }
    };
    in_random_order().map(frame).collect()
}

/// A linear congruential generator of full period modulo any power of two, as in `c/harness.c`.
fn in_random_order() -> impl Iterator<Item = Member> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    iter::successors(Some(0_u32), next).take(EIPS as usize).map(|state| Member(state & (EIPS - 1)))
}

/// As frames arrive: through the tunnel or not, to or from which network, with the ports of the flow.
pub(crate) fn expected(way: Way, work: Work) -> Expected {
    let tunnel = match (way, work) {
        (Way::In, Work::Translate(port)) => Some(port),
        (Way::Out, Work::ForwardTunnel) => Some(GENEVE_PORT),
        (Way::In, Work::ForwardTunnel | Work::Forward) | (Way::Out, Work::Translate(_) | Work::Forward) => {
            None
        }
    };
    let translated = matches!(work, Work::Translate(_));
    let network = if translated == (way == Way::In) { FIRST_POD } else { FIRST_EIP };
    // Without a tunnel the pods themselves have the EIPs.
    let network = if work == Work::Forward { FIRST_EIP } else { network };
    let inner = if tunnel.is_some() { TUNNEL } else { 0 };
    let (address_at, ports) = match way {
        Way::In => (DESTINATION_AT, PORTS),
        Way::Out => (SOURCE_AT, [PORTS[1], PORTS[0]]),
    };
    let outer = tunnel.map_or_else(Word::default, |port| {
        let [high, low] = port.to_be_bytes();
        Word { at: PORTS_AT, mask: [0, 0, 255, 255], is: [0, 0, high, low] }
    });
    let [[a, b], [c, d]] = ports.map(u16::to_be_bytes);
    [
        outer,
        Word { at: inner + address_at, mask: NETMASK, is: network.octets() },
        Word { at: inner + PORTS_AT, mask: [255; 4], is: [a, b, c, d] },
    ]
}

/// As a worker's kernel writes it: no outer checksum.
fn vxlan_from_worker(member: Member) -> Vec<u8> {
    let mut tunnel = frames::from_worker(member);
    (tunnel.head, tunnel.port, tunnel.vni, tunnel.checksum) = ([8, 0, 0, 0], VXLAN_PORT, VNI, false);
    tunnel.carry(&frames::response(member.pod(), 63))
}

/// What the floor makes of a frame: other MACs.
pub(crate) fn forwarded(way: Way, frame: &[u8]) -> Pair {
    let (destination, source) = macs_behind(way);
    Pair { before: frame.to_vec(), after: [&destination.0[..], &source.0, &frame[12..]].concat() }
}

/// MACs of what a hop sends on: destination, then source.
pub(crate) const fn macs_behind(way: Way) -> (Mac, Mac) {
    match way {
        Way::In => (WORKER1_MAC, GATEWAY_MAC),
        Way::Out => (CLIENT_MAC, gateway_tests::fixture::NIC_MAC),
    }
}
