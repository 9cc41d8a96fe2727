//! End to end in the lab: real packets through the real programs and agents, real peers at both ends. Needs root, and
//! `cargo xtask build` before; each test makes its own network namespaces and takes them down.

mod accounting;
mod capture;
mod errors;
mod events;
mod fallback;
mod forged;
mod leaks;
mod metrics;
mod ovs;
mod policy;
mod programs;
mod restart;
use gateway_tests::scene;
mod several;
mod streams;
mod transfer;
