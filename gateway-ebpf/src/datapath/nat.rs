//! The stateless 1:1 translation: addresses, TTL, and the checksums that cover them.

use gateway_common::tables::{Config, Pod};
use gateway_common::verdict::Verdict;

use super::packet::Packet;
use super::quote::{self, Swap, Swaps};
use super::{Frame, L4Change, Outcome, Step};

/// What to rewrite. An address of `None` stays.
#[derive(Clone, Copy)]
pub(super) struct Rewrite {
    /// The new source.
    pub(super) source: Option<[u8; 4]>,
    /// The new destination.
    pub(super) destination: Option<[u8; 4]>,
    /// What becomes of the destination that an ICMP error quotes: where the source is rewritten, a pod's address becomes
    /// its EIP.
    pub(super) quoted: Swap,
    /// Whether this is a router's hop: the TTL, known to be over 1, goes down by one.
    pub(super) hop: bool,
}

/// In whose name a packet leaves.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pod_ip: [u8; 4],
    eip: [u8; 4],
    /// The packet's new source.
    source: [u8; 4],
    /// Row in `eip_counters`.
    pub(super) slot: u32,
}

impl Sender {
    /// An EIP pod.
    #[inline(always)]
    pub(super) const fn pod(pod_ip: [u8; 4], pod: &Pod) -> Self {
        Self { pod_ip, eip: pod.eip, source: pod.eip, slot: pod.slot }
    }

    /// A router on the way to an EIP pod, about a packet to that. It gets the router port's address, which says nothing of
    /// the inside (RFC 5508, REQ-5 c), and counts as the pod's.
    #[inline(always)]
    pub(super) const fn router(pod_ip: [u8; 4], pod: &Pod, config: &Config) -> Self {
        Self { pod_ip, eip: pod.eip, source: config.nic_ip, slot: pod.slot }
    }

    /// What its packets become.
    #[inline(always)]
    pub(super) const fn rewrite(&self, destination: Option<[u8; 4]>, hop: bool) -> Rewrite {
        let quoted = Swap { from: self.pod_ip, to: self.eip };
        Rewrite { source: Some(self.source), destination, quoted, hop }
    }
}

/// Rewrites the packet in the frame; `packet` follows.
///
/// A frame too short for the checksum of its own protocol is left with that as it is: whoever receives it finds
/// the fault, as without us.
///
/// # Errors
/// An ICMP error that is none to deliver.
#[inline(always)]
pub(super) fn rewrite<F: Frame>(frame: &mut F, packet: &mut Packet, to: Rewrite) -> Step<()> {
    let before = packet.header;
    // An error goes to the source of what it quotes.
    let source = match to.destination {
        Some(destination) => Swap { from: before.destination(), to: destination },
        None => Swap::NONE,
    };
    quote::translate(frame, packet, &Swaps { source, destination: to.quoted })?;
    if let Some(source) = to.source {
        packet.header.set_source(source);
        carry(frame, packet, before.source(), source);
    }
    if let Some(destination) = to.destination {
        packet.header.set_destination(destination);
        carry(frame, packet, before.destination(), destination);
    }
    if to.hop {
        packet.header.set_ttl(before.ttl().wrapping_sub(1));
    }
    match frame.store(packet.ip, &packet.header.0) {
        Some(()) => Ok(()),
        None => Err(Outcome::drop(Verdict::DropMalformed)),
    }
}

#[inline(always)]
fn carry<F: Frame>(frame: &mut F, packet: &Packet, from: [u8; 4], to: [u8; 4]) {
    if let Some(checksum) = packet.checksum() {
        let change = L4Change { from, to, pseudo_header: true, zero_is_none: checksum.zero_is_none };
        // A missing field is the receiver's to find.
        let _ = frame.update_l4_checksum(packet.l4() + checksum.offset, change);
    }
}
