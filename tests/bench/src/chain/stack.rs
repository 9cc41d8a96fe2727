//! Gateways made of the kernel's own parts, set up as somebody would who has nothing else.
//!
//! Tunnels are as flannel makes them: one VXLAN device without learning, and for each node a route, a neighbour and a
//! forwarding entry. NAT is one nftables map each way.

use std::fmt::Write;

use anyhow::Result;
use gateway_common::addr::Mac;
use gateway_tests::fixture::{CLIENT, CLIENT_MAC, GATEWAY, NIC_IP, VNI, WORKER1_MAC};

use super::{
    flow::{EIPS, VXLAN_PORT},
    namespace::Namespace,
};
use crate::packets::population::{FIRST_EIP, FIRST_NODE, Member, Population};

/// Pods of a node, as a power of two, and what is left of an address.
const NODE_BITS: u32 = 7;
const POD_PREFIX: u32 = 32 - NODE_BITS;

/// What the kernel does besides forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// Nothing.
    Plain,
    /// The statements that write addresses, without connection tracking, and VXLAN.
    Stateless,
    /// DNAT and SNAT with connection tracking, and VXLAN.
    Conntrack,
}

impl Stack {
    /// Sets a gateway up.
    pub(crate) fn configure(self, gateway: &Namespace) -> Result<()> {
        gateway.sysctl("net.ipv4.ip_forward=1")?;
        gateway.ip(&links())?;
        match self {
            Self::Plain => {
                let eips = format!("{FIRST_EIP}/{}", 32 - EIPS.ilog2());
                return gateway.ip(&format!("route add {eips} via {} dev g1\n", dotted(Member(0).node())));
            }
            Self::Stateless => gateway.run(&["nft", "-f", "-"], &stateless()?)?,
            Self::Conntrack => gateway.run(&["nft", "-f", "-"], &conntrack()?)?,
        };
        let (vxlan, entries) = vxlan();
        gateway.ip(&vxlan)?;
        gateway.run(&["bridge", "-batch", "-"], &entries).map(drop)
    }
}

/// Addresses, and the neighbours, who do not answer ARP in a benchmark.
fn links() -> String {
    let [client, nic, gateway] = [CLIENT, NIC_IP, GATEWAY].map(dotted);
    let mut lines = format!(
        "addr add {nic}/24 dev g0\naddr add {gateway}/32 dev g1\nroute add {FIRST_NODE}/24 dev g1\n\
         neigh add {client} lladdr {CLIENT_MAC} dev g0 nud permanent\n"
    );
    lines.extend(
        nodes().map(|(node, ..)| {
            format!("neigh add {} lladdr {WORKER1_MAC} dev g1 nud permanent\n", dotted(node))
        }),
    );
    lines
}

/// For `ip`, and for `bridge`.
fn vxlan() -> (String, String) {
    let (gateway, mac) = (dotted(GATEWAY), Mac::TUNNEL_GATEWAY);
    let mut lines = format!(
        "link add vxlan0 address {mac} type vxlan id {VNI} dstport {VXLAN_PORT} local {gateway} dev g1 nolearning\n\
         link set vxlan0 up\n"
    );
    let mut entries = String::new();
    for (node, pods, mac) in nodes() {
        let (node, pods) = (dotted(node), dotted(pods));
        lines += &format!(
            "route add {pods}/{POD_PREFIX} via {node} dev vxlan0 onlink\n\
             neigh add {node} lladdr {mac} dev vxlan0 nud permanent\n"
        );
        entries += &format!("fdb append {mac} dev vxlan0 dst {node}\n");
    }
    (lines, entries)
}

/// Each node's tunnel endpoint, first pod and the MAC of its VXLAN device.
pub(crate) fn nodes() -> impl Iterator<Item = ([u8; 4], [u8; 4], Mac)> {
    (0..EIPS >> NODE_BITS).map(|index| {
        let first = Member(index << NODE_BITS);
        (first.node(), first.pod(), tunnel_mac(first.node()))
    })
}

/// MAC of the VXLAN device of a node.
pub(crate) const fn tunnel_mac([a, b, c, d]: [u8; 4]) -> Mac {
    Mac([2, 0, a, b, c, d])
}

fn maps() -> Result<String> {
    let mut inward = String::new();
    let mut outward = String::new();
    for member in Population::new(EIPS)?.members() {
        let (eip, pod) = (dotted(member.eip()), dotted(member.pod()));
        write!(inward, "{eip} : {pod}, ")?;
        write!(outward, "{pod} : {eip}, ")?;
    }
    Ok(format!(
        "map eips {{ type ipv4_addr : ipv4_addr; elements = {{ {inward} }}; }}\n\
         map pods {{ type ipv4_addr : ipv4_addr; elements = {{ {outward} }}; }}\n"
    ))
}

fn conntrack() -> Result<String> {
    Ok(format!(
        "table ip gateway {{\n{}\
         chain inward {{ type nat hook prerouting priority dstnat; iifname g0 dnat to ip daddr map @eips; }}\n\
         chain outward {{ type nat hook postrouting priority srcnat; oifname g0 snat to ip saddr map @pods; }}\n}}\n",
        maps()?
    ))
}

fn stateless() -> Result<String> {
    Ok(format!(
        "table ip gateway {{\n{}\
         chain inward {{ type filter hook prerouting priority raw; notrack; \
         iifname g0 ip daddr set ip daddr map @eips; }}\n\
         chain outward {{ type filter hook postrouting priority srcnat; \
         oifname g0 ip saddr set ip saddr map @pods; }}\n}}\n",
        maps()?
    ))
}

/// As tools take it.
pub(crate) fn dotted(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}
