//! The tables: the only statics, and the datapath's view of them.
#![expect(unsafe_code, reason = "dereferences what the kernel's map look-ups return")]

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::btf_maps::{Array, DevMapHash, HashMap, PerCpuArray};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::btf_map;
use gateway_common::limit::{BUDGET_ROWS, Limited};
use gateway_common::tables::{
    Budget, Config, DIRECT_ROWS, DirectEip, DirectNeighbor, DirectPod, Eip, EipCounter, EipKey, Internal,
    MAX_EIPS, MAX_INTERNAL, MAX_NEIGHBORS, MAX_TX_PORTS, MAX_VTEPS, Neighbor, NeighborKey, Pod, PodKey,
    VERDICT_ROWS, VerdictCounter, Vtep, VtepKey, counter_row,
};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Direction, Env};

#[btf_map(name = "eips")]
static EIPS: HashMap<EipKey, Eip, { MAX_EIPS as usize }> = HashMap::new();
#[btf_map(name = "pods")]
static PODS: HashMap<PodKey, Pod, { MAX_EIPS as usize }> = HashMap::new();
#[btf_map(name = "vteps")]
static VTEPS: HashMap<VtepKey, Vtep, { MAX_VTEPS as usize }> = HashMap::new();
#[btf_map(name = "neighbors")]
static NEIGHBORS: HashMap<NeighborKey, Neighbor, { MAX_NEIGHBORS as usize }> = HashMap::new();
#[btf_map(name = "internal")]
static INTERNAL: LpmTrie<[u8; 4], Internal, { MAX_INTERNAL as usize }> = LpmTrie::new();
#[btf_map(name = "direct_eips")]
static DIRECT_EIPS: Array<DirectEip, { DIRECT_ROWS as usize }, PAGE_ALIGNED> = Array::new();
#[btf_map(name = "direct_pods")]
static DIRECT_PODS: Array<DirectPod, { DIRECT_ROWS as usize }> = Array::new();
#[btf_map(name = "direct_neighbors")]
static DIRECT_NEIGHBORS: Array<DirectNeighbor, { DIRECT_ROWS as usize }> = Array::new();
#[btf_map(name = "config")]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map(name = "eip_counters")]
static EIP_COUNTERS: Array<EipCounter, { MAX_EIPS as usize }, PAGE_ALIGNED> = Array::new();
#[btf_map(name = "clock")]
static CLOCK: PerCpuArray<Clock, 1> = PerCpuArray::new();
#[btf_map(name = "verdicts")]
static VERDICTS: PerCpuArray<VerdictCounter, { VERDICT_ROWS as usize }> = PerCpuArray::new();
#[btf_map(name = "budgets")]
static BUDGETS: PerCpuArray<Budget, { BUDGET_ROWS as usize }> = PerCpuArray::new();
#[btf_map(name = "tx_ports")]
pub(crate) static TX_PORTS: DevMapHash<{ MAX_TX_PORTS as usize }> = DevMapHash::new();

/// Rows that start at a page, so that none of a power of two of bytes straddles cache lines: Linux puts those there that
/// programs may map.
const PAGE_ALIGNED: usize = BPF_F_MMAPABLE as usize;

/// Slots that each CPU has in `eip_counters`. The loader may set it, and gives the table its rows.
#[unsafe(no_mangle)]
static COUNTER_SLOTS: u32 = MAX_EIPS;

/// This CPU's row of `eip_counters`.
#[inline(always)]
fn counter(slot: u32) -> Option<*mut EipCounter> {
    // SAFETY: a static of ours, read as it is when the program runs and not as it was when it was compiled; a helper without
    // pointers.
    let (slots, cpu) = unsafe { (read_volatile(addr_of!(COUNTER_SLOTS)), bpf_get_smp_processor_id()) };
    EIP_COUNTERS.get_ptr_mut(counter_row(slots, cpu, slot))
}

/// The coarse clock as this CPU last read it, and in which tick that was.
struct Clock {
    jiffies: u64,
    ns: u64,
}

/// CLOCK_MONOTONIC_COARSE, nanoseconds. It moves once a tick, so it is read once a tick: the number of the tick costs no call,
/// as the kernel puts a load in its place.
#[inline(always)]
fn now() -> u64 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's row; programs are not preempted by one another on it. Helpers without pointers.
    unsafe {
        let jiffies = bpf_jiffies64();
        if (*clock).jiffies != jiffies {
            (*clock).ns = bpf_ktime_get_coarse_ns();
            (*clock).jiffies = jiffies;
        }
        (*clock).ns
    }
}

/// The pinned tables. A row may be rewritten while it is read: addresses then mix for one packet, as they would had it
/// come a moment earlier or later.
pub(crate) struct Tables;

impl Env for Tables {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn eip(&self, eip: [u8; 4]) -> Option<&Eip> {
        // SAFETY: rows outlive the program run (RCU).
        unsafe { EIPS.get(EipKey { eip }) }
    }

    #[inline(always)]
    fn pod(&self, pod_ip: [u8; 4]) -> Option<&Pod> {
        // SAFETY: rows outlive the program run (RCU).
        unsafe { PODS.get(PodKey { pod_ip }) }
    }

    #[inline(always)]
    fn vtep(&self, vtep: [u8; 4]) -> Option<&Vtep> {
        // SAFETY: rows outlive the program run (RCU).
        unsafe { VTEPS.get(VtepKey { vtep }) }
    }

    #[inline(always)]
    fn neighbor(&self, addr: [u8; 4]) -> Option<&Neighbor> {
        // SAFETY: rows outlive the program run (RCU).
        unsafe { NEIGHBORS.get(NeighborKey { addr }) }
    }

    #[inline(always)]
    fn is_internal(&self, addr: [u8; 4]) -> bool {
        INTERNAL.get(&Key::new(32, addr)).is_some()
    }

    #[inline(always)]
    fn direct_eip(&self, row: u32) -> Option<&DirectEip> {
        DIRECT_EIPS.get(row)
    }

    #[inline(always)]
    fn direct_pod(&self, row: u32) -> Option<&DirectPod> {
        DIRECT_PODS.get(row)
    }

    #[inline(always)]
    fn direct_neighbor(&self, row: u32) -> Option<&DirectNeighbor> {
        DIRECT_NEIGHBORS.get(row)
    }

    #[inline(always)]
    fn take(&self, what: Limited, per_second: u32, count: u32) -> bool {
        let Some(row) = BUDGETS.get_ptr_mut(what.row()) else { return false };
        // SAFETY: this CPU's row; programs are not preempted by one another on it.
        unsafe { (*row).take(bpf_ktime_get_coarse_ns(), per_second, count) }
    }

    #[inline(always)]
    fn count_verdict(&self, verdict: Verdict, packets: u32, bytes: u32) {
        if let Some(row) = VERDICTS.get_ptr_mut(verdict.row()) {
            // SAFETY: this CPU's row; programs are not preempted by one another on it.
            unsafe {
                (*row).packets += u64::from(packets);
                (*row).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn expect_count(&self, slot: u32) {
        if let Some(row) = counter(slot) {
            // SAFETY: this CPU's row. Volatile, as nobody wants what is read.
            unsafe { read_volatile(addr_of!((*row).in_packets)) };
        }
    }

    #[inline(always)]
    fn count_eip(&self, slot: u32, direction: Direction, packets: u32, bytes: u32) {
        let Some(row) = counter(slot) else { return };
        let (packets, bytes) = (u64::from(packets), u64::from(bytes));
        // SAFETY: this CPU's row; programs are not preempted by one another on it.
        unsafe {
            match direction {
                Direction::In => {
                    (*row).in_packets += packets;
                    (*row).in_bytes += bytes;
                }
                Direction::Out => {
                    (*row).out_packets += packets;
                    (*row).out_bytes += bytes;
                }
            }
            (*row).last_seen_ns = now();
        }
    }
}
