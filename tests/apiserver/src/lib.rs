//! A real Kubernetes API server in the lab: etcd and kube-apiserver, and when asked for kube-controller-manager,
//! kube-scheduler and kwok, in a network namespace of their own on the underlay.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use gateway_apiserver::{Cluster, Options, PodSpec, User};
//! use gateway_lab::{Lab, LabConfig};
//!
//! let lab = Lab::up(&LabConfig { agents: false, ..LabConfig::ephemeral("doc-") })?;
//! let cluster = Cluster::start(&lab, &Options::default())?;
//! cluster.seed_lab()?;
//! cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip("192.168.100.101"))?;
//! let kubeconfig = cluster.kubeconfig(User::Admin)?; // for an agent in gw1, worker1 or worker2
//! cluster.stop_api_server()?;
//! cluster.start_api_server()?;
//! # let _ = kubeconfig;
//! # Ok(())
//! # } // the cluster ends here, then the lab
//! ```
//!
//! Needs root, a lab, and the programs that `cargo xtask setup kube` builds once.

mod cluster;
mod components;
mod fixtures;
mod kubectl;
mod pki;
mod programs;
mod service;

pub use cluster::{Cluster, Options, Progress, User};
pub use components::KWOK_ANNOTATION;
pub use fixtures::PodSpec;
pub use programs::{PROGRAMS_VARIABLE, Programs};
