//! Fuzzing: frames from any bytes, and what must hold of every outcome, whatever the frame. Shared by the targets in
//! `tests/fuzz`, the property tests, and the comparison with the loaded programs.

pub mod corpus;
pub mod expect;
pub mod frames;
mod handover;
mod leaving;
pub mod lies;
pub mod reader;
mod translation;

use std::sync::LazyLock;

use arbitrary::Unstructured;
use gateway_common::limit::Limited;
use gateway_common::tables::CONFIG_XDP_TO_EXTERNAL;
use gateway_ebpf::datapath::Hook;

use crate::fixture::{
    Tables, gateway, gateway_without_external_side, spent_gateway, standby_gateway, unresolved_gateway,
    worker1,
};

/// All bytes of a frame as hexadecimal digits.
pub fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All hooks.
pub const HOOKS: [Hook; 4] = [Hook::External, Hook::Underlay, Hook::UnderlayEgress, Hook::RouterPortEgress];

/// The tables that frames meet, each with a name for messages.
pub static TABLES: LazyLock<[(&str, Tables); 10]> = LazyLock::new(|| {
    let mut twin = gateway();
    twin.config.flags &= !CONFIG_XDP_TO_EXTERNAL;
    [
        ("gateway", gateway()),
        ("worker1", worker1()),
        ("unresolved gateway", unresolved_gateway()),
        ("gateway whose external NIC takes no frames from XDP", twin),
        ("gateway whose budgets are spent", spent_gateway()),
        ("unresolved gateway whose budgets are spent", unresolved_gateway().spent(&Limited::ALL)),
        ("gateway without its external side", gateway_without_external_side()),
        ("standby gateway", standby_gateway()),
        ("gateway, frames of a pod", gateway().from_a_pod()),
        ("worker1, frames of a pod", worker1().from_a_pod()),
    ]
});

/// A target whose input is the frame.
///
/// # Panics
/// Something that must hold does not.
pub fn raw(hook: Hook, frame: &[u8]) {
    for (name, tables) in TABLES.iter() {
        if let Err(broken) = expect::check(hook, tables, frame) {
            panic!("{hook:?} · tables of {name}\n{broken}\nframe {}", hex(frame));
        }
    }
}

/// A target whose input decides on headers and lies.
///
/// # Panics
/// Something that must hold does not.
pub fn structured(hook: Hook, bytes: &[u8]) {
    // Bytes that run out are no frame.
    if let Ok(frame) = frames::any(&mut Unstructured::new(bytes), hook) {
        raw(hook, &frame);
    }
}
