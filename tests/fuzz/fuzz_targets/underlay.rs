//! Bytes decide on a frame on the underlay NIC: its headers, and what they lie about.
#![no_main]

use gateway_ebpf::datapath::Hook;
use gateway_tests::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::structured(Hook::Underlay, bytes));
