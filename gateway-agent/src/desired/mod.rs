//! What this node's kernel should hold: a pure function of the [`Snapshot`](crate::snapshot::Snapshot).

pub mod problem;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gateway_common::addr::{Mac, Prefix};
use gateway_common::tables;

use crate::desired::problem::Problem;
use crate::snapshot::{ObjectName, RouteTo};

/// The outcome of one decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Desired {
    /// What to hold.
    pub state: State,
    /// EIPs bound to pods, cluster-wide, by EIP.
    pub bindings: BTreeMap<Ipv4Addr, ObjectName>,
    /// EIP → pod address of the same bindings, bound or not yet: what the next snapshot's `held` starts from.
    pub served: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Everything refused or worth a warning, in a stable order.
    pub problems: Vec<Problem>,
}

/// What this node's kernel should hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum State {
    /// Not known yet: change nothing.
    #[default]
    Keep,
    /// Nothing: withdraw all we made.
    Withdrawn,
    /// A data path.
    Datapath(Box<Datapath>),
}

/// A node's data path.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Datapath {
    /// Row 0 of `config`.
    pub config: tables::Config,
    /// `eips`: EIP → pod address and node (`None`: this one). Empty on a node that is no gateway.
    pub eips: BTreeMap<Ipv4Addr, EipRow>,
    /// `pods`: pod address → EIP, node and gateway. All EIP pods on a gateway, else those of this node.
    pub pods: BTreeMap<Ipv4Addr, PodRow>,
    /// `vteps`: every other known node.
    pub vteps: BTreeMap<Ipv4Addr, tables::Vtep>,
    /// `neighbors`: hosts on the external network.
    pub neighbors: BTreeMap<Ipv4Addr, Mac>,
    /// `internal`: prefixes that never leave by the gateway, host bits cleared.
    pub internal: BTreeSet<Prefix>,
    /// Interface name per hook.
    pub hooks: BTreeMap<Hook, String>,
    /// The router port, on the node that owns the external network.
    pub router_port: Option<RouterPort>,
    /// Source addresses with a policy rule into our routing table: EIP pods of this node; `nic-ip` on the owner.
    pub rules: BTreeSet<Ipv4Addr>,
    /// Our routing table.
    pub routes: BTreeSet<Route>,
    /// EIP pods of this node that are translated to their own address.
    pub identity_snat: BTreeSet<Ipv4Addr>,
    /// Addresses owned on the external network; gratuitous ARP is sent for new ones.
    pub announce: BTreeSet<Ipv4Addr>,
    /// Next hops, by interface, that the kernel is to resolve and keep fresh.
    pub resolve: BTreeSet<(u32, Ipv4Addr)>,
}

/// A row of `eips` before it has a counter slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EipRow {
    /// The pod's address.
    pub pod_ip: Ipv4Addr,
    /// The pod's node; `None`: this one.
    pub vtep: Option<Ipv4Addr>,
}

/// A row of `pods` before it has a counter slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PodRow {
    /// The pod's EIP.
    pub eip: Ipv4Addr,
    /// The pod's node; `None`: this one.
    pub vtep: Option<Ipv4Addr>,
    /// The gateway; `None`: this node.
    pub gateway: Option<Ipv4Addr>,
}

/// The router port: a macvlan on the external NIC, named [`RouterPort::NAME`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterPort {
    /// Name of the external NIC.
    pub parent: String,
    /// `nic-mac`.
    pub mac: Mac,
    /// `nic-ip`, added with `noprefixroute`.
    pub address: Prefix,
    /// MTU: that of the external NIC.
    pub mtu: u32,
}

impl RouterPort {
    /// Interface name.
    pub const NAME: &str = "eip-router";
}

/// A route of our table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Route {
    /// `throw`: look further, in the main table.
    Throw(Prefix),
    /// On the link of the router port.
    OnLink {
        /// Destination.
        destination: Prefix,
        /// Interface.
        ifindex: u32,
    },
    /// The default route, `onlink`.
    Default {
        /// Next hop and interface; `via` is always set.
        to: RouteTo,
        /// MTU metric, bytes; 0: that of the interface.
        mtu: u32,
    },
}

/// Number of our routing table, and priority of our rules.
pub const ROUTING_TABLE: u32 = 6081;

/// A place programs attach to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// XDP on the external NIC.
    XdpExternal,
    /// TC ingress on the external NIC.
    TcExternal,
    /// XDP on the underlay NIC.
    XdpUnderlay,
    /// TC ingress on the underlay NIC.
    TcUnderlay,
    /// TC egress on the underlay NIC.
    TcUnderlayEgress,
    /// TC egress on the router port.
    TcRouterPort,
}

impl Hook {
    /// Name of the BPF program in the object, and of its link's pin.
    pub const fn program(self) -> &'static str {
        match self {
            Self::XdpExternal => "xdp_external",
            Self::TcExternal => "tc_external",
            Self::XdpUnderlay => "xdp_underlay",
            Self::TcUnderlay => "tc_underlay",
            Self::TcUnderlayEgress => "tc_underlay_egress",
            Self::TcRouterPort => "tc_router_port",
        }
    }
}
