use gateway_common::tables;

use super::*;

fn elements(pods: &[&str], internal: &[&str], eips: &[(&str, &str)]) -> Elements {
    Elements::of(&Datapath {
        config: tables::Config {
            external_network: [192, 168, 100, 0],
            external_netmask: [255, 255, 255, 0],
            ..tables::Config::default()
        },
        identity_snat: pods.iter().map(|pod| pod.parse().unwrap()).collect(),
        internal: internal.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        cluster_eips: eips.iter().map(|(eip, pod)| (eip.parse().unwrap(), pod.parse().unwrap())).collect(),
        ..Datapath::default()
    })
}

/// As `nft -j list table` of nftables 1.0.6 prints it, without the expressions.
const LISTING: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
    {"table": {"family": "ip", "name": "eip_gateway", "handle": 1}},
    {"counter": {"family": "ip", "name": "in_cluster", "table": "eip_gateway", "handle": 1, "packets": 7, "bytes": 588}},
    {"map": {"family": "ip", "name": "eips", "table": "eip_gateway", "type": "ipv4_addr", "handle": 2,
      "map": "ipv4_addr", "elem": [["192.168.100.101", "10.0.0.2"], ["192.168.100.102", "10.1.2.3"]]}},
    {"set": {"family": "ip", "name": "own", "table": "eip_gateway", "type": ["ipv4_addr", "ipv4_addr"], "handle": 3,
      "elem": [{"concat": ["10.0.0.2", "192.168.100.101"]}]}},
    {"map": {"family": "ip", "name": "self", "table": "eip_gateway", "type": "ipv4_addr", "handle": 4,
      "map": "ipv4_addr", "elem": [["10.0.0.2", "10.0.0.2"]]}},
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
    {"rule": {"chain": "prerouting", "comment": "eip-gateway 2: a pod that reaches itself is turned round by the programs"}},
    {"rule": {"chain": "prerouting", "comment": "eip-gateway 2: a pod of this node reaches an EIP directly"}},
    {"rule": {"chain": "output", "comment": "eip-gateway 2: this node reaches an EIP directly"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 2: this node by an address that the pod can answer"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 2: to internal destinations as ever"}},
    {"rule": {"chain": "postrouting", "comment": "eip-gateway 2: an EIP pod keeps its own address"}},
    {"rule": {"chain": "count", "comment": "eip-gateway 2: from this node to EIPs"}}]}"#;

#[test]
fn reads_back_its_own_table_and_nothing_else() {
    let listing: Value = serde_json::from_str(LISTING).unwrap();
    let held = elements(
        &["10.0.0.2"],
        &["10.0.0.0/24", "10.1.2.3/32"],
        &[("192.168.100.101", "10.0.0.2"), ("192.168.100.102", "10.1.2.3")],
    );
    assert_eq!(parse(&listing), Some(held));
    assert_eq!(counter(&listing), Some(InCluster { packets: 7, bytes: 588 }));
    for (from, to) in [
        ("99", "100"),
        ("-101", "-100"),
        ("as ever", "no longer"),
        ("\"self\"", "\"other\""),
        ("in_cluster", "other"),
        ("\"chain\": \"output\"", "\"chain\": \"prerouting\""),
        ("[\"10.0.0.2\", \"10.0.0.2\"]", "[\"10.0.0.2\", \"10.0.0.3\"]"),
    ] {
        let changed: Value = serde_json::from_str(&LISTING.replace(from, to)).unwrap();
        assert_eq!(parse(&changed), None, "{from} → {to}");
    }
    assert_eq!(parse(&Value::Null), None);
    assert_eq!(counter(&Value::Null), None);
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
         delete element ip eip_gateway internal { 10.244.0.0/16 }\n\
         add element ip eip_gateway eips { 192.168.100.101 : 10.244.1.4 }\n\
         add element ip eip_gateway own { 10.244.1.4 . 192.168.100.101 }\n\
         add element ip eip_gateway self { 10.244.1.4 : 10.244.1.4 }\n\
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
fn no_eip_needs_no_table() {
    assert!(elements(&[], &["10.0.0.0/8"], &[]).is_empty());
    assert!(!elements(&[], &["10.0.0.0/8"], &[("192.168.100.101", "10.244.1.2")]).is_empty());
    assert!(!elements(&["10.244.1.2"], &[], &[]).is_empty());
}

#[test]
fn keeps_the_outermost_prefixes() {
    let kept =
        elements(&[], &["10.0.0.0/8", "10.244.0.0/16", "10.1.2.3/32", "172.16.0.1/32", "10.0.0.0/24"], &[]);
    assert_eq!(kept.internal, elements(&[], &["10.0.0.0/8", "172.16.0.1/32"], &[]).internal);
    assert_eq!(kept.internal.len(), 2);
}

#[test]
fn all_eips_that_moved_are_told_at_once() {
    let held = elements(
        &[],
        &["10.0.0.0/24"],
        &[("192.0.2.1", "10.0.0.1"), ("192.0.2.2", "10.0.0.2"), ("192.0.2.3", "10.0.0.3")],
    );
    let now = elements(
        &[],
        &["10.0.0.0/24"],
        &[("192.0.2.1", "10.0.0.9"), ("192.0.2.3", "10.0.0.3"), ("192.0.2.4", "10.0.0.4")],
    );
    let addr = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let moved = [(addr("192.0.2.1"), Some(addr("10.0.0.9"))), (addr("192.0.2.2"), None)];
    assert_eq!(held.moved(&now), moved.into());
}
