//! `deploy/` against a real API server: it is accepted, the DaemonSets select the right nodes, the roles allow what the
//! agents need and nothing else. Needs root, `cargo xtask setup kube`, and `cargo xtask build` before.

mod bootstrap;
mod bound;
mod capabilities;
mod cluster;
mod elsewhere;
mod image;
mod manifests;
mod narrowed;
mod permissions;
mod uninstall;
