//! A Kubernetes cluster's networks on one machine: one gateway node, two workers, their pods, a client on the
//! external network that is also the physical gateway, and a host behind it. Made of network namespaces and veth
//! pairs; see [`plan`] for names, addresses and MACs.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use gateway_lab::{EIP, Lab, LabConfig};
//!
//! let lab = Lab::up(&LabConfig::ephemeral("doc-"))?;
//! lab.annotate("pod1a", Some(&EIP.to_string()))?;
//! let ping = lab.exec("client", &["ping", "-c1", "-W1", &EIP.to_string()])?;
//! assert!(ping.status.success());
//! # Ok(())
//! # } // the lab is taken down here
//! ```
//!
//! Needs root, and the tools that `cargo xtask setup` installs.

mod agent;
mod config;
mod down;
mod firewall;
mod guest;
mod job;
mod lab;
pub mod manifest;
mod network;
pub mod plan;
mod process;
mod state;
pub mod status;
mod tool;
mod up;
mod wire;

pub use agent::{AGENT_VARIABLE, PATIENCE_VARIABLE, PIN_PATH_VARIABLE, STATE_DIR_VARIABLE};
pub use config::{JUMBO_MTU, LabConfig};
pub use firewall::{INVALID_DROPS, TABLE as FIREWALL_TABLE};
pub use guest::Guest;
pub use job::Job;
pub use lab::Lab;
pub use nix::sys::signal::Signal;
pub use plan::{
    CLIENT, EIP, EIP_POD, EXTERNAL_NIC, Mac, NIC_IP, NIC_MAC, NODES, OUTSIDE, PODS, PRIMARY_NIC, SERVICE,
    SERVICE_POD,
};
pub use status::Status;
