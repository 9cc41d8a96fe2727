//! The ConfigMap `ovn-external-gw-config`, parsed: the keys Kube-OVN users write, and ours.

mod reader;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gateway_common::addr::{Mac, Prefix};

use self::reader::Reader;
use crate::desired::problem::{Kind, Problem};

/// Namespace of the ConfigMap unless configured otherwise.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub const NAME: &str = "ovn-external-gw-config";

/// A configuration that was found good as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayConfig {
    /// `type`.
    pub topology: Topology,
    /// `external-gw-nodes`, in order; empty means the labelled nodes.
    pub gateway_nodes: Vec<String>,
    /// `external-gw-nic`.
    pub external_nic: String,
    /// `external-gw-addr`: the physical gateway and the external subnet.
    pub external_gateway: Prefix,
    /// `nic-ip`: the router port's address in the external subnet.
    pub nic_ip: Prefix,
    /// `nic-mac`; absent: derived from `nic-ip`, locally administered, the same on every gateway.
    pub nic_mac: Mac,
    /// `geneve-vni`, 1..=0xffffff.
    pub geneve_vni: u32,
    /// `geneve-port`.
    pub geneve_port: u16,
    /// `underlay-nic`; absent: the link that has the node's InternalIP.
    pub underlay_nic: Option<String>,
    /// `cluster-cidrs`: prefixes that never leave by the gateway, besides pod CIDRs and node addresses.
    pub cluster_cidrs: Vec<Prefix>,
    /// `nic-ip-open`: the external network reaches this node's own ports on `nic-ip`.
    pub nic_ip_open: bool,
    /// `mss-clamp`: SYNs are told what the tunnel carries.
    pub mss_clamp: bool,
    /// `icmp-error-rate`: ICMP errors that a CPU of a gateway sends in a second at most; 0 for no limit.
    pub icmp_error_rate: u32,
}

/// `type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// One gateway owns the external network.
    Centralized,
    /// Every node with the NIC serves its own pods.
    Distributed,
}

impl GatewayConfig {
    /// Next hop of an external destination: itself inside the external subnet, else the physical gateway.
    pub fn external_next_hop(&self, destination: Ipv4Addr) -> Ipv4Addr {
        if self.external_gateway.contains(destination) { destination } else { self.external_gateway.addr }
    }
}

/// Default of `geneve-vni`: "EIGATE" in hexadecimal letters, far above the numbers CNIs hand out from the bottom.
pub const DEFAULT_VNI: u32 = 0xe1_6a7e;

/// Default of `icmp-error-rate`, as much as Linux allows itself (`icmp_msgs_per_sec`).
pub const DEFAULT_ERROR_RATE: u32 = 1_000;
/// What a ConfigMap says, and what is odd about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The configuration; `None` when the gateway is switched off.
    pub config: Option<GatewayConfig>,
    /// What does no harm but deserves a look.
    pub warnings: Vec<Problem>,
}

/// Reads the `data` of the ConfigMap; `object` names it in problems, for example `configmap kube-system/x`.
///
/// `enable-external-gw` `"false"` or absent switches the gateway off, and then nothing else is looked at. Any other
/// value is a problem rather than "off": a slip of the pen must not withdraw every EIP.
///
/// # Errors
/// Every problem that was found, warnings included. Nothing of a configuration with a problem is to be used.
pub fn parse(data: &BTreeMap<String, String>, object: &str) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader::new(data, object);
    match reader.value("enable-external-gw").map(str::to_ascii_lowercase).as_deref() {
        Some("true") => {}
        Some("false") => return Ok(Parsed { config: None, warnings: Vec::new() }),
        None => {
            reader.warn("enable-external-gw", "it is missing, so the gateway is off", "set it to \"true\"");
            return Ok(Parsed { config: None, warnings: reader.problems });
        }
        Some(other) => {
            reader.refuse(
                "enable-external-gw",
                format!("{other:?} is neither \"true\" nor \"false\""),
                "write \"true\" to switch the gateway on, \"false\" to withdraw every EIP",
            );
        }
    }
    let config = reader.config();
    reader.warn_unknown_keys();
    let refused = reader.problems.iter().any(|problem| problem.kind == Kind::Refused);
    match config {
        Some(config) if !refused => Ok(Parsed { config: Some(config), warnings: reader.problems }),
        Some(_) | None => Err(reader.problems),
    }
}

/// The MAC of a router port without `nic-mac`: locally administered, the same on every gateway.
pub fn derived_mac(nic_ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = nic_ip.octets();
    Mac([0x02, b'e', a, b, c, d])
}

#[cfg(test)]
pub(crate) mod tests;
