//! What this node's kernel should hold: a pure function of the [`Snapshot`](crate::snapshot::Snapshot).

pub mod claim;
mod gateway;
pub mod internal;
pub mod ownership;
pub mod problem;
mod rank;
pub mod vm;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gateway_common::addr::{Mac, Prefix};
use gateway_common::tables;

use crate::config::GatewayConfig;
use crate::desired::claim::{Claim, Claims, Judge, claims};
use crate::desired::internal::internal;
use crate::desired::ownership::{Gateways, gateways};
use crate::desired::problem::Problem;
use crate::snapshot::{Configured, Held, HeldVm, Link, ObjectName, RouteTo, Snapshot};

/// The outcome of one decision.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Desired {
    /// What to hold.
    pub state: State,
    /// The pods the EIPs were given to, cluster-wide, by EIP.
    pub served: BTreeMap<Ipv4Addr, Claim>,
    /// These EIPs are bound, as far as this node sees; `false`: not yet.
    pub bound: bool,
    /// The VMs among them, and those for which an EIP is reserved while they restart.
    pub vms: BTreeMap<Ipv4Addr, HeldVm>,
    /// Pods that have an EIP and wait for an address or their node: nobody serves it, and no
    /// stranger gets it.
    pub waiting: BTreeSet<ObjectName>,
    /// The gateway nodes.
    pub gateways: Gateways,
    /// Pods whose EIP this node refuses for a reason that other nodes may not know: it tells them by the label.
    pub refused: BTreeSet<ObjectName>,
    /// Everything refused or worth a warning, in a stable order.
    pub problems: Vec<Problem>,
}

impl Desired {
    /// EIPs bound to pods, cluster-wide.
    pub fn bindings(&self) -> impl Iterator<Item = (Ipv4Addr, &ObjectName)> {
        self.served.iter().filter(|_| self.bound).map(|(eip, claim)| (*eip, &claim.pod))
    }

    /// Makes `held` what the next [`Snapshot::held`] is to be, unless this decision leaves things as they are.
    pub fn remember(&self, held: &mut Held) {
        if self.state != State::Keep {
            held.pods = self.served.iter().map(|(eip, claim)| (*eip, claim.pod_ip)).collect();
            held.vms.clone_from(&self.vms);
            let accepted = self.served.iter().filter(|(_, claim)| claim.accepted).map(|(eip, _)| *eip);
            // While a VM restarts its EIP is reserved, and still accepted.
            let reserved = held.accepted.iter().filter(|eip| self.vms.contains_key(eip)).copied();
            held.accepted = accepted.chain(reserved).collect();
        }
    }
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
    /// `pods`: pod address → EIP, node and gateway. All EIP pods on a gateway, else those of this node, and this node's
    /// pods of VMs with an EIP whose guest is elsewhere.
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
    /// EIP → pod address of every EIP known here, for clients on this node.
    pub cluster_eips: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Addresses owned on the external network; they are announced and defended.
    pub announce: BTreeSet<Ipv4Addr>,
    /// Addresses that are wanted as EIPs, and not served before the external network was asked for them.
    pub probe: BTreeSet<Ipv4Addr>,
    /// Some of these are about to be decided.
    pub probing: bool,
    /// Since when this node is Ready, as far as it is the owner.
    pub ready_since: Option<i64>,
    /// ARP frames a second at most.
    pub garp_rate: u32,
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
    /// `nic-ip-open`.
    pub open: bool,
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
    /// The way out when there is no other: none. A link that goes takes its routes along, and an
    /// EIP pod's packets are not to leave by the main table then, with the pod's own address.
    Unreachable,
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

/// Marks the neighbours that we had the kernel keep fresh (`NDA_PROTOCOL`), so that they are found
/// again by whoever undoes it. A number that nobody has in iproute2's rt_protos.
pub const NEIGHBOR_PROTOCOL: u8 = 161;

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

/// What one decision knows once the cluster-wide questions are answered.
struct Round<'a> {
    snapshot: &'a Snapshot,
    config: &'a GatewayConfig,
    /// Names the ConfigMap in problems.
    object: &'a str,
    gateways: Gateways,
    claims: &'a BTreeMap<Ipv4Addr, Claim>,
    /// Other pods of VMs that have an EIP.
    idle: &'a BTreeMap<Ipv4Addr, Vec<Claim>>,
    /// EIPs that the external network is to be asked for, and the pods that want them.
    asked: &'a BTreeMap<Ipv4Addr, ObjectName>,
    /// This node's tunnel endpoint.
    local: Ipv4Addr,
    underlay: (&'a str, &'a Link),
    /// This node is a gateway.
    is_gateway: bool,
}

impl Round<'_> {
    /// The EIPs of this node's pods.
    fn own_claims(&self) -> impl Iterator<Item = (&Ipv4Addr, &Claim)> {
        self.claims.iter().filter(|(_, claim)| claim.node == self.snapshot.node_name)
    }

    /// The EIPs of VMs with a pod on this node that the guest is not in.
    fn own_idle(&self) -> impl Iterator<Item = (&Ipv4Addr, &Claim)> {
        let idle = self.idle.iter().flat_map(|(eip, claims)| claims.iter().map(move |claim| (eip, claim)));
        idle.filter(|(_, claim)| claim.node == self.snapshot.node_name)
    }
}

/// Decides what this node's kernel should hold, and what an operator should know.
pub fn desired(snapshot: &Snapshot) -> Desired {
    let mut desired = Desired { problems: snapshot.problems.clone(), ..Desired::default() };
    match &snapshot.config {
        Configured::Unknown => {}
        Configured::Disabled => desired.state = State::Withdrawn,
        Configured::Enabled(config) => decide(snapshot, config, &mut desired),
    }
    desired
}

fn decide(snapshot: &Snapshot, config: &GatewayConfig, desired: &mut Desired) {
    let object = snapshot.config_map.to_string();
    let (gateways, problems) = gateways(config, &snapshot.keys, &snapshot.nodes, &object);
    desired.problems.extend(problems);
    let judge = match &gateways.owner {
        Some(owner) if *owner == snapshot.node_name => Judge::Owner,
        _ if snapshot.labels => Judge::Label,
        _ => Judge::Nobody,
    };
    let mut claims = claims(snapshot, config, judge);
    desired.problems.append(&mut claims.problems);
    let (internal, problems) = internal(snapshot, config, &object);
    desired.problems.extend(problems);
    desired.gateways.clone_from(&gateways);
    if let Some((datapath, bound)) =
        datapath(snapshot, config, gateways, &claims, internal, &mut desired.problems)
    {
        desired.state = State::Datapath(Box::new(datapath));
        desired.bound = bound;
    }
    (desired.served, desired.vms) = (claims.served, claims.vms);
    (desired.waiting, desired.refused) = (claims.waiting, claims.refused);
}

/// The data path, and whether the EIPs are bound by it; `None`: it cannot be told, all is left as it is.
fn datapath(
    snapshot: &Snapshot,
    config: &GatewayConfig,
    gateways: Gateways,
    claims: &Claims,
    internal: BTreeSet<Prefix>,
    problems: &mut Vec<Problem>,
) -> Option<(Datapath, bool)> {
    let object = snapshot.config_map.to_string();
    let here = &snapshot.node_name;
    let Some(local) = snapshot.nodes.get(here).and_then(|node| node.internal_ip) else {
        problems.push(Problem::refused(
            format!("node {here}"),
            "status.addresses",
            "this node is not known or has no IPv4 InternalIP; the data path is left as it is until it has",
            "create the Node with its InternalIP, or start the agent with the right node name",
        ));
        return None;
    };
    let underlay = match worker::underlay(snapshot, config.underlay_nic.as_deref(), local, &object) {
        Ok(underlay) => underlay,
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    let is_gateway = gateways.contains(here);
    let Claims { served, idle, asked, .. } = claims;
    let (object, claims) = (&*object, served);
    let round =
        Round { snapshot, config, object, gateways, claims, idle, asked, local, underlay, is_gateway };
    let mut datapath = Datapath { internal, ..Datapath::default() };
    worker::underlay_side(&round, &mut datapath);
    let bound = serve(&round, &mut datapath, problems);
    Some((datapath, bound))
}

/// Adds the EIPs; `false` when none can be bound, as far as this node sees.
fn serve(round: &Round<'_>, datapath: &mut Datapath, problems: &mut Vec<Problem>) -> bool {
    let Some(owner) = &round.gateways.owner else { return false };
    if *owner == round.snapshot.node_name {
        gateway::rows(round, None, datapath);
        return match gateway::external_nic(round) {
            Ok(nic) => {
                problems.extend(gateway::without_carrier(round, nic));
                problems.extend(gateway::contested(round));
                gateway::external_side(round, nic, datapath);
                true
            }
            Err(problem) => {
                problems.push(problem);
                false
            }
        };
    }
    let Some(via) = round.snapshot.nodes.get(owner).and_then(|node| node.internal_ip) else { return false };
    if round.is_gateway {
        gateway::rows(round, Some(via), datapath);
    }
    worker::own_pods(round, via, datapath);
    true
}

#[cfg(test)]
mod tests;
