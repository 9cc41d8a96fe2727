//! What is there: read from the kernel and the manifests, not from what was intended.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{manifest, plan, state::State, tool};

/// A lab as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Prefix of its namespaces.
    pub prefix: String,
    /// MTU of both networks.
    pub mtu: u16,
    /// MTU inside pods.
    pub pod_mtu: u16,
    /// Every namespace, the switch first.
    pub namespaces: Vec<Namespace>,
    /// The pods of the manifests.
    pub pods: Vec<Pod>,
    /// One per node; empty when the lab has no agents.
    pub agents: Vec<Agent>,
    /// The folder of manifests that the agents watch.
    pub manifests: PathBuf,
    /// Everything else the lab keeps.
    pub state: PathBuf,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name in the lab, for `lab exec`.
    pub name: String,
    /// Its name for `ip netns` and under `/run/netns`.
    pub netns: String,
    /// False when it should exist and does not.
    pub present: bool,
    /// Its interfaces without the loopback.
    pub interfaces: Vec<Interface>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it has carrier.
    pub up: bool,
    /// Whether an XDP program is attached, native or generic.
    pub xdp: bool,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// Its addresses with prefix length.
    pub addresses: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name; that of its namespace too, for the lab's own pods.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// What its annotation asks for.
    pub eip: Option<String>,
}

/// The agent of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its node.
    pub node: String,
    /// Its pid while it runs.
    pub pid: Option<i32>,
    /// Where it pins maps and links.
    pub pin_dir: PathBuf,
    /// Where it keeps its status file.
    pub status_dir: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

pub(crate) fn netns_path(prefix: &str, name: &str) -> PathBuf {
    Path::new("/run/netns").join(format!("{prefix}{name}"))
}

/// As `ip -json address` prints it.
#[derive(Deserialize)]
struct IpAddress {
    ifname: String,
    #[serde(default)]
    address: String,
    mtu: u32,
    operstate: String,
    #[serde(default)]
    master: Option<String>,
    #[serde(default)]
    xdp: Option<IgnoredAny>,
    #[serde(default)]
    addr_info: Vec<AddrInfo>,
}

#[derive(Deserialize)]
struct AddrInfo {
    local: String,
    prefixlen: u8,
}

/// The interfaces of a namespace without the loopback.
pub(crate) fn interfaces(prefix: &str, name: &str) -> Result<Vec<Interface>> {
    let netns = format!("{prefix}{name}");
    let text = tool::run(Command::new("ip").args(["-n", &netns, "-json", "address"]), "")?;
    parse_interfaces(&text).with_context(|| format!("reading the interfaces of {netns}"))
}

fn parse_interfaces(json: &str) -> Result<Vec<Interface>> {
    let found: Vec<IpAddress> = serde_json::from_str(json)?;
    let named = found.into_iter().filter(|interface| interface.ifname != "lo");
    Ok(named
        .map(|interface| Interface {
            name: interface.ifname,
            mac: interface.address,
            mtu: interface.mtu,
            up: interface.operstate == "UP",
            xdp: interface.xdp.is_some(),
            bridge: interface.master,
            addresses: interface
                .addr_info
                .iter()
                .map(|address| format!("{}/{}", address.local, address.prefixlen))
                .collect(),
        })
        .collect())
}

pub(crate) fn namespaces(prefix: &str) -> Vec<Namespace> {
    let namespace = |name: &str| {
        let found = netns_path(prefix, name).exists().then(|| interfaces(prefix, name).ok()).flatten();
        Namespace {
            name: name.to_owned(),
            netns: format!("{prefix}{name}"),
            present: found.is_some(),
            interfaces: found.unwrap_or_default(),
        }
    };
    plan::namespaces().into_iter().map(namespace).collect()
}

/// The pods of the manifests in a folder, by file name; what cannot be read is left to the agents to complain of.
pub(crate) fn pods(manifests: &Path) -> Vec<Pod> {
    let mut files: Vec<_> =
        fs::read_dir(manifests).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    let visible =
        |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    let facts = files.into_iter().filter(visible).filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        manifest::read_pod(&text)
    });
    facts
        .map(|pod| Pod { name: pod.name, namespace: pod.namespace, node: pod.node, ip: pod.ip, eip: pod.eip })
        .collect()
}

pub(crate) fn agents(state: &State) -> Vec<Agent> {
    let agent = |node: &plan::Node| Agent {
        node: node.name.to_owned(),
        pid: state.agent(node.name).map(|process| process.pid),
        pin_dir: state.pin_dir(node.name),
        status_dir: state.status_dir(node.name),
        log: state.log(node.name),
    };
    plan::NODES.iter().map(agent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: &str = r#"[
        {"ifname":"lo","mtu":65536,"operstate":"UNKNOWN","address":"00:00:00:00:00:00","addr_info":[]},
        {"ifname":"eth0","mtu":9000,"operstate":"UP","xdp":{"mode":1,"prog":{"id":7}},"address":"02:00:ac:12:00:0b",
         "addr_info":[{"family":"inet","local":"172.18.0.11","prefixlen":24}]},
        {"ifname":"veth-pod0a","mtu":8900,"operstate":"DOWN","master":"cni0","address":"02:01:0a:f4:00:0a"}]"#;

    #[test]
    fn interfaces_are_read_as_ip_prints_them() {
        let found = parse_interfaces(ADDRESSES).expect("this is what ip prints");
        assert_eq!(found.len(), 2, "the loopback is left out");
        assert_eq!((found[0].up, found[0].addresses.as_slice()), (true, &["172.18.0.11/24".to_owned()][..]));
        assert_eq!((found[1].up, found[1].bridge.as_deref()), (false, Some("cni0")));
        assert_eq!((found[0].xdp, found[1].xdp), (true, false));
    }

    #[test]
    fn a_status_survives_json() {
        let status = Status {
            prefix: "t-".into(),
            mtu: 9000,
            pod_mtu: 8900,
            namespaces: vec![Namespace {
                name: "gw1".into(),
                netns: "t-gw1".into(),
                present: true,
                interfaces: parse_interfaces(ADDRESSES).expect("this is what ip prints"),
            }],
            pods: vec![Pod {
                name: "pod1a".into(),
                namespace: "default".into(),
                node: "worker1".into(),
                ip: Some(Ipv4Addr::new(10, 244, 1, 10)),
                eip: None,
            }],
            agents: vec![],
            manifests: "/m".into(),
            state: "/s".into(),
        };
        let json = serde_json::to_string(&status).expect("a status is JSON");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("and reads back"), status);
    }
}
