//! What the datapath needs of the world: the bytes of one frame, and the tables.

use gateway_common::limit::Limited;
use gateway_common::tables::{Config, DirectEip, DirectNeighbor, DirectPod, Eip, Neighbor, Pod, Vtep};
use gateway_common::verdict::Verdict;
use gateway_common::wire::{geneve, icmp, ipv4};

/// The bytes of one Ethernet frame.
///
/// Offsets count from the Ethernet header. Every access is checked: `None` means the frame is shorter, or the
/// kernel refused to change its size.
pub trait Frame {
    /// Whether the engine can let the kernel resolve a next hop ([`super::Exit::RedirectNeighbor`]): TC can.
    const KERNEL_RESOLVES: bool;

    /// Whether the fast path may write the frame's bytes in place. An skb may share them with others, and knows sums of them.
    const IN_PLACE: bool;

    /// Length of the frame's first part, which is all of it but for a jumbo frame, bytes. Asked of an engine that is
    /// [in place](Self::IN_PLACE) only.
    fn linear_len(&self) -> u32;

    /// The first `N` bytes, to be read in place; `None` when the first part is shorter.
    fn view<const N: usize>(&self) -> Option<&[u8; N]>;

    /// The first `N` bytes in place; `None` when the first part is shorter, or the engine is not in place.
    fn window<const N: usize>(&mut self) -> Option<&mut [u8; N]>;

    /// Length of the frame, bytes.
    fn frame_len(&self) -> u32;

    /// Whether the frame lies in more than one buffer, which not every NIC takes from XDP. Only asked of XDP.
    fn in_pieces(&self) -> bool;

    /// Interface that the packet arrived on before the kernel routed it here, 0 for one that this node has made. Only asked of
    /// frames that [leave](Way::Leaving).
    fn arrived_on(&self) -> u32;

    /// Marks a frame that this node's tunnel has made of a packet that [arrived](Self::arrived_on) from a pod. Only TC can,
    /// and has to.
    fn mark_as_tunnel(&mut self);

    /// Takes the mark of [`Self::mark_as_tunnel`] off. Whether it was there.
    fn unmark_as_tunnel(&mut self) -> bool;

    /// Packets the frame will be on the wire: more than one for a GSO packet.
    fn segments(&self) -> u32;

    /// `N` bytes at `offset`; two at least, since the verifier does not see that one byte lies before the end.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Copies `len` bytes at `offset`, however far in, to the start of `to`. `None` also when `len` is 0 or over `N`.
    fn copy<const N: usize>(&self, offset: usize, len: usize, to: &mut [u8; N]) -> Option<()>;

    /// Writes `N` bytes at `offset`.
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Option<()>;

    /// Lengthens the frame at its head; the first bytes, as many as were added and 14 more, are undefined until
    /// written.
    fn grow_head(&mut self, room: Room) -> Option<()>;

    /// Takes `count` bytes away at the head; the first 14 bytes are undefined until written.
    fn shrink_head(&mut self, count: usize) -> Option<()>;

    /// Cuts the frame to `len` bytes.
    fn truncate(&mut self, len: u32) -> Option<()>;

    /// Has a copy of the frame come by again, here. Only asked of an engine that [resolves](Self::KERNEL_RESOLVES).
    fn repeat(&mut self, way: Way) -> Option<()>;

    /// Carries a change into an L4 checksum that covers it (RFC 1624). A method of the frame, since an skb may hold
    /// a checksum that the NIC has yet to complete: then one of bytes behind the pseudo-header changes nothing.
    fn update_l4_checksum(&mut self, offset: usize, change: L4Change) -> Option<()>;
}

/// Which way a frame passes its interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It has arrived there.
    Arriving,
    /// It leaves by it.
    Leaving,
}

/// What room at the head of a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The tunnel's headers: an skb notes where the inner packet starts, so that the kernel can segment it.
    Tunnel,
    /// The IPv4 and ICMP headers of an error.
    IcmpError,
    /// The longest IPv4 header and more, which were there before.
    Again,
}

impl Room {
    /// Its size, bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Tunnel => geneve::OVERHEAD,
            Self::IcmpError => ipv4::HEADER_LEN + icmp::HEADER_LEN,
            // With the Ethernet header a multiple of eight.
            Self::Again => ipv4::HEADER_LEN + ipv4::MAX_OPTIONS + 6,
        }
    }
}

/// A change of four bytes under an L4 checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct L4Change {
    /// The bytes before.
    pub from: [u8; 4],
    /// The bytes after.
    pub to: [u8; 4],
    /// The bytes are part of the pseudo-header, not of the segment.
    pub pseudo_header: bool,
    /// A checksum field of zero means that none was computed, and stays.
    pub zero_is_none: bool,
}

/// Which way a packet goes, seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To the pod.
    In,
    /// From the pod.
    Out,
}

/// The tables. Addresses are network-order bytes.
pub trait Env {
    /// Row 0 of `config`.
    fn config(&self) -> Option<&Config>;
    /// Row of `eips`.
    fn eip(&self, eip: [u8; 4]) -> Option<&Eip>;
    /// Row of `pods`.
    fn pod(&self, pod_ip: [u8; 4]) -> Option<&Pod>;
    /// Row of `vteps`.
    fn vtep(&self, vtep: [u8; 4]) -> Option<&Vtep>;
    /// Row of `neighbors`.
    fn neighbor(&self, addr: [u8; 4]) -> Option<&Neighbor>;
    /// Whether `internal` has a prefix that contains the address.
    fn is_internal(&self, addr: [u8; 4]) -> bool;
    /// A row of `direct_eips`.
    fn direct_eip(&self, row: u32) -> Option<&DirectEip>;
    /// A row of `direct_pods`.
    fn direct_pod(&self, row: u32) -> Option<&DirectPod>;
    /// A row of `direct_neighbors`.
    fn direct_neighbor(&self, row: u32) -> Option<&DirectNeighbor>;
    /// Takes `count` out of this CPU's budget of so many a second (0: no limit). Whether there were so many.
    fn take(&self, what: Limited, per_second: u32, count: u32) -> bool;
    /// Adds to a row of `verdicts`.
    fn count_verdict(&self, verdict: Verdict, packets: u32, bytes: u32);
    /// Says that an EIP of this slot is about to be counted, so that its row is on its way from memory. It need not be.
    fn expect_count(&self, slot: u32);
    /// Adds to a row of `eip_counters`.
    fn count_eip(&self, slot: u32, direction: Direction, packets: u32, bytes: u32);
}
