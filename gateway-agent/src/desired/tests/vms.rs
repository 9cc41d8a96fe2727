//! A VM's EIP follows its guest: what KubeVirt writes in each step of a life, by every agent that sees it.

mod asking;
mod restart;

use super::*;
use crate::snapshot::{Launcher, Vmi};

/// The launcher pods: their name, node, address, and the address when the CNI keeps it.
const PODS: [(&str, &str, &str); 3] =
    [("A", "worker1", "10.244.2.10"), ("B", "worker2", "10.244.3.10"), ("C", "gw1", "10.244.1.10")];

/// What an agent may see and remembers.
#[derive(Clone, Copy, Debug)]
struct Agent {
    /// It may read VirtualMachineInstances.
    access: bool,
    /// Its memory is lost before every step.
    forgetful: bool,
    /// Both pods of a migration have the same address.
    same_ip: bool,
    /// The annotation is on the VirtualMachineInstance, and so on every pod; else on pod A only.
    on_vmi: bool,
}

/// It sees and remembers everything.
const PLAIN: Agent = Agent { access: true, forgetful: false, same_ip: false, on_vmi: true };

fn agents() -> impl Iterator<Item = Agent> {
    (0..16).map(|bits| Agent {
        access: bits & 1 == 0,
        forgetful: bits & 2 != 0,
        same_ip: bits & 4 != 0,
        on_vmi: bits & 8 == 0,
    })
}

/// The cluster as gw1 sees it: `web` of namespace default, and who waits for its EIP.
struct Cluster {
    snapshot: Snapshot,
    agent: Agent,
}

impl Cluster {
    fn new(agent: Agent) -> Self {
        Self { snapshot: snapshot("gw1"), agent }
    }

    /// As [`Self::run`] leaves it.
    fn run_by(agent: Agent) -> Self {
        let mut cluster = Self::new(agent);
        cluster.run();
        cluster
    }

    /// As [`Self::migrate`] leaves it.
    fn migrated_by(agent: Agent) -> Self {
        let mut cluster = Self::run_by(agent);
        cluster.migrate();
        cluster
    }

    /// Another pod that asks for the VM's EIP, created at `created`.
    fn with_rival(&mut self, created: i64) {
        let snapshot = std::mem::take(&mut self.snapshot);
        self.snapshot = snapshot.with_pod("rival", "worker2", "10.244.3.99", "192.168.100.101", created);
    }

    fn pod_mut(&mut self, pod: &str) -> &mut Pod {
        self.snapshot.pods.get_mut(&name(pod)).unwrap()
    }

    fn vmi_mut(&mut self) -> &mut Vmi {
        self.snapshot.vmis.get_mut(&name("web")).unwrap()
    }

    fn create_vmi(&mut self, uid: &str) {
        let eip = Some(EIP.to_string()).filter(|_| self.agent.on_vmi);
        let vmi = Vmi { uid: uid.to_owned(), created: 1, eip, by_vm: true, ..Vmi::default() };
        self.snapshot.vmis.insert(name("web"), vmi);
    }

    fn create_pod(&mut self, pod: &str, uid: &str) {
        let (_, node, own) = PODS.into_iter().find(|(name, ..)| *name == pod).unwrap();
        let addr = if self.agent.same_ip { "10.244.9.9" } else { own };
        let created = 2 + i64::from(pod.as_bytes()[0] - b'A');
        let eip = if self.agent.on_vmi || pod == "A" { EIP.to_string() } else { String::new() };
        let snapshot = std::mem::take(&mut self.snapshot);
        self.snapshot = snapshot.with_pod(pod, node, addr, &eip, created).change(pod, |state| {
            state.ready = false;
            state.eip = state.eip.take().filter(|eip| !eip.is_empty());
            let (vmi, vmi_uid) = ("web".to_owned(), uid.to_owned());
            state.launcher = Some(Launcher { vmi, vmi_uid, ..Launcher::default() });
        });
    }

    fn arrive(&mut self, pod: &str, at: &str) {
        self.pod_mut(pod).launcher.as_mut().unwrap().arrived = Some(at.to_owned());
    }

    /// Decides as the agent would, and lets it remember.
    fn decide(&mut self) -> Desired {
        let mut seen = self.snapshot.clone();
        if !self.agent.access {
            seen.vmis.clear();
        }
        let decided = desired(&seen);
        if self.agent.forgetful {
            self.snapshot.held = Held::default();
        } else {
            decided.remember(&mut self.snapshot.held);
        }
        decided
    }

    /// The step is taken; whom does the agent serve, and does everything lead there?
    fn serves(&mut self, step: &str, pod: &str) {
        let decided = self.decide();
        let agent = self.agent;
        let served = decided.served.get(&EIP).map(|claim| &*claim.pod.name).unwrap_or_default();
        assert_eq!(served, pod, "{step}: {agent:?}");
        let conflicts = decided.problems.iter().filter(|problem| problem.kind != Kind::Warning);
        assert_eq!(conflicts.collect::<Vec<_>>(), [] as [&Problem; 0], "{step}: {agent:?}");
        let datapath = datapath(&decided);
        assert_eq!(datapath.eips.len(), usize::from(!pod.is_empty()), "{step}: {agent:?}");
        assert_eq!(datapath.pods.len(), datapath.eips.len(), "{step}: {agent:?}");
        let Some((_, node, own)) = PODS.into_iter().find(|(name, ..)| *name == pod) else { return };
        let addr = if agent.same_ip { "10.244.9.9" } else { own };
        let vtep = Some(self.snapshot.nodes[node].internal_ip.unwrap()).filter(|vtep| *vtep != GW1);
        assert_eq!(datapath.eips[&EIP], EipRow { pod_ip: ip(addr), vtep }, "{step}: {agent:?}");
        assert_eq!(datapath.pods[&ip(addr)], PodRow { eip: EIP, vtep, gateway: None }, "{step}: {agent:?}");
    }

    /// `run` of the replay.
    fn run(&mut self) {
        self.create_vmi("u1");
        self.create_pod("A", "u1");
        self.pod_mut("A").ip = None;
        self.serves("created", "");
        self.vmi_mut().node = Some("worker1".to_owned());
        let addr = if self.agent.same_ip { "10.244.9.9" } else { "10.244.2.10" };
        self.pod_mut("A").ip = Some(ip(addr));
        self.serves("run", "A");
    }

    /// `mig 1` to `mig 3` of the replay: the target runs, its domain exists, the guest does not yet run there.
    fn migrate(&mut self) {
        self.create_pod("B", "u1");
        let (node, addr) = (self.pod_mut("B").node.take(), self.pod_mut("B").ip.take());
        self.serves("mig 1, not scheduled", "A");
        self.pod_mut("B").node = node;
        self.pod_mut("B").ip = addr;
        self.serves("mig 1", "A");
        self.serves("mig 2", "A");
        self.serves("mig 3", "A");
    }

    /// `mig 4`: the domain runs on the target, `status.nodeName` is still the source's.
    fn switch(&mut self) {
        self.vmi_mut().migrated_to = Some("B".to_owned());
        if self.agent.access {
            // The annotation comes one reconcile later.
            self.serves("mig 4, VMI", "B");
        }
        self.arrive("B", "2026-08-22 10:00:00 +0000 UTC");
        self.serves("mig 4", "B");
    }

    /// `mig 5`.
    fn complete(&mut self) {
        self.vmi_mut().node = Some("worker2".to_owned());
        self.pod_mut("B").ready = true;
        self.serves("mig 5", "B");
    }
}

#[test]
fn a_migration_step_by_step() {
    for agent in agents() {
        let mut cluster = Cluster::migrated_by(agent);
        cluster.switch();
        cluster.complete();
        cluster.pod_mut("A").finished = true;
        cluster.serves("done", "B");
        // Only memory knows of an EIP that was on a pod alone once that pod is gone.
        let known = agent.on_vmi || !agent.forgetful;
        if known {
            cluster.snapshot.pods.remove(&name("A"));
            cluster.serves("done, A deleted", "B");
            cluster.serves("done, much later", "B");
        }
    }
}

#[test]
fn post_copy_runs_on_the_target_for_minutes_before_it_completes() {
    for agent in agents() {
        let mut cluster = Cluster::migrated_by(agent);
        cluster.switch();
        for _ in 0..3 {
            cluster.serves("post-copy", "B");
        }
        cluster.complete();
        cluster.pod_mut("A").finished = true;
        cluster.serves("done", "B");
    }
}

#[test]
fn a_failed_migration_leaves_or_brings_back_the_source() {
    for agent in agents() {
        for late in [false, true] {
            let mut cluster = Cluster::migrated_by(agent);
            if late {
                cluster.switch();
            }
            // `failed` takes the target back in the VirtualMachineInstance; without access its pod's end does.
            cluster.vmi_mut().migrated_to = None;
            if agent.access {
                cluster.serves("failed, B still runs", "A");
            }
            cluster.pod_mut("B").launcher.as_mut().unwrap().stopped = true;
            cluster.serves("failed, B's domain is gone", "A");
            cluster.pod_mut("B").finished = true;
            cluster.serves("failed", "A");
            cluster.snapshot.pods.remove(&name("B"));
            cluster.serves("failed, B deleted", "A");
        }
    }
}

#[test]
fn the_target_of_one_migration_is_the_source_of_the_next() {
    for agent in agents() {
        let mut cluster = Cluster::migrated_by(agent);
        cluster.switch();
        cluster.complete();
        cluster.pod_mut("A").finished = true;
        cluster.create_pod("C", "u1");
        cluster.serves("again, the state is that of the last", "B");
        cluster.vmi_mut().migrated_to = None;
        cluster.serves("again, mig 2", "B");
        cluster.vmi_mut().migrated_to = Some("C".to_owned());
        cluster.arrive("C", "2026-08-22 11:00:00 +0000 UTC");
        cluster.serves("again, mig 4", "C");
        cluster.vmi_mut().node = Some("gw1".to_owned());
        cluster.serves("again, mig 5", "C");
    }
}

#[test]
fn a_source_that_never_ends_is_no_longer_served() {
    // kubevirt issues 5657, 11895, 15711, 18320: the source stays Running; 10695: it ends Failed.
    for agent in agents() {
        let mut cluster = Cluster::migrated_by(agent);
        cluster.switch();
        cluster.complete();
        cluster.pod_mut("A").ready = true;
        cluster.serves("both run and are ready", "B");
        cluster.pod_mut("A").launcher.as_mut().unwrap().stopped = true;
        cluster.serves("a sidecar of A runs on", "B");
        cluster.pod_mut("A").terminating = true;
        cluster.serves("A terminates", "B");
    }
}

/// What a worker decides that sees its own pods, those with the label, and VirtualMachineInstances.
fn at_worker(cluster: &Cluster, here: &str, labelled: &str) -> Desired {
    let mut seen = cluster.snapshot.clone();
    let local = snapshot(here);
    (seen.node_name, seen.host, seen.partial) = (local.node_name, local.host, true);
    let visible =
        |(name, pod): &(ObjectName, Pod)| pod.node.as_deref() == Some(here) || &*name.name == labelled;
    seen.pods = seen.pods.into_iter().filter(visible).collect();
    desired(&seen)
}

#[test]
fn each_worker_knows_whether_the_guest_is_its_own() {
    for same_ip in [false, true] {
        let mut cluster = Cluster::migrated_by(Agent { same_ip, ..PLAIN });
        let see = |cluster: &Cluster, here: &str, labelled: &str| {
            at_worker(cluster, here, labelled).served.get(&EIP).is_some_and(|claim| claim.node == here)
        };
        let both = |cluster: &Cluster, labelled| {
            (see(cluster, "worker1", labelled), see(cluster, "worker2", labelled))
        };
        assert_eq!(both(&cluster, "A"), (true, false), "mig 3");
        cluster.switch();
        for labelled in ["A", "B", ""] {
            assert_eq!(both(&cluster, labelled), (false, true), "mig 4, the label is on {labelled:?}");
        }
        cluster.complete();
        for labelled in ["A", "B", ""] {
            assert_eq!(both(&cluster, labelled), (false, true), "mig 5, the label is on {labelled:?}");
        }
    }
}

/// A guest speaks at the target before anybody has heard of it; from its node's own address that would be reset.
#[test]
fn both_pods_of_a_migration_send_to_the_gateway() {
    for agent in agents().filter(|agent| agent.access && !agent.forgetful) {
        let mut cluster = Cluster::run_by(agent);
        let sends = |cluster: &Cluster, here: &str, labelled: &str| {
            let decided = at_worker(cluster, here, labelled);
            let datapath = datapath(&decided);
            let row = PodRow { eip: EIP, vtep: None, gateway: Some(GW1) };
            assert!(datapath.pods.values().all(|found| *found == row), "{agent:?}");
            let pods: BTreeSet<_> = datapath.pods.keys().copied().collect();
            assert_eq!((&pods, &pods), (&datapath.rules, &datapath.identity_snat), "{agent:?}");
            !pods.is_empty()
        };
        assert!(!sends(&cluster, "worker2", "A"));
        cluster.migrate();
        assert!(sends(&cluster, "worker1", "A") && sends(&cluster, "worker2", "A"), "mig 3: {agent:?}");
        cluster.switch();
        for labelled in ["A", "B"] {
            let both = sends(&cluster, "worker1", labelled) && sends(&cluster, "worker2", labelled);
            assert!(both, "mig 4, the label is on {labelled:?}: {agent:?}");
        }
        cluster.complete();
        cluster.pod_mut("A").finished = true;
        assert!(!sends(&cluster, "worker1", "B") && sends(&cluster, "worker2", "B"), "done: {agent:?}");
        // Somebody else has the EIP: then no pod of the VM is its business.
        cluster.with_rival(0);
        let rival = cluster.pod_mut("rival");
        (rival.node, rival.bound_label) = (Some("gw1".to_owned()), BoundLabel::Bound(EIP));
        cluster.snapshot.held = Held::default();
        assert!(!sends(&cluster, "worker2", "rival"), "{agent:?}");
    }
}
