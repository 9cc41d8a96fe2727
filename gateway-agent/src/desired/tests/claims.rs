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

fn held(mut snapshot: Snapshot, addr: &str) -> Snapshot {
    snapshot.held.pods.insert(EIP, ip(addr));
    snapshot
}

fn ends(pod: &mut Pod) {
    pod.terminating = true;
}

fn unready(pod: &mut Pod) {
    pod.ready = false;
}

fn web(pod: &mut Pod) {
    pod.owner = Some(Owner { kind: "Deployment".to_owned(), name: "web".to_owned() });
}

/// Who wins of [`two`] when they are strangers, and when they belong to one owner.
#[test]
fn of_two_pods_one_is_served_and_the_other_told() {
    for (case, snapshot, of_strangers, of_kin) in [
        ("the elder", two(), "a", "a"),
        ("the elder, by name", two().change("b", |pod| pod.created = 1), "a", "a"),
        ("the elder is not ready", two().change("a", unready), "a", "b"),
        ("the younger is served already", held(two(), "10.244.3.10"), "b", "b"),
        ("what is held is nobody's", held(two(), "10.244.9.9"), "a", "a"),
        ("the elder, which nobody serves, ends", two().change("a", ends), "b", "b"),
        ("the served one ends", held(two(), "10.244.2.10").change("a", ends), "a", "b"),
        (
            "it ends before the other is ready",
            held(two(), "10.244.2.10").change("a", ends).change("b", unready),
            "a",
            "b",
        ),
        ("the served one stops being ready", held(two(), "10.244.2.10").change("a", unready), "a", "b"),
        ("neither is ready", held(two(), "10.244.3.10").change("a", unready).change("b", unready), "b", "b"),
        ("the other is not ready", held(two(), "10.244.2.10").change("b", unready), "a", "a"),
        ("both end", held(two(), "10.244.3.10").change("a", ends).change("b", ends), "b", "b"),
    ] {
        let kin = snapshot.clone().change("a", web).change("b", web);
        for (of, snapshot, winner) in [("strangers", snapshot, of_strangers), ("kin", kin, of_kin)] {
            let loser = if winner == "a" { "b" } else { "a" };
            let expected = (winner.to_owned(), vec![format!("Conflict pod default/{loser} {FIELD}")]);
            assert_eq!(outcome(&snapshot), expected, "{case}, of {of}");
            let told = &desired(&snapshot).problems[0].message;
            assert!(told.ends_with(&format!("belongs to pod default/{winner}")), "{told}");
        }
    }
    for (case, snapshot) in [
        ("the served one is gone", held(two(), "10.244.2.10").change("a", |pod| pod.finished = true)),
        ("the served one chose another", held(two(), "10.244.2.10").change("a", |pod| pod.eip = None)),
    ] {
        assert_eq!(outcome(&snapshot), ("b".to_owned(), vec![]), "{case}");
    }
}

#[test]
fn an_eip_is_handed_on_among_pods_of_one_owner_and_to_nobody_else() {
    let flaps = || held(two(), "10.244.2.10").change("a", web).change("a", unready);
    let other = |kind: &str, name: &str| Some(Owner { kind: kind.to_owned(), name: name.to_owned() });
    for (case, owner) in [
        ("another name", other("Deployment", "shop")),
        ("another kind", other("StatefulSet", "web")),
        ("no owner", None),
    ] {
        let snapshot = flaps().change("b", |pod| pod.owner = owner);
        assert_eq!(outcome(&snapshot).0, "a", "{case}");
    }
    // Anybody can write any owner in a namespace of his own.
    let mut elsewhere = flaps().change("b", web);
    let b = elsewhere.pods.remove(&name("b")).unwrap();
    elsewhere.pods.insert(ObjectName::new("other", "b"), b);
    assert_eq!(outcome(&elsewhere).0, "a", "the same owner in another namespace");
    // Kin may be younger than a stranger that waits as well.
    let third = flaps().with_pod("c", "worker2", "10.244.3.11", "192.168.100.101", 3).change("c", web);
    assert_eq!(outcome(&third).0, "c");
    // Where both owners have pods: who was served says whose the EIP is, not whose pods are ready.
    let shop = |pod: &mut Pod| pod.owner = other("Deployment", "shop");
    let both = third.change("b", shop).change("c", unready).change("c", ends);
    assert_eq!(outcome(&both).0, "a");
}

/// A new sandbox takes its address away for a moment, a kubelet that registers again its Node.
#[test]
fn a_bound_pod_that_waits_keeps_its_eip_from_strangers() {
    let bound = || held(two(), "10.244.2.10").change("a", |pod| pod.bound_label = BoundLabel::Bound(EIP));
    let mut lost = bound();
    lost.nodes.remove("worker1");
    let conflict = format!("Conflict pod default/b {FIELD}");
    for (case, snapshot, warning) in [
        ("no address", bound().change("a", |pod| pod.ip = None), None),
        ("no node", lost, Some("Warning pod default/a spec.nodeName".to_owned())),
    ] {
        let mut expected: Vec<_> = warning.into_iter().chain([conflict.clone()]).collect();
        expected.sort();
        let (winner, mut complaints) = outcome(&snapshot);
        complaints.sort();
        assert_eq!((&*winner, complaints), ("", expected), "{case}");
        let decided = desired(&snapshot);
        let told = decided.problems.iter().find(|problem| problem.kind == Kind::Conflict).unwrap();
        assert!(told.message.ends_with("belongs to pod default/a, which waits"), "{told}");
        assert!(decided.waiting.contains(&name("a")), "{case}: its label stays");
        let kin = snapshot.clone().change("a", web).change("b", web);
        assert_eq!(outcome(&kin).0, "b", "{case}: kin takes over");
        let unbound = snapshot.change("a", |pod| pod.bound_label = BoundLabel::Absent);
        assert_eq!(outcome(&unbound).0, "b", "{case}: it had nothing");
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

/// The label is seen by all: it counts before what one agent remembers, and memory before age.
/// `routed`, which anybody may write, counts nothing.
#[test]
fn agents_agree_whatever_they_remember() {
    let label = |pod: &mut Pod| pod.bound_label = BoundLabel::Bound(EIP);
    let routed = |pod: &mut Pod| pod.routed = true;
    let both = |pod: &mut Pod| (pod.bound_label, pod.routed) = (BoundLabel::Bound(EIP), true);
    for (case, cluster, winner, by_memory) in [
        ("nothing written yet", two(), "a", true),
        ("b is written to", two().change("b", both), "b", false),
        ("somebody wrote routed on b", two().change("b", routed), "a", true),
        ("b is labelled, a user removed routed", two().change("b", label), "b", false),
        ("Kube-OVN sets routed on all", two().change("b", both).change("a", routed), "b", false),
        ("both are written to: a hand-over", two().change("b", both).change("a", both), "a", true),
        ("both are labelled, one routed", two().change("b", both).change("a", label), "a", true),
        ("b is written to and not ready", two().change("b", both).change("b", unready), "b", false),
        ("b is written to and ends", two().change("b", both).change("b", ends), "b", false),
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
