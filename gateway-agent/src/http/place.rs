//! Where this node is on the networks: what the agent listens on, and whom it does not answer.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use gateway_common::addr::Prefix;

use crate::desired::RouterPort;
use crate::snapshot::{Configured, Snapshot};

/// A node's place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Its InternalIP.
    pub node: Option<Ipv4Addr>,
    /// The InternalIPs of all nodes.
    pub nodes: BTreeSet<Ipv4Addr>,
    /// What is on the external network: its subnet, and those of the addresses of the external NIC
    /// and the router port.
    pub external: BTreeSet<Prefix>,
}

impl Place {
    /// As a snapshot shows it.
    pub fn of(snapshot: &Snapshot) -> Self {
        let address = |name: &str| snapshot.nodes.get(name).and_then(|node| node.internal_ip);
        let mut external = BTreeSet::new();
        let mut nics = vec![RouterPort::NAME];
        if let Configured::Enabled(config) = &snapshot.config {
            external.insert(config.external_gateway.trunc());
            nics.push(&config.external_nic);
        }
        let links = nics.into_iter().filter_map(|nic| snapshot.host.links.get(nic));
        external.extend(links.flat_map(|link| &link.addresses).map(|address| address.trunc()));
        Self {
            node: address(&snapshot.node_name),
            nodes: snapshot.nodes.keys().filter_map(|name| address(name)).collect(),
            external,
        }
    }

    /// Whether a connection is of the external network, by either end. A packet from there may be
    /// addressed to the node's InternalIP. Where the nodes are on that network too, they may ask.
    pub(super) fn is_external(&self, local: IpAddr, peer: IpAddr) -> bool {
        [local, peer].into_iter().any(|end| match end.to_canonical() {
            IpAddr::V4(end) => {
                !self.nodes.contains(&end) && self.external.iter().any(|prefix| prefix.contains(end))
            }
            IpAddr::V6(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;
    use crate::snapshot::{Link, Node};

    #[test]
    fn whoever_is_on_the_external_network_is_refused() {
        let mut snapshot = Snapshot { node_name: "gw1".to_owned(), ..Snapshot::default() };
        snapshot.config = Configured::Enabled(example());
        for (name, address) in [("gw1", [10, 0, 0, 1]), ("on-the-lan", [192, 168, 100, 7])] {
            let node = Node { internal_ip: Some(address.into()), ..Node::default() };
            snapshot.nodes.insert(name.to_owned(), node);
        }
        let nic = Link { addresses: vec!["203.0.113.5/28".parse().unwrap()], ..Link::default() };
        snapshot.host.links.insert("enp8s0".to_owned(), nic);
        let place = Place::of(&snapshot);
        assert_eq!(place.node, Some([10, 0, 0, 1].into()));
        for (local, peer, expected) in [
            ("127.0.0.1", "127.0.0.1", false),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "10.244.1.10", false),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.2", false),
            ("192.168.100.254", "10.0.0.2", true),
            ("203.0.113.5", "198.51.100.1", true),
            // By way of the external NIC to the InternalIP.
            ("10.0.0.1", "192.168.100.1", true),
            ("10.0.0.1", "203.0.113.6", true),
            ("::ffff:10.0.0.1", "::ffff:192.168.100.1", true),
            // Nodes on the same LAN.
            ("10.0.0.1", "192.168.100.7", false),
            ("192.168.100.7", "192.168.100.7", false),
        ] {
            let refused = place.is_external(local.parse().unwrap(), peer.parse().unwrap());
            assert_eq!(refused, expected, "{peer} asks {local}");
        }
    }
}
