//! The pinned tables: names, keys and values, as the datapath reads and `bpftool map dump` shows them.
//!
//! Addresses, MACs and ports are network-order bytes; ifindexes, slots, flags, MTUs and counters are host order.
//! An unset address is 0.0.0.0. No `bool`, no `Option`, no padding that is not named.

use core::net::Ipv4Addr;

use crate::addr::Mac;
use crate::verdict::Verdict;

/// Directory of the pins.
pub const PIN_DIR: &str = "/sys/fs/bpf/eip-gateway";

/// Capacity of `eips` and `pods`, and number of slots in `eip_counters`.
pub const MAX_EIPS: u32 = 65_536;
/// Capacity of `vteps`.
pub const MAX_VTEPS: u32 = 16_384;
/// Capacity of `neighbors`.
pub const MAX_NEIGHBORS: u32 = 65_536;
/// Capacity of `internal`.
pub const MAX_INTERNAL: u32 = 16_384;
/// Capacity of `tx_ports`: a power of two.
pub const MAX_TX_PORTS: u32 = 64;
/// Rows of each direct table: a power of two.
pub const DIRECT_ROWS: u32 = 65_536;
/// Ranges of `config` that hold everything inside.
pub const INSIDE_RANGES: usize = 4;

/// The object's variable for the slots that each CPU has in `eip_counters`, a u32: [`MAX_EIPS`] unless the loader sets it.
pub const COUNTER_SLOTS: &str = "COUNTER_SLOTS";

/// Names of the tables: file names of the pins and names of the BPF maps.
pub mod name {
    /// [`super::EipKey`] → [`super::Eip`], hash.
    pub const EIPS: &str = "eips";
    /// [`super::PodKey`] → [`super::Pod`], hash.
    pub const PODS: &str = "pods";
    /// [`super::VtepKey`] → [`super::Vtep`], hash.
    pub const VTEPS: &str = "vteps";
    /// [`super::NeighborKey`] → [`super::Neighbor`], hash.
    pub const NEIGHBORS: &str = "neighbors";
    /// Prefix → [`super::Internal`], longest prefix match.
    pub const INTERNAL: &str = "internal";
    /// [`super::direct_row`] of an EIP → [`super::DirectEip`], array.
    pub const DIRECT_EIPS: &str = "direct_eips";
    /// [`super::direct_row`] of a pod's address → [`super::DirectPod`], array.
    pub const DIRECT_PODS: &str = "direct_pods";
    /// [`super::direct_row`] of a neighbor's address → [`super::DirectNeighbor`], array.
    pub const DIRECT_NEIGHBORS: &str = "direct_neighbors";
    /// Row 0 → [`super::Config`], array.
    pub const CONFIG: &str = "config";
    /// [`super::counter_row`] → [`super::EipCounter`], array.
    pub const EIP_COUNTERS: &str = "eip_counters";
    /// [`crate::verdict::Verdict::row`] → [`super::VerdictCounter`], per-CPU array.
    pub const VERDICTS: &str = "verdicts";
    /// [`crate::limit::Limited::row`] → [`super::Budget`], per-CPU array.
    pub const BUDGETS: &str = "budgets";
    /// An interface's index → the interface (the kernel's `bpf_devmap_val`), devmap hash: those that XDP sends by.
    pub const TX_PORTS: &str = "tx_ports";
    /// All of them.
    pub const ALL: [&str; 13] = [
        EIPS,
        PODS,
        VTEPS,
        NEIGHBORS,
        INTERNAL,
        DIRECT_EIPS,
        DIRECT_PODS,
        DIRECT_NEIGHBORS,
        CONFIG,
        EIP_COUNTERS,
        VERDICTS,
        BUDGETS,
        TX_PORTS,
    ];
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            const _: () = assert!(size_of::<$name>() == $size);
            const _: () = assert!($size == 0 $(+ size_of::<$type>())*, "no padding");

            #[cfg(feature = "user")]
            #[expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]
            // SAFETY: repr(C), Copy, integers and byte arrays only, and no padding (asserted above).
            unsafe impl aya::Pod for $name {}
        )*
    };
}

rows! {
    /// Key of `eips`.
    EipKey = 4 {
        /// The EIP.
        eip: [u8; 4],
    }
    /// Value of `eips`: where an EIP's pod is.
    Eip = 16 {
        /// Address of the pod.
        pod_ip: [u8; 4],
        /// Tunnel endpoint of the pod's node; 0.0.0.0 for this node.
        vtep: [u8; 4],
        /// Slot in `eip_counters`.
        slot: u32,
        /// Reserved, zero.
        flags: u32,
    }
    /// Key of `pods`.
    PodKey = 4 {
        /// Address of the pod.
        pod_ip: [u8; 4],
    }
    /// Value of `pods`: what an EIP pod's traffic leaves with.
    Pod = 20 {
        /// The pod's EIP.
        eip: [u8; 4],
        /// Tunnel endpoint of the pod's node; 0.0.0.0 for this node.
        vtep: [u8; 4],
        /// Tunnel endpoint of the gateway; 0.0.0.0 when this node is the gateway.
        gateway: [u8; 4],
        /// Slot in `eip_counters`.
        slot: u32,
        /// Reserved, zero.
        flags: u32,
    }
    /// Key of `vteps`.
    VtepKey = 4 {
        /// Underlay address of a node.
        vtep: [u8; 4],
    }
    /// Value of `vteps`: a known node, and its next hop once resolved.
    Vtep = 20 {
        /// Interface towards the node.
        ifindex: u32,
        /// `VTEP_*` flags.
        flags: u32,
        /// Source MAC of frames to the node.
        source_mac: [u8; 6],
        /// Destination MAC of frames to the node.
        destination_mac: [u8; 6],
    }
    /// Key of `neighbors`.
    NeighborKey = 4 {
        /// Address of a host on the external network.
        addr: [u8; 4],
    }
    /// Value of `neighbors`.
    Neighbor = 8 {
        /// Its MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: [u8; 2],
    }
    /// Value of `internal`.
    Internal = 4 {
        /// One; the prefix is the information.
        present: u32,
    }
    /// Row of `direct_eips`: an EIP with its next hop, as the fast path takes it.
    DirectEip = 32 {
        /// The EIP; 0.0.0.0 in a row without one.
        eip: [u8; 4],
        /// Address of the pod.
        pod_ip: [u8; 4],
        /// Tunnel endpoint of the pod's node.
        vtep: [u8; 4],
        /// Slot in `eip_counters`.
        slot: u32,
        /// Interface towards the node; 0 when the fast path cannot send there: no next hop is known, or it is this node.
        ifindex: u32,
        /// Destination MAC of frames to the node.
        destination_mac: [u8; 6],
        /// Source MAC of frames to the node.
        source_mac: [u8; 6],
    }
    /// Row of `direct_pods`: an EIP pod, as the fast path takes it.
    DirectPod = 20 {
        /// Address of the pod; 0.0.0.0 in a row without one.
        pod_ip: [u8; 4],
        /// The pod's EIP.
        eip: [u8; 4],
        /// Tunnel endpoint of the pod's node, a known one; 0.0.0.0 for this node.
        vtep: [u8; 4],
        /// Tunnel endpoint of the gateway, known as one; else 0.0.0.0.
        gateway: [u8; 4],
        /// Slot in `eip_counters`.
        slot: u32,
    }
    /// Row of `direct_neighbors`.
    DirectNeighbor = 12 {
        /// Address of a host on the external network; 0.0.0.0 in a row without one.
        addr: [u8; 4],
        /// Its MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: [u8; 2],
    }
    /// Row 0 of `config`: what the datapath needs to know of this node.
    Config = 104 {
        /// [`crate::ABI_VERSION`] of the agent that wrote it; the datapath passes everything when it differs.
        abi: u32,
        /// `CONFIG_*` flags.
        flags: u32,
        /// External NIC; 0 when there is none.
        external_ifindex: u32,
        /// Router port; 0 when there is none.
        router_port_ifindex: u32,
        /// Underlay NIC.
        underlay_ifindex: u32,
        /// Virtual network identifier, 24 bits.
        vni: u32,
        /// Longest inner IPv4 packet the tunnel carries, bytes.
        tunnel_mtu: u32,
        /// MTU of the external NIC, bytes.
        external_mtu: u32,
        /// This node's tunnel endpoint.
        local_vtep: [u8; 4],
        /// The router port's address.
        nic_ip: [u8; 4],
        /// Network of the external subnet.
        external_network: [u8; 4],
        /// Netmask of the external subnet.
        external_netmask: [u8; 4],
        /// The physical gateway.
        physical_gateway: [u8; 4],
        /// The router port's MAC.
        nic_mac: [u8; 6],
        /// UDP port of the tunnel, network-order bytes.
        geneve_port: [u8; 2],
        /// ICMP errors of each kind that a CPU sends in a second at most; 0 for no limit.
        errors_per_second: u32,
        /// Packets that a CPU gives the kernel in a second to resolve a next hop, and copies that it makes to cut fragments of
        /// them, at most; 0 for no limit.
        slow_path_per_second: u32,
        /// Rows of each direct table minus one.
        direct_mask: u32,
        /// Networks of the ranges that hold everything inside, see [`crate::inside`]: who sends from none of them is outside.
        inside_networks: [[u8; 4]; INSIDE_RANGES],
        /// Their netmasks.
        inside_netmasks: [[u8; 4]; INSIDE_RANGES],
    }
    /// Row of `eip_counters`: what a CPU counted in a slot. Bytes are those of the inner frame, Ethernet header included. As long
    /// as a cache line, so that counting is one miss at most, and no CPU waits for another's.
    EipCounter = 64 {
        /// Packets to the pod.
        in_packets: u64,
        /// Bytes to the pod.
        in_bytes: u64,
        /// Packets from the pod.
        out_packets: u64,
        /// Bytes from the pod.
        out_bytes: u64,
        /// CLOCK_MONOTONIC_COARSE of the last packet, nanoseconds, good to a few milliseconds; 0 for never.
        last_seen_ns: u64,
        /// Zero.
        reserved: [u64; 3],
    }
    /// Row of `verdicts`, one per CPU. Bytes are those of the frame as it arrived at the hook.
    VerdictCounter = 16 {
        /// Packets (segments of a GSO packet counted one by one).
        packets: u64,
        /// Bytes.
        bytes: u64,
    }
    /// Row of `budgets`, one per CPU: see [`crate::limit`].
    Budget = 8 {
        /// CLOCK_MONOTONIC_COARSE up to which the CPU's budget is spent, nanoseconds.
        spent_until_ns: u64,
    }
}

/// `Vtep::flags`: the next hop is resolved.
pub const VTEP_RESOLVED: u32 = 1;
/// `Vtep::flags`: the node is a gateway; only gateways may send to pods.
pub const VTEP_GATEWAY: u32 = 2;
/// `Config::flags`: this node owns the external network: it answers ARP and has the router port.
pub const CONFIG_OWNER: u32 = 1;
/// `Config::flags`: XDP may redirect to the external NIC. Without it the kernel would drop what native XDP sends there
/// (no `ndo_xdp_xmit`), so the TC twin sends it.
pub const CONFIG_XDP_TO_EXTERNAL: u32 = 2;
/// `Config::flags`: XDP may redirect to the underlay NIC.
pub const CONFIG_XDP_TO_UNDERLAY: u32 = 4;
/// `Config::flags`: XDP may redirect a frame of several buffers, as jumbo frames are, to the external NIC. The kernel drops
/// it where the driver cannot (no `NETDEV_XDP_ACT_NDO_XMIT_SG`), before 6.3 anywhere; the TC twin sends it.
pub const CONFIG_XDP_PIECES_TO_EXTERNAL: u32 = 16;
/// `Config::flags`: XDP may redirect a frame of several buffers to the underlay NIC.
pub const CONFIG_XDP_PIECES_TO_UNDERLAY: u32 = 32;
/// `Config::flags`: the MSS option of a SYN stays as it is; path MTU discovery alone finds what fits. Clear in what an agent
/// that does not know it writes.
pub const CONFIG_KEEP_MSS: u32 = 8;
/// `Config::flags`: every EIP is in `direct_eips`: an address that is not, is none.
pub const CONFIG_ALL_EIPS_DIRECT: u32 = 64;
/// `Config::flags`: every EIP pod is in `direct_pods`: an address that is not, is none of one.
pub const CONFIG_ALL_PODS_DIRECT: u32 = 128;
/// `Config::flags`: what comes from outside for an address that is inside is the kernel's to route (`nic-ip-open`).
pub const CONFIG_OPEN: u32 = 256;

/// Row of an address in a direct table: its low bits. Where two want one row, the fast path knows the lower address only;
/// the other's packets go by `eips`, `pods` and `neighbors`. Addresses of one /16 never meet.
#[inline(always)]
pub const fn direct_row(addr: [u8; 4], mask: u32) -> u32 {
    u32::from_be_bytes(addr) & mask
}

/// Row in `eip_counters` of a CPU's slot, where each CPU has so many; all rows are as many as those before the CPU that is not
/// there. A plain array: the kernel's per-CPU arrays keep each row behind a pointer, which is one miss more.
#[inline(always)]
pub const fn counter_row(slots: u32, cpu: u32, slot: u32) -> u32 {
    cpu.wrapping_mul(slots).wrapping_add(slot)
}

impl Eip {
    /// The pod's node, `None` for this one.
    pub fn node(&self) -> Option<Ipv4Addr> {
        set(self.vtep)
    }
}

impl Pod {
    /// The pod's node, `None` for this one.
    pub fn node(&self) -> Option<Ipv4Addr> {
        set(self.vtep)
    }

    /// The gateway its traffic leaves by, `None` for this node.
    pub fn via(&self) -> Option<Ipv4Addr> {
        set(self.gateway)
    }
}

impl Vtep {
    /// A known node without a next hop yet.
    pub const fn unresolved(flags: u32) -> Self {
        Self { ifindex: 0, flags, source_mac: [0; 6], destination_mac: [0; 6] }
    }

    /// A known node and how to reach it.
    pub const fn resolved(flags: u32, ifindex: u32, source: Mac, destination: Mac) -> Self {
        Self { ifindex, flags: flags | VTEP_RESOLVED, source_mac: source.0, destination_mac: destination.0 }
    }
}

impl VerdictCounter {
    /// The sum of the CPUs' rows.
    pub fn total<'a>(per_cpu: impl IntoIterator<Item = &'a Self>) -> Self {
        per_cpu.into_iter().fold(Self::default(), |sum, cpu| Self {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
        })
    }
}

impl EipCounter {
    /// The sum of the CPUs' rows, and the latest of their last-seen times.
    pub fn total<'a>(per_cpu: impl IntoIterator<Item = &'a Self>) -> Self {
        per_cpu.into_iter().fold(Self::default(), |sum, cpu| Self {
            in_packets: sum.in_packets + cpu.in_packets,
            in_bytes: sum.in_bytes + cpu.in_bytes,
            out_packets: sum.out_packets + cpu.out_packets,
            out_bytes: sum.out_bytes + cpu.out_bytes,
            last_seen_ns: sum.last_seen_ns.max(cpu.last_seen_ns),
            reserved: [0; 3],
        })
    }
}

/// Rows of the `verdicts` table.
pub const VERDICT_ROWS: u32 = Verdict::COUNT as u32;

fn set(addr: [u8; 4]) -> Option<Ipv4Addr> {
    (addr != [0; 4]).then(|| Ipv4Addr::from(addr))
}
