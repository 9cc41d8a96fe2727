//! What is missing in the API: a pure function of state and memory.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use crate::desired::State as Wanted;
use crate::desired::claim::Claim;
use crate::report::event::{Event, Reason, Regarding};
use crate::report::memory::Memory;
use crate::report::{State, Target, Write};
use crate::snapshot::{BoundLabel, Configured, ObjectName};

/// What this node has to write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Duty {
    /// Nothing: another node does.
    Nothing,
    /// Problems of the ConfigMap only: there is no owner, or it is not known what to serve.
    Configuration,
    /// Everything.
    Everything,
}

/// What this node has to write. The owner writes everything. When the gateway is disabled there is none, and the
/// one that was, as far as `last_owner` tells, cleans up. Otherwise, and for the problems of a ConfigMap that gives no
/// owner, it is the first Ready node by name, of the gateways by label if there are such.
pub fn duty(state: &State, last_owner: Option<&str>) -> Duty {
    let full = match state.desired.state {
        Wanted::Keep => Duty::Configuration,
        Wanted::Withdrawn | Wanted::Datapath(_) => Duty::Everything,
    };
    let here = state.snapshot.node_name.as_str();
    if let Some(owner) = &state.desired.gateways.owner {
        return if owner == here { full } else { Duty::Nothing };
    }
    let nodes = &state.snapshot.nodes;
    let withdrawn = state.desired.state == Wanted::Withdrawn;
    let last = last_owner.filter(|last| withdrawn && nodes.get(*last).is_some_and(|node| node.ready));
    let ready = || nodes.iter().filter(|(_, node)| node.ready);
    let labelled = ready().find(|(_, node)| node.gateway_label);
    let first = labelled.or_else(|| ready().next()).map(|(name, _)| name.as_str());
    match last.or(first) {
        Some(name) if name == here => {
            if withdrawn {
                Duty::Everything
            } else {
                Duty::Configuration
            }
        }
        Some(_) | None => Duty::Nothing,
    }
}

/// Every write that is missing, patches first, and due: not sent a moment ago, failed a moment ago, or contested.
pub fn writes(state: &State, memory: &Memory, now: Instant) -> Vec<Write> {
    let duty = duty(state, memory.owner());
    let mut writes = Vec::new();
    if duty == Duty::Everything {
        writes.extend(patches(state).into_iter().map(|(write, _)| write));
        writes.extend(transitions(state, memory).into_iter().map(Write::Event));
    }
    for mut event in standing(state, memory, duty) {
        if memory.is_news(&event) {
            event.anew = memory.is_recurring(&event);
            writes.push(Write::Event(event));
        }
    }
    writes.retain(|write| memory.is_due(&write.target(), now));
    writes
}

/// What is not as it should be on pods and nodes, and whether it is to be set.
pub(super) fn patches(state: &State) -> Vec<(Write, bool)> {
    let served = served(state);
    let mut patches = Vec::new();
    for (name, pod) in &state.snapshot.pods {
        let ours = pod.bound_label != BoundLabel::Absent;
        let (set, right) = match served.get(name) {
            Some((eip, claim)) if is_programmed(state, *eip, claim) => (true, BoundLabel::Bound(*eip)),
            Some(_) => continue,
            // The label is what keeps its EIP for it.
            None if state.desired.waiting.contains(name) => continue,
            None if state.desired.refused.contains(name) => (false, BoundLabel::Refused),
            None => (false, BoundLabel::Absent),
        };
        let routed = if set { !pod.routed } else { pod.routed && ours };
        let label = (pod.bound_label != right).then_some(right);
        if routed || label.is_some() {
            let (uid, version) = (pod.uid.clone(), pod.version.clone());
            let write = Write::Pod { pod: name.clone(), uid, version, set, routed, label };
            patches.push((write, set));
        }
    }
    if let Configured::Enabled(config) = &state.snapshot.config {
        let unlabelled =
            |node: &&String| state.snapshot.nodes.get(*node).is_some_and(|node| !node.gateway_label);
        let nodes = config.gateway_nodes.iter().filter(unlabelled);
        patches.extend(nodes.map(|node| (Write::Node { node: node.clone() }, true)));
    }
    patches
}

/// The pods that have an EIP, by name.
pub(super) fn served(state: &State) -> HashMap<&ObjectName, (Ipv4Addr, &Claim)> {
    state.desired.served.iter().map(|(eip, claim)| (&claim.pod, (*eip, claim))).collect()
}

fn is_programmed(state: &State, eip: Ipv4Addr, claim: &Claim) -> bool {
    state.desired.bound && state.programmed.get(&eip) == Some(&claim.pod_ip)
}

/// Events of what has become different: bound, released.
fn transitions(state: &State, memory: &Memory) -> Vec<Event> {
    let mut events = Vec::new();
    let here = &state.snapshot.node_name;
    let served = served(state);
    for (name, pod) in &state.snapshot.pods {
        let Some((eip, claim)) = served.get(name) else { continue };
        if is_programmed(state, *eip, claim) && !memory.is_bound(*eip, &pod.uid) {
            let note =
                format!("EIP {eip} is bound to this pod on node {}, served by gateway {here}", claim.node);
            events.push(Event::of_pod(name, &pod.uid, Reason::EipBound, *eip, note));
        }
    }
    for (eip, uid, name) in memory.bound() {
        if state.desired.served.get(&eip).is_some_and(|claim| claim.pod == *name) {
            continue;
        }
        if state.snapshot.pods.get(name).is_some_and(|pod| pod.uid == uid) {
            let note = format!("EIP {eip} is no longer bound to this pod");
            events.push(Event::of_pod(name, uid, Reason::EipReleased, eip, note));
        }
    }
    events
}

/// Events of what is the case: problems, and patches that somebody undoes.
pub(super) fn standing(state: &State, memory: &Memory, duty: Duty) -> Vec<Event> {
    let problems = state.desired.problems.iter().filter_map(|problem| Event::of_problem(state, problem));
    let wanted = |event: &Event| match duty {
        Duty::Nothing => false,
        Duty::Configuration => event.regarding == Regarding::ConfigMap,
        Duty::Everything => true,
    };
    let contested = memory.contested().filter_map(|target| contested(state, target));
    problems.chain(contested).filter(wanted).collect()
}

fn contested(state: &State, target: &Target) -> Option<Event> {
    let Target::Pod(uid) = target else { return None };
    let (name, pod) = state.snapshot.pods.iter().find(|(_, pod)| pod.uid == *uid)?;
    let keys = &state.snapshot.keys;
    let note = format!(
        "somebody keeps changing annotation {} or label {}; the EIP is served all the same, and they are set \
         again less often; find who does it: kubectl get pod {} -n {} --show-managed-fields -o yaml",
        keys.routed, keys.eip_bound, name.name, name.namespace
    );
    Some(Event {
        regarding: Regarding::Pod,
        object: name.clone(),
        uid: Some(pod.uid.clone()),
        reason: Reason::EipContested,
        note,
        eip: None,
        anew: false,
    })
}
