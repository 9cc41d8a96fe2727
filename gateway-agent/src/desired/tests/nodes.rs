//! What each role's kernel should hold.

use gateway_common::tables::{
    CONFIG_OWNER, CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_PIECES_TO_UNDERLAY, CONFIG_XDP_TO_EXTERNAL,
    CONFIG_XDP_TO_UNDERLAY, VTEP_GATEWAY, Vtep,
};

use super::*;

const WORKER2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const POD1: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);
const POD_GW: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 10);
const EIP_GW: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 102);
const NIC_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 254);

/// An EIP pod on worker1 and one on gw1.
fn with_pods(here: &str) -> Snapshot {
    snapshot(here).with_pod("a", "worker1", "10.244.2.10", "192.168.100.101", 1).with_pod(
        "g",
        "gw1",
        "10.244.1.10",
        "192.168.100.102",
        1,
    )
}

fn throws() -> BTreeSet<Route> {
    [
        "10.0.0.1/32",
        "10.0.0.11/32",
        "10.0.0.12/32",
        "10.96.0.0/12",
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.3.0/24",
    ]
    .map(|text| Route::Throw(prefix(text)))
    .into_iter()
    .chain([Route::Unreachable])
    .collect()
}

fn default_route(ifindex: u32, via: Ipv4Addr, mtu: u32) -> Route {
    Route::Default { to: RouteTo { ifindex, via: Some(via) }, mtu }
}

fn names(hooks: &BTreeMap<Hook, String>) -> Vec<(Hook, &str)> {
    hooks.iter().map(|(hook, nic)| (*hook, nic.as_str())).collect()
}

#[test]
fn a_worker_holds_its_own_pods_and_the_way_to_the_gateway() {
    let desired = desired(&with_pods("worker1"));
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
    assert!(desired.bindings().eq([(EIP, &name("a")), (EIP_GW, &name("g"))]));
    let datapath = datapath(&desired);
    let expected = Datapath {
        config: tables::Config {
            abi: gateway_common::ABI_VERSION,
            underlay_ifindex: ETH0,
            vni: crate::config::DEFAULT_VNI,
            tunnel_mtu: 8950,
            local_vtep: WORKER1.octets(),
            nic_ip: NIC_IP.octets(),
            external_network: [192, 168, 100, 0],
            external_netmask: [255, 255, 255, 0],
            physical_gateway: [192, 168, 100, 1],
            nic_mac: [0x16, 0x52, 0xf3, 0x13, 0x6a, 0x25],
            geneve_port: 6081_u16.to_be_bytes(),
            errors_per_second: 1_000,
            slow_path_per_second: 10_000,
            ..tables::Config::default()
        },
        pods: BTreeMap::from([(POD1, PodRow { eip: EIP, vtep: None, gateway: Some(GW1) })]),
        vteps: BTreeMap::from([(GW1, Vtep::unresolved(VTEP_GATEWAY)), (WORKER2, Vtep::unresolved(0))]),
        internal: datapath.internal.clone(),
        hooks: [Hook::XdpUnderlay, Hook::TcUnderlay, Hook::TcUnderlayEgress]
            .map(|hook| (hook, "eth0".to_owned()))
            .into(),
        rules: BTreeSet::from([POD1]),
        routes: throws().into_iter().chain([default_route(ETH0, GW1, 8950)]).collect(),
        identity_snat: BTreeSet::from([POD1]),
        cluster_eips: BTreeMap::from([(EIP, POD1), (EIP_GW, POD_GW)]),
        resolve: BTreeSet::from([(ETH0, GW1)]),
        ..Datapath::default()
    };
    assert_eq!(*datapath, expected);
    let thrown = datapath.internal.iter().copied().map(Route::Throw);
    assert_eq!(thrown.chain([Route::Unreachable]).collect::<BTreeSet<_>>(), throws());
}

#[test]
fn xdp_sends_what_each_nic_takes() {
    let mut snapshot = with_pods("gw1");
    let mut flags = |nic: &str, takes| {
        snapshot.host.links.get_mut(nic).expect("a NIC of gw1").takes = takes;
        datapath(&desired(&snapshot)).config.flags & !CONFIG_OWNER
    };
    assert_eq!(flags("enp8s0", Takes::OneBuffer), CONFIG_XDP_TO_EXTERNAL);
    assert_eq!(flags("enp8s0", Takes::Everything), CONFIG_XDP_TO_EXTERNAL | CONFIG_XDP_PIECES_TO_EXTERNAL);
    assert_eq!(flags("enp8s0", Takes::Nothing), 0);
    assert_eq!(flags("eth0", Takes::OneBuffer), CONFIG_XDP_TO_UNDERLAY);
    assert_eq!(flags("eth0", Takes::Everything), CONFIG_XDP_TO_UNDERLAY | CONFIG_XDP_PIECES_TO_UNDERLAY);
}

#[test]
fn the_owner_holds_everything_and_the_external_side() {
    let desired = desired(&with_pods("gw1"));
    assert!(desired.problems.is_empty(), "{:?}", desired.problems);
    let datapath = datapath(&desired);
    let config = datapath.config;
    assert_eq!((config.flags, config.external_ifindex, config.external_mtu), (CONFIG_OWNER, ENP8S0, 1500));
    assert_eq!((config.router_port_ifindex, config.local_vtep), (0, GW1.octets()));
    let eips = [
        (EIP, EipRow { pod_ip: POD1, vtep: Some(WORKER1) }),
        (EIP_GW, EipRow { pod_ip: POD_GW, vtep: None }),
    ];
    assert_eq!(datapath.eips, eips.into());
    let pods = [
        (POD1, PodRow { eip: EIP, vtep: Some(WORKER1), gateway: None }),
        (POD_GW, PodRow { eip: EIP_GW, vtep: None, gateway: None }),
    ];
    assert_eq!(datapath.pods, pods.into());
    assert_eq!(
        names(&datapath.hooks),
        [
            (Hook::XdpExternal, "enp8s0"),
            (Hook::TcExternal, "enp8s0"),
            (Hook::XdpUnderlay, "eth0"),
            (Hook::TcUnderlay, "eth0"),
            (Hook::TcUnderlayEgress, "eth0"),
        ]
    );
    let port = datapath.router_port.as_ref().unwrap();
    assert_eq!((&port.parent[..], port.mtu, port.address), ("enp8s0", 1500, prefix("192.168.100.254/24")));
    assert_eq!(datapath.announce, BTreeSet::from([EIP, EIP_GW, NIC_IP]));
    assert_eq!(datapath.rules, BTreeSet::from([POD_GW, NIC_IP]));
    assert_eq!(datapath.identity_snat, BTreeSet::from([POD_GW]));
    assert_eq!(datapath.routes, throws());
    assert_eq!(datapath.resolve, BTreeSet::from([(ETH0, WORKER1), (ETH0, WORKER2)]));
}

#[test]
fn once_the_router_port_exists_its_routes_hook_and_neighbours_follow() {
    let mut snapshot = with_pods("gw1");
    let port = Link { parent: Some(ENP8S0), ..link(ROUTER, 1500, &["192.168.100.254/24"]) };
    snapshot.host.links.insert(RouterPort::NAME.to_owned(), port);
    snapshot.host.neighbors = [
        ((ETH0, WORKER1), MACS[1]),
        ((ROUTER, ip("192.168.100.1")), MACS[2]),
        ((ENP8S0, ip("192.168.100.7")), MACS[3]),
    ]
    .into();
    let decided = desired(&snapshot);
    let datapath_now = datapath(&decided);
    assert_eq!(datapath_now.config.router_port_ifindex, ROUTER);
    assert_eq!(datapath_now.hooks[&Hook::TcRouterPort], RouterPort::NAME);
    let on_link = Route::OnLink { destination: prefix("192.168.100.0/24"), ifindex: ROUTER };
    let ways = [on_link, default_route(ROUTER, ip("192.168.100.1"), 0)];
    assert_eq!(datapath_now.routes, throws().into_iter().chain(ways).collect());
    assert!(datapath_now.resolve.contains(&(ROUTER, ip("192.168.100.1"))));
    assert_eq!(datapath_now.neighbors, BTreeMap::from([(ip("192.168.100.1"), MACS[2])]));
    // Worker1 is resolved by its neighbour entry, directly on eth0.
    assert_eq!(datapath_now.vteps[&WORKER1], Vtep::resolved(0, ETH0, MACS[ETH0 as usize], MACS[1]));

    snapshot.host.links.get_mut(RouterPort::NAME).unwrap().parent = Some(99);
    let moved = desired(&snapshot);
    assert_eq!(datapath(&moved).config.router_port_ifindex, 0, "a port on another NIC is about to go");
}

#[test]
fn a_gateway_behind_a_router_is_reached_by_way_of_it() {
    let mut snapshot = with_pods("worker1");
    let router = ip("10.0.0.254");
    snapshot.host.routes.insert(GW1, RouteTo { ifindex: ETH0, via: Some(router) });
    snapshot.host.neighbors.insert((ETH0, router), MACS[1]);
    let desired = desired(&snapshot);
    let datapath = datapath(&desired);
    assert!(datapath.routes.contains(&default_route(ETH0, router, 8950)));
    assert_eq!(datapath.vteps[&GW1], Vtep::resolved(VTEP_GATEWAY, ETH0, MACS[ETH0 as usize], MACS[1]));
    assert_eq!(datapath.resolve, BTreeSet::from([(ETH0, router)]));
}

#[test]
fn a_gateway_that_does_not_own_holds_all_rows_and_no_external_side() {
    let mut snapshot = with_pods("gw1");
    snapshot.config_mut().gateway_nodes = vec!["worker1".to_owned(), "gw1".to_owned()];
    let desired = desired(&snapshot);
    let datapath = datapath(&desired);
    assert_eq!((datapath.config.flags, datapath.config.external_ifindex), (0, 0));
    assert_eq!((datapath.eips.len(), datapath.announce.len()), (2, 0));
    assert_eq!(datapath.pods[&POD_GW], PodRow { eip: EIP_GW, vtep: None, gateway: Some(WORKER1) });
    assert_eq!(datapath.pods[&POD1], PodRow { eip: EIP, vtep: Some(WORKER1), gateway: Some(WORKER1) });
    assert_eq!(datapath.rules, BTreeSet::from([POD_GW]));
    assert!(datapath.routes.contains(&default_route(ETH0, WORKER1, 8950)));
}

#[test]
fn without_its_external_nic_the_owner_says_so_and_serves_no_external_side() {
    let mut lost = with_pods("gw1");
    lost.host.links.remove("enp8s0");
    let mut shared = with_pods("gw1");
    shared.config_mut().external_nic = "eth0".to_owned();
    for snapshot in [lost, shared] {
        let desired = desired(&snapshot);
        assert_eq!(
            complaints(&desired),
            ["Refused configmap kube-system/ovn-external-gw-config data[external-gw-nic]"]
        );
        assert!(desired.bindings().next().is_none());
        let datapath = datapath(&desired);
        assert_eq!((datapath.config.flags, datapath.router_port.as_ref()), (0, None));
        assert!(datapath.rules.is_empty() && datapath.announce.is_empty());
        assert_eq!(datapath.hooks.len(), 3);
    }
}

#[test]
fn an_external_nic_without_carrier_is_served_and_warned_of() {
    for (up, state) in [(true, "has no carrier"), (false, "is down")] {
        let mut snapshot = with_pods("gw1");
        let nic = snapshot.host.links.get_mut("enp8s0").unwrap();
        (nic.up, nic.carrier) = (up, false);
        let desired = desired(&snapshot);
        assert_eq!(complaints(&desired), ["Warning node gw1 interface enp8s0"]);
        assert!(desired.problems[0].message.contains(state), "{:?}", desired.problems);
        assert!(datapath(&desired).router_port.is_some() && desired.bindings().next().is_some());
    }
}

#[test]
fn without_any_gateway_no_pod_is_touched() {
    let mut snapshot = with_pods("worker1");
    snapshot.config_mut().gateway_nodes = vec!["gone".to_owned()];
    let desired = desired(&snapshot);
    let datapath = datapath(&desired);
    assert!(datapath.pods.is_empty() && datapath.rules.is_empty() && datapath.identity_snat.is_empty());
    assert_eq!(desired.problems.last().unwrap().kind, Kind::Refused);
    assert!(desired.bindings().next().is_none());
}

#[test]
fn the_external_subnet_is_never_internal_as_a_whole() {
    let mut snapshot = with_pods("worker1");
    snapshot.config_mut().cluster_cidrs = vec![prefix("192.168.100.0/23"), prefix("192.168.100.0/24")];
    snapshot.nodes.get_mut("worker2").unwrap().internal_ip = Some(ip("192.168.100.12"));
    let desired = desired(&snapshot);
    let field = "Warning configmap kube-system/ovn-external-gw-config data[cluster-cidrs]";
    assert_eq!(complaints(&desired), [field, field]);
    let internal = &datapath(&desired).internal;
    assert!(internal.contains(&prefix("192.168.101.0/24")));
    assert!(internal.contains(&prefix("192.168.100.12/32")));
    assert!(!internal.iter().any(|prefix| prefix.contains(ip("192.168.100.1"))));
}

#[test]
fn an_owner_that_is_not_ready_hands_over_and_workers_follow() {
    let owned = |here: &str, gw1_ready: bool, worker2_ready: bool| {
        let mut snapshot = with_pods(here);
        snapshot.host.links.insert("enp8s0".to_owned(), link(ENP8S0, 1500, &[]));
        snapshot.config_mut().gateway_nodes = vec!["gw1".to_owned(), "worker2".to_owned()];
        snapshot.nodes.get_mut("gw1").unwrap().ready = gw1_ready;
        snapshot.nodes.get_mut("worker2").unwrap().ready = worker2_ready;
        let desired = desired(&snapshot);
        assert_eq!(desired.bindings().count(), 2, "every gateway and worker knows them all the while");
        let datapath = datapath(&desired);
        let way = datapath.pods.get(&POD1).map(|row| row.gateway);
        (desired.gateways.owner.clone().unwrap(), datapath.router_port.is_some(), way)
    };
    for (gw1, worker2, owner, addr) in [
        (true, true, "gw1", GW1),
        (false, true, "worker2", WORKER2),
        // Nobody is Ready: the first serves on.
        (false, false, "gw1", GW1),
        (true, false, "gw1", GW1),
    ] {
        for here in ["gw1", "worker2"] {
            let mine = owner == here;
            let way = Some((!mine).then_some(addr));
            assert_eq!(owned(here, gw1, worker2), (owner.to_owned(), mine, way), "{here}");
        }
        assert_eq!(owned("worker1", gw1, worker2), (owner.to_owned(), false, Some(Some(addr))));
    }
}

#[test]
fn service_cidrs_are_internal() {
    let mut snapshot = with_pods("worker1");
    snapshot.config_mut().cluster_cidrs.clear();
    snapshot.service_cidrs = BTreeSet::from([prefix("10.43.0.0/16")]);
    let desired = desired(&snapshot);
    let datapath = datapath(&desired);
    assert!(datapath.internal.contains(&prefix("10.43.0.0/16")));
    assert!(datapath.routes.contains(&Route::Throw(prefix("10.43.0.0/16"))));
    assert!(!datapath.internal.contains(&prefix("10.96.0.0/12")));
}
