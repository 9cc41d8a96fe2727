//! What the BPF datapath and the control agent share: wire formats, checksums, table rows and verdicts.
//!
//! `no_std`, no allocation, no I/O. Multi-byte values in table rows are network-order bytes unless a field says
//! otherwise; addresses in function signatures are `core::net` types.
#![no_std]

#[cfg(not(target_arch = "bpf"))]
extern crate std;

pub mod addr;
pub mod csum;
#[cfg(not(target_arch = "bpf"))]
pub mod direct;
pub mod ecn;
pub mod flow;
#[cfg(not(target_arch = "bpf"))]
pub mod inside;
pub mod limit;
pub mod tables;
pub mod verdict;
pub mod wire;

/// Version of the pinned tables' layout and meaning. An agent that finds pins of another version replaces them.
pub const ABI_VERSION: u32 = 5;
