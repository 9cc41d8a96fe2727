//! Checksums that a sender on this machine has left to a NIC (the kernel's Documentation/networking/checksum-offloads.rst): the
//! field holds the sum of the pseudo-header, and the skb says where the rest is to be added. Who cuts such a packet completes it
//! first, as the kernel does before it fragments.

use gateway_common::csum::{Sum, pseudo_header};
use gateway_common::verdict::Verdict;
use gateway_common::wire::{eth, ipv4, l4};

use super::packet::Packet;
use super::zeroed::Zeroed;
use super::{Frame, L4Change, Outcome, Room, Step, sum};

/// The bytes that are taken away and put back, and the Ethernet header.
const HEAD: usize = eth::HEADER_LEN + Room::Again.bytes();

/// Completes the checksum of `packet`, directly behind the Ethernet header, where it was left to a NIC.
///
/// # Errors
/// It is not ours to complete: SCTP's, one inside a tunnel of the sender's, or of more than 10 kB. The frame is as it was.
#[inline(always)]
pub(super) fn complete<F: Frame>(frame: &mut F, packet: &Packet) -> Step<()> {
    let field = field(frame, packet);
    if field > 0 {
        let checksum = added_up(frame, packet);
        if checksum > 0 && !write(frame, field, checksum) {
            return Err(Outcome::drop(Verdict::DropNoRoom));
        }
    }
    if is_left(frame, packet) { Err(Outcome::drop(Verdict::DropTooBig)) } else { Ok(()) }
}

/// Where a checksum stands that looks as if it was left: of a whole packet, the sum of the pseudo-header. 0 where none does. A
/// complete one that looks so by chance is computed to be the same.
#[inline(never)]
fn field<F: Frame>(frame: &F, packet: &Packet) -> usize {
    let header = &packet.header;
    let offset = match l4::Checksum::of(header.protocol()) {
        Some(checksum) if header.protocol() != ipv4::UDPLITE && !header.is_fragment() => checksum.offset,
        Some(_) | None => return 0,
    };
    let pseudo =
        pseudo_header(&header.source(), &header.destination(), header.protocol(), header.payload_len());
    match frame.load(packet.l4() + offset) {
        Some(field) if field == pseudo.fold().to_be_bytes() => packet.l4() + offset,
        Some(_) | None => 0,
    }
}

/// The checksum that the NIC would have written, all ones in place of zero as the kernel does it; 0 when there is too much to add up.
#[inline(never)]
fn added_up<F: Frame>(frame: &F, packet: &Packet) -> u16 {
    match sum::over(frame, packet.l4(), packet.header.payload_len() as usize).map(Sum::checksum) {
        Some(0) => 0xffff,
        Some(checksum) => checksum,
        None => 0,
    }
}

/// Writes a checksum to the field at offset `at`. The kernel forgets about the NIC when the place where that was to begin is taken
/// away. `false` when it refuses.
#[inline(never)]
fn write<F: Frame>(frame: &mut F, at: usize, checksum: u16) -> bool {
    let mut head = Zeroed::<HEAD>::new();
    frame
        .copy(0, HEAD, &mut head.0)
        .and_then(|()| frame.shrink_head(Room::Again.bytes()))
        .and_then(|()| frame.grow_head(Room::Again))
        .and_then(|()| frame.store(0, &head.0))
        .and_then(|()| frame.store(at, &checksum.to_be_bytes()))
        .is_some()
}

/// Whether a checksum is left to a NIC: then a change of what it covers does not reach any field. Tried on the header's own, which
/// is put back.
#[inline(never)]
fn is_left<F: Frame>(frame: &mut F, packet: &Packet) -> bool {
    let at = packet.ip + ipv4::CHECKSUM;
    let change = L4Change { from: [0; 4], to: [0, 0, 0, 1], pseudo_header: false, zero_is_none: false };
    let Some(before) = frame.load::<2>(at) else { return true };
    let _ = frame.update_l4_checksum(at, change);
    let after = frame.load(at);
    let _ = frame.store(at, &before);
    after == Some(before)
}
