//! The datapath of eip-gateway: packet logic without a kernel.
//!
//! Everything is generic over [`datapath::Frame`] (the bytes) and [`datapath::Env`] (the tables), so that the
//! same code runs on the host (tests), in XDP and in TC. A packet's path is three hops: entry point → hook
//! function ([`datapath::run`]) → finish.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod datapath;
