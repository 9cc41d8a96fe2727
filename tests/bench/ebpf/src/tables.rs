//! The tables of `plain.c`, and the ways to find a row in them.
#![expect(
    unsafe_code,
    reason = "dereferences what the kernel's map look-ups return, reads what the loader writes"
)]

use core::ptr::read_volatile;

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;

/// A row for either direction, network order.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The pod's address on the way in, the EIP on the way out.
    pub(crate) address: u32,
    pub(crate) node: u32,
    pub(crate) ifindex: u32,
    pub(crate) destination_mac: [u8; 6],
    pub(crate) source_mac: [u8; 6],
}

const _: () = assert!(size_of::<Row>() == 24);

#[btf_map(name = "plain_eips")]
static PLAIN_EIPS: HashMap<u32, Row, 65536> = HashMap::new();
#[btf_map(name = "plain_pods")]
static PLAIN_PODS: HashMap<u32, Row, 65536> = HashMap::new();
#[btf_map(name = "cidr_eips")]
static CIDR_EIPS: Array<Row, 65536> = Array::new();
#[btf_map(name = "cidr_pods")]
static CIDR_PODS: Array<Row, 65536> = Array::new();

/// As in C.
#[repr(C)]
pub(crate) struct Settings {
    local_node: u32,
    /// First addresses of the arrays, host order.
    first_eip: u32,
    first_pod: u32,
}

/// Written before the program is loaded.
#[unsafe(export_name = "settings")]
static SETTINGS: Settings = Settings { local_node: 0, first_eip: 0, first_pod: 0 };

/// This node's address, network order.
#[inline(always)]
pub(crate) fn local_node() -> u32 {
    // SAFETY: a static; volatile, since the compiler does not see who writes it.
    unsafe { read_volatile(&raw const SETTINGS.local_node) }
}

#[inline(always)]
pub(crate) fn hashed_eip(address: u32) -> Option<&'static Row> {
    // SAFETY: rows outlive the program run (RCU).
    unsafe { PLAIN_EIPS.get(address) }
}

#[inline(always)]
pub(crate) fn hashed_pod(address: u32) -> Option<&'static Row> {
    // SAFETY: rows outlive the program run (RCU).
    unsafe { PLAIN_PODS.get(address) }
}

#[inline(always)]
pub(crate) fn indexed_eip(address: u32) -> Option<&'static Row> {
    // SAFETY: a static; volatile, since the compiler does not see who writes it.
    let first = unsafe { read_volatile(&raw const SETTINGS.first_eip) };
    CIDR_EIPS.get(u32::from_be(address).wrapping_sub(first))
}

#[inline(always)]
pub(crate) fn indexed_pod(address: u32) -> Option<&'static Row> {
    // SAFETY: a static; volatile, since the compiler does not see who writes it.
    let first = unsafe { read_volatile(&raw const SETTINGS.first_pod) };
    CIDR_PODS.get(u32::from_be(address).wrapping_sub(first))
}
