//! What can be chosen about a lab.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// MTU of the underlay and external networks unless chosen otherwise.
pub const JUMBO_MTU: u16 = 9000;

/// How a lab is to look. Two labs with different prefixes can be up at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabConfig {
    /// Put before the name of every network namespace; `[a-z0-9-]`, at most 16 characters, may be empty.
    pub prefix: String,
    /// MTU of both networks and of every wire; see [`LabConfig::pod_mtu`] for the pods.
    pub mtu: u16,
    /// Start one agent per node.
    pub agents: bool,
    /// Give the first pod of worker1 the EIP 192.168.100.101.
    pub eip: bool,
    /// Start from nothing, and take the lab down when the [`Lab`](crate::Lab) is dropped.
    pub ephemeral: bool,
    /// The `gateway-agent` to run; `None` means `$EIP_GATEWAY_AGENT`.
    pub agent_binary: Option<PathBuf>,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            mtu: JUMBO_MTU,
            agents: true,
            eip: true,
            ephemeral: false,
            agent_binary: None,
        }
    }
}

impl LabConfig {
    /// A lab for one test: no EIP yet, taken down on drop.
    pub fn ephemeral(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), eip: false, ephemeral: true, ..Self::default() }
    }

    /// MTU inside the pods: a jumbo network leaves 100 bytes for the tunnel, as Kube-OVN does (9000 → 8900);
    /// an ordinary one leaves none, which is where MSS clamping and "fragmentation needed" are tested.
    pub fn pod_mtu(&self) -> u16 {
        if self.mtu > 1500 + 100 { self.mtu - 100 } else { self.mtu }
    }

    /// Refuses what the kernel or the names of namespaces would not take.
    pub fn check(&self) -> Result<()> {
        check_prefix(&self.prefix)?;
        ensure!(
            (1280..=9000).contains(&self.mtu),
            "MTU {} is out of range: choose 1280 to 9000 (9000 is the default)",
            self.mtu
        );
        Ok(())
    }
}

/// Refuses a prefix that cannot be part of a namespace's and a folder's name.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        prefix.len() <= 16 && prefix.chars().all(good) && !prefix.starts_with('-'),
        "lab prefix {prefix:?} is not usable: take at most 16 of a-z, 0-9 and '-', for example \"demo-\""
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_leave_room_for_the_tunnel_only_on_a_jumbo_network() {
        let pod_mtu = |mtu| LabConfig { mtu, ..LabConfig::default() }.pod_mtu();
        assert_eq!((pod_mtu(9000), pod_mtu(1500)), (8900, 1500));
    }

    #[test]
    fn unusable_choices_are_refused() {
        for prefix in ["../x", "A-", "-x", "a-prefix-that-is-too-long"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
        assert!(LabConfig { mtu: 1000, ..LabConfig::default() }.check().is_err());
        assert!(LabConfig::ephemeral("demo-").check().is_ok());
    }
}
