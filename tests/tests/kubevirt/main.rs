//! KubeVirt: what it writes of VMs replayed on a real API server, agents and real packets in the lab. Needs root,
//! `cargo xtask build` and `cargo xtask setup kube` before.

mod access;
mod asking;
mod pitfalls;
mod replay;
mod restart;
mod steps;
mod talk;
mod traffic;
mod vm;
