//! IPv4 options (RFC 791 section 3.1) that no border lets through (RFC 7126 sections 4.3 to 4.6): record route and timestamp show
//! outside what the cluster's routers write into them, source routes choose the way through the cluster. And which of the others a
//! fragment has.

use core::hint::black_box;

use gateway_common::csum::Sum;
use gateway_common::verdict::Verdict;
use gateway_common::wire::ipv4;

use super::packet::Packet;
use super::{Frame, Outcome, Step};

/// Refuses a packet with such an option. Called for packets that would be ours only, and looks only where there are options.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse<F: Frame>(frame: &F, packet: &Packet) -> Step<()> {
    if packet.header.header_len() > ipv4::HEADER_LEN && tells_the_way(frame, packet) {
        Err(Outcome::drop(Verdict::DropIpOption))
    } else {
        Ok(())
    }
}

/// Whether there is such an option. A function of its own: rare.
#[inline(never)]
fn tells_the_way<F: Frame>(frame: &F, packet: &Packet) -> bool {
    any(frame, packet, |kind, _at, _len| tells(kind))
}

/// Whether a router on the way writes its address into an option of a kind, or reads its next hop from it.
#[inline(always)]
const fn tells(kind: u8) -> bool {
    matches!(kind, ipv4::OPTION_RECORD_ROUTE | ipv4::OPTION_TIMESTAMP | ipv4::OPTION_LSRR | ipv4::OPTION_SSRR)
}

/// The bytes of options that only a packet's first fragment has (RFC 791 section 3.1): bit 0 is the first byte's. A function of its
/// own: rare.
#[inline(never)]
pub(super) fn not_copied<F: Frame>(frame: &F, packet: &Packet) -> u64 {
    let mut bytes = 0;
    any(frame, packet, |kind, at, len| {
        if kind & ipv4::OPTION_COPIED == 0 {
            bytes |= ((1_u64 << len) - 1) << at;
        }
        false
    });
    bytes
}

/// Makes no operations of the `bytes` told, so that the header is as long as before. By how much the sum of them changes. A function
/// of its own, without a branch on a byte: Linux 6.1 would follow each of 2^40 ways.
#[inline(never)]
pub(super) fn take_out(options: &mut [u8; ipv4::MAX_OPTIONS], bytes: u64) -> Sum {
    let mut change = Sum::ZERO;
    for (at, byte) in options.iter_mut().enumerate() {
        let taken = black_box(0_u64.wrapping_sub(bytes >> at & 1)) as u8;
        let (from, to) = (*byte, *byte & !taken | ipv4::OPTION_NOP & taken);
        *byte = to;
        let shift = 8 - at % 2 * 8;
        change = change.without(u16::from(from) << shift).word(u16::from(to) << shift);
    }
    change
}

/// Whether `found` says so of one of the options, which it is told kind, offset in the options, and length of. No operations
/// are none. What is behind a malformed one is nobody's to read.
#[inline(always)]
fn any<F: Frame>(frame: &F, packet: &Packet, mut found: impl FnMut(u8, usize, usize) -> bool) -> bool {
    let (start, end) = (packet.ip + ipv4::HEADER_LEN, packet.l4());
    let mut at = start;
    for _ in 0..ipv4::MAX_OPTIONS {
        // The last byte alone is no option that says anything.
        if at + 2 > end {
            return false;
        }
        at += match frame.load(at) {
            Some([ipv4::OPTION_NOP, _]) => 1,
            Some([ipv4::OPTION_END, _] | [_, 0 | 1]) | None => return false,
            Some([kind, len]) if at + len as usize <= end => {
                if found(kind, at - start, len as usize) {
                    return true;
                }
                len as usize
            }
            Some(_) => return false,
        };
    }
    false
}
