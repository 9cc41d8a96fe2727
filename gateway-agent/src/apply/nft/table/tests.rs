use gateway_common::tables;

use super::*;

fn elements(pods: &[&str], internal: &[&str], eips: &[(&str, &str)]) -> Elements {
    Elements::of(&datapath(pods, internal, eips))
}

fn datapath(pods: &[&str], internal: &[&str], eips: &[(&str, &str)]) -> Datapath {
    Datapath {
        config: tables::Config {
            external_network: [192, 168, 100, 0],
            external_netmask: [255, 255, 255, 0],
            ..tables::Config::default()
        },
        identity_snat: pods.iter().map(|pod| pod.parse().unwrap()).collect(),
        internal: internal.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        cluster_eips: eips.iter().map(|(eip, pod)| (eip.parse().unwrap(), pod.parse().unwrap())).collect(),
        ..Datapath::default()
    }
}

/// The same on the gateway of a cluster with one worker.
fn of_gateway(mut datapath: Datapath, open: bool) -> Elements {
    datapath.config.local_vtep = [172, 18, 0, 11];
    datapath.config.geneve_port = 6081_u16.to_be_bytes();
    datapath.vteps.insert([172, 18, 0, 21].into(), tables::Vtep::unresolved(0));
    datapath.router_port = Some(RouterPort {
        parent: "enp8s0".to_owned(),
        mac: "16:52:f3:13:6a:25".parse().unwrap(),
        address: "192.168.100.254/24".parse().unwrap(),
        mtu: 1500,
        open,
    });
    Elements::of(&datapath)
}

/// As `nft -j list table` of nftables 1.0.6 prints it, without the expressions.
const LISTING: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
    {"table": {"family": "ip", "name": "eip_gateway", "handle": 1}},
    {"counter": {"family": "ip", "name": "in_cluster", "table": "eip_gateway", "handle": 1, "packets": 7, "bytes": 588}},
    {"counter": {"family": "ip", "name": "drop_tunnel_port", "table": "eip_gateway", "handle": 1, "packets": 8, "bytes": 8}},
    {"counter": {"family": "ip", "name": "drop_router_port", "table": "eip_gateway", "handle": 1, "packets": 9, "bytes": 9}},
    {"map": {"family": "ip", "name": "eips", "table": "eip_gateway", "type": "ipv4_addr", "handle": 2,
      "map": "ipv4_addr", "elem": [["192.168.100.101", "10.0.0.2"], ["192.168.100.102", "10.1.2.3"]]}},
    {"set": {"family": "ip", "name": "own", "table": "eip_gateway", "type": ["ipv4_addr", "ipv4_addr"], "handle": 3,
      "elem": [{"concat": ["10.0.0.2", "192.168.100.101"]}]}},
    {"map": {"family": "ip", "name": "self", "table": "eip_gateway", "type": "ipv4_addr", "handle": 4,
      "map": "ipv4_addr", "elem": [["10.0.0.2", "10.0.0.2"]]}},
    {"set": {"family": "ip", "name": "pods", "table": "eip_gateway", "type": "ipv4_addr", "handle": 4, "elem": ["10.0.0.2"]}},
    {"set": {"family": "ip", "name": "vteps", "table": "eip_gateway", "type": "ipv4_addr", "handle": 4,
      "elem": ["172.18.0.11", "172.18.0.21"]}},
    {"set": {"family": "ip", "name": "tunnel", "table": "eip_gateway", "type": "inet_service", "handle": 4, "elem": [6081]}},
    {"set": {"family": "ip", "name": "outside", "table": "eip_gateway", "type": "ifname", "handle": 4,
      "elem": ["enp8s0", "eip-router"]}},
    {"set": {"family": "ip", "name": "closed", "table": "eip_gateway", "type": "ifname", "handle": 4,
      "elem": ["enp8s0", "eip-router"]}},
    {"set": {"family": "ip", "name": "nic_ip", "table": "eip_gateway", "type": "ipv4_addr", "handle": 4,
      "elem": ["192.168.100.254"]}},
    {"set": {"family": "ip", "name": "external", "table": "eip_gateway", "type": "ipv4_addr", "handle": 5,
      "flags": ["interval"], "elem": [{"prefix": {"addr": "192.168.100.0", "len": 24}}]}},
    {"set": {"family": "ip", "name": "internal", "table": "eip_gateway", "type": "ipv4_addr", "handle": 6,
      "flags": ["interval"], "elem": [{"prefix": {"addr": "10.0.0.0", "len": 24}}, "10.1.2.3"]}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "prerouting", "handle": 7, "type": "nat",
      "hook": "prerouting", "prio": -101, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "output", "handle": 8, "type": "nat",
      "hook": "output", "prio": -101, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "postrouting", "handle": 9, "type": "nat",
      "hook": "postrouting", "prio": 99, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "count", "handle": 10, "type": "filter",
      "hook": "postrouting", "prio": 101, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "input", "handle": 10, "type": "filter",
      "hook": "input", "prio": 0, "policy": "accept"}},
    {"chain": {"family": "ip", "table": "eip_gateway", "name": "forward", "handle": 10, "type": "filter",
      "hook": "forward", "prio": 0, "policy": "accept"}},
    {"rule": {"chain": "prerouting", "comment": "eip-gateway 3: a pod that reaches itself is turned round by the programs"}},
    {"rule": {"chain": "prerouting", "comment": "eip-gateway 3: a pod of this node reaches an EIP directly"}},
    {"rule": {"chain": "output", "comment": "eip-gateway 3: this node reaches an EIP directly"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 3: this node by an address that the pod can answer"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 3: to internal destinations as ever"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 3: an EIP pod keeps its own address"}},
    {"rule": {"chain": "count", "comment": "eip-gateway 3: from this node to EIPs"}},
    {"rule": {"chain": "input", "comment": "eip-gateway 3: answers to this node"}},
    {"rule": {"chain": "input", "comment": "eip-gateway 3: errors about what it sent"}},
    {"rule": {"chain": "input", "comment": "eip-gateway 3: echo and errors to nic-ip"}},
    {"rule": {"chain": "input", "comment": "eip-gateway 3: nothing else by the router port"}},
    {"rule": {"chain": "input", "comment": "eip-gateway 3: nor to nic-ip by the NIC"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: only nodes speak to a tunnel's end"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: answers to pods"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: errors about what they sent"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: no NodePort of nic-ip"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: no Service by the router port"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: to EIP pods"}},
    {"rule": {"chain": "forward", "comment": "eip-gateway 3: nothing else inwards by the router port"}}]}"#;

#[test]
fn reads_back_its_own_table_and_nothing_else() {
    let listing: Value = serde_json::from_str(LISTING).unwrap();
    let held = datapath(
        &["10.0.0.2"],
        &["10.0.0.0/24", "10.1.2.3/32"],
        &[("192.168.100.101", "10.0.0.2"), ("192.168.100.102", "10.1.2.3")],
    );
    assert_eq!(parse(&listing), Some(of_gateway(held, false)));
    let counted = counters(&listing).unwrap();
    assert_eq!(counted.in_cluster, Counted { packets: 7, bytes: 588 });
    assert_eq!((counted.drop_tunnel_port.packets, counted.drop_router_port.packets), (8, 9));
    for (from, to) in [
        ("99", "100"),
        ("-101", "-100"),
        ("as ever", "no longer"),
        ("\"self\"", "\"other\""),
        ("in_cluster", "other"),
        ("drop_tunnel_port", "other"),
        ("nothing else inwards", "something"),
        ("\"elem\": [\"10.0.0.2\"]", "\"elem\": [\"10.0.0.3\"]"),
        ("[6081]", "[\"http\"]"),
        ("\"chain\": \"output\"", "\"chain\": \"prerouting\""),
        ("[\"10.0.0.2\", \"10.0.0.2\"]", "[\"10.0.0.2\", \"10.0.0.3\"]"),
    ] {
        let changed: Value = serde_json::from_str(&LISTING.replace(from, to)).unwrap();
        assert_eq!(parse(&changed), None, "{from} → {to}");
    }
    assert_eq!(parse(&Value::Null), None);
    assert_eq!(counters(&Value::Null), None);
}

#[test]
fn writes_only_differences() {
    let held = elements(
        &["10.244.1.2", "10.244.1.3"],
        &["10.244.0.0/24", "10.244.0.0/16"],
        &[("192.168.100.101", "10.244.1.2"), ("192.168.100.102", "10.244.9.9")],
    );
    assert_eq!(difference(&held, &held), "");
    let wanted = elements(
        &["10.244.1.3", "10.244.1.4"],
        &["10.0.0.0/8"],
        &[("192.168.100.101", "10.244.1.4"), ("192.168.100.102", "10.244.9.9")],
    );
    assert_eq!(
        difference(&held, &wanted),
        "delete element ip eip_gateway eips { 192.168.100.101 : 10.244.1.2 }\n\
         delete element ip eip_gateway own { 10.244.1.2 . 192.168.100.101 }\n\
         delete element ip eip_gateway self { 10.244.1.2 : 10.244.1.2 }\n\
         delete element ip eip_gateway pods { 10.244.1.2 }\n\
         delete element ip eip_gateway internal { 10.244.0.0/16 }\n\
         add element ip eip_gateway eips { 192.168.100.101 : 10.244.1.4 }\n\
         add element ip eip_gateway own { 10.244.1.4 . 192.168.100.101 }\n\
         add element ip eip_gateway self { 10.244.1.4 : 10.244.1.4 }\n\
         add element ip eip_gateway pods { 10.244.1.4 }\n\
         add element ip eip_gateway internal { 10.0.0.0/8 }\n"
    );
}

#[test]
fn a_pod_that_the_cluster_would_not_route_to_is_left_to_the_gateway() {
    let elements = elements(
        &["10.244.1.2", "100.0.0.14"],
        &["10.244.1.0/24"],
        &[("192.168.100.101", "10.244.1.2"), ("192.168.100.102", "100.0.0.14")],
    );
    assert_eq!(elements.eips.len(), 1);
    assert_eq!(elements.own.len(), 1);
    assert_eq!(elements.pods.len(), 2);
}

#[test]
fn the_guards_stand_without_any_eip_and_open_only_when_told() {
    let worker = elements(&[], &["10.0.0.0/8"], &[]);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!((worker.closed.clone(), worker.nic_ip.len()), (names(&["eip-router"]), 0));
    let closed = of_gateway(datapath(&[], &[], &[]), false);
    assert_eq!(closed.closed, names(&["eip-router", "enp8s0"]));
    assert_eq!(closed.vteps, ["172.18.0.11", "172.18.0.21"].map(|vtep| vtep.parse().unwrap()).into());
    assert_eq!(closed.tunnel, [6081].into());
    let open = of_gateway(datapath(&[], &[], &[]), true);
    assert_eq!((open.closed.len(), &open.outside), (0, &closed.outside));
    let script = rebuild(&closed);
    assert!(script.contains("closed { \"eip-router\", \"enp8s0\" }"), "{script}");
}

#[test]
fn what_a_pod_loses_goes_first_and_what_it_gains_comes_last() {
    let held = elements(&["10.0.0.1", "10.0.0.2"], &["10.0.0.0/24"], &[("192.0.2.1", "10.0.0.1")]);
    let wanted = of_gateway(datapath(&["10.0.0.2", "10.0.0.3"], &["10.0.0.0/24"], &[]), true);
    let first = wanted.before(&held);
    assert_eq!(first.pods, ["10.0.0.2".parse().unwrap()].into(), "neither the lost nor the gained one");
    assert_eq!((first.own.len(), &first.eips), (0, &held.eips));
    assert_eq!(first.closed, held.closed, "still closed, and opened in the end");
    assert_eq!(first.nic_ip, wanted.nic_ip, "guarded before it is there");
    assert_eq!(wanted.before(&wanted), wanted);
    let guards = wanted.guards();
    assert!(guards.pods.is_empty() && guards.eips.is_empty() && guards.vteps == wanted.vteps);
}

#[test]
fn keeps_the_outermost_prefixes() {
    let kept =
        elements(&[], &["10.0.0.0/8", "10.244.0.0/16", "10.1.2.3/32", "172.16.0.1/32", "10.0.0.0/24"], &[]);
    assert_eq!(kept.internal, elements(&[], &["10.0.0.0/8", "172.16.0.1/32"], &[]).internal);
    assert_eq!(kept.internal.len(), 2);
}

#[test]
fn all_that_changed_is_told_at_once() {
    let held = elements(
        &["10.0.0.1"],
        &["10.0.0.0/24"],
        &[("192.0.2.1", "10.0.0.1"), ("192.0.2.2", "10.0.0.2"), ("192.0.2.3", "10.0.0.3")],
    );
    let now = elements(
        &["10.0.0.9"],
        &["10.0.0.0/24"],
        &[("192.0.2.1", "10.0.0.9"), ("192.0.2.3", "10.0.0.3"), ("192.0.2.4", "10.0.0.4")],
    );
    let addr = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let moved = [
        (addr("192.0.2.1"), Some(addr("10.0.0.9"))),
        (addr("192.0.2.2"), None),
        (addr("192.0.2.4"), Some(addr("10.0.0.4"))),
    ];
    let stale = held.stale(&now);
    assert_eq!(stale.eips, moved.into());
    assert_eq!((stale.lost, stale.gained), ([addr("10.0.0.1")].into(), [addr("10.0.0.9")].into()));
    assert_eq!(stale.internal, now.internal);
    assert_eq!(held.stale(&held).eips.len(), 0);
}
