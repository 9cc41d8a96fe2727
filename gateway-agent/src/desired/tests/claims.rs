//! Who gets an EIP.

use super::*;

/// The winner of [`EIP`] and the complaints, as gw1 sees it.
fn outcome(snapshot: &Snapshot) -> (String, Vec<String>) {
    let desired = desired(snapshot);
    (outcome_of(&desired), complaints(&desired))
}

fn outcome_of(desired: &Desired) -> String {
    desired.bindings().find(|(eip, _)| *eip == EIP).map(|(_, pod)| pod.name.to_string()).unwrap_or_default()
}

fn one() -> Snapshot {
    snapshot("gw1").with_pod("a", "worker1", "10.244.2.10", "192.168.100.101", 1)
}

/// Two pods that ask for the same EIP, `a` the elder.
fn two() -> Snapshot {
    one().with_pod("b", "worker2", "10.244.3.10", "192.168.100.101", 2)
}

const FIELD: &str = "metadata.annotations[ovn.kubernetes.io/eip]";

#[test]
fn a_single_pod_is_served_refused_or_waits() {
    let bad = |eip: &str| one().change("a", |pod| pod.eip = Some(eip.to_owned()));
    let mut unknown_node = one();
    unknown_node.nodes.remove("worker1");
    let mut addressless = one();
    addressless.nodes.get_mut("worker1").unwrap().internal_ip = None;
    for (case, snapshot, winner, complaint) in [
        ("served", one(), "a", ""),
        ("white space", bad(" 192.168.100.101 "), "a", ""),
        ("not ready", one().change("a", |pod| pod.ready = false), "a", ""),
        ("terminating", one().change("a", |pod| pod.terminating = true), "a", ""),
        ("finished", one().change("a", |pod| pod.finished = true), "", ""),
        ("finished with a bad EIP", bad("x").change("a", |pod| pod.finished = true), "", ""),
        ("no annotation", one().change("a", |pod| pod.eip = None), "", ""),
        ("empty annotation", bad(" "), "", ""),
        ("no address yet", one().change("a", |pod| pod.ip = None), "", ""),
        ("not scheduled", one().change("a", |pod| pod.node = None), "", ""),
        ("host network", one().change("a", |pod| pod.host_network = true), "", "spec.hostNetwork"),
        ("no address and a bad EIP", bad("x").change("a", |pod| pod.ip = None), "", FIELD),
        ("no IPv4", bad("x"), "", FIELD),
        ("outside", bad("192.168.101.1"), "", FIELD),
        ("nic-ip", bad("192.168.100.254"), "", FIELD),
    ] {
        let (got, complaints) = outcome(&snapshot);
        assert_eq!(got, winner, "{case}");
        let expected: Vec<_> = Some(format!("Refused pod default/a {complaint}"))
            .filter(|_| !complaint.is_empty())
            .into_iter()
            .collect();
        assert_eq!(complaints, expected, "{case}");
    }
    for (case, snapshot) in [("unknown node", unknown_node), ("node without address", addressless)] {
        let expected = (String::new(), vec!["Warning pod default/a spec.nodeName".to_owned()]);
        assert_eq!(outcome(&snapshot), expected, "{case}");
    }
}

#[test]
fn a_nodes_address_is_no_eip() {
    let mut snapshot = one();
    snapshot.nodes.get_mut("worker2").unwrap().internal_ip = Some(EIP);
    let desired = desired(&snapshot);
    assert!(desired.bindings().next().is_none());
    assert_eq!(desired.problems[0].message, "192.168.100.101 is the address of node worker2");
}

#[test]
fn of_two_pods_one_is_served_and_the_other_told() {
    let held = |mut snapshot: Snapshot, addr: &str| {
        snapshot.held.pods.insert(EIP, ip(addr));
        snapshot
    };
    let ends = |pod: &mut Pod| pod.terminating = true;
    let unready = |pod: &mut Pod| pod.ready = false;
    for (case, snapshot, winner) in [
        ("the elder", two(), "a"),
        ("the elder, by name", two().change("b", |pod| pod.created = 1), "a"),
        ("the younger is served already", held(two(), "10.244.3.10"), "b"),
        ("what is held is nobody's", held(two(), "10.244.9.9"), "a"),
        ("the elder ends", two().change("a", ends), "b"),
        ("the served one ends", held(two(), "10.244.2.10").change("a", ends), "b"),
        (
            "it ends before the other is ready",
            held(two(), "10.244.2.10").change("a", ends).change("b", unready),
            "b",
        ),
        ("the served one stops being ready", held(two(), "10.244.2.10").change("a", unready), "b"),
        ("neither is ready", held(two(), "10.244.3.10").change("a", unready).change("b", unready), "b"),
        ("the other is not ready", held(two(), "10.244.2.10").change("b", unready), "a"),
        ("both end", held(two(), "10.244.3.10").change("a", ends).change("b", ends), "b"),
    ] {
        let loser = if winner == "a" { "b" } else { "a" };
        let expected = (winner.to_owned(), vec![format!("Conflict pod default/{loser} {FIELD}")]);
        assert_eq!(outcome(&snapshot), expected, "{case}");
        assert!(
            desired(&snapshot).problems[0].message.ends_with(&format!("belongs to pod default/{winner}"))
        );
    }
    for (case, snapshot) in [
        ("the served one is gone", held(two(), "10.244.2.10").change("a", |pod| pod.finished = true)),
        ("the served one chose another", held(two(), "10.244.2.10").change("a", |pod| pod.eip = None)),
    ] {
        assert_eq!(outcome(&snapshot), ("b".to_owned(), vec![]), "{case}");
    }
}

#[test]
fn a_worker_remembers_who_was_first_on_other_nodes() {
    let mut held = Held::default();
    let mut snapshot = snapshot("worker1").with_pod("b", "worker2", "10.244.3.10", "192.168.100.101", 2);
    desired(&snapshot).remember(&mut held);
    assert_eq!(held.pods, BTreeMap::from([(EIP, ip("10.244.3.10"))]));
    // The elder one asks later, and it is on this very node.
    snapshot.held.clone_from(&held);
    let snapshot = snapshot.with_pod("a", "worker1", "10.244.2.10", "192.168.100.101", 1);
    assert_eq!(outcome_of(&desired(&snapshot)), "b");
    assert!(datapath(&desired(&snapshot)).pods.is_empty());
}

#[test]
fn a_decision_that_changes_nothing_forgets_nothing_and_a_withdrawal_everything() {
    let pods = BTreeMap::from([(EIP, ip("10.244.3.10"))]);
    let mut held = Held { pods, ..Held::default() };
    let mut unknown = two();
    unknown.nodes.remove("gw1");
    desired(&unknown).remember(&mut held);
    assert_eq!(held.pods, BTreeMap::from([(EIP, ip("10.244.3.10"))]));
    desired(&Snapshot { config: Configured::Disabled, ..two() }).remember(&mut held);
    assert_eq!(held, Held::default());
}

#[test]
fn two_pods_with_one_address_have_one_eip_between_them() {
    let snapshot = one().with_pod("b", "worker2", "10.244.2.10", "192.168.100.102", 2);
    let desired = desired(&snapshot);
    assert!(desired.bindings().eq([(EIP, &name("a"))]));
    assert_eq!(complaints(&desired), ["Refused pod default/b status.podIP"]);
    assert_eq!(desired.problems[0].message, "10.244.2.10 is also the address of pod default/a");
}

#[test]
fn conflicts_are_told_apart_from_refusals() {
    assert_eq!(desired(&two()).problems[0].kind, Kind::Conflict);
}

/// The label and `routed` are seen by all: they count before what one agent remembers, and memory before age.
#[test]
fn agents_agree_whatever_they_remember() {
    let label = |pod: &mut Pod| pod.bound_label = BoundLabel::Bound(EIP);
    let routed = |pod: &mut Pod| pod.routed = true;
    let both = |pod: &mut Pod| (pod.bound_label, pod.routed) = (BoundLabel::Bound(EIP), true);
    let yields = |pod: &mut Pod| pod.ready = false;
    for (case, cluster, winner, by_memory) in [
        ("nothing written yet", two(), "a", true),
        ("b is written to", two().change("b", both), "b", false),
        ("b is routed", two().change("b", routed), "b", false),
        ("b is labelled, a user removed routed", two().change("b", label), "b", false),
        ("Kube-OVN sets routed on all", two().change("b", both).change("a", routed), "b", false),
        ("both are written to: a hand-over", two().change("b", both).change("a", both), "a", true),
        ("b is written to and not ready", two().change("b", both).change("b", yields), "a", false),
    ] {
        for (memory, expected) in [
            (None, winner),
            (Some("10.244.2.10"), if by_memory { "a" } else { winner }),
            (Some("10.244.3.10"), if by_memory { "b" } else { winner }),
            (Some("10.244.9.9"), winner),
        ] {
            let mut seen = cluster.clone();
            seen.held.pods.extend(memory.map(|addr| (EIP, ip(addr))));
            assert_eq!(outcome_of(&desired(&seen)), expected, "{case}, {memory:?} remembered");
        }
    }
}
