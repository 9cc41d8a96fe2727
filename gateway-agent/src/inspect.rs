//! What `gateway-agent show` prints: the pinned tables for people and for machines.
//!
//! It needs no agent: a [`View`] is read from the pins and the status file. Field names of the JSON are stable;
//! addresses and MACs are strings; `null` is "this node" for a node or gateway, "never" for an idle time, "unknown"
//! elsewhere. Names and problems are as the agent last knew them; all else is what the kernel holds now.

mod text;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gateway_common::addr::{Mac, Prefix};
use gateway_common::tables::{
    CONFIG_KEEP_MSS, CONFIG_OWNER, Config, EipCounter, VTEP_GATEWAY, VTEP_RESOLVED, VerdictCounter,
};
use gateway_common::verdict::Verdict;
use serde::Serialize;

use crate::apply::nft::Counters;
use crate::desired::problem::Problem;
use crate::status::{Binding, Role, Status};
use crate::tables::Tables;

/// What is shown.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct View {
    /// The tables.
    pub tables: Tables,
    /// `eip_counters` by slot, summed over the CPUs.
    pub eip_counters: BTreeMap<u32, EipCounter>,
    /// `verdicts` by row, summed over the CPUs.
    pub verdicts: Vec<VerdictCounter>,
    /// CLOCK_MONOTONIC now, nanoseconds.
    pub now_ns: u64,
    /// What the agent last decided: names, refusals and warnings.
    pub status: Option<Status>,
    /// What the nftables table has counted; `None` without one, or without the privilege to read
    /// it.
    pub firewall: Option<Counters>,
}

/// What to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// Everything in one screen.
    Overview,
    /// EIPs with their counters, and what was refused.
    Eips,
    /// EIP pods.
    Pods,
    /// Nodes at the other end of the tunnel.
    Vteps,
    /// Hosts on the external network.
    Neighbors,
    /// What became of packets.
    Verdicts,
}

/// How to show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Table {
        /// With terminal attributes.
        colour: bool,
        /// Also what is zero.
        all: bool,
    },
    /// For machines; nothing is left out.
    Json,
}

/// Renders a topic, with a line feed at the end.
///
/// # Errors
/// JSON could not be written.
pub fn render(view: &View, topic: Topic, format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Table { colour, all } => Ok(text::render(view, topic, colour, all)),
        Format::Json => {
            let mut json = match topic {
                Topic::Overview => serde_json::to_string_pretty(&view.overview()),
                Topic::Eips => serde_json::to_string_pretty(&view.eip_list()),
                Topic::Pods => serde_json::to_string_pretty(&view.pods()),
                Topic::Vteps => serde_json::to_string_pretty(&view.vteps()),
                Topic::Neighbors => serde_json::to_string_pretty(&view.neighbors()),
                Topic::Verdicts => serde_json::to_string_pretty(&view.verdicts()),
            }?;
            json.push('\n');
            Ok(json)
        }
    }
}

/// Everything in one screen.
#[derive(Serialize)]
struct Overview {
    node: Option<String>,
    vtep: Option<Ipv4Addr>,
    role: &'static str,
    /// Tunnel endpoint of the node that owns the external network.
    owner: Option<Ipv4Addr>,
    owner_name: Option<String>,
    /// Tunnel endpoints of the gateways, as far as known.
    gateways: Vec<Ipv4Addr>,
    external: Option<External>,
    tunnel: Option<Tunnel>,
    internal: Vec<String>,
    eips: Vec<EipRow>,
    vteps: Vec<VtepRow>,
    neighbors: usize,
    /// What the nftables table has counted.
    firewall: Option<Counters>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct External {
    network: String,
    physical_gateway: Ipv4Addr,
    nic_ip: Ipv4Addr,
    nic_mac: String,
    /// 0 on a node that does not own the network.
    nic_ifindex: u32,
    router_port_ifindex: u32,
    mtu: u32,
}

#[derive(Serialize)]
struct Tunnel {
    vni: u32,
    port: u16,
    /// Longest inner IPv4 packet, bytes.
    mtu: u32,
    /// The MSS of TCP connections is lowered to what fits.
    mss_clamp: bool,
    /// ICMP errors of each kind that a CPU sends in a second at most; 0 for no limit.
    icmp_error_rate: u32,
    /// Packets that a CPU gives the kernel to resolve or fragment in a second at most; 0 for no limit.
    slow_path_rate: u32,
    underlay_ifindex: u32,
}

/// What is served, and why something is not.
#[derive(Serialize)]
struct EipList {
    eips: Vec<EipRow>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct EipRow {
    eip: Ipv4Addr,
    pod: Ipv4Addr,
    /// `namespace/name`.
    pod_name: Option<String>,
    node: Option<Ipv4Addr>,
    node_name: Option<String>,
    slot: u32,
    in_packets: u64,
    in_bytes: u64,
    out_packets: u64,
    out_bytes: u64,
    idle_seconds: Option<f64>,
}

#[derive(Serialize)]
struct PodRow {
    pod: Ipv4Addr,
    /// `namespace/name`.
    pod_name: Option<String>,
    eip: Ipv4Addr,
    node: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    slot: u32,
}

#[derive(Serialize)]
struct VtepRow {
    vtep: Ipv4Addr,
    role: &'static str,
    resolved: bool,
    ifindex: Option<u32>,
    source_mac: Option<String>,
    destination_mac: Option<String>,
}

#[derive(Serialize)]
struct NeighborRow {
    address: Ipv4Addr,
    mac: String,
}

#[derive(Serialize)]
struct VerdictRow {
    reason: &'static str,
    class: &'static str,
    packets: u64,
    bytes: u64,
    meaning: &'static str,
}

impl View {
    fn eip_list(&self) -> EipList {
        EipList { eips: self.eips(), problems: self.problems().to_vec() }
    }

    fn problems(&self) -> &[Problem] {
        self.status.as_ref().map_or(&[], |status| &status.problems)
    }

    /// Names for a row, unless the status speaks of another pod.
    fn binding(&self, eip: [u8; 4], pod_ip: [u8; 4]) -> Option<&Binding> {
        self.status.as_ref()?.binding(eip.into(), pod_ip.into())
    }

    /// A gateway's EIPs, and on a worker those of its own pods, which only `pods` holds there.
    fn eips(&self) -> Vec<EipRow> {
        let tables = &self.tables;
        let here = tables.pods.iter().filter(|(_, row)| !self.is_idle(row));
        let of_pods = here.map(|(key, row)| (row.eip, (key.pod_ip, row.node(), row.slot)));
        let of_eips = tables.eips.iter().map(|(key, row)| (key.eip, (row.pod_ip, row.node(), row.slot)));
        let rows: BTreeMap<_, _> = of_pods.chain(of_eips).collect();
        let row = |(eip, (pod, node, slot)): ([u8; 4], ([u8; 4], Option<Ipv4Addr>, u32))| {
            let counter = self.eip_counters.get(&slot).copied().unwrap_or_default();
            let last = counter.last_seen_ns;
            let names = self.binding(eip, pod);
            EipRow {
                eip: eip.into(),
                pod: pod.into(),
                pod_name: names.map(|names| names.pod.to_string()),
                node,
                node_name: names.map(|names| names.node.clone()),
                slot,
                in_packets: counter.in_packets,
                in_bytes: counter.in_bytes,
                out_packets: counter.out_packets,
                out_bytes: counter.out_bytes,
                // Milliseconds are enough.
                idle_seconds: (last != 0)
                    .then(|| (self.now_ns.saturating_sub(last) / 1_000_000) as f64 / 1000.0),
            }
        };
        rows.into_iter().map(row).collect()
    }

    /// A pod of this node whose VM has an EIP, and its guest in another pod or in none yet.
    fn is_idle(&self, row: &gateway_common::tables::Pod) -> bool {
        let here = |status: &Status| {
            status.bindings.iter().any(|bound| bound.eip.octets() == row.eip && bound.node == status.node)
        };
        row.node().is_none() && self.status.as_ref().is_some_and(|status| !here(status))
    }

    fn pods(&self) -> Vec<PodRow> {
        let row = |(key, row): (&gateway_common::tables::PodKey, &gateway_common::tables::Pod)| PodRow {
            pod: key.pod_ip.into(),
            pod_name: self.binding(row.eip, key.pod_ip).map(|names| names.pod.to_string()),
            eip: row.eip.into(),
            node: row.node(),
            gateway: row.via(),
            slot: row.slot,
        };
        self.tables.pods.iter().map(row).collect()
    }

    fn vteps(&self) -> Vec<VtepRow> {
        let row = |(key, row): (&gateway_common::tables::VtepKey, &gateway_common::tables::Vtep)| {
            let resolved = row.flags & VTEP_RESOLVED != 0;
            VtepRow {
                vtep: key.vtep.into(),
                role: if row.flags & VTEP_GATEWAY != 0 { "gateway" } else { "worker" },
                resolved,
                ifindex: resolved.then_some(row.ifindex),
                source_mac: resolved.then(|| Mac(row.source_mac).to_string()),
                destination_mac: resolved.then(|| Mac(row.destination_mac).to_string()),
            }
        };
        self.tables.vteps.iter().map(row).collect()
    }

    fn neighbors(&self) -> Vec<NeighborRow> {
        let rows = self.tables.neighbors.iter();
        rows.map(|(key, row)| NeighborRow { address: key.addr.into(), mac: Mac(row.mac).to_string() })
            .collect()
    }

    fn verdicts(&self) -> Vec<VerdictRow> {
        let row = |verdict: &Verdict| {
            let counter = self.verdicts.get(verdict.row() as usize).copied().unwrap_or_default();
            VerdictRow {
                reason: verdict.name(),
                class: verdict.class().name(),
                packets: counter.packets,
                bytes: counter.bytes,
                meaning: verdict.meaning(),
            }
        };
        Verdict::ALL.iter().map(row).collect()
    }

    fn overview(&self) -> Overview {
        let tables = &self.tables;
        let config = tables.config.unwrap_or_default();
        let owns = config.flags & CONFIG_OWNER != 0;
        let vtep = tables.config.map(|config| Ipv4Addr::from(config.local_vtep));
        let status = self.status.as_ref();
        // The tables of a standby gateway without EIPs look like a worker's.
        let is_standby = status.is_some_and(|status| status.role == Some(Role::Gateway));
        let is_gateway = owns || !tables.eips.is_empty() || is_standby;
        let others = tables.vteps.iter().filter(|(_, row)| row.flags & VTEP_GATEWAY != 0);
        let mut gateways: Vec<Ipv4Addr> = others.map(|(key, _)| key.vtep.into()).collect();
        gateways.extend(vtep.filter(|_| is_gateway));
        gateways.sort();
        // Other nodes' rows name the owner; where there is no EIP pod yet, a single gateway leaves no choice.
        let named = tables.pods.values().find_map(|pod| pod.via());
        let single = gateways.first().copied().filter(|_| gateways.len() == 1);
        Overview {
            node: status.map(|status| status.node.clone()),
            vtep,
            role: match (tables.config, owns, is_gateway) {
                (None, ..) => "off",
                (Some(_), true, _) => "gateway, owner of the external network",
                (Some(_), false, true) => "gateway, standby",
                (Some(_), false, false) => "worker",
            },
            owner: if owns { vtep } else { named.or(single) },
            owner_name: status.and_then(|status| status.owner.clone()),
            gateways,
            external: tables.config.as_ref().map(external),
            tunnel: tables.config.map(|config| Tunnel {
                vni: config.vni,
                port: u16::from_be_bytes(config.geneve_port),
                mtu: config.tunnel_mtu,
                mss_clamp: config.flags & CONFIG_KEEP_MSS == 0,
                icmp_error_rate: config.errors_per_second,
                slow_path_rate: config.slow_path_per_second,
                underlay_ifindex: config.underlay_ifindex,
            }),
            internal: tables.internal.iter().map(Prefix::to_string).collect(),
            eips: self.eips(),
            vteps: self.vteps(),
            neighbors: tables.neighbors.len(),
            firewall: self.firewall,
            problems: self.problems().to_vec(),
        }
    }
}

fn external(config: &Config) -> External {
    let netmask = u32::from_be_bytes(config.external_netmask);
    let network = Prefix::new(config.external_network.into(), netmask.leading_ones() as u8);
    External {
        network: network.to_string(),
        physical_gateway: config.physical_gateway.into(),
        nic_ip: config.nic_ip.into(),
        nic_mac: Mac(config.nic_mac).to_string(),
        nic_ifindex: config.external_ifindex,
        router_port_ifindex: config.router_port_ifindex,
        mtu: config.external_mtu,
    }
}

#[cfg(test)]
mod tests;
