//! Decisions on small snapshots: three nodes, the external network of the operator's session.

mod claims;
mod nodes;
mod taken;
mod vms;

use super::*;
use crate::config::tests::example;
use crate::desired::problem::Kind;
use crate::snapshot::{BoundLabel, External, Host, Node, Owner, Pod, Takes};

const GW1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const WORKER1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 101);
const ETH0: u32 = 2;
const ENP8S0: u32 = 3;
const ROUTER: u32 = 4;
const MACS: [Mac; 5] = [Mac([0; 6]), Mac([2; 6]), Mac([4; 6]), Mac([6; 6]), Mac([8; 6])];

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn node(addr: Ipv4Addr, pod_cidr: &str) -> Node {
    Node { internal_ip: Some(addr), ready: true, pod_cidrs: vec![prefix(pod_cidr)], ..Node::default() }
}

fn link(ifindex: u32, mtu: u32, addresses: &[&str]) -> Link {
    Link {
        ifindex,
        mac: MACS[ifindex as usize],
        mtu,
        up: true,
        carrier: true,
        carrier_ups: 1,
        takes: Takes::Nothing,
        parent: None,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
    }
}

/// Nobody has any address of the external subnet.
fn free() -> BTreeSet<Ipv4Addr> {
    (1..=254).map(|host| Ipv4Addr::new(192, 168, 100, host)).collect()
}

/// gw1 and two workers, seen from `here`; every node has `eth0` of MTU 9000, gw1 `enp8s0` too.
fn snapshot(here: &str) -> Snapshot {
    let nodes: BTreeMap<_, _> = [
        ("gw1".to_owned(), node(GW1, "10.244.1.0/24")),
        ("worker1".to_owned(), node(WORKER1, "10.244.2.0/24")),
        ("worker2".to_owned(), node(ip("10.0.0.12"), "10.244.3.0/24")),
    ]
    .into();
    let own = format!("{}/24", nodes[here].internal_ip.unwrap());
    let mut links = BTreeMap::from([("eth0".to_owned(), link(ETH0, 9000, &[&own]))]);
    if here == "gw1" {
        links.insert("enp8s0".to_owned(), link(ENP8S0, 1500, &[]));
    }
    let mut config = example();
    config.cluster_cidrs = vec![prefix("10.96.0.0/12")];
    Snapshot {
        node_name: here.to_owned(),
        config: Configured::Enabled(config),
        nodes,
        host: Host { links, ..Host::default() },
        external: External { free: free(), ..External::default() },
        ..Snapshot::default()
    }
}

impl Snapshot {
    fn config_mut(&mut self) -> &mut GatewayConfig {
        match &mut self.config {
            Configured::Enabled(config) => config,
            Configured::Unknown | Configured::Disabled => panic!("no configuration"),
        }
    }

    /// A ready pod created at `created`, with the EIP as written.
    fn with_pod(mut self, pod: &str, node: &str, addr: &str, eip: &str, created: i64) -> Self {
        let pod_ip = (!addr.is_empty()).then(|| ip(addr));
        let state = Pod {
            created,
            node: Some(node.to_owned()),
            ip: pod_ip,
            ready: true,
            eip: Some(eip.to_owned()),
            ..Pod::default()
        };
        self.pods.insert(name(pod), state);
        self
    }

    fn change(mut self, pod: &str, change: impl FnOnce(&mut Pod)) -> Self {
        change(self.pods.get_mut(&name(pod)).unwrap());
        self
    }
}

fn datapath(desired: &Desired) -> &Datapath {
    match &desired.state {
        State::Datapath(datapath) => datapath,
        State::Keep | State::Withdrawn => panic!("{desired:?}"),
    }
}

/// The problems, in one line each: kind, object, field.
fn complaints(desired: &Desired) -> Vec<String> {
    let line = |problem: &Problem| format!("{:?} {} {}", problem.kind, problem.object, problem.field);
    desired.problems.iter().map(line).collect()
}

#[test]
fn without_a_configuration_nothing_changes_and_a_disabled_one_withdraws() {
    let mut snapshot = snapshot("gw1");
    snapshot.problems = vec![Problem::warning("file x", "f", "m", "r")];
    snapshot.config = Configured::Unknown;
    let unknown = desired(&snapshot);
    assert_eq!(unknown.state, State::Keep);
    assert_eq!(unknown.problems, snapshot.problems);
    snapshot.config = Configured::Disabled;
    assert_eq!(desired(&snapshot).state, State::Withdrawn);
}

#[test]
fn a_node_that_is_not_known_keeps_what_it_has() {
    let mut missing = snapshot("worker1");
    missing.nodes.remove("worker1");
    let mut addressless = snapshot("worker1");
    addressless.nodes.get_mut("worker1").unwrap().internal_ip = None;
    for snapshot in [missing, addressless] {
        let desired = desired(&snapshot);
        assert_eq!(desired.state, State::Keep);
        assert_eq!(complaints(&desired), ["Refused node worker1 status.addresses"]);
    }
}

#[test]
fn a_missing_underlay_nic_keeps_what_the_node_has() {
    let mut lost = snapshot("worker1");
    lost.host.links.clear();
    assert_eq!(desired(&lost).state, State::Keep);
    assert_eq!(complaints(&desired(&lost)), ["Refused node worker1 status.addresses"]);
    lost.config_mut().underlay_nic = Some("bond0".to_owned());
    assert_eq!(desired(&lost).state, State::Keep);
    assert_eq!(
        complaints(&desired(&lost)),
        ["Refused configmap kube-system/ovn-external-gw-config data[underlay-nic]"]
    );
    lost.host.links.insert("bond0".to_owned(), link(ETH0, 1500, &[]));
    assert_eq!(datapath(&desired(&lost)).hooks[&Hook::XdpUnderlay], "bond0");
}
