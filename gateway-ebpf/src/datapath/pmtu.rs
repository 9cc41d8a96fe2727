//! Path MTU: what is too long for the next hop, and clamping the TCP maximum segment size to what the tunnel carries
//! (RFC 9293 section 3.7.1).

use gateway_common::tables::{CONFIG_KEEP_MSS, Config};
use gateway_common::verdict::Verdict;
use gateway_common::wire::icmp::RouterError;
use gateway_common::wire::{ipv4, l4};

use super::packet::Packet;
use super::{Frame, L4Change, Outcome, Step};

/// Options looked at before an MSS option is given up on. Real stacks send it first.
const MAX_OPTIONS: usize = 12;
/// Headers of a segment without options.
const HEADERS: u32 = (ipv4::HEADER_LEN + l4::TCP_LEN) as u32;

/// How a packet fits a next hop. Without data, so that it travels in a register.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Fit {
    /// It does.
    Fits,
    /// It is too long, and its sender wants to know (DF).
    Report,
    /// It is too long, and may be fragmented.
    Fragment,
}

/// How the packet fits a next hop of `mtu` bytes. The segments of a GSO packet are the kernel's to size.
#[inline(always)]
pub(super) fn fit<F: Frame>(frame: &F, packet: &Packet, mtu: u32) -> Fit {
    if u32::from(packet.header.total_len()) <= mtu || frame.segments() > 1 {
        Fit::Fits
    } else if packet.header.dont_fragment() {
        Fit::Report
    } else {
        Fit::Fragment
    }
}

/// What the sender of a packet too long for `mtu` bytes is told.
///
/// # Errors
/// Nothing: no link has such an MTU.
#[inline(always)]
pub(super) fn too_long(mtu: u32) -> Step<RouterError> {
    match RouterError::fragmentation_needed(mtu) {
        Some(error) => Ok(error),
        None => Err(Outcome::drop(Verdict::DropTooBig)),
    }
}

/// Lowers the MSS option of a SYN to what fits in the tunnel, unless that is switched off; never raises it.
#[inline(always)]
pub(super) fn clamp_mss<F: Frame>(frame: &mut F, packet: &Packet, config: &Config) {
    if config.flags & CONFIG_KEEP_MSS == 0
        && packet.header.protocol() == ipv4::TCP
        && !packet.header.is_later_fragment()
    {
        let limit = config.tunnel_mtu.saturating_sub(HEADERS).min(u16::MAX as u32) as u16;
        match frame.load(packet.l4() + l4::TCP_FLAGS - 1) {
            // A segment too short for its own header is the receiver's to find.
            Some([data_offset, flags]) if flags & l4::TCP_SYN != 0 => {
                clamp(frame, packet.l4(), (data_offset >> 4) as usize * 4, limit);
            }
            Some(_) | None => {}
        }
    }
}

/// Whether anything was lowered. A function of its own: only for a SYN.
#[inline(never)]
fn clamp<F: Frame>(frame: &mut F, tcp: usize, header_len: usize, limit: u16) -> bool {
    search(frame, tcp, header_len, limit).is_some()
}

#[inline(always)]
fn search<F: Frame>(frame: &mut F, tcp: usize, header_len: usize, limit: u16) -> Option<()> {
    let mut at = l4::TCP_LEN;
    for _ in 0..MAX_OPTIONS {
        if at + 4 > header_len {
            return None;
        }
        let [kind, len, m0, m1] = frame.load(tcp + at)?;
        match kind {
            l4::OPTION_MSS if len == 4 => return lower(frame, tcp, at, [kind, len, m0, m1], limit),
            l4::OPTION_END => return None,
            l4::OPTION_NOP => at += 1,
            _ if len < 2 => return None,
            _ => at += len as usize,
        }
    }
    None
}

#[inline(always)]
fn lower<F: Frame>(frame: &mut F, tcp: usize, at: usize, option: [u8; 4], limit: u16) -> Option<()> {
    let [kind, len, m0, m1] = option;
    if u16::from_be_bytes([m0, m1]) <= limit {
        return None;
    }
    let [n0, n1] = limit.to_be_bytes();
    let to = [kind, len, n0, n1];
    frame.store(tcp + at, &to)?;
    // The sum is over 16-bit words: an option at an odd offset adds to it with its bytes swapped.
    let swapped = at % 2 == 1;
    let (from, to) = if swapped { ([len, kind, m1, m0], [len, kind, n1, n0]) } else { (option, to) };
    let checksum = tcp + 16;
    frame.update_l4_checksum(checksum, L4Change { from, to, pseudo_header: false, zero_is_none: false })
}
