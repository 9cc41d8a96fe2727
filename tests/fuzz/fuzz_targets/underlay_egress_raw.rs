//! Bytes are a frame leaving by the underlay NIC.
#![no_main]

use gateway_ebpf::datapath::Hook;
use gateway_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| fuzzing::raw(Hook::UnderlayEgress, frame));
