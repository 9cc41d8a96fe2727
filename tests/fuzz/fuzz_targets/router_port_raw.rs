//! Bytes are a frame leaving by the router port.
#![no_main]

use gateway_ebpf::datapath::Hook;
use gateway_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| fuzzing::raw(Hook::RouterPortEgress, frame));
