//! `frame.h`, and how a packet's bytes are reached: as in C, by loads and stores of a field's width behind a check.
#![expect(unsafe_code, reason = "reads and writes packet memory behind the verifier's bounds checks")]

use core::ptr::copy_nonoverlapping;

use aya_ebpf::helpers::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;

pub(crate) const ETH_LEN: usize = 14;
pub(crate) const IP_LEN: usize = 20;
pub(crate) const TUNNEL_LEN: usize = ETH_LEN + IP_LEN + 8 + 8;

/// In an Ethernet frame with IPv4.
pub(crate) const ETHERTYPE_AT: usize = 12;
pub(crate) const IP_AT: usize = ETH_LEN;
pub(crate) const IP_CHECKSUM_AT: usize = IP_AT + 10;
pub(crate) const SOURCE_AT: usize = IP_AT + 12;
pub(crate) const DESTINATION_AT: usize = IP_AT + 16;
pub(crate) const L4_AT: usize = IP_AT + IP_LEN;
pub(crate) const TCP_CHECKSUM_AT: usize = L4_AT + 16;
pub(crate) const UDP_CHECKSUM_AT: usize = L4_AT + 6;

/// The bytes of a frame from some offset on.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// The whole frame, if it has so many bytes.
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext, len: usize) -> Option<Self> {
        let bytes = Self { start: ctx.data(), end: ctx.data_end() };
        bytes.holds(len).then_some(bytes)
    }

    /// What is behind the first `offset` bytes. Whoever made `self` has asked for what is there.
    #[inline(always)]
    pub(crate) fn behind(self, offset: usize) -> Self {
        Self { start: self.start + offset, ..self }
    }

    /// Whether there are so many bytes.
    #[inline(always)]
    pub(crate) fn holds(self, len: usize) -> bool {
        self.start + len <= self.end
    }

    /// A field. Whoever made `self` has asked for what is there.
    #[inline(always)]
    pub(crate) fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the verifier refuses a program that has not compared with the frame's end; integers only. Packets
        // are aligned to two bytes, and like the C path this asks the CPU for four at once.
        unsafe { *((self.start + offset) as *const T) }
    }

    /// Writes a field.
    #[inline(always)]
    pub(crate) fn set<T: Copy>(self, offset: usize, value: T) {
        // SAFETY: as in `get`.
        unsafe { *((self.start + offset) as *mut T) = value }
    }

    /// Copies bytes from elsewhere. An assignment would have LLVM allow for an overlap, and call `memmove`: 10 ns for a MAC.
    #[inline(always)]
    pub(crate) fn copy<const N: usize>(self, offset: usize, from: &[u8; N]) {
        let to = (self.start + offset) as *mut [u8; N];
        // SAFETY: as in `get`; nothing that is copied from lies in a packet.
        unsafe { copy_nonoverlapping(from, to, 1) }
    }
}

/// Moves the frame's start; packet pointers are good no more.
#[inline(always)]
pub(crate) fn adjust_head(ctx: &XdpContext, change: i32) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, change) == 0 }
}

/// A one's-complement sum folded to 16 bits (RFC 1071).
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Carries `change`, a sum of words new minus old, into a checksum field (RFC 1624, equation 3).
#[inline(always)]
pub(crate) fn carried(field: u16, change: u32) -> u16 {
    !fold(u32::from(!field) + change)
}

/// The low and the high word of an address, added.
#[inline(always)]
pub(crate) fn words(address: u32) -> u32 {
    u32::from(address as u16) + (address >> 16)
}

/// The change of a sum when one address becomes another. In network order throughout: the sum does not mind.
#[inline(always)]
pub(crate) fn difference(from: u32, to: u32) -> u32 {
    words(!from) + words(to)
}
