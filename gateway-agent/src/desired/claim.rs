//! Which pod has which EIP: from all pods that ask, the one that is served.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::annotation::parse_eip;
use crate::config::GatewayConfig;
use crate::desired::problem::Problem;
use crate::snapshot::{ObjectName, Pod, Snapshot};

/// An EIP that is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The pod.
    pub pod: ObjectName,
    /// Its address.
    pub pod_ip: Ipv4Addr,
    /// Name of its node.
    pub node: String,
    /// Tunnel endpoint of its node.
    pub vtep: Ipv4Addr,
}

/// A pod that asks for an EIP and could be served.
struct Claimant<'a> {
    eip: Ipv4Addr,
    claim: Claim,
    state: &'a Pod,
    /// The tables serve this pod with this EIP.
    held: bool,
}

impl Claimant<'_> {
    /// Smallest first. A pod that ends yields to any other, one that is not ready to one that is; then who is served
    /// stays, and only among newcomers does age decide.
    fn rank(&self) -> impl Ord + use<'_> {
        (self.state.terminating, !self.state.ready, Reverse(self.held), self.state.created, &self.claim.pod)
    }
}

/// The EIPs that are served, and every refusal, conflict and wait that has a cause.
pub fn claims(snapshot: &Snapshot, config: &GatewayConfig) -> (BTreeMap<Ipv4Addr, Claim>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut by_pod_ip = BTreeMap::<Ipv4Addr, Vec<Claimant<'_>>>::new();
    for (name, pod) in &snapshot.pods {
        match claimant(snapshot, config, name, pod) {
            Ok(Some(claimant)) => by_pod_ip.entry(claimant.claim.pod_ip).or_default().push(claimant),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let mut by_eip = BTreeMap::<Ipv4Addr, Vec<Claimant<'_>>>::new();
    for (pod_ip, mut claimants) in by_pod_ip {
        let winner = take_first(&mut claimants);
        for loser in claimants {
            problems.push(Problem::refused(
                format!("pod {}", loser.claim.pod),
                "status.podIP",
                format!("{pod_ip} is also the address of pod {}", winner.claim.pod),
                "give each pod an address of its own",
            ));
        }
        by_eip.entry(winner.eip).or_default().push(winner);
    }
    let mut claims = BTreeMap::new();
    for (eip, mut claimants) in by_eip {
        let winner = take_first(&mut claimants);
        for loser in claimants {
            problems.push(Problem::conflict(
                format!("pod {}", loser.claim.pod),
                snapshot.keys.eip_field(),
                format!("{eip} belongs to pod {}", winner.claim.pod),
                "choose another EIP, or take it from that pod: this one then gets it without further ado",
            ));
        }
        claims.insert(eip, winner.claim);
    }
    (claims, problems)
}

/// Takes the claimant of the smallest rank out of a list that is never empty.
fn take_first<'a>(claimants: &mut Vec<Claimant<'a>>) -> Claimant<'a> {
    claimants.sort_by(|a, b| a.rank().cmp(&b.rank()));
    claimants.remove(0)
}

/// What a pod asks for: `Ok(None)` when it asks for nothing or has to wait for something that comes by itself.
fn claimant<'a>(
    snapshot: &Snapshot,
    config: &GatewayConfig,
    name: &ObjectName,
    pod: &'a Pod,
) -> Result<Option<Claimant<'a>>, Problem> {
    let Some(text) = pod.eip.as_deref().filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    if pod.finished {
        return Ok(None);
    }
    let object = format!("pod {name}");
    if pod.host_network {
        return Err(Problem::refused(
            object,
            "spec.hostNetwork",
            "the pod shares its node's address, so it can have no EIP",
            "set hostNetwork to false, or remove the annotation",
        ));
    }
    let field = snapshot.keys.eip_field();
    let eip = match parse_eip(text, config) {
        Ok(Some(eip)) => eip,
        Ok(None) => return Ok(None),
        Err(error) => return Err(Problem::refused(object, field, error.to_string(), error.remedy(config))),
    };
    if let Some((node, _)) = snapshot.nodes.iter().find(|(_, node)| node.internal_ip == Some(eip)) {
        let message = format!("{eip} is the address of node {node}");
        let remedy = format!("choose a free address of {}", config.external_gateway.trunc());
        return Err(Problem::refused(object, field, message, remedy));
    }
    let (Some(node_name), Some(pod_ip)) = (&pod.node, pod.ip) else { return Ok(None) };
    let Some(vtep) = snapshot.nodes.get(node_name).and_then(|node| node.internal_ip) else {
        let why = if snapshot.nodes.contains_key(node_name) {
            "has no IPv4 address of type InternalIP"
        } else {
            "is not known"
        };
        let message = format!("its node {node_name:?} {why}, so EIP {eip} waits");
        return Err(Problem::warning(
            object,
            "spec.nodeName",
            message,
            "create the Node with its InternalIP",
        ));
    };
    let held = snapshot.held.get(&eip) == Some(&pod_ip);
    let claim = Claim { pod: name.clone(), pod_ip, node: node_name.clone(), vtep };
    Ok(Some(Claimant { eip, claim, state: pod, held }))
}
