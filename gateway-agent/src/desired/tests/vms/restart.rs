//! A VM that restarts, ends for good, pauses, or loses its node.

use super::*;

/// A restart with another pod waiting for the same EIP since before; the outcome at each step.
fn restart(agent: Agent) -> Vec<(&'static str, String)> {
    let mut cluster = Cluster::run_by(agent);
    cluster.with_rival(0);
    // As the owner writes on what is served.
    cluster.pod_mut("A").bound_label = BoundLabel::Bound(EIP);
    let mut outcomes = Vec::new();
    let mut step = |cluster: &mut Cluster, step| {
        let decided = cluster.decide();
        let served = decided.served.get(&EIP).map(|claim| claim.pod.name.to_string()).unwrap_or_default();
        if served != "rival" && !decided.problems.iter().any(|problem| problem.kind == Kind::Conflict) {
            panic!("{step}: the rival is not told: {:?}", decided.problems);
        }
        outcomes.push((step, served));
    };
    step(&mut cluster, "runs");
    cluster.pod_mut("A").terminating = true;
    step(&mut cluster, "pod terminates");
    cluster.snapshot.pods.remove(&name("A"));
    step(&mut cluster, "pod gone");
    cluster.vmi_mut().finished = true;
    step(&mut cluster, "VMI succeeded");
    cluster.vmi_mut().gone = true;
    step(&mut cluster, "VMI gone");
    cluster.create_vmi("u2");
    step(&mut cluster, "VMI again");
    cluster.create_pod("C", "u2");
    step(&mut cluster, "pod again");
    cluster.vmi_mut().node = Some("gw1".to_owned());
    step(&mut cluster, "runs again");
    outcomes
}

#[test]
fn a_restart_keeps_the_eip_from_others() {
    let served: Vec<_> = restart(PLAIN).into_iter().map(|(_, served)| served).collect();
    assert_eq!(served, ["A", "A", "", "", "", "", "", "C"]);
    // An agent that starts in the middle finds the instance; what is not there it cannot know.
    let served: Vec<_> =
        restart(Agent { forgetful: true, ..PLAIN }).into_iter().map(|(_, served)| served).collect();
    assert_eq!(served, ["A", "A", "", "", "", "rival", "rival", "rival"]);
    // Without access there is nothing to go by while no pod is there: who waits gets it.
    let outcomes = restart(Agent { access: false, ..PLAIN });
    assert_eq!(outcomes[1], ("pod terminates", "A".to_owned()));
    assert_eq!(outcomes[2], ("pod gone", "rival".to_owned()));
}

#[test]
fn a_vm_that_is_gone_for_good_gives_its_eip_up() {
    let mut cluster = Cluster::run_by(PLAIN);
    cluster.with_rival(9);
    cluster.snapshot.pods.remove(&name("A"));
    assert!(cluster.decide().served.is_empty());
    cluster.vmi_mut().by_vm = false;
    cluster.vmi_mut().finished = true;
    assert_eq!(cluster.decide().served[&EIP].pod, name("rival"), "nobody starts a lone instance again");
    cluster.snapshot.vmis.clear();
    assert_eq!(cluster.decide().served[&EIP].pod, name("rival"));
}

#[test]
fn neither_a_pause_nor_a_dying_node_takes_the_eip() {
    for agent in agents().filter(|agent| !agent.forgetful) {
        let mut cluster = Cluster::run_by(agent);
        cluster.serves("paused: not ready", "A");
        cluster.pod_mut("A").terminating = true;
        cluster.snapshot.nodes.get_mut("worker1").unwrap().ready = false;
        cluster.serves("the node is lost, the pod terminates for ever", "A");
    }
}

/// An agent that started meanwhile asks the external network before it serves: the rival does not slip in.
#[test]
fn an_eip_that_is_asked_for_again_stays_the_vms() {
    let mut cluster = Cluster::run_by(PLAIN);
    cluster.with_rival(0);
    cluster.snapshot.pods.remove(&name("A"));
    cluster.vmi_mut().gone = true;
    assert!(cluster.decide().served.is_empty());
    cluster.create_vmi("u2");
    assert!(cluster.decide().served.is_empty());
    cluster.snapshot.held.accepted.clear();
    cluster.snapshot.external.free.clear();
    cluster.create_pod("C", "u2");
    cluster.vmi_mut().node = Some("gw1".to_owned());
    for pass in 0..3 {
        let decided = cluster.decide();
        assert!(decided.served.is_empty() && datapath(&decided).probe.contains(&EIP), "pass {pass}");
    }
    cluster.snapshot.external.free.insert(EIP);
    assert_eq!(cluster.decide().served[&EIP].pod, name("C"), "nobody answered");
}
