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
    /// `icmp-error-rate`: ICMP errors of each kind that a CPU of a gateway sends in a second at most; 0 for no limit.
    pub icmp_error_rate: u32,
    /// `slow-path-rate`: packets that a CPU of a gateway gives the kernel in a second to resolve a next hop, and copies
    /// it makes to cut fragments of them, at most; 0 for no limit.
    pub slow_path_rate: u32,
    /// `garp-rate`: ARP announcements and probes that the owner sends in a second at most.
    pub garp_rate: u32,
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
/// Default of `slow-path-rate`: some 3 % of a CPU.
pub const DEFAULT_SLOW_PATH_RATE: u32 = 10_000;
/// Default of `garp-rate`: all of 10,000 EIPs in less than two minutes, and no load for a switch.
pub const DEFAULT_GARP_RATE: u32 = 100;

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
/// `enable-external-gw` `"false"` switches the gateway off, and then nothing else is looked at. Any
/// other value, and none, is a problem rather than "off": neither a slip of the pen nor a ConfigMap
/// that is being filled must withdraw every EIP.
///
/// # Errors
/// Every problem that was found, warnings included. Nothing of a configuration with a problem is to be used.
pub fn parse(data: &BTreeMap<String, String>, object: &str) -> Result<Parsed, Vec<Problem>> {
    let mut reader = Reader::new(data, object);
    match reader.value("enable-external-gw").map(str::to_ascii_lowercase).as_deref() {
        Some("true") => {}
        Some("false") => return Ok(Parsed { config: None, warnings: Vec::new() }),
        other => {
            let message = match other {
                Some(other) => format!("{other:?} is neither \"true\" nor \"false\""),
                None => "it is missing or empty".to_owned(),
            };
            let remedy = "write \"true\" to switch the gateway on, \"false\" to withdraw every EIP";
            reader.refuse("enable-external-gw", message, remedy);
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
