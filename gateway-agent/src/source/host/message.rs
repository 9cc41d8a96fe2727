//! rtnetlink messages as the parts of a [`Host`](crate::snapshot::Host).

use std::net::{IpAddr, Ipv4Addr};

use gateway_common::addr::{Mac, Prefix};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::desired::NEIGHBOR_PROTOCOL;
use crate::snapshot::{Link, RouteTo, Takes};

/// An IPv4 neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbor {
    /// Interface.
    pub ifindex: u32,
    /// Address.
    pub addr: Ipv4Addr,
    /// Its MAC; `None` when it cannot be used: unresolved, failed, or gone.
    pub mac: Option<Mac>,
    /// The kernel keeps it fresh by itself.
    pub managed: bool,
    /// It does so for us.
    pub ours: bool,
    /// Not confirmed for a while.
    pub stale: bool,
}

impl Neighbor {
    /// The same neighbour after its removal.
    #[must_use]
    pub fn without_mac(self) -> Self {
        Self { mac: None, managed: false, ours: false, stale: false, ..self }
    }
}

/// The IPv4 neighbour of a message; `None` for other families.
pub fn neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    let (mut addr, mut lladdr, mut managed, mut ours) = (None, None, false, false);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) = attribute {
            addr = Some(*inet);
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            lladdr = mac(bytes);
        } else if let NeighbourAttribute::ExtFlags(flags) = attribute {
            managed = flags.contains(NeighbourExtFlags::Managed);
        } else if let NeighbourAttribute::Protocol(protocol) = attribute {
            ours = u8::from(*protocol) == NEIGHBOR_PROTOCOL;
        }
    }
    let state = message.header.state;
    let usable = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    Some(Neighbor {
        ifindex: message.header.ifindex,
        addr: addr?,
        mac: lladdr.filter(|_| usable),
        managed,
        ours: ours && managed,
        stale: state == NeighbourState::Stale,
    })
}

/// Name and properties of a link, without its addresses; `None` for a message without a name.
pub(super) fn link(message: &LinkMessage) -> Option<(String, Link)> {
    let mut link = Link {
        ifindex: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        // A NIC or a veth may, a device made of others does not; the kernel is asked about the former. One that does not
        // tell (before 6.3) redirects no frame of several buffers.
        takes: Takes::OneBuffer,
        ..Link::default()
    };
    let (mut name, mut below, mut macvlan) = (None, None, false);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::Address(bytes) = attribute {
            link.mac = mac(bytes).unwrap_or_default();
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::CarrierUpCount(count) = attribute {
            link.carrier_ups = *count;
        } else if let LinkAttribute::Link(ifindex) = attribute {
            below = Some(*ifindex);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            macvlan = infos.contains(&LinkInfo::Kind(InfoKind::MacVlan));
            if !infos.contains(&LinkInfo::Kind(InfoKind::Veth)) {
                link.takes = Takes::Nothing;
            }
        }
    }
    link.parent = below.filter(|_| macvlan);
    Some((name?, link))
}

/// Interface and IPv4 address of a message.
pub(super) fn address(message: &AddressMessage) -> Option<(u32, Prefix)> {
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(IpAddr::V4(addr)) = attribute {
            local = Some(*addr);
        } else if let AddressAttribute::Address(IpAddr::V4(addr)) = attribute {
            peer = Some(*addr);
        }
    }
    Some((message.header.index, Prefix::new(local.or(peer)?, message.header.prefix_len)))
}

/// Where a looked-up route leads; `None` when it is local or leads nowhere.
pub(super) fn route_to(message: &RouteMessage) -> Option<RouteTo> {
    if message.header.address_family != AddressFamily::Inet || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut via) = (None, None);
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            ifindex = Some(*index);
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(addr)) = attribute {
            via = Some(*addr);
        }
    }
    Some(RouteTo { ifindex: ifindex?, via })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        message
    }

    #[test]
    fn a_neighbour_is_usable_until_it_fails() {
        use NeighbourState as S;
        for state in [S::Reachable, S::Stale, S::Delay, S::Probe, S::Permanent, S::Noarp] {
            let found = neighbor(&message(state)).unwrap();
            assert_eq!(found.mac, Some(Mac([2, 0, 0, 0, 0, 1])), "{state:?}");
            assert_eq!(found.stale, state == S::Stale);
        }
        for state in [S::Incomplete, S::Failed, S::None] {
            assert_eq!(neighbor(&message(state)).unwrap().mac, None, "{state:?}");
        }
    }

    #[test]
    fn a_veth_has_no_parent_but_a_macvlan_has() {
        let mut message = LinkMessage::default();
        message.header.index = 5;
        message.header.flags = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName("x".into()),
            LinkAttribute::Link(3),
            LinkAttribute::Mtu(9000),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        ];
        let (name, found) = link(&message).unwrap();
        assert_eq!(
            (name.as_str(), found.ifindex, found.mtu, found.up, found.parent),
            ("x", 5, 9000, true, None)
        );
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan)]));
        assert_eq!(link(&message).unwrap().1.parent, Some(3));
    }
}
