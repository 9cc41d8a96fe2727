//! Kubernetes drives it: agents fed by a real API server in the lab, real packets through what they program. Needs root,
//! `cargo xtask build` and `cargo xtask setup kube` before.

mod clients;
mod disagreement;
mod events;
mod logins;
mod nodes;
mod pods;
mod report;
mod taken;
mod watches;
mod workloads;
