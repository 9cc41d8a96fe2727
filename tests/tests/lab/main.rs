//! End to end in the lab: real packets through the real programs and agents, real peers at both ends. Needs root, and
//! `cargo xtask build` before; each test makes its own network namespaces and takes them down.

mod accounting;
mod announcing;
mod errors;
mod events;
mod external_side;
mod fallback;
mod forged;
mod fragments;
mod leaks;
mod limit;
mod metrics;
mod nic_ip;
mod ovs;
mod peers;
mod policy;
mod ports;
mod programs;
mod restart;
use gateway_tests::{capture, scene};
mod several;
mod streams;
mod taken;
mod transfer;
mod trust;
mod ways;
mod withdrawal;
mod xdpdump;
