//! The ConfigMap `ovn-external-gw-config`, parsed: the keys Kube-OVN users write, and ours.

use std::net::Ipv4Addr;

use gateway_common::addr::{Mac, Prefix};

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
