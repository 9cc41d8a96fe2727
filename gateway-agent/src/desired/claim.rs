//! Which pod has which EIP: from all pods and VMs that ask, the one that is served.
//!
//! Every agent decides by itself, so what all of them see comes first: the label that the owning
//! gateway writes on the pod it serves, and that the admission policies let nobody else write. An
//! agent that lost its memory, or was away and remembers what is no longer so, then agrees with the
//! others. Its own memory decides where the label says nothing, or the same of both, such as before
//! the owner has written. `routed`, which any user may write, decides nothing.

mod standing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub use self::standing::Judge;
use crate::annotation::parse_eip;
use crate::config::GatewayConfig;
use crate::desired::problem::Problem;
use crate::desired::rank::{self, Family, Rank};
use crate::desired::vm::{self, Author, Launched, Vm, Wish};
use crate::snapshot::{BoundLabel, HeldVm, ObjectName, Pod, Snapshot};

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
    /// The owner of the external network has accepted the EIP, as far as this node knows.
    pub accepted: bool,
}

/// Who has which EIP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claims {
    /// The EIPs that are served.
    pub served: BTreeMap<Ipv4Addr, Claim>,
    /// Pods of the VMs among those that the guest is not in. Their packets go to the gateway like the active pod's, and no
    /// further: a guest that has moved speaks before anybody has heard of it, and what left by its node's own address
    /// would be answered by a reset.
    pub idle: BTreeMap<Ipv4Addr, Vec<Claim>>,
    /// The VMs among those, and those for which an EIP is kept while they restart.
    pub vms: BTreeMap<Ipv4Addr, HeldVm>,
    /// Pods that have an EIP and wait for an address or their node: it is kept for them, and nobody
    /// is served.
    pub waiting: BTreeSet<ObjectName>,
    /// EIPs that the owner asks the external network for before it serves them, and the pods that want them.
    pub asked: BTreeMap<Ipv4Addr, ObjectName>,
    /// Pods whose EIP the owner refuses for a reason that other nodes may not know.
    pub refused: BTreeSet<ObjectName>,
    /// Every refusal, conflict and wait that has a cause.
    pub problems: Vec<Problem>,
}

/// A pod or VM that asks for an EIP and could be served.
pub(super) struct Claimant<'a> {
    eip: Ipv4Addr,
    /// `None`: it has the EIP and cannot be served at the moment.
    claim: Option<Claim>,
    vm: Option<HeldVm>,
    idle: Vec<Claim>,
    pub(super) rank: Rank<'a>,
    /// What a gateway says of it.
    label: BoundLabel,
}

impl Claimant<'_> {
    /// Its name in problems.
    fn object(&self) -> String {
        match (&self.claim, &self.vm) {
            (Some(claim), _) => format!("pod {}", claim.pod),
            (None, Some(vm)) => format!("virtualmachineinstance {}, which is restarting", vm.vmi),
            (None, None) => format!("pod {}, which waits", self.rank.name),
        }
    }
}

/// Decides who has which EIP.
pub fn claims(snapshot: &Snapshot, config: &GatewayConfig, judge: Judge) -> Claims {
    let of_nodes = snapshot.nodes.iter().rev().flat_map(|(name, node)| {
        let all = node.internal_ip.iter().chain(&node.addresses);
        all.map(move |address| (*address, name.as_str()))
    });
    let (nodes, nics) = (of_nodes.collect(), standing::nics(&snapshot.host));
    let round = Round { snapshot, config, judge, nodes, nics };
    let mut problems = Vec::new();
    let mut claimants = one_per_address(round.claimants(&mut problems), &mut problems);
    claimants.sort_by_key(|claimant| claimant.eip);
    for of_one_eip in claimants.chunk_by_mut(|a, b| a.eip == b.eip) {
        rank::order(of_one_eip);
        let [winner, losers @ ..] = of_one_eip else { continue };
        for loser in losers.iter().filter(|loser| loser.claim.is_some()) {
            problems.push(Problem::conflict(
                loser.object(),
                snapshot.keys.eip_field(),
                format!("{} belongs to {}", winner.eip, winner.object()),
                "choose another EIP, or take it from that one: this one then gets it without further ado",
            ));
        }
    }
    claimants.dedup_by_key(|claimant| claimant.eip);
    let mut claims = Claims { problems, ..Claims::default() };
    for claimant in claimants {
        round.settle(claimant, &mut claims);
    }
    claims
}

/// Of several claimants with one pod address the first.
fn one_per_address<'a>(mut claimants: Vec<Claimant<'a>>, problems: &mut Vec<Problem>) -> Vec<Claimant<'a>> {
    let address = |claimant: &Claimant<'_>| claimant.claim.as_ref().map(|claim| claim.pod_ip);
    let shared = |a: &Claimant<'_>, b: &Claimant<'_>| address(a).is_some() && address(a) == address(b);
    claimants.sort_by(|a, b| (address(a), &a.rank).cmp(&(address(b), &b.rank)));
    for of_one_address in claimants.chunk_by(shared) {
        let [winner, losers @ ..] = of_one_address else { continue };
        problems.extend(losers.iter().zip(losers.iter().filter_map(address)).map(|(loser, pod_ip)| {
            Problem::refused(
                loser.object(),
                "status.podIP",
                format!("{pod_ip} is also the address of {}", winner.object()),
                "give each pod an address of its own",
            )
        }));
    }
    claimants.dedup_by(|later, first| shared(first, later));
    claimants
}

struct Round<'a> {
    snapshot: &'a Snapshot,
    config: &'a GatewayConfig,
    judge: Judge,
    /// The nodes by their addresses of any type; of two with one address the first by name.
    nodes: BTreeMap<Ipv4Addr, &'a str>,
    /// The interfaces of this host by their addresses.
    nics: BTreeMap<Ipv4Addr, &'a str>,
}

impl<'a> Round<'a> {
    fn claimants(&self, problems: &mut Vec<Problem>) -> Vec<Claimant<'a>> {
        let mut claimants = Vec::new();
        for (name, pod) in self.snapshot.pods.iter().filter(|(_, pod)| pod.launcher.is_none()) {
            match self.pod(name, pod, problems) {
                Ok(claimant) => claimants.extend(claimant),
                Err(problem) => problems.push(problem),
            }
        }
        for vm in vm::vms(self.snapshot) {
            match self.vm(&vm, problems) {
                Ok(claimant) => claimants.extend(claimant),
                Err(problem) => problems.push(problem),
            }
        }
        claimants
    }

    /// What a pod asks for: `Ok(None)` when it asks for nothing or has to wait for something that
    /// comes by itself. One that had its EIP keeps it from strangers while it waits.
    fn pod(
        &self,
        name: &'a ObjectName,
        pod: &'a Pod,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Claimant<'a>>, Problem> {
        let Some(text) = pod.eip.as_deref().filter(|_| !pod.finished) else { return Ok(None) };
        let Some(eip) = self.eip(name, pod, text)? else { return Ok(None) };
        let claim = self.claim(name, pod, eip).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let bound = pod.bound_label == BoundLabel::Bound(eip);
        if claim.is_none() && !bound {
            return Ok(None);
        }
        let held =
            claim.as_ref().is_some_and(|claim| self.snapshot.held.pods.get(&eip) == Some(&claim.pod_ip));
        let rank = Rank {
            waits: claim.is_none(),
            ends: pod.terminating,
            unready: !pod.ready,
            bound: Reverse(bound),
            held: Reverse(held),
            created: pod.created,
            name: name.clone(),
            family: match &pod.owner {
                Some(owner) => Family::Owner(&name.namespace, owner),
                None => Family::Pod(name),
            },
        };
        let label = pod.bound_label;
        Ok(Some(Claimant { eip, claim, vm: None, idle: Vec::new(), rank, label }))
    }

    /// What a VM asks for. Neither that its pod terminates nor that it is not ready makes it yield: a restart or a
    /// pause is no reason to give its address away.
    fn vm(&self, vm: &Vm<'_>, problems: &mut Vec<Problem>) -> Result<Option<Claimant<'a>>, Problem> {
        let active = vm::active(vm, self.snapshot.partial);
        let Some(wish) = vm::wish(vm, active) else { return Ok(None) };
        let eip = match active {
            Some(Launched { name, pod, .. }) => self.eip(name, pod, &wish.text)?,
            // Nobody could be told; it is told as soon as it runs.
            None => parse_eip(&wish.text, self.config).unwrap_or_default(),
        };
        let Some(eip) = eip else { return Ok(None) };
        let mut claim = None;
        if let Some(active) = active {
            problems.extend(self.fleeting(vm, active, &wish));
            match self.claim(active.name, active.pod, eip) {
                Ok(made) => claim = made,
                Err(problem) => problems.push(problem),
            }
        }
        let held = self.has(vm, eip, claim.as_ref());
        if claim.is_none() && !self.keeps(vm, eip, held) {
            return Ok(None);
        }
        let pod = active.map(|active| active.name.name.to_string());
        let before = vm.held.map(|(_, held)| held.pod.clone());
        let remembered = HeldVm {
            vmi: vm.name.clone(),
            uid: vm.uid.to_owned(),
            pod: pod.or(before).unwrap_or_default(),
            asked_by: wish.by.pod(),
        };
        let eldest = vm.pods.iter().map(|pod| pod.pod.created).min().unwrap_or_default();
        let bound = vm.pods.iter().any(|pod| pod.pod.bound_label == BoundLabel::Bound(eip));
        let of_active = || active.map(|active| active.pod.bound_label).unwrap_or_default();
        // Before the label has followed the guest, the pod it came from has it.
        let label = if bound { BoundLabel::Bound(eip) } else { of_active() };
        let rank = Rank {
            waits: false,
            ends: vm.superseded,
            unready: false,
            bound: Reverse(bound),
            // Who keeps it without a pod had it: whoever waits and was not written to did not.
            held: Reverse(held || claim.is_none()),
            created: vm.vmi.map_or(eldest, |vmi| vmi.created),
            name: vm.name.clone(),
            family: Family::Vm(vm.name.clone()),
        };
        // What is wrong with one of these is told when the guest comes there.
        let idle = vm::idle(vm, active).filter_map(|pod| self.claim(pod.name, pod.pod, eip).ok()?);
        Ok(Some(Claimant { eip, claim, vm: Some(remembered), idle: idle.collect(), rank, label }))
    }

    /// Whether a VM is remembered to have an EIP.
    fn has(&self, vm: &Vm<'_>, eip: Ipv4Addr, claim: Option<&Claim>) -> bool {
        let held = &self.snapshot.held;
        match held.vms.get(&eip) {
            Some(memory) => memory.vmi == vm.name,
            None => claim.is_some_and(|claim| held.pods.get(&eip) == Some(&claim.pod_ip)),
        }
    }

    /// Whether a VM that runs nowhere keeps its EIP from others: while it restarts, if it had it, or if nobody
    /// remembers and it ran.
    fn keeps(&self, vm: &Vm<'_>, eip: Ipv4Addr, held: bool) -> bool {
        let Some(vmi) = vm.vmi else { return held && !vm.pods.iter().all(|pod| pod.pod.finished) };
        let memory = &self.snapshot.held;
        let forgotten = !memory.vms.contains_key(&eip) && !memory.pods.contains_key(&eip);
        (vmi.by_vm || !vmi.finished) && (held || (forgotten && vmi.node.is_some()))
    }

    /// A warning where a VM's EIP does not outlive a migration or a restart, or is about to change by one.
    fn fleeting(&self, vm: &Vm<'_>, active: Launched<'_>, wish: &Wish) -> Option<Problem> {
        let vmi = vm.vmi?;
        let eip = wish.text.trim();
        let message = match (&wish.by, vmi.eip.as_deref().map(str::trim)) {
            (Author::Active(_), Some(other)) if other != eip => format!(
                "the pod asks for EIP {eip}, virtualmachineinstance {} for {other:?}: the pod's counts until a \
                 migration or restart",
                vm.name
            ),
            (_, Some(_)) | (Author::Vmi, None) => return None,
            (Author::Active(_), None) => {
                format!("EIP {eip} is asked for by this pod alone, and lost when the VM restarts")
            }
            (Author::Other(pod), None) => {
                format!(
                    "EIP {eip} is kept because pod {pod} of the same VM asks for it, and lost when it restarts"
                )
            }
            (Author::Memory(_), None) => format!(
                "EIP {eip} is kept because the VM had it before a migration, and lost when the VM restarts"
            ),
        };
        Some(Problem::warning(
            format!("pod {}", active.name),
            self.snapshot.keys.eip_field(),
            message,
            "only the annotation in spec.template.metadata of the VirtualMachine makes it permanent; until the next \
             restart write it to the VirtualMachineInstance and the pod too, or an empty one to the pod to give it up",
        ))
    }

    /// The EIP a pod may ask for by `text`; `None` when that is empty.
    fn eip(&self, name: &ObjectName, pod: &Pod, text: &str) -> Result<Option<Ipv4Addr>, Problem> {
        let Self { snapshot, config, .. } = self;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let object = || format!("pod {name}");
        if pod.host_network {
            return Err(Problem::refused(
                object(),
                "spec.hostNetwork",
                "the pod shares its node's address, so it can have no EIP",
                "set hostNetwork to false, or remove the annotation",
            ));
        }
        let field = snapshot.keys.eip_field();
        let eip = match parse_eip(text, config) {
            Ok(Some(eip)) => eip,
            Ok(None) => return Ok(None),
            Err(error) => {
                return Err(Problem::refused(object(), field, error.to_string(), error.remedy(config)));
            }
        };
        if let Some(node) = self.nodes.get(&eip) {
            let message = format!("{eip} is the address of node {node}");
            let remedy = format!("choose a free address of {}", config.external_gateway.trunc());
            return Err(Problem::refused(object(), field, message, remedy));
        }
        Ok(Some(eip))
    }

    /// Where a pod is; `None` while it waits for an address or a node.
    fn claim(&self, name: &ObjectName, pod: &Pod, eip: Ipv4Addr) -> Result<Option<Claim>, Problem> {
        let (Some(node), Some(pod_ip)) = (&pod.node, pod.ip) else { return Ok(None) };
        let Some(vtep) = self.snapshot.nodes.get(node).and_then(|node| node.internal_ip) else {
            let known = self.snapshot.nodes.contains_key(node);
            let why = if known { "has no IPv4 address of type InternalIP" } else { "is not known" };
            return Err(Problem::warning(
                format!("pod {name}"),
                "spec.nodeName",
                format!("its node {node:?} {why}, so EIP {eip} waits"),
                "create the Node with its InternalIP",
            ));
        };
        Ok(Some(Claim { pod: name.clone(), pod_ip, node: node.clone(), vtep, accepted: false }))
    }
}
