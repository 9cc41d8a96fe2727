//! A second way out of a node, as where the default route is by another NIC than the tunnel: what
//! leaves there shows with which address.

use anyhow::{Context, Result, ensure};
use gateway_lab::{Job, Lab};

use crate::capture::{Capture, Frames};
use crate::scene::eventually;

/// A host far away, behind the physical gateway.
pub(crate) const FAR: &str = "203.0.113.10";
/// The UDP port of flows.
const PORT: u16 = 9000;

/// A way out of a node's pods besides the gateway.
pub(crate) struct Way {
    /// The node's address on it.
    pub(crate) address: String,
    /// Where it arrives in the namespace `apiserver`.
    interface: String,
}

/// Gives a node its default route by the NIC that the tunnel takes, too.
pub(crate) fn same_nic(lab: &Lab, node: &str) -> Result<Way> {
    lab.read(node, &["ip", "route", "add", "default", "via", "172.18.0.10"])?;
    let known = gateway_lab::NODES.iter().find(|known| known.name == node).context("a node")?;
    Ok(Way { address: known.ip.to_string(), interface: "eth0".to_owned() })
}

/// Gives a node a NIC `up0` to the namespace `apiserver`, there called after the node, and its
/// default route by it.
pub(crate) fn other_nic(lab: &Lab, node: &str) -> Result<Way> {
    let known = gateway_lab::NODES.iter().find(|known| known.name == node).context("a node")?;
    let third = known.index;
    let (far, here) = (format!("198.51.{third}.1"), format!("198.51.{third}.2"));
    let peer = lab.netns("apiserver")?;
    let ip = |name: &str, words: &str| {
        lab.read(name, &["ip"].into_iter().chain(words.split(' ')).collect::<Vec<_>>()).map(drop)
    };
    ip(node, &format!("link add up0 type veth peer name {node} netns {peer}"))?;
    ip(node, &format!("addr add {here}/24 dev up0"))?;
    ip("apiserver", &format!("addr add {far}/24 dev {node}"))?;
    ip("apiserver", &format!("link set {node} up"))?;
    ip(node, "link set up0 up")?;
    ip(node, &format!("route add default via {far} dev up0"))?;
    Ok(Way { address: here, interface: node.to_owned() })
}

/// A UDP flow, some 80 numbered packets a second from one port.
pub(crate) struct Flow {
    sender: Job,
    receiver: Job,
    captures: Vec<Capture>,
}

/// What became of a flow's packets.
pub(crate) struct Went {
    /// Numbers that arrived at the far end, in their order.
    pub(crate) arrived: Vec<u32>,
    /// By the other way out and on the underlay.
    frames: Vec<Frames>,
}

impl Flow {
    /// From a pod on `node` to `to`; `receiver` is the namespace with that address, `way` what it
    /// leaves by without an EIP.
    pub(crate) fn start(
        lab: &Lab,
        (pod, node): (&str, &str),
        (to, receiver): (&str, &str),
        way: &Way,
    ) -> Result<Self> {
        let captures = vec![
            Capture::arriving(lab, "apiserver", &way.interface)?,
            // Nothing is to arrive plainly at another node.
            Capture::arriving(lab, if node == "gw1" { "worker1" } else { "gw1" }, "eth0")?,
        ];
        let listen = format!("UDP-RECV:{PORT}");
        let mut receiver = lab.spawn(receiver, &["socat", "-d", "-d", "-u", &listen, "-"])?;
        receiver.wait_for("starting data transfer", std::time::Duration::from_secs(10))?;
        // A refused packet is no reason to stop.
        let script = format!(
            "exec 3<>/dev/udp/{to}/{PORT}; i=0; while sleep 0.012; do i=$((i+1)); echo $i >&3; echo $i; done 2>/dev/null"
        );
        let sender = lab.spawn(pod, &["bash", "-c", &script])?;
        Ok(Self { sender, receiver, captures })
    }

    /// Numbers that arrived so far.
    pub(crate) fn arrived(&self) -> Vec<u32> {
        self.receiver.stdout().lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The number sent last.
    pub(crate) fn sent(&self) -> u32 {
        self.sender.stdout().lines().filter_map(|line| line.parse().ok()).next_back().unwrap_or_default()
    }

    /// Waits until so many more packets were sent.
    pub(crate) fn goes_on(&self, packets: u32) -> Result<()> {
        let from = self.sent();
        let limit = std::time::Duration::from_secs(20);
        eventually(limit, &format!("{packets} more packets are sent"), || Ok(self.sent() >= from + packets))
    }

    /// Ends it.
    pub(crate) fn end(self) -> Result<Went> {
        let Self { sender, receiver, captures } = self;
        drop(sender);
        let frames = captures.into_iter().map(Capture::stop).collect::<Result<_>>()?;
        let arrived = receiver.stdout().lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Went { arrived, frames })
    }
}

impl Went {
    /// Nothing went out plainly with the pod's own address.
    pub(crate) fn not_by(&self, pod: &str) -> Result<()> {
        for frames in &self.frames {
            let leaked = frames.matching(&format!("ip.src == {pod} && udp.dstport == {PORT} && !geneve"))?;
            ensure!(leaked.is_empty(), "{} packets with the pod's own address: {leaked:?}", leaked.len());
        }
        Ok(())
    }

    /// How many went the other way out, by the node's address there.
    pub(crate) fn other_way(&self, way: &Way) -> Result<usize> {
        let address = &way.address;
        Ok(self.frames[0].matching(&format!("ip.src == {address} && udp.dstport == {PORT}"))?.len())
    }
}
