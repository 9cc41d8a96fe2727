//! Bytes are a frame on the underlay NIC.
#![no_main]

use gateway_ebpf::datapath::Hook;
use gateway_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| fuzzing::raw(Hook::Underlay, frame));
