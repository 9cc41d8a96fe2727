//! The packet that an ICMP error quotes: translated along with the error, so that who gets it knows its own packet again
//! (RFC 5508, REQ-3 to REQ-5) and no address of the other side shows.

use gateway_common::csum::{self, Sum};
use gateway_common::verdict::Verdict;
use gateway_common::wire::{icmp, ipv4, l4};

use super::packet::Packet;
use super::{Frame, Outcome, Step};

/// One address in place of another; the same twice: whatever is there stays.
#[derive(Clone, Copy)]
pub(super) struct Swap {
    /// What must be there.
    pub(super) from: [u8; 4],
    /// What it becomes.
    pub(super) to: [u8; 4],
}

impl Swap {
    /// Nothing is asked, nothing changes.
    pub(super) const NONE: Self = Self { from: [0; 4], to: [0; 4] };

    /// What the address becomes; `None` when it is another than asked for.
    #[inline(always)]
    fn of(&self, address: [u8; 4]) -> Option<[u8; 4]> {
        if self.from == self.to {
            Some(address)
        } else if self.from == address {
            Some(self.to)
        } else {
            None
        }
    }
}

/// What becomes of the quoted packet's addresses.
#[derive(Clone, Copy)]
pub(super) struct Swaps {
    /// Its source: who gets the error.
    pub(super) source: Swap,
    /// Its destination.
    pub(super) destination: Swap,
}

/// What a look at the quote came to. Without data, so that it travels in a register.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Quote {
    Settled,
    Short,
    Foreign,
    Redirect,
    SourceQuench,
}

/// Translates what the packet quotes, if it is an ICMP error. The outer header may be translated before or after.
///
/// # Errors
/// The error is none to deliver: see the verdicts.
#[inline(always)]
pub(super) fn translate<F: Frame>(frame: &mut F, packet: &Packet, swaps: &Swaps) -> Step<()> {
    if packet.header.protocol() != ipv4::ICMP || packet.header.is_later_fragment() {
        return Ok(());
    }
    let verdict = match rewrite(frame, packet.l4(), packet.frame_len() as usize, swaps) {
        Quote::Settled => return Ok(()),
        Quote::Short => Verdict::DropShortQuote,
        Quote::Foreign => Verdict::DropForeignQuote,
        Quote::Redirect => Verdict::DropRedirect,
        Quote::SourceQuench => Verdict::DropSourceQuench,
    };
    Err(Outcome::drop(verdict))
}

/// The message at offset `at`; the packet ends at `end`. A program of its own: rare, and its stack is free again after it.
///
/// Checksums are carried by increments and none is looked at: a wrong one stays wrong, for the receiver to find, where RFC
/// 5508 (REQ-3) would rather have the error dropped here. RFC 4884's extensions lie behind the quote and have a checksum
/// of their own.
#[inline(never)]
fn rewrite<F: Frame>(frame: &mut F, at: usize, end: usize, swaps: &Swaps) -> Quote {
    // A message too short for its header is the receiver's to find.
    let Some([kind, code, c0, c1]) = frame.load(at) else { return Quote::Settled };
    match kind {
        icmp::REDIRECT => return Quote::Redirect,
        icmp::SOURCE_QUENCH => return Quote::SourceQuench,
        kind if !icmp::is_error(kind) => return Quote::Settled,
        _ => {}
    }
    match within(frame, at + icmp::HEADER_LEN, end, swaps) {
        Ok(change) => {
            let [c0, c1] = csum::carry(u16::from_be_bytes([c0, c1]), change).to_be_bytes();
            let stored = frame.store(at, &[kind, code, c0, c1]);
            if stored.is_some() { Quote::Settled } else { Quote::Short }
        }
        Err(refused) => refused,
    }
}

/// Translates the quoted packet at offset `at` and returns by how much the sum over it changed. Reads the fields it
/// needs and no more, for the stack's sake.
#[inline(always)]
fn within<F: Frame>(frame: &mut F, at: usize, end: usize, swaps: &Swaps) -> Result<Sum, Quote> {
    if at + ipv4::HEADER_LEN > end {
        return Err(Quote::Short);
    }
    let [version, _tos] = frame.load(at).ok_or(Quote::Short)?;
    // From flags to addresses, and written back as a whole: the verifier loses sight of parts.
    let mut rest: [u8; 14] = frame.load(at + 6).ok_or(Quote::Short)?;
    let [f0, f1, _ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3] = rest;
    let header_len = (version & 0xf) as usize * 4;
    if version >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return Err(Quote::Short);
    }
    let old = [s0, s1, s2, s3, d0, d1, d2, d3];
    let [s0, s1, s2, s3] = swaps.source.of([s0, s1, s2, s3]).ok_or(Quote::Foreign)?;
    let [d0, d1, d2, d3] = swaps.destination.of([d0, d1, d2, d3]).ok_or(Quote::Foreign)?;
    let new = [s0, s1, s2, s3, d0, d1, d2, d3];
    let moved = Sum::ZERO.without_bytes(&old).bytes(&new);
    let (from, to) = ([c0, c1], csum::carry(u16::from_be_bytes([c0, c1]), moved).to_be_bytes());
    rest[4..6].copy_from_slice(&to);
    rest[6..].copy_from_slice(&new);
    frame.store(at + 6, &rest).ok_or(Quote::Short)?;
    let change = moved.without_bytes(&from).bytes(&to);
    let is_later_fragment = u16::from_be_bytes([f0, f1]) & ipv4::OFFSET != 0;
    match l4::Checksum::of(protocol) {
        Some(checksum) if !is_later_fragment => {
            Ok(carry(frame, at + header_len + checksum.offset, end, checksum.zero_is_none, (moved, change)))
        }
        Some(_) | None => Ok(change),
    }
}

/// Carries what `moved` in the pseudo-header into the quoted packet's own checksum at offset `field`, if the quote is
/// long enough to have it, and that into `change`.
#[inline(always)]
fn carry<F: Frame>(
    frame: &mut F,
    field: usize,
    end: usize,
    zero_is_none: bool,
    (moved, change): (Sum, Sum),
) -> Sum {
    let old: [u8; 2] = match frame.load(field) {
        Some(old) if field + 2 <= end => old,
        Some(_) | None => return change,
    };
    let new = match csum::carry(u16::from_be_bytes(old), moved) {
        _ if zero_is_none && old == [0, 0] => return change,
        0 if zero_is_none => [0xff; 2],
        new => new.to_be_bytes(),
    };
    match frame.store(field, &new) {
        Some(()) => change.without_bytes(&old).bytes(&new),
        None => change,
    }
}

/// The destination of the packet that an ICMP error quotes; 0.0.0.0 where nothing is quoted.
#[inline(always)]
pub(super) fn destination<F: Frame>(frame: &F, packet: &Packet) -> [u8; 4] {
    if packet.header.protocol() != ipv4::ICMP || packet.header.is_fragment() {
        return [0; 4];
    }
    let at = packet.l4() + icmp::HEADER_LEN;
    match (frame.load::<2>(packet.l4()), frame.load::<4>(at + 16)) {
        (Some([kind, _]), Some(destination)) if icmp::is_error(kind) => destination,
        _ => [0; 4],
    }
}
