//! The form of the table, its elements, and how both are written for nft and read back.
//!
//! - `prerouting`, `output`: a connection from inside the cluster to an EIP goes to the pod's own address. One before
//!   kube-proxy's priority, so that an EIP that is also some Service's address is the pod's on every node alike. Only
//!   internal sources: what came from the external network has been translated by XDP or was left alone on purpose.
//!   Not a pod to its own EIP: a bridge sends no frame back to the port it came from. The programs turn that one round.
//! - `postrouting`, before the CNI's masquerade at 100: a process of this node that bound an address nobody inside can
//!   answer, such as that of the default route's NIC, gets the one towards the pod; an EIP pod on its way to the gateway
//!   keeps its own.
//! - `count`: packets that clients on this node sent to EIPs, since a NAT chain sees the first of a connection only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;

use gateway_common::addr::Prefix;
use serde_json::Value;

use super::InCluster;
use crate::desired::{Datapath, RouterPort};

/// Family and name of the table.
pub const TABLE: &str = "ip eip_gateway";

/// Name of the counter of packets from clients on this node to EIPs.
pub const IN_CLUSTER: &str = "in_cluster";

/// Chain, type, hook and priority.
const CHAINS: [(&str, &str, &str, i64); 4] = [
    ("prerouting", "nat", "prerouting", -101),
    ("output", "nat", "output", -101),
    ("postrouting", "nat", "postrouting", 99),
    ("count", "filter", "postrouting", 101),
];

const MAPS: [&str; 2] = ["eips", "self"];

/// Name and type of each set.
const SETS: [(&str, &str); 3] = [
    ("own", "type ipv4_addr . ipv4_addr;"),
    ("external", "type ipv4_addr; flags interval;"),
    ("internal", "type ipv4_addr; flags interval;"),
];

/// Chain, rule and comment of each rule, in order; a change of a rule needs a new number.
fn rules() -> [(&'static str, String, &'static str); 7] {
    let port = RouterPort::NAME;
    [
        (
            "prerouting",
            "ip saddr . ip daddr @own return".to_owned(),
            "eip-gateway 2: a pod that reaches itself is turned round by the programs",
        ),
        (
            "prerouting",
            format!("iifname != \"{port}\" ip saddr @internal dnat to ip daddr map @eips"),
            "eip-gateway 2: a pod of this node reaches an EIP directly",
        ),
        (
            "output",
            "dnat to ip daddr map @eips".to_owned(),
            "eip-gateway 2: this node reaches an EIP directly",
        ),
        (
            "postrouting",
            "ct status dnat ct original ip daddr @external fib saddr type local ip saddr != @internal masquerade"
                .to_owned(),
            "eip-gateway 2: this node by an address that the pod can answer",
        ),
        (
            "postrouting",
            "ip daddr @internal return".to_owned(),
            "eip-gateway 2: to internal destinations as ever",
        ),
        (
            "postrouting",
            "snat to ip saddr map @self".to_owned(),
            "eip-gateway 2: an EIP pod keeps its own address",
        ),
        (
            "count",
            format!(
                "ct direction original ct status dnat ct original ip daddr @external counter name \
                 {IN_CLUSTER}"
            ),
            "eip-gateway 2: from this node to EIPs",
        ),
    ]
}

/// What the table is to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Elements {
    /// EIP pods of this node.
    pub pods: BTreeSet<Ipv4Addr>,
    /// Prefixes that never leave by the gateway; none inside another.
    pub internal: BTreeSet<Prefix>,
    /// The external subnet.
    pub external: BTreeSet<Prefix>,
    /// EIP → pod address, cluster-wide, of pods whose address is internal: others are reached by the gateway.
    pub eips: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// EIP of each of [`Elements::pods`] that [`Elements::eips`] has.
    pub own: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

impl Elements {
    /// What a data path asks for.
    pub fn of(wanted: &Datapath) -> Self {
        let internal = outermost(&wanted.internal);
        let inside = |pod: &Ipv4Addr| {
            let before = internal.range(..=Prefix::host(*pod)).next_back();
            before.is_some_and(|prefix| prefix.contains(*pod))
        };
        let eips: BTreeMap<_, _> = wanted
            .cluster_eips
            .iter()
            .filter(|(_, pod)| inside(pod))
            .map(|(eip, pod)| (*eip, *pod))
            .collect();
        let own_eip =
            |(eip, pod): (&Ipv4Addr, &Ipv4Addr)| wanted.identity_snat.contains(pod).then_some((*pod, *eip));
        let mask = Ipv4Addr::from(wanted.config.external_netmask).to_bits().leading_ones();
        let external = Prefix::new(wanted.config.external_network.into(), mask as u8);
        Self {
            pods: wanted.identity_snat.clone(),
            own: eips.iter().filter_map(own_eip).collect(),
            external: BTreeSet::from([external]),
            internal,
            eips,
        }
    }

    /// Whether no table is needed.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.eips.is_empty()
    }

    /// EIPs of these that another pod has in `now`, or none.
    pub(super) fn moved(&self, now: &Self) -> BTreeMap<Ipv4Addr, Option<Ipv4Addr>> {
        let moved = self.eips.iter().filter(|(eip, pod)| now.eips.get(*eip) != Some(*pod));
        moved.map(|(eip, _)| (*eip, now.eips.get(eip).copied())).collect()
    }

    /// What each map and set has that it has not in `other`, as nft takes it.
    fn beyond(&self, other: &Self) -> [(&'static str, Vec<String>); 5] {
        let pairs = |map: &BTreeMap<_, _>, other: &BTreeMap<Ipv4Addr, Ipv4Addr>, between: &str| {
            let new = map.iter().filter(|(from, to)| other.get(*from) != Some(*to));
            new.map(|(from, to): (&Ipv4Addr, &Ipv4Addr)| format!("{from}{between}{to}")).collect()
        };
        let prefixes = |set: &BTreeSet<Prefix>, other| set.difference(other).map(Prefix::to_string).collect();
        let pods = self.pods.difference(&other.pods);
        [
            ("eips", pairs(&self.eips, &other.eips, " : ")),
            ("own", pairs(&self.own, &other.own, " . ")),
            ("self", pods.map(|pod| format!("{pod} : {pod}")).collect()),
            ("external", prefixes(&self.external, &other.external)),
            ("internal", prefixes(&self.internal, &other.internal)),
        ]
    }
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pods, {} EIPs, {} prefixes", self.pods.len(), self.eips.len(), self.internal.len())
    }
}

/// The prefixes that are inside no other: an interval set takes no overlaps.
fn outermost(prefixes: &BTreeSet<Prefix>) -> BTreeSet<Prefix> {
    let truncated: BTreeSet<Prefix> = prefixes.iter().map(|prefix| prefix.trunc()).collect();
    let mut kept: Vec<Prefix> = Vec::new();
    // A prefix sorts right before what is inside it.
    for prefix in truncated {
        if !kept.last().is_some_and(|outer| outer.contains(prefix.addr)) {
            kept.push(prefix);
        }
    }
    kept.into_iter().collect()
}

/// One transaction that replaces the table as a whole.
pub(super) fn rebuild(wanted: &Elements) -> String {
    let mut script = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    let _ = writeln!(script, "add counter {TABLE} {IN_CLUSTER}");
    for map in MAPS {
        let _ = writeln!(script, "add map {TABLE} {map} {{ type ipv4_addr : ipv4_addr; }}");
    }
    for (set, kind) in SETS {
        let _ = writeln!(script, "add set {TABLE} {set} {{ {kind} }}");
    }
    for (chain, kind, hook, priority) in CHAINS {
        let _ = writeln!(
            script,
            "add chain {TABLE} {chain} {{ type {kind} hook {hook} priority {priority}; policy accept; }}"
        );
    }
    for (chain, rule, comment) in rules() {
        let _ = writeln!(script, "add rule {TABLE} {chain} {rule} comment \"{comment}\"");
    }
    script + &difference(&Elements::default(), wanted)
}

/// One transaction that turns `held` into `wanted`; empty when they are equal.
pub(super) fn difference(held: &Elements, wanted: &Elements) -> String {
    let mut script = String::new();
    for (verb, from, without) in [("delete", held, wanted), ("add", wanted, held)] {
        for (set, lines) in from.beyond(without) {
            if !lines.is_empty() {
                let _ = writeln!(script, "{verb} element {TABLE} {set} {{ {} }}", lines.join(", "));
            }
        }
    }
    script
}

/// The elements of a table in exactly our form.
pub(super) fn parse(listing: &Value) -> Option<Elements> {
    let mut elements = Elements::default();
    let (mut chains, mut found, mut counted) = (0, Vec::new(), false);
    for object in listing.get("nftables")?.as_array()? {
        let (kind, body) = object.as_object()?.iter().next()?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        match (kind.as_str(), name) {
            ("metainfo" | "table", _) => {}
            ("counter", IN_CLUSTER) => counted = true,
            ("map" | "set", _) => elements.read(name, elem(body)?)?,
            ("chain", _) => {
                let is = |(known, kind, hook, priority): &(&str, &str, &str, i64)| {
                    *known == name
                        && body["type"] == *kind
                        && body["hook"] == *hook
                        && body["prio"] == *priority
                };
                chains += usize::from(CHAINS.iter().any(is));
            }
            ("rule", _) => found.push((body.get("chain")?.as_str()?, body.get("comment")?.as_str()?)),
            _ => return None,
        }
    }
    let rules = rules();
    let rules: Vec<_> = rules.iter().map(|(chain, _, comment)| (*chain, *comment)).collect();
    (chains == CHAINS.len() && counted && found == rules).then_some(elements)
}

impl Elements {
    /// Takes what nft listed of a map or set.
    fn read(&mut self, name: &str, listed: &[Value]) -> Option<()> {
        match name {
            "internal" => self.internal = listed.iter().map(prefix).collect::<Option<_>>()?,
            "external" => self.external = listed.iter().map(prefix).collect::<Option<_>>()?,
            "own" => {
                for pair in listed {
                    let [pod, eip] = pair.get("concat")?.as_array()?.as_slice() else { return None };
                    self.own.insert(address(pod)?, address(eip)?);
                }
            }
            "eips" | "self" => {
                for pair in listed {
                    let [from, to] = pair.as_array()?.as_slice() else { return None };
                    let (from, to) = (address(from)?, address(to)?);
                    match name {
                        "eips" => drop(self.eips.insert(from, to)),
                        _ => drop(self.pods.insert((from == to).then_some(to)?)),
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// The counter of a listing of it.
pub(super) fn counter(listing: &Value) -> Option<InCluster> {
    let counter = listing.get("nftables")?.as_array()?.iter().find_map(|object| object.get("counter"))?;
    let number = |field| counter.get(field).and_then(Value::as_u64);
    Some(InCluster { packets: number("packets")?, bytes: number("bytes")? })
}

fn elem(body: &Value) -> Option<&[Value]> {
    match body.get("elem") {
        None => Some(&[]),
        Some(elements) => elements.as_array().map(Vec::as_slice),
    }
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

fn prefix(value: &Value) -> Option<Prefix> {
    if let Some(addr) = address(value) {
        return Some(Prefix::host(addr));
    }
    let prefix = value.get("prefix")?;
    Some(Prefix::new(address(prefix.get("addr")?)?, u8::try_from(prefix.get("len")?.as_u64()?).ok()?))
}

#[cfg(test)]
mod tests;
