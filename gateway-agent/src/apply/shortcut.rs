//! The way of this node's own connections to EIPs. The kernel looks up a route before it asks the table of
//! [`nft`](super::nft) for the destination, and a node without a default route has none for an EIP. So a rule behind the
//! main table leads to a table of ours with one route: it counts only where nothing else does, and only until the
//! destination is the pod's address. Nobody else's packets are looked up there, and no other table is touched.

use std::net::{IpAddr, Ipv4Addr};

use gateway_common::addr::Prefix;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::NetlinkError;
use super::nft::Elements;
use super::route::{held_routes, held_rules};
use crate::desired::Datapath;

/// Number of the table.
pub const TABLE: u32 = 6082;
/// Priority of the rule: after main and default (32766 and 32767).
pub(super) const PRIORITY: u32 = 36082;
/// What locally made packets come from, for the kernel's rules.
pub(super) const LOCAL: &str = "lo";

/// The external subnet, as this node's own connections see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortcut {
    external: Prefix,
    /// The underlay NIC.
    ifindex: u32,
    /// This node's address there.
    source: Ipv4Addr,
}

impl Shortcut {
    /// What a data path with these elements asks for: nothing while there is no EIP to reach.
    pub fn of(wanted: &Datapath, elements: &Elements) -> Option<Self> {
        let external = elements.external.first().filter(|_| !elements.eips.is_empty())?;
        let config = &wanted.config;
        let source = config.local_vtep.into();
        Some(Self { external: *external, ifindex: config.underlay_ifindex, source })
    }

    fn to_message(self) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .table_id(TABLE)
            .destination_prefix(self.external.addr, self.external.len)
            .output_interface(self.ifindex)
            .scope(RouteScope::Link)
            .pref_source(self.source)
            .build()
    }

    /// Whether a message is this route exactly as we write it.
    fn is_route(self, message: &RouteMessage) -> bool {
        let expected = self.to_message();
        let plain = |attribute: &&RouteAttribute| !matches!(attribute, RouteAttribute::CacheInfo(_));
        message.header.destination_prefix_length == self.external.len
            && message.attributes.iter().filter(plain).count() == expected.attributes.len()
            && expected.attributes.iter().all(|attribute| message.attributes.contains(attribute))
    }

    /// Whether a message is the rule that leads to it.
    fn is_rule(self, message: &RuleMessage) -> bool {
        let has = |attribute| message.attributes.contains(&attribute);
        message.header.dst_len == self.external.len
            && message.header.src_len == 0
            && has(RuleAttribute::Destination(IpAddr::V4(self.external.addr)))
            && has(RuleAttribute::Iifname(LOCAL.to_owned()))
    }
}

/// Makes rule and route as wanted: the route before the rule that leads to it. Returns how many were written.
///
/// # Errors
/// The first request the kernel refused.
pub async fn apply(handle: &Handle, wanted: Option<Shortcut>) -> Result<usize, NetlinkError> {
    Ok(route(handle, wanted).await? + rule(handle, wanted).await?)
}

async fn route(handle: &Handle, wanted: Option<Shortcut>) -> Result<usize, NetlinkError> {
    let (mut changes, mut there) = (0, false);
    for message in held_routes(handle, TABLE).await.map_err(NetlinkError::of("list routes"))? {
        if wanted.is_some_and(|route| route.is_route(&message)) {
            there = true;
            continue;
        }
        let action = format!("delete a route of table {TABLE}");
        changes += done(handle.route().del(message).execute().await, Errno::ESRCH, action)?;
    }
    if let Some(route) = wanted.filter(|_| !there) {
        let request = handle.route().add(route.to_message()).replace();
        let action = format!("add the route to {} to table {TABLE}", route.external);
        changes += done(request.execute().await, Errno::EEXIST, action)?;
    }
    Ok(changes)
}

async fn rule(handle: &Handle, wanted: Option<Shortcut>) -> Result<usize, NetlinkError> {
    let (mut changes, mut there) = (0, false);
    let held = held_rules(handle, TABLE, PRIORITY).await.map_err(NetlinkError::of("list policy rules"))?;
    for message in held {
        if !there && wanted.is_some_and(|route| route.is_rule(&message)) {
            there = true;
            continue;
        }
        let action = format!("delete a policy rule of priority {PRIORITY}");
        changes += done(handle.rule().del(message).execute().await, Errno::ENOENT, action)?;
    }
    if let Some(route) = wanted.filter(|_| !there) {
        let request = handle
            .rule()
            .add()
            .v4()
            .destination_prefix(route.external.addr, route.external.len)
            .input_interface(LOCAL)
            .table_id(TABLE)
            .priority(PRIORITY)
            .action(RuleAction::ToTable);
        let action = format!("add the policy rule to {}", route.external);
        changes += done(request.execute().await, Errno::EEXIST, action)?;
    }
    Ok(changes)
}

/// One change, also when somebody was faster.
pub(super) fn done(
    result: Result<(), rtnetlink::Error>,
    already: Errno,
    action: String,
) -> Result<usize, NetlinkError> {
    match result {
        Err(error) if !NetlinkError::is(&error, already) => Err(NetlinkError::of(action)(error)),
        _ => Ok(1),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteAddress;

    use super::*;

    #[test]
    fn is_wanted_once_there_is_an_eip_and_recognised_as_it_was_written() {
        let mut datapath = Datapath::default();
        datapath.config.external_network = [192, 168, 100, 0];
        datapath.config.external_netmask = [255, 255, 255, 0];
        datapath.config.underlay_ifindex = 2;
        datapath.config.local_vtep = [172, 18, 0, 21];
        datapath.internal.insert("10.244.0.0/16".parse().unwrap());
        assert_eq!(Shortcut::of(&datapath, &Elements::of(&datapath)), None);
        datapath.cluster_eips.insert([192, 168, 100, 101].into(), [10, 244, 1, 10].into());
        let route = Shortcut::of(&datapath, &Elements::of(&datapath)).unwrap();
        assert_eq!(route.external.to_string(), "192.168.100.0/24");
        assert!(route.is_route(&route.to_message()));
        for other in [Shortcut { ifindex: 3, ..route }, Shortcut { source: Ipv4Addr::LOCALHOST, ..route }] {
            assert!(!route.is_route(&other.to_message()));
        }
        let mut foreign = route.to_message();
        foreign.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::LOCALHOST)));
        assert!(!route.is_route(&foreign));
    }
}
