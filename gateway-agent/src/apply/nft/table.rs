//! The form of the table, its elements, and how both are written for nft and read back.
//!
//! - `prerouting`, `output`: a connection from inside the cluster to an EIP goes to the pod's own
//!   address. One before kube-proxy's priority, so that an EIP that is also some Service's address
//!   is the pod's on every node alike. Only internal sources: what came from the external network
//!   has been translated by XDP or was left alone on purpose. Not a pod to its own EIP: a bridge
//!   sends no frame back to the port it came from. The programs turn that one round.
//! - `postrouting`, before the CNI's masquerade at 100: a process of this node that bound an
//!   address nobody inside can answer, such as that of the default route's NIC, gets the one
//!   towards the pod; an EIP pod on its way to the gateway keeps its own.
//! - `count`: packets that clients on this node sent to EIPs, since a NAT chain sees the first of a
//!   connection only.
//! - `forward`: nothing but a node's own tunnel code speaks to a tunnel's end, or a pod that the
//!   CNI masquerades would speak as its node; from the external network only EIP pods are reached.
//! - `input`: nor does `nic-ip` give anybody outside this node's own ports, unless `nic-ip-open`
//!   says so.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;

use gateway_common::addr::Prefix;
use serde_json::Value;

use self::rules::{CHAINS, COUNTERS, MAPS, SETS, rules};
use super::{Counted, Counters};
use crate::apply::conntrack::Stale;
use crate::desired::{Datapath, RouterPort};

/// Family and name of the table.
pub const TABLE: &str = "ip eip_gateway";

/// Name of the counter of packets from clients on this node to EIPs.
pub const IN_CLUSTER: &str = "in_cluster";
/// Name of the counter of packets that were to be forwarded to a tunnel's end.
pub const DROP_TUNNEL_PORT: &str = "drop_tunnel_port";
/// Name of the counter of packets from the external network to what is closed.
pub const DROP_ROUTER_PORT: &str = "drop_router_port";

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
    /// The tunnel's ends: all nodes' addresses, this one's too.
    pub vteps: BTreeSet<Ipv4Addr>,
    /// The tunnel's UDP port.
    pub tunnel: BTreeSet<u16>,
    /// Interfaces on the external network: what arrives there is from outside, whatever its source
    /// says.
    pub outside: BTreeSet<String>,
    /// Of these, the ones that `nic-ip` is closed on.
    pub closed: BTreeSet<String>,
    /// `nic-ip`, on the node that owns the external network.
    pub nic_ip: BTreeSet<Ipv4Addr>,
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
        let port = wanted.router_port.as_ref();
        let outside: BTreeSet<String> = port
            .map(|port| port.parent.clone())
            .into_iter()
            // A node that is about to own the external network, or has lost it a moment ago, has
            // the port already.
            .chain([RouterPort::NAME.to_owned()])
            .collect();
        let is_open = port.is_some_and(|port| port.open);
        Self {
            pods: wanted.identity_snat.clone(),
            own: eips.iter().filter_map(own_eip).collect(),
            external: BTreeSet::from([external]),
            internal,
            eips,
            vteps: wanted.vteps.keys().copied().chain([wanted.config.local_vtep.into()]).collect(),
            tunnel: BTreeSet::from([u16::from_be_bytes(wanted.config.geneve_port)]),
            closed: if is_open { BTreeSet::new() } else { outside.clone() },
            outside,
            nic_ip: port.map(|port| port.address.addr).into_iter().collect(),
        }
    }

    /// What the table is to hold before anything else is changed on the way from `held` to these:
    /// pods that lose their EIP are translated as ever again, and nothing is open that was closed
    /// or is to be.
    pub(super) fn before(&self, held: &Self) -> Self {
        fn both<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> BTreeSet<T> {
            a.union(b).cloned().collect()
        }
        let own = held.own.iter().filter(|(pod, eip)| self.own.get(*pod) == Some(*eip));
        Self {
            pods: held.pods.intersection(&self.pods).copied().collect(),
            own: own.map(|(pod, eip)| (*pod, *eip)).collect(),
            eips: held.eips.clone(),
            internal: self.internal.clone(),
            external: self.external.clone(),
            vteps: both(&held.vteps, &self.vteps),
            tunnel: both(&held.tunnel, &self.tunnel),
            outside: both(&held.outside, &self.outside),
            closed: both(&held.closed, &self.closed),
            nic_ip: both(&held.nic_ip, &self.nic_ip),
        }
    }

    /// The same guards, and no pod and no EIP: what is left when all EIPs are withdrawn.
    pub(super) fn guards(&self) -> Self {
        Self { pods: BTreeSet::new(), own: BTreeMap::new(), eips: BTreeMap::new(), ..self.clone() }
    }

    /// Whose connections conntrack is to forget when these become `now`.
    pub(super) fn stale(&self, now: &Self) -> Stale {
        let eips = self.eips.keys().chain(now.eips.keys());
        let moved = eips.filter(|eip| self.eips.get(*eip) != now.eips.get(*eip));
        Stale {
            eips: moved.map(|eip| (*eip, now.eips.get(eip).copied())).collect(),
            gained: now.pods.difference(&self.pods).copied().collect(),
            lost: self.pods.difference(&now.pods).copied().collect(),
            internal: now.internal.clone(),
        }
    }

    /// What each map and set has that it has not in `other`, as nft takes it.
    fn beyond(&self, other: &Self) -> [(&'static str, Vec<String>); 11] {
        let pairs = |map: &BTreeMap<_, _>, other: &BTreeMap<Ipv4Addr, Ipv4Addr>, between: &str| {
            let new = map.iter().filter(|(from, to)| other.get(*from) != Some(*to));
            new.map(|(from, to): (&Ipv4Addr, &Ipv4Addr)| format!("{from}{between}{to}")).collect()
        };
        fn words<T: Ord + fmt::Display>(set: &BTreeSet<T>, other: &BTreeSet<T>) -> Vec<String> {
            set.difference(other).map(T::to_string).collect()
        }
        let names =
            |set: &BTreeSet<String>, other| set.difference(other).map(|name| format!("\"{name}\"")).collect();
        let pods = self.pods.difference(&other.pods);
        [
            ("eips", pairs(&self.eips, &other.eips, " : ")),
            ("own", pairs(&self.own, &other.own, " . ")),
            ("self", pods.map(|pod| format!("{pod} : {pod}")).collect()),
            ("pods", words(&self.pods, &other.pods)),
            ("external", words(&self.external, &other.external)),
            ("internal", words(&self.internal, &other.internal)),
            ("vteps", words(&self.vteps, &other.vteps)),
            ("tunnel", words(&self.tunnel, &other.tunnel)),
            ("outside", names(&self.outside, &other.outside)),
            ("closed", names(&self.closed, &other.closed)),
            ("nic_ip", words(&self.nic_ip, &other.nic_ip)),
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
    for counter in COUNTERS {
        let _ = writeln!(script, "add counter {TABLE} {counter}");
    }
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
        let comment = rules::comment(comment);
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
    // The map `self` has them too.
    let mut pods = BTreeSet::new();
    let (mut chains, mut found, mut counters) = (0, Vec::new(), 0);
    for object in listing.get("nftables")?.as_array()? {
        let (kind, body) = object.as_object()?.iter().next()?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        match (kind.as_str(), name) {
            ("metainfo" | "table", _) => {}
            ("counter", name) => counters += usize::from(COUNTERS.contains(&name)),
            ("set", "pods") => pods = elem(body)?.iter().map(address).collect::<Option<_>>()?,
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
    let rules: Vec<_> =
        rules().into_iter().map(|(chain, _, comment)| (chain, rules::comment(comment))).collect();
    let found_all = found.iter().copied().eq(rules.iter().map(|(chain, comment)| (*chain, comment.as_str())));
    let whole = chains == CHAINS.len() && counters == COUNTERS.len() && found_all;
    (whole && elements.pods == pods).then_some(elements)
}

impl Elements {
    /// Takes what nft listed of a map or set.
    fn read(&mut self, name: &str, listed: &[Value]) -> Option<()> {
        match name {
            "internal" => self.internal = listed.iter().map(prefix).collect::<Option<_>>()?,
            "external" => self.external = listed.iter().map(prefix).collect::<Option<_>>()?,
            "vteps" => self.vteps = listed.iter().map(address).collect::<Option<_>>()?,
            "nic_ip" => self.nic_ip = listed.iter().map(address).collect::<Option<_>>()?,
            "outside" => self.outside = listed.iter().map(text).collect::<Option<_>>()?,
            "closed" => self.closed = listed.iter().map(text).collect::<Option<_>>()?,
            "tunnel" => self.tunnel = listed.iter().map(port).collect::<Option<_>>()?,
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

/// The counters of a listing of them; `None` when one is missing.
pub(super) fn counters(listing: &Value) -> Option<Counters> {
    let objects = listing.get("nftables")?.as_array()?;
    let counted = |name: &str| {
        let mut counters = objects.iter().filter_map(|object| object.get("counter"));
        let counter = counters.find(|counter| counter.get("name").and_then(Value::as_str) == Some(name))?;
        let number = |field| counter.get(field).and_then(Value::as_u64);
        Some(Counted { packets: number("packets")?, bytes: number("bytes")? })
    };
    Some(Counters {
        in_cluster: counted(IN_CLUSTER)?,
        drop_tunnel_port: counted(DROP_TUNNEL_PORT)?,
        drop_router_port: counted(DROP_ROUTER_PORT)?,
    })
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

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
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
