//! Time per packet of XDP programs: the harness, what it measures, and the tables and frames of a number of EIPs.

pub(crate) mod candidate;
pub(crate) mod frames;
pub(crate) mod harness;
pub(crate) mod plain;
pub(crate) mod population;
pub(crate) mod rounds;

use std::path::PathBuf;

/// Where `cargo xtask bench` puts an object compiled from `tests/bench/c`.
pub(crate) fn object(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/ebpf")).join(format!("bench-{name}.o"))
}
