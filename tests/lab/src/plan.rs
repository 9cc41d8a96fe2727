//! The lab on paper: who exists, how they are wired, and every address. Pure, and the one place that decides.
//!
//! ```text
//!  outside ──── client ──[ext]── gw1:enp8s0
//!                                gw1:eth0 ──[underlay]── worker1:eth0
//!                                                ├────── worker2:eth0
//!                                                └────── apiserver:eth0
//!  gw1:cni0 ── pod0a     worker1:cni0 ── pod1a, pod1b     worker2:cni0 ── pod2a, pod2b
//! ```
//!
//! A MAC address names its owner's address: `02:00` and the four bytes of the IPv4 address for the end a host
//! uses, `02:01` and the same for the other end of its veth, `02:02` for the switches themselves. `enp8s0` carries
//! no address; its MAC is that of 192.168.100.11.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::LabConfig;

/// The client, which is also the physical gateway of the external network.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// A host behind the physical gateway, on no link of any node.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The physical gateway's address towards [`OUTSIDE`].
pub const OUTSIDE_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The gateway's own presence on the external network, `nic-ip`.
pub const NIC_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 254);
/// `nic-mac`.
pub const NIC_MAC: Mac = Mac([0x16, 0x52, 0xf3, 0x13, 0x6a, 0x25]);
/// The EIP that `lab up` gives to [`EIP_POD`].
pub const EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 101);
/// The pod that gets [`EIP`].
pub const EIP_POD: &str = "pod1a";
/// The external NIC of the gateway, `external-gw-nic`.
pub const EXTERNAL_NIC: &str = "enp8s0";
/// The underlay NIC of every node and the only NIC of every pod.
pub const PRIMARY_NIC: &str = "eth0";
/// A Service address; TCP port 80 of it is [`SERVICE_POD`], port [`SERVICE_TARGET_PORT`].
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The pod behind [`SERVICE`].
pub const SERVICE_POD: &str = "pod2b";
/// The port [`SERVICE_POD`] serves [`SERVICE`] on.
pub const SERVICE_TARGET_PORT: u16 = 8080;
/// All pods of the cluster.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// All Services of the cluster.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// The nodes' network.
pub const UNDERLAY_CIDR: &str = "172.18.0.0/24";
/// The namespace that plays both switches.
pub const SWITCH: &str = "switch";
/// A namespace on the underlay for the cluster's API server; nothing runs in it unless a test starts it.
pub const API_SERVER: &str = "apiserver";
/// Its address.
pub const API_SERVER_IP: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 10);
/// A namespace for a VM's guest, on no wire unless a test makes a [`Guest`](crate::Guest) of it.
pub const GUEST: &str = "guest";
/// The guest's address, known in its launcher pod only.
pub const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The launcher pod's address towards its guest.
pub const GUEST_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// Its MAC, the same in every launcher pod, so that a guest that moved need not ask again.
pub const GUEST_ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0]);

/// A node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of the Node object and, after the prefix, of its namespace.
    pub name: &'static str,
    /// N of its pod network 10.244.N.0/24.
    pub index: u8,
    /// Its InternalIP, the address of `eth0`.
    pub ip: Ipv4Addr,
    /// Whether it owns an external NIC.
    pub gateway: bool,
}

/// The nodes: one gateway and two workers.
pub const NODES: [Node; 3] = [
    Node { name: "gw1", index: 0, ip: Ipv4Addr::new(172, 18, 0, 11), gateway: true },
    Node { name: "worker1", index: 1, ip: Ipv4Addr::new(172, 18, 0, 21), gateway: false },
    Node { name: "worker2", index: 2, ip: Ipv4Addr::new(172, 18, 0, 22), gateway: false },
];

impl Node {
    /// The node of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        NODES.iter().find(|node| node.name == name)
    }

    /// Its pod network, 10.244.N.0/24.
    pub fn pod_cidr(&self) -> String {
        format!("10.244.{}.0/24", self.index)
    }

    /// The address of its `cni0`, its pods' default gateway.
    pub fn pod_gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.index, 1)
    }
}

/// A pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name of the Pod object and, after the prefix, of its namespace.
    pub name: &'static str,
    /// Name of its node.
    pub node: &'static str,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// The pods: two per worker, one on the gateway.
pub const PODS: [Pod; 5] = [
    Pod { name: "pod0a", node: "gw1", ip: Ipv4Addr::new(10, 244, 0, 10) },
    Pod { name: "pod1a", node: "worker1", ip: Ipv4Addr::new(10, 244, 1, 10) },
    Pod { name: "pod1b", node: "worker1", ip: Ipv4Addr::new(10, 244, 1, 11) },
    Pod { name: "pod2a", node: "worker2", ip: Ipv4Addr::new(10, 244, 2, 10) },
    Pod { name: "pod2b", node: "worker2", ip: Ipv4Addr::new(10, 244, 2, 11) },
];

impl Pod {
    /// The pod of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PODS.iter().find(|pod| pod.name == name)
    }

    /// Its default gateway: the same network's .1.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.ip.octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

/// Every namespace of a lab, without the prefix, in the order they are made.
pub fn namespaces() -> Vec<&'static str> {
    let mut names = vec![SWITCH, "client", "outside", API_SERVER, GUEST];
    names.extend(NODES.iter().map(|node| node.name));
    names.extend(PODS.iter().map(|pod| pod.name));
    names
}

/// An Ethernet address; prints as `02:00:ac:12:00:0b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    const fn of(kind: u8, ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([2, kind, a, b, c, d])
    }

    /// The MAC of the interface that carries (or, for `enp8s0`, stands for) `ip`.
    pub const fn host(ip: Ipv4Addr) -> Self {
        Self::of(0, ip)
    }

    const fn far_end(ip: Ipv4Addr) -> Self {
        Self::of(1, ip)
    }

    const fn bridge(ip: Ipv4Addr) -> Self {
        Self::of(2, ip)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What an interface plays, which decides its offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A NIC: nothing is left to hardware on the way out, the host's stack aggregates on the way in.
    Nic,
    /// The switch's end of a node's wire. Has an XDP program, or what the node's XDP sends would not arrive.
    Port,
    /// An end that neither aggregates nor segments.
    Plain,
    /// A veth as a CNI leaves it, all offloads on.
    Cni,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) namespace: &'static str,
    pub(crate) interface: String,
    pub(crate) mac: Mac,
    pub(crate) kind: Kind,
    /// Bridge it is a port of.
    pub(crate) bridge: Option<&'static str>,
    /// Address with prefix length.
    pub(crate) address: Option<String>,
}

/// A veth pair.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    pub(crate) mtu: u16,
}

/// A Linux bridge: one of the two switches, or a node's CNI bridge.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) namespace: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u16,
    pub(crate) address: Option<String>,
}

/// A route in `ip route add` words.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) namespace: &'static str,
    pub(crate) words: String,
}

/// Everything the kernel has to be told to make the lab's networks.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) links: Vec<Link>,
    pub(crate) routes: Vec<Route>,
}

impl Plan {
    pub(crate) fn new(config: &LabConfig) -> Self {
        Self { bridges: bridges(config), links: links(config), routes: routes() }
    }
}

fn bridges(config: &LabConfig) -> Vec<Bridge> {
    let switch = |interface, network| Bridge {
        namespace: SWITCH,
        interface,
        mac: Mac::bridge(network),
        mtu: config.mtu,
        address: None,
    };
    let cni = |node: &Node| Bridge {
        namespace: node.name,
        interface: "cni0",
        mac: Mac::host(node.pod_gateway()),
        mtu: config.pod_mtu(),
        address: Some(format!("{}/24", node.pod_gateway())),
    };
    let mut bridges = vec![
        switch("ext", Ipv4Addr::new(192, 168, 100, 0)),
        switch("underlay", Ipv4Addr::new(172, 18, 0, 0)),
    ];
    bridges.extend(NODES.iter().map(cni));
    bridges
}

fn links(config: &LabConfig) -> Vec<Link> {
    let enp8s0 = Ipv4Addr::new(192, 168, 100, 11);
    let mut links = vec![
        wire(
            config,
            host("client", "eth0", CLIENT, Kind::Plain, true),
            port("client", CLIENT, "ext", Kind::Plain),
        ),
        wire(
            config,
            host("client", "eth1", OUTSIDE_ROUTER, Kind::Plain, true),
            host("outside", "eth0", OUTSIDE, Kind::Plain, true),
        ),
        wire(
            config,
            host("gw1", EXTERNAL_NIC, enp8s0, Kind::Nic, false),
            port("gw1-enp8s0", enp8s0, "ext", Kind::Port),
        ),
        wire(
            config,
            host(API_SERVER, PRIMARY_NIC, API_SERVER_IP, Kind::Plain, true),
            port(API_SERVER, API_SERVER_IP, "underlay", Kind::Plain),
        ),
    ];
    links.extend(NODES.iter().map(|node| {
        wire(
            config,
            host(node.name, PRIMARY_NIC, node.ip, Kind::Nic, true),
            port(node.name, node.ip, "underlay", Kind::Port),
        )
    }));
    links.extend(PODS.iter().map(|pod| Link {
        ends: [
            host(pod.name, PRIMARY_NIC, pod.ip, Kind::Cni, true),
            End { namespace: pod.node, ..port(&format!("veth-{}", pod.name), pod.ip, "cni0", Kind::Cni) },
        ],
        mtu: config.pod_mtu(),
    }));
    links
}

fn wire(config: &LabConfig, a: End, b: End) -> Link {
    Link { ends: [a, b], mtu: config.mtu }
}

fn host(namespace: &'static str, interface: &str, ip: Ipv4Addr, kind: Kind, numbered: bool) -> End {
    let address = numbered.then(|| format!("{ip}/24"));
    End { namespace, interface: interface.to_owned(), mac: Mac::host(ip), kind, bridge: None, address }
}

fn port(interface: &str, ip: Ipv4Addr, bridge: &'static str, kind: Kind) -> End {
    let interface = interface.to_owned();
    End { namespace: SWITCH, interface, mac: Mac::far_end(ip), kind, bridge: Some(bridge), address: None }
}

fn routes() -> Vec<Route> {
    let default = |namespace, via: Ipv4Addr| Route { namespace, words: format!("default via {via}") };
    let mut routes = vec![default("outside", OUTSIDE_ROUTER)];
    routes.extend(PODS.iter().map(|pod| default(pod.name, pod.gateway())));
    for node in &NODES {
        for other in NODES.iter().filter(|other| other.name != node.name) {
            let words = format!("{} via {} dev {PRIMARY_NIC}", other.pod_cidr(), other.ip);
            routes.push(Route { namespace: node.name, words });
        }
        // A node without a default route needs one here, or its own connections to a Service end before DNAT.
        routes.push(Route { namespace: node.name, words: format!("{SERVICE_CIDR} dev {PRIMARY_NIC}") });
    }
    routes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan() -> Plan {
        Plan::new(&LabConfig::default())
    }

    #[test]
    fn macs_name_their_owner_and_are_unique() {
        assert_eq!(Mac::host(NODES[0].ip).to_string(), "02:00:ac:12:00:0b");
        let plan = plan();
        let mut macs: Vec<_> = plan.links.iter().flat_map(|link| &link.ends).map(|end| end.mac.0).collect();
        macs.extend(plan.bridges.iter().map(|bridge| bridge.mac.0));
        assert_eq!(macs.iter().collect::<BTreeSet<_>>().len(), macs.len());
    }

    #[test]
    fn the_external_nic_has_no_address_and_workers_have_no_external_nic() {
        let plan = plan();
        let ends: Vec<_> = plan.links.iter().flat_map(|link| &link.ends).collect();
        let external: Vec<_> = ends.iter().filter(|end| end.interface == EXTERNAL_NIC).collect();
        assert_eq!(external.len(), 1);
        assert_eq!((external[0].namespace, &external[0].address), ("gw1", &None));
        for worker in ["worker1", "worker2"] {
            let nics: Vec<_> =
                ends.iter().filter(|end| end.namespace == worker && end.kind == Kind::Nic).collect();
            assert_eq!(nics.len(), 1, "{worker}");
        }
    }

    #[test]
    fn no_node_has_a_default_route() {
        for route in plan().routes.iter().filter(|route| Node::named(route.namespace).is_some()) {
            assert!(!route.words.starts_with("default"), "{route:?}");
        }
    }

    #[test]
    fn every_pod_lives_in_the_network_of_its_node() {
        for pod in &PODS {
            let node = Node::named(pod.node).expect("a pod's node exists");
            assert_eq!(pod.gateway(), node.pod_gateway(), "{}", pod.name);
        }
        assert!(Pod::named(EIP_POD).is_some() && Pod::named(SERVICE_POD).is_some());
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for link in plan().links {
            for end in link.ends {
                assert!(end.interface.len() < 16, "{}", end.interface);
            }
        }
    }
}
