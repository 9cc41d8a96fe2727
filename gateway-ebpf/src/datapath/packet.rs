//! Reading the start of a frame: Ethernet, IPv4 and what of L4 the datapath needs.

use gateway_common::verdict::Verdict;
use gateway_common::wire::{eth, ipv4, l4};

use super::{Frame, Outcome, Step};

/// The IPv4 packet at offset `ip` of a frame, known to lie wholly in it.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    /// Offset of the IPv4 header.
    pub(super) ip: usize,
    /// The IPv4 header's first 20 bytes.
    pub(super) header: ipv4::Header,
}

/// The frame's Ethernet header.
#[inline(always)]
pub(super) fn ethernet<F: Frame>(frame: &F) -> Step<eth::Header> {
    match frame.load(0) {
        Some(bytes) => Ok(eth::Header::parse(&bytes)),
        None => Err(Outcome::drop(Verdict::DropMalformed)),
    }
}

impl Packet {
    /// Reads the IPv4 header at `ip`.
    #[inline(always)]
    pub(super) fn at<F: Frame>(frame: &F, ip: usize) -> Step<Self> {
        let header = match frame.load(ip) {
            Some(bytes) => ipv4::Header(bytes),
            None => return Err(Outcome::drop(Verdict::DropMalformed)),
        };
        if header.is_sound(frame.frame_len().saturating_sub(ip as u32)) {
            Ok(Self { ip, header })
        } else {
            Err(Outcome::drop(Verdict::DropMalformed))
        }
    }

    /// Reads the IPv4 header behind the Ethernet header: as [`Self::at`], but by a function of its own, so that the header
    /// stays in one piece of memory and not in a register a byte.
    #[inline(always)]
    pub(super) fn behind_ethernet<F: Frame>(frame: &F) -> Step<Self> {
        let mut packet = Self { ip: eth::HEADER_LEN, header: ipv4::Header([0; ipv4::HEADER_LEN]) };
        if read(frame, &mut packet) { Ok(packet) } else { Err(Outcome::drop(Verdict::DropMalformed)) }
    }

    /// Offset of what follows the IPv4 header.
    #[inline(always)]
    pub(super) const fn l4(&self) -> usize {
        self.ip + self.header.header_len()
    }

    /// The pseudo-header checksum that this packet carries, `None` when its protocol has none or the L4 header is
    /// in another fragment.
    #[inline(always)]
    pub(super) const fn checksum(&self) -> Option<l4::Checksum> {
        if self.header.is_later_fragment() { None } else { l4::Checksum::of(self.header.protocol()) }
    }

    /// Length of the frame that holds nothing but this packet, bytes.
    #[inline(always)]
    pub(super) const fn frame_len(&self) -> u32 {
        self.ip as u32 + self.header.total_len() as u32
    }

    /// Cuts what lies behind the packet: Ethernet padding, which must not travel into a tunnel.
    #[inline(always)]
    pub(super) fn trim<F: Frame>(&self, frame: &mut F) -> Step<()> {
        if frame.frame_len() > self.frame_len() && frame.truncate(self.frame_len()).is_none() {
            return Err(Outcome::drop(Verdict::DropNoRoom));
        }
        Ok(())
    }
}

/// Reads the header of `packet`, whose offset is set.
#[inline(never)]
fn read<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    Packet::at(frame, packet.ip).map(|read| *packet = read).is_ok()
}
