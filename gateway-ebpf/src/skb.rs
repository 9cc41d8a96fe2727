//! A frame in TC: an skb, reached through the kernel's helpers, which know of partial checksums and fragments.
#![expect(unsafe_code, reason = "calls helpers on the kernel's skb")]

use core::ffi::c_void;
use core::hint::black_box;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use gateway_common::wire::eth;
use gateway_ebpf::datapath::{Frame, L4Change, Room, Way};

/// `enum bpf_adj_room_mode`: room between the Ethernet header and the network header.
const ADJ_ROOM_MAC: u32 = 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L2(len)`: the inner Ethernet header's length, in the top byte of the flags.
const ADJ_ROOM_ENCAP_L2_SHIFT: u64 = 56;
/// Flags of a Geneve encapsulation, by which the kernel can segment a GSO packet. The segment size stays: the route
/// into the tunnel has its MTU, so that the kernel has sized the segments for it already.
const ADJ_ROOM_TUNNEL: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | (eth::HEADER_LEN as u64) << ADJ_ROOM_ENCAP_L2_SHIFT;
/// `skb->mark` of [`Frame::mark_as_tunnel`]. A pod cannot set it: the kernel clears the mark where a packet leaves a network
/// namespace.
const TUNNEL_MARK: u32 = u32::from_be_bytes(*b"eipt");
/// Address family of IPv4.
const AF_INET: u32 = 2;

/// Aligned, so that BPF moves it by words: else each byte takes a register, that is, eight bytes of the stack.
#[repr(align(8))]
struct Aligned<T>(T);

/// The frame of a TC classifier.
pub(crate) struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    /// Sends the frame out by the interface it is on.
    #[inline(always)]
    pub(crate) fn reflect(&self) -> i32 {
        // SAFETY: the skb is the kernel's.
        self.redirect(unsafe { (*self.skb).ifindex })
    }

    /// Sends the frame out by `ifindex`.
    #[inline(always)]
    pub(crate) fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Has the frame received by `ifindex`.
    #[inline(always)]
    pub(crate) fn inject(&self, ifindex: u32) -> i32 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_redirect(ifindex, BPF_F_INGRESS as u64) as i32 }
    }

    /// Sends the packet out by `ifindex` to a next hop the kernel resolves; 0.0.0.0: by its route.
    #[inline(always)]
    pub(crate) fn redirect_neighbor(&self, ifindex: u32, next_hop: [u8; 4]) -> i32 {
        if next_hop == [0; 4] {
            // SAFETY: no params: the kernel routes by the packet's destination.
            return unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 };
        }
        let mut params = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: [u32::from_ne_bytes(next_hop), 0, 0, 0],
            },
        };
        // SAFETY: params is valid for its size.
        unsafe { bpf_redirect_neigh(ifindex, &mut params, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
    }

    #[inline(always)]
    fn adjust_room(&self, change: i32, flags: u64) -> Option<()> {
        // SAFETY: the skb is the kernel's.
        (unsafe { bpf_skb_adjust_room(self.skb, change, ADJ_ROOM_MAC, flags) } == 0).then_some(())
    }
}

impl Frame for SkbFrame {
    const KERNEL_RESOLVES: bool = true;

    const IN_PLACE: bool = false;

    #[inline(always)]
    fn linear_len(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn view<const N: usize>(&self) -> Option<&[u8; N]> {
        // SAFETY: the skb is the kernel's, which has set both.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if start + N > end {
            return None;
        }
        // SAFETY: N bytes lie within the packet's first part.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn window<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        None
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the skb is the kernel's.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn in_pieces(&self) -> bool {
        false
    }

    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        // SAFETY: the skb is the kernel's.
        unsafe { (*self.skb).ingress_ifindex }
    }

    #[inline(always)]
    fn mark_as_tunnel(&mut self) {
        // SAFETY: the skb is the kernel's.
        unsafe { (*self.skb).mark = TUNNEL_MARK };
    }

    #[inline(always)]
    fn unmark_as_tunnel(&mut self) -> bool {
        // SAFETY: the skb is the kernel's.
        let mark = unsafe { (*self.skb).mark };
        if mark == TUNNEL_MARK {
            // SAFETY: the skb is the kernel's.
            unsafe { (*self.skb).mark = 0 };
        }
        mark == TUNNEL_MARK
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the skb is the kernel's.
        let (size, count, len) = unsafe { ((*self.skb).gso_size, (*self.skb).gso_segs, (*self.skb).len) };
        match (size, count) {
            (0, _) => 1,
            // A guest's GSO packet is not counted by the kernel before it is segmented.
            (size, 0) => len / size + 1,
            (_, count) => count,
        }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = Aligned(MaybeUninit::<[u8; N]>::uninit());
        // SAFETY: the buffer is N bytes long.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset as u32,
                bytes.0.as_mut_ptr().cast::<c_void>(),
                N as u32,
            )
        };
        // SAFETY: the helper has filled the buffer, or with an error zeroed it. Read on both ways out: a value that is
        // undefined on one of them may be given a pointer's register, which the verifier then sees spilled.
        let bytes = unsafe { bytes.0.assume_init() };
        (result == 0).then_some(bytes)
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
        // SAFETY: `to` has room for `len` bytes.
        let result = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset as u32, to.as_mut_ptr().cast::<c_void>(), len as u32)
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Option<()> {
        // SAFETY: the buffer is N bytes long.
        let result = unsafe {
            bpf_skb_store_bytes(self.skb, offset as u32, bytes.as_ptr().cast::<c_void>(), N as u32, 0)
        };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn grow_head(&mut self, room: Room) -> Option<()> {
        match room {
            Room::Tunnel => self.adjust_room(room.bytes() as i32, ADJ_ROOM_TUNNEL),
            Room::IcmpError | Room::Again => self.adjust_room(room.bytes() as i32, 0),
        }
    }

    #[inline(always)]
    fn shrink_head(&mut self, count: usize) -> Option<()> {
        self.adjust_room(-(count as i32), 0)
    }

    #[inline(always)]
    fn truncate(&mut self, len: u32) -> Option<()> {
        // SAFETY: the skb is the kernel's.
        (unsafe { bpf_skb_change_tail(self.skb, len, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn repeat(&mut self, way: Way) -> Option<()> {
        let flags = match way {
            Way::Arriving => BPF_F_INGRESS as u64,
            Way::Leaving => 0,
        };
        // SAFETY: the skb is the kernel's.
        let result = unsafe { bpf_clone_redirect(self.skb, (*self.skb).ifindex, flags) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn update_l4_checksum(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let pseudo = if change.pseudo_header { BPF_F_PSEUDO_HDR as u64 } else { 0 };
        let mangled = if change.zero_is_none { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let (from, to) = (u32::from_ne_bytes(change.from) as u64, u32::from_ne_bytes(change.to) as u64);
        // SAFETY: the skb is the kernel's; 4 is the size of what changed.
        let result = unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from, to, pseudo | mangled | 4) };
        (result == 0).then_some(())
    }
}
