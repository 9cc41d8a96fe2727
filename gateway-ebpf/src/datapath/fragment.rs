//! Fragmentation of what is too long for the next hop and may be fragmented (RFC 791 section 3.2).
//!
//! TC alone can do it. It has copies of the packet come by again, as many as there are fragments to be, each with its number in
//! its source MAC; a copy is cut down to its fragment and goes on as any packet does. Not in the skb's mark, which another program
//! may clear: a copy of which copies are made, and so on, would be a storm. Who sends such a source gets his own packet cut.
//!
//! Fragments may be cut again. The first of them has all options, the others have those that are to be copied.

use core::hint::black_box;

use gateway_common::addr::Mac;
use gateway_common::limit::Limited;
use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::{eth, ipv4};

use super::packet::Packet;
use super::{Env, Exit, Frame, Outcome, Step, Way, offload, options};

/// Fragments of one packet at most: 64 KiB at the smallest MTU of today's links.
const MAX_FRAGMENTS: u32 = 64;
/// Taken away at a frame's head in one go: less than the kernel allows.
const STRIDE: usize = 4_000;
/// So often at most: a packet is no longer than 64 KiB.
const STRIDES: usize = 17;

/// Ends the way of a packet too long for `mtu` bytes whose copies become its fragments; goes on with the number of such a
/// copy. Called before anything is changed; the copies come by the way the frame does.
#[inline(always)]
pub(super) fn number<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    (packet, mtu): (&Packet, u32),
    way: Way,
) -> Step<u32> {
    if !F::KERNEL_RESOLVES {
        return Err(Outcome::pass(Verdict::PassToTwin));
    }
    let number = copy_number(frame);
    if number > 0 {
        return Ok(number);
    }
    let payload = u32::from(packet.header.payload_len());
    if packet.header.fragment_offset() + payload > u32::from(u16::MAX) {
        return Err(Outcome::drop(Verdict::DropTooBig));
    }
    let count = payload.div_ceil(payload_of_each(packet, mtu).max(1));
    if count > MAX_FRAGMENTS {
        return Err(Outcome::drop(Verdict::DropTooBig));
    }
    let kind = Limited::Fragments;
    if !env.take(kind, kind.per_second(config), count) {
        return Err(Outcome::drop(Verdict::DropSlowPathLimit));
    }
    // Of what comes in a tunnel it would be the outer checksum, which goes with the tunnel.
    if packet.ip == eth::HEADER_LEN {
        offload::complete(frame, packet)?;
    }
    match (copy(frame, count, way), way) {
        (Some(()), Way::Arriving) => Err(Outcome::drop(Verdict::Fragmented)),
        (Some(()), Way::Leaving) => Err(Outcome::new(Verdict::Fragmented, Exit::REFLECT)),
        (None, _) => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}

/// Makes the copies. What leaves is itself the last of them: a kernel told that it was dropped would not send the rest of a
/// datagram that it has fragmented, and its sender would hear of an error.
#[inline(always)]
fn copy<F: Frame>(frame: &mut F, count: u32, way: Way) -> Option<()> {
    for number in 1..=MAX_FRAGMENTS {
        // Hidden from the compiler, which would leave the loop no end that the verifier sees.
        if number > black_box(count) {
            break;
        }
        let [m0, m1, m2, m3, m4, _] = Mac::FRAGMENT.0;
        frame.store(eth::SOURCE, &[m0, m1, m2, m3, m4, number as u8])?;
        if number < count || way == Way::Arriving {
            frame.repeat(way)?;
        }
    }
    Some(())
}

/// Which fragment a copy is to become, from 1 on; 0 for a packet as it came.
#[inline(always)]
fn copy_number<F: Frame>(frame: &F) -> u32 {
    match frame.load(eth::SOURCE) {
        Some([m0, m1, m2, m3, m4, number]) if Mac([m0, m1, m2, m3, m4, 0]) == Mac::FRAGMENT => number.into(),
        Some(_) | None => 0,
    }
}

/// Cuts a copy down to the fragment of its number; `packet`, directly behind the Ethernet header, follows.
#[inline(always)]
pub(super) fn cut<F: Frame>(frame: &mut F, packet: &mut Packet, mtu: u32, number: u32) -> Step<()> {
    match reduce(frame, packet, mtu, number) {
        Cut::Done => Ok(()),
        Cut::Beyond => Err(Outcome::drop(Verdict::DropTooBig)),
        Cut::NoRoom => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}

/// Bytes behind the header of each fragment but the last. The header is as long in all of them.
#[inline(always)]
fn payload_of_each(packet: &Packet, mtu: u32) -> u32 {
    mtu.saturating_sub(packet.header.header_len() as u32) & !7
}

/// What became of a copy. Without data, so that it travels in a register.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Cut {
    Done,
    /// The packet ends before its fragment starts.
    Beyond,
    /// The kernel refused.
    NoRoom,
}

/// A function of its own: rare, and its stack is free again after it.
#[inline(never)]
fn reduce<F: Frame>(frame: &mut F, packet: &mut Packet, mtu: u32, number: u32) -> Cut {
    let (payload, each) = (u32::from(packet.header.payload_len()), payload_of_each(packet, mtu));
    let start = number.wrapping_sub(1).min(MAX_FRAGMENTS) * each;
    if start >= payload {
        return Cut::Beyond;
    }
    let len = (payload - start).min(each);
    match take(frame, packet, start as usize, len as u16, start + len < payload) {
        Some(()) => Cut::Done,
        None => Cut::NoRoom,
    }
}

/// Leaves `len` bytes of the payload from `start` on, behind the header.
#[inline(always)]
fn take<F: Frame>(frame: &mut F, packet: &mut Packet, start: usize, len: u16, more: bool) -> Option<()> {
    let ethernet: [u8; eth::HEADER_LEN] = frame.load(0)?;
    let count = packet.header.header_len() - ipv4::HEADER_LEN;
    let mut options = [0; ipv4::MAX_OPTIONS];
    if count > 0 {
        frame.copy(packet.ip + ipv4::HEADER_LEN, count, &mut options)?;
        if start > 0 {
            let change = options::take_out(&mut options, options::not_copied(frame, packet));
            packet.header.change_options(change);
        }
    }
    packet.header.set_fragment(len, (start / 8) as u16, more);
    let mut left = start;
    for _ in 0..STRIDES {
        if left > 0 {
            let stride = left.min(STRIDE);
            frame.shrink_head(stride)?;
            left -= stride;
        }
    }
    frame.store(0, &ethernet)?;
    frame.store(packet.ip, &packet.header.0)?;
    for (at, word) in options.as_chunks::<4>().0.iter().enumerate() {
        if at * 4 < count {
            frame.store(packet.ip + ipv4::HEADER_LEN + at * 4, word)?;
        }
    }
    frame.truncate(packet.frame_len())
}
