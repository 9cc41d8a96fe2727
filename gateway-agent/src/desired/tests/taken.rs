//! Addresses that somebody else has are no EIPs, and nobody serves one before that is known.

use super::*;
use crate::snapshot::Held;

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x53]);
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);

/// One pod on worker1 with an EIP of which nothing is known.
fn one(here: &str) -> Snapshot {
    let mut snapshot = snapshot(here).with_pod("a", "worker1", "10.244.2.10", "192.168.100.101", 1);
    snapshot.external = External::default();
    snapshot.labels = true;
    snapshot
}

fn with_port(mut snapshot: Snapshot) -> Snapshot {
    let port = Link { parent: Some(ENP8S0), ..link(ROUTER, 1500, &["192.168.100.254/24"]) };
    snapshot.host.links.insert(RouterPort::NAME.to_owned(), port);
    snapshot
}

type Change = fn(&mut Snapshot);

/// What the owner does: serves, asks, refuses; and what it says.
#[test]
fn the_owner_asks_before_it_serves() {
    let in_use: Change = |s| _ = s.external.in_use.insert(EIP, OTHER);
    let cases: [(&str, Change, &str, &str); 12] = [
        ("new", |_| {}, "asks", ""),
        ("nobody answered", |s| _ = s.external.free.insert(EIP), "serves", ""),
        (
            "somebody did",
            in_use,
            "asks refuses",
            "192.168.100.101 is in use by MAC 02:00:00:00:00:53 on the external network",
        ),
        ("served before", |s| _ = s.held.accepted.insert(EIP), "serves", ""),
        (
            "served before, and somebody turns up: it is defended",
            |s| {
                s.held.accepted.insert(EIP);
                s.external.in_use.insert(EIP, OTHER);
            },
            "serves",
            "",
        ),
        ("bound by another gateway", |s| label(s, BoundLabel::Bound(EIP)), "serves", ""),
        ("another EIP was bound", |s| label(s, BoundLabel::Bound(ip("192.168.100.7"))), "asks", ""),
        ("a label of somebody else", |s| label(s, BoundLabel::Other), "asks", ""),
        ("refused by another gateway: it asks itself", |s| label(s, BoundLabel::Refused), "asks", ""),
        (
            "a neighbour of the router port",
            |s| _ = s.host.neighbors.insert((ROUTER, EIP), OTHER),
            "asks refuses",
            "192.168.100.101 is in use by MAC 02:00:00:00:00:53 on the external network",
        ),
        (
            "ourselves",
            |s| {
                let mac = s.config_mut().nic_mac;
                s.host.neighbors.insert((ROUTER, EIP), mac);
            },
            "asks",
            "",
        ),
        (
            "an address of a NIC, even of an EIP that was served",
            |s| {
                s.held.accepted.insert(EIP);
                s.host.links.get_mut("enp8s0").unwrap().addresses.push(prefix("192.168.100.101/24"));
            },
            "asks refuses",
            "192.168.100.101 is the address of interface enp8s0 of node gw1",
        ),
    ];
    for (case, change, outcome, message) in cases {
        let mut snapshot = with_port(one("gw1"));
        change(&mut snapshot);
        let decided = desired(&snapshot);
        let datapath = datapath(&decided);
        let mut got = Vec::new();
        if datapath.eips.contains_key(&EIP) {
            assert!(datapath.announce.contains(&EIP) && datapath.cluster_eips.contains_key(&EIP), "{case}");
            got.push("serves");
        } else {
            assert!(!datapath.announce.contains(&EIP) && !datapath.cluster_eips.contains_key(&EIP), "{case}");
            assert!(datapath.pods.is_empty() && decided.served.is_empty(), "{case}");
        }
        if datapath.probe.contains(&EIP) {
            got.push("asks");
        }
        if decided.refused.contains(&name("a")) {
            got.push("refuses");
        }
        assert_eq!(got.join(" "), outcome, "{case}");
        let said: Vec<_> = decided.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(said.concat(), message, "{case}");
    }
}

fn label(snapshot: &mut Snapshot, label: BoundLabel) {
    snapshot.pods.get_mut(&name("a")).unwrap().bound_label = label;
}

#[test]
fn an_eip_that_moves_is_not_asked_for_again_and_one_that_was_released_is() {
    let (mut snapshot, mut held) = (one("gw1"), Held::default());
    snapshot.external.free.insert(EIP);
    desired(&snapshot).remember(&mut held);
    assert_eq!(held.accepted, BTreeSet::from([EIP]));
    // The other pod has it as soon as the first gives it up.
    let mut snapshot = one("gw1").with_pod("b", "worker2", "10.244.3.10", "192.168.100.101", 2);
    snapshot.held.clone_from(&held);
    let moved = snapshot.clone().change("a", |pod| pod.eip = None);
    let decided = desired(&moved);
    assert_eq!(decided.served[&EIP].pod, name("b"));
    decided.remember(&mut held);
    assert_eq!(held.accepted, BTreeSet::from([EIP]));
    let released = moved.change("b", |pod| pod.eip = None);
    desired(&released).remember(&mut held);
    assert!(held.accepted.is_empty());
}

#[test]
fn others_serve_what_the_owner_has_bound_and_leave_what_it_refused() {
    // Whether a worker sends a pod's packets to the gateway, and whether its clients are sent to the pod.
    for (case, is, sends, shortcut) in [
        ("nothing said yet", BoundLabel::Absent, true, false),
        ("bound", BoundLabel::Bound(EIP), true, true),
        ("another was bound", BoundLabel::Bound(ip("192.168.100.7")), true, false),
        ("somebody else's label", BoundLabel::Other, true, false),
        ("refused", BoundLabel::Refused, false, false),
    ] {
        let mut snapshot = one("worker1");
        label(&mut snapshot, is);
        let worker = desired(&snapshot);
        assert_eq!(datapath(&worker).rules.contains(&POD), sends, "{case}");
        assert_eq!(datapath(&worker).identity_snat.contains(&POD), sends, "{case}");
        assert_eq!(datapath(&worker).pods.contains_key(&POD), sends, "{case}");
        assert_eq!(datapath(&worker).cluster_eips.contains_key(&EIP), shortcut, "{case}");
        assert!(worker.problems.is_empty() && worker.refused.is_empty(), "{case}");
        // A gateway that is not the owner has its rows ready, but not before.
        let mut standby = one("gw1");
        standby.config_mut().gateway_nodes = vec!["worker2".to_owned(), "gw1".to_owned()];
        label(&mut standby, is);
        assert_eq!(datapath(&desired(&standby)).eips.contains_key(&EIP), shortcut, "{case}");
        // Without an API nobody can say anything.
        snapshot.labels = false;
        assert!(datapath(&desired(&snapshot)).cluster_eips.contains_key(&EIP), "{case}");
    }
}

#[test]
fn any_address_of_a_node_is_no_eip_whoever_decides() {
    for here in ["gw1", "worker1", "worker2"] {
        let mut snapshot = one(here);
        snapshot.nodes.get_mut("worker2").unwrap().addresses = vec![EIP];
        let decided = desired(&snapshot);
        assert!(decided.served.is_empty(), "{here}");
        assert_eq!(decided.problems[0].message, "192.168.100.101 is the address of node worker2", "{here}");
    }
}

#[test]
fn without_carrier_an_eip_waits_and_says_so() {
    let mut snapshot = one("gw1");
    snapshot.host.links.get_mut("enp8s0").unwrap().carrier = false;
    let decided = desired(&snapshot);
    assert!(!datapath(&decided).probing);
    assert_eq!(
        complaints(&decided),
        ["Warning node gw1 interface enp8s0", "Warning pod default/a interface enp8s0"]
    );
    assert!(datapath(&desired(&one("gw1"))).probing);
}

#[test]
fn who_uses_an_address_of_ours_is_told_of() {
    let mut snapshot = one("gw1");
    snapshot.held.accepted.insert(EIP);
    snapshot.external.contested = BTreeMap::from([(EIP, OTHER), (ip("192.168.100.254"), OTHER)]);
    assert_eq!(
        complaints(&desired(&snapshot)),
        [
            "Contested pod default/a metadata.annotations[ovn.kubernetes.io/eip]",
            "Contested configmap kube-system/ovn-external-gw-config data[nic-ip]",
        ]
    );
}
