//! The stateless 1:1 translation: addresses, TTL, and the checksums that cover them.

use gateway_common::verdict::Verdict;

use super::packet::Packet;
use super::{Frame, L4Change, Outcome, Step};

/// What to rewrite. An address of `None` stays.
#[derive(Clone, Copy)]
pub(super) struct Rewrite {
    /// The new source.
    pub(super) source: Option<[u8; 4]>,
    /// The new destination.
    pub(super) destination: Option<[u8; 4]>,
    /// Whether this is a router's hop: the TTL, known to be over 1, goes down by one.
    pub(super) hop: bool,
}

/// Rewrites the packet in the frame; `packet` follows.
///
/// A frame too short for the checksum of its own protocol is left with that as it is: whoever receives it finds
/// the fault, as without us.
#[inline(always)]
pub(super) fn rewrite<F: Frame>(frame: &mut F, packet: &mut Packet, to: Rewrite) -> Step<()> {
    let before = packet.header;
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
