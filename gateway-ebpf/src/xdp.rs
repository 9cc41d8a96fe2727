//! A frame in XDP: the only direct packet access.
#![expect(unsafe_code, reason = "reads and writes packet memory behind the verifier's bounds checks")]

use core::ffi::c_void;
use core::hint::black_box;

use aya_ebpf::helpers::{
    bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;
use gateway_common::csum;
use gateway_ebpf::datapath::{Frame, L4Change, Room, Way};

use crate::maps::TX_PORTS;

/// No offset into a frame is larger: the verifier wants to see a bound on variable ones.
const MAX_OFFSET: usize = 0x1ff;

/// The frame of an XDP program.
pub(crate) struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() { None } else { Some(start as *mut [u8; N]) }
    }
}

impl Frame for XdpFrame<'_> {
    const KERNEL_RESOLVES: bool = false;

    const IN_PLACE: bool = true;

    #[inline(always)]
    fn linear_len(&self) -> u32 {
        let mut len = self.ctx.data_end() as u64;
        // By name: else the compiler moves other constants into the subtraction, and the verifier knows the difference of
        // two packet pointers only.
        // SAFETY: a subtraction.
        unsafe {
            core::arch::asm!("{len} -= {data}", len = inout(reg) len, data = in(reg) self.ctx.data() as u64,
                options(pure, nomem, nostack));
        }
        len as u32
    }

    #[inline(always)]
    fn view<const N: usize>(&self) -> Option<&[u8; N]> {
        // SAFETY: `at` has checked that N bytes lie within the packet.
        self.at(0).map(|bytes| unsafe { &*bytes })
    }

    #[inline(always)]
    fn window<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        // SAFETY: `at` has checked that N bytes lie within the packet, and nobody else has the frame.
        self.at(0).map(|bytes| unsafe { &mut *bytes })
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the context is the kernel's.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as u32 }
    }

    #[inline(always)]
    fn in_pieces(&self) -> bool {
        self.ctx.data() + (self.frame_len() as usize) > self.ctx.data_end()
    }

    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn mark_as_tunnel(&mut self) {}

    #[inline(always)]
    fn unmark_as_tunnel(&mut self) -> bool {
        false
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that N bytes lie within the packet.
        self.at(offset).map(|bytes| unsafe { *bytes })
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: usize, len: usize, to: &mut [u8; N]) -> Option<()> {
        // A compiler that knows the length's bounds leaves the comparison out, and the verifiers of 6.1 and 6.12 do not
        // follow how it knows; that of 6.1 learns nothing from a comparison with zero, either.
        let last = black_box(len.wrapping_sub(1));
        if last >= N {
            return None;
        }
        let len = last + 1;
        // SAFETY: the context is the kernel's; `to` has room for `len` bytes.
        let result = unsafe {
            bpf_xdp_load_bytes(self.ctx.ctx, offset as u32, to.as_mut_ptr().cast::<c_void>(), len as u32)
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Option<()> {
        // SAFETY: `at` has checked that N bytes lie within the packet.
        self.at(offset).map(|to| unsafe { *to = *bytes })
    }

    #[inline(always)]
    fn grow_head(&mut self, room: Room) -> Option<()> {
        adjust_head(self.ctx, -(room.bytes() as i32))
    }

    #[inline(always)]
    fn shrink_head(&mut self, count: usize) -> Option<()> {
        adjust_head(self.ctx, count as i32)
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        let change = len as i32 - self.frame_len() as i32;
        // SAFETY: the context is the kernel's; packet pointers are read anew at each access.
        (unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, change) } == 0).then_some(())
    }

    #[inline(always)]
    fn repeat(&mut self, _: Way) -> Option<()> {
        None
    }

    #[inline(always)]
    fn update_l4_checksum(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let field = u16::from_be_bytes(self.load(offset)?);
        if change.zero_is_none && field == 0 {
            return Some(());
        }
        let updated = match csum::update(field, &change.from, &change.to) {
            0 if change.zero_is_none => 0xffff,
            updated => updated,
        };
        self.store(offset, &updated.to_be_bytes())
    }
}

#[inline(always)]
fn adjust_head(ctx: &XdpContext, change: i32) -> Option<()> {
    // SAFETY: the context is the kernel's; packet pointers are read anew at each access.
    (unsafe { bpf_xdp_adjust_head(ctx.ctx, change) } == 0).then_some(())
}

/// The interface the frame arrived on.
#[inline(always)]
pub(crate) fn arrived_on(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { (*ctx.ctx).ingress_ifindex }
}

/// Sends the frame out by `ifindex`. By `tx_ports` the kernel need not look for the interface; one that is not there is only slower.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> u32 {
    match TX_PORTS.redirect(ifindex, 0) {
        Ok(redirected) => redirected,
        // SAFETY: a helper without pointers.
        Err(_) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}
