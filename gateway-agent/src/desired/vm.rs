//! Where a VM's guest runs, and which EIP the VM asks for: pure functions of what is visible, for KubeVirt 1.0 and later.
//!
//! The guest of a VirtualMachineInstance runs in one of its launcher pods. Which one changes in a live migration the moment
//! `migrationState.targetNodeDomainReadyTimestamp` is set: before `status.nodeName` follows, and long before the source pod
//! ends. Neither a pod's phase nor its readiness tells: a target runs before the guest arrives, and the source runs on.
//! To switch late is worse than early: the kernel in the old pod would reset the guest's connections.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::snapshot::{HeldVm, Launcher, ObjectName, Pod, Snapshot, Vmi};

/// A launcher pod.
#[derive(Clone, Copy, Debug)]
pub struct Launched<'a> {
    /// Its name.
    pub name: &'a ObjectName,
    /// The pod.
    pub pod: &'a Pod,
    /// What makes it a launcher.
    pub launcher: &'a Launcher,
}

impl Launched<'_> {
    /// Whether a guest may run in it. One that is terminating still counts.
    fn live(&self) -> bool {
        !self.pod.finished && !self.launcher.stopped
    }

    fn age(&self) -> impl Ord + use<'_> {
        (self.pod.created, self.name)
    }
}

/// A VirtualMachineInstance, as far as it is visible, and its launcher pods.
#[derive(Clone, Debug)]
pub struct Vm<'a> {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its `metadata.uid`.
    pub uid: &'a str,
    /// The VirtualMachineInstance; `None` when it may not be read, or was not heard of yet.
    pub vmi: Option<&'a Vmi>,
    /// Another VirtualMachineInstance has taken its name: this one is history.
    pub superseded: bool,
    /// Its launcher pods, ended ones included.
    pub pods: Vec<Launched<'a>>,
    /// The EIP it has, or had.
    pub held: Option<(Ipv4Addr, &'a HeldVm)>,
}

/// All VMs of a snapshot.
pub fn vms(snapshot: &Snapshot) -> Vec<Vm<'_>> {
    let mut vms = BTreeMap::<(ObjectName, &str), Vm<'_>>::new();
    // A pod's author chooses the uid that its owner reference names: the namespace has to be the
    // same too.
    let held = |name: &ObjectName, uid: &str| {
        snapshot.held.vms.iter().find(|(_, held)| held.uid == uid && held.vmi == *name)
    };
    let vm = |name: &ObjectName, uid| {
        let vmi = snapshot.vmis.get(name);
        Vm {
            name: name.clone(),
            uid,
            vmi: vmi.filter(|vmi| vmi.uid == uid),
            superseded: vmi.is_some_and(|vmi| vmi.uid != uid && !vmi.gone),
            pods: Vec::new(),
            held: held(name, uid).map(|(eip, held)| (*eip, held)),
        }
    };
    for (name, vmi) in &snapshot.vmis {
        vms.insert((name.clone(), &vmi.uid), vm(name, &vmi.uid));
    }
    for (name, pod) in &snapshot.pods {
        let Some(launcher) = &pod.launcher else { continue };
        let of = ObjectName { namespace: name.namespace.clone(), name: launcher.vmi.as_str().into() };
        let key = (of, launcher.vmi_uid.as_str());
        let vm = vms.entry(key.clone()).or_insert_with(|| vm(&key.0, key.1));
        vm.pods.push(Launched { name, pod, launcher });
    }
    vms.into_values().collect()
}

/// The pod the guest runs in; `None`: in none, or not known. A target that only waits is never guessed.
///
/// `partial`: pods of other nodes may be missing, so that a pod that is named and not there is elsewhere.
pub fn active<'a>(vm: &Vm<'a>, partial: bool) -> Option<Launched<'a>> {
    let live = || vm.pods.iter().copied().filter(Launched::live);
    let Some(vmi) = vm.vmi else {
        // Of all to which a guest has moved the newest: each was the source of the next.
        let arrived = live().filter(|pod| pod.launcher.arrived.is_some());
        let newest = arrived.max_by(|a, b| {
            (a.pod.created, &a.launcher.arrived, a.name).cmp(&(b.pod.created, &b.launcher.arrived, b.name))
        });
        return newest.or_else(|| live().min_by(|a, b| a.age().cmp(&b.age())));
    };
    if let Some(target) = &vmi.migrated_to {
        // The state of a migration long past is as good: its target is today's pod.
        let named = |pod: &Launched<'_>| *pod.name.name == **target;
        if let Some(pod) = live().find(named) {
            return Some(pod);
        }
        if partial && !vm.pods.iter().any(named) {
            return None;
        }
    }
    let on_node = |pod: &Launched<'_>| pod.pod.node.is_some() && pod.pod.node == vmi.node;
    if let Some(pod) = live().filter(on_node).max_by(|a, b| a.age().cmp(&b.age())) {
        return Some(pod);
    }
    if partial && vmi.node.is_some() && !vm.pods.iter().any(on_node) {
        return None;
    }
    let (_, held) = vm.held?;
    live().find(|pod| *pod.name.name == *held.pod)
}

/// The live pods the guest does not run in: a target that waits for it, a source that has not ended.
pub fn idle<'a>(vm: &Vm<'a>, active: Option<Launched<'a>>) -> impl Iterator<Item = Launched<'a>> {
    let pods = vm.pods.iter().copied().filter(Launched::live);
    pods.filter(move |pod| active.is_none_or(|active| active.name != pod.name))
}

/// What a VM asks for, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// As written.
    pub text: String,
    /// Who says so.
    pub by: Author,
}

/// Who says which EIP a VM is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Author {
    /// The pod the guest runs in.
    Active(String),
    /// The VirtualMachineInstance.
    Vmi,
    /// Another pod of the same VM: the source of a migration, which may have ended.
    Other(String),
    /// Nobody any more: the pod that did is gone.
    Memory(Option<String>),
}

impl Author {
    /// The pod to remember; `None`: the VirtualMachineInstance.
    pub fn pod(&self) -> Option<String> {
        match self {
            Self::Active(pod) | Self::Other(pod) => Some(pod.clone()),
            Self::Memory(pod) => pod.clone(),
            Self::Vmi => None,
        }
    }
}

/// The EIP a VM asks for: the active pod's annotation, else that of the VirtualMachineInstance, else that of another of
/// its pods, else the EIP it has, unless who asked for it is there and no longer does. An empty annotation of the
/// active pod asks for none, whatever the others say.
pub fn wish(vm: &Vm<'_>, active: Option<Launched<'_>>) -> Option<Wish> {
    if let Some(active) = active
        && let Some(text) = &active.pod.eip
    {
        return said(text, Author::Active(active.name.name.to_string()));
    }
    if let Some(text) = vm.vmi.and_then(|vmi| vmi.eip.as_deref()) {
        return said(text, Author::Vmi);
    }
    let mut others: Vec<_> = vm.pods.iter().collect();
    others.sort_by(|a, b| Reverse(a.age()).cmp(&Reverse(b.age())));
    for other in others {
        let text = other.pod.eip.as_deref().unwrap_or_default();
        if let Some(wish) = said(text, Author::Other(other.name.name.to_string())) {
            return Some(wish);
        }
    }
    let (eip, held) = vm.held?;
    let there = match &held.asked_by {
        Some(pod) => vm.pods.iter().any(|other| *other.name.name == **pod),
        None => vm.vmi.is_some(),
    };
    (!there).then(|| Wish { text: eip.to_string(), by: Author::Memory(held.asked_by.clone()) })
}

fn said(text: &str, by: Author) -> Option<Wish> {
    (!text.trim().is_empty()).then(|| Wish { text: text.to_owned(), by })
}
