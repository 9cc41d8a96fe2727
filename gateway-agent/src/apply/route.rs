//! Policy rules into our routing table, and that table. Nothing else is read for a decision or touched: the main
//! table is the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use gateway_common::addr::Prefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};

use super::NetlinkError;
use crate::desired::{ROUTING_TABLE, Route};
use crate::snapshot::RouteTo;

/// How many rules and routes were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Added or replaced.
    pub added: usize,
    /// Deleted.
    pub deleted: usize,
}

impl Changes {
    /// Whether nothing was written.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Makes the rules and the table as wanted: routes before the rules that lead to them, additions before deletions.
///
/// # Errors
/// The first request the kernel refused; the others were made all the same.
pub async fn apply(
    handle: &Handle,
    rules: &BTreeSet<Ipv4Addr>,
    routes: &BTreeSet<Route>,
) -> Result<Changes, NetlinkError> {
    let mut work = Work { handle, changes: Changes::default(), failed: None };
    let held = held_routes(handle, ROUTING_TABLE).await.map_err(NetlinkError::of("list routes"))?;
    let plan = plan_routes(&held, routes);
    for route in &plan.add {
        let action = format!("add route {route:?} to table {ROUTING_TABLE}");
        work.added(action, handle.route().add(to_message(route)).replace().execute().await);
    }
    for message in plan.delete {
        let action = format!("delete a route of table {ROUTING_TABLE}");
        work.deleted(action, handle.route().del(message).execute().await);
    }
    let held = held_rules(handle, ROUTING_TABLE, ROUTING_TABLE)
        .await
        .map_err(NetlinkError::of("list policy rules"))?;
    let known: BTreeSet<Ipv4Addr> = held.iter().filter_map(rule_source).collect();
    for source in rules.difference(&known) {
        work.add_rule(*source).await;
    }
    let mut kept = BTreeSet::new();
    for message in held {
        let keep = rule_source(&message).is_some_and(|source| rules.contains(&source) && kept.insert(source));
        if !keep {
            work.delete_rule(message).await;
        }
    }
    work.failed.map_or(Ok(work.changes), Err)
}

/// Deletes the rules that are not among those wanted: what they led to is still in force.
///
/// # Errors
/// The first request the kernel refused; the others were made all the same.
pub async fn release(handle: &Handle, wanted: &BTreeSet<Ipv4Addr>) -> Result<usize, NetlinkError> {
    let mut work = Work { handle, changes: Changes::default(), failed: None };
    let held = held_rules(handle, ROUTING_TABLE, ROUTING_TABLE)
        .await
        .map_err(NetlinkError::of("list policy rules"))?;
    for message in held {
        if rule_source(&message).is_none_or(|source| !wanted.contains(&source)) {
            work.delete_rule(message).await;
        }
    }
    work.failed.map_or(Ok(work.changes.deleted), Err)
}

struct Work<'a> {
    handle: &'a Handle,
    changes: Changes,
    failed: Option<NetlinkError>,
}

impl Work<'_> {
    async fn add_rule(&mut self, source: Ipv4Addr) {
        let request = self
            .handle
            .rule()
            .add()
            .v4()
            .source_prefix(source, 32)
            .table_id(ROUTING_TABLE)
            .priority(ROUTING_TABLE)
            .action(RuleAction::ToTable);
        self.added(format!("add the policy rule from {source}"), request.execute().await);
    }

    async fn delete_rule(&mut self, rule: RuleMessage) {
        let action = format!("delete a policy rule of priority {ROUTING_TABLE}");
        let result = self.handle.rule().del(rule).execute().await;
        self.deleted(action, result);
    }

    fn added(&mut self, action: String, result: Result<(), rtnetlink::Error>) {
        match result {
            Err(error) if !NetlinkError::is(&error, Errno::EEXIST) => self.fail(action, error),
            _ => self.changes.added += 1,
        }
    }

    fn deleted(&mut self, action: String, result: Result<(), rtnetlink::Error>) {
        match result {
            Err(error)
                if !NetlinkError::is(&error, Errno::ESRCH) && !NetlinkError::is(&error, Errno::ENOENT) =>
            {
                self.fail(action, error);
            }
            _ => self.changes.deleted += 1,
        }
    }

    fn fail(&mut self, action: String, error: rtnetlink::Error) {
        self.failed.get_or_insert_with(|| NetlinkError::of(action)(error));
    }
}

/// The routes of a table.
pub(super) async fn held_routes(handle: &Handle, table: u32) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let request = RouteMessageBuilder::<Ipv4Addr>::new().table_id(table).build();
    let ours = |message: &RouteMessage| message.attributes.contains(&RouteAttribute::Table(table));
    handle
        .route()
        .get(request)
        .execute()
        .try_filter(|message| std::future::ready(ours(message)))
        .try_collect()
        .await
}

/// The rules into a table, of one priority.
pub(super) async fn held_rules(
    handle: &Handle,
    table: u32,
    priority: u32,
) -> Result<Vec<RuleMessage>, rtnetlink::Error> {
    let ours = |message: &RuleMessage| {
        message.attributes.contains(&RuleAttribute::Table(table))
            && message.attributes.contains(&RuleAttribute::Priority(priority))
    };
    let rules = handle.rule().get(IpVersion::V4).execute();
    rules.try_filter(|message| std::future::ready(ours(message))).try_collect().await
}

/// The source of a rule exactly as we write it; `None` for anything else.
fn rule_source(message: &RuleMessage) -> Option<Ipv4Addr> {
    let plain = message.header.src_len == 32
        && message.header.dst_len == 0
        && message.header.action == RuleAction::ToTable
        && !message.attributes.iter().any(|attribute| {
            matches!(
                attribute,
                RuleAttribute::Iifname(_) | RuleAttribute::Oifname(_) | RuleAttribute::FwMark(_)
            )
        });
    message.attributes.iter().find_map(|attribute| {
        if let RuleAttribute::Source(IpAddr::V4(source)) = attribute {
            plain.then_some(*source)
        } else {
            None
        }
    })
}

#[derive(Debug, Default)]
struct RoutePlan {
    add: Vec<Route>,
    delete: Vec<RouteMessage>,
}

/// A route that replaces another one to the same destination needs no deletion.
fn plan_routes(held: &[RouteMessage], wanted: &BTreeSet<Route>) -> RoutePlan {
    let places: BTreeSet<Place> = wanted.iter().map(place).collect();
    let mut kept: BTreeMap<Place, Route> = BTreeMap::new();
    let mut plan = RoutePlan::default();
    for message in held {
        match from_message(message) {
            Some(route) if places.contains(&place(&route)) => {
                kept.insert(place(&route), route);
            }
            _ => plan.delete.push(message.clone()),
        }
    }
    plan.add = wanted.iter().filter(|route| kept.get(&place(route)) != Some(route)).cloned().collect();
    plan
}

/// Destination and metric: two routes of one place replace each other.
type Place = (Prefix, u32);

/// The metric of what counts last.
const LAST: u32 = u32::MAX;

fn place(route: &Route) -> Place {
    (destination(route), if *route == Route::Unreachable { LAST } else { 0 })
}

fn destination(route: &Route) -> Prefix {
    match route {
        Route::Throw(prefix) => prefix.trunc(),
        Route::OnLink { destination, .. } => destination.trunc(),
        Route::Default { .. } | Route::Unreachable => Prefix::new(Ipv4Addr::UNSPECIFIED, 0),
    }
}

fn to_message(route: &Route) -> RouteMessage {
    let prefix = destination(route);
    let builder = RouteMessageBuilder::<Ipv4Addr>::new().table_id(ROUTING_TABLE);
    let mut builder =
        if prefix.len == 0 { builder } else { builder.destination_prefix(prefix.addr, prefix.len) };
    match route {
        Route::Throw(_) => builder.kind(RouteType::Throw).build(),
        Route::Unreachable => builder.kind(RouteType::Unreachable).priority(LAST).build(),
        Route::OnLink { ifindex, .. } => builder.scope(RouteScope::Link).output_interface(*ifindex).build(),
        Route::Default { to, mtu } => {
            builder = builder.output_interface(to.ifindex);
            if let Some(via) = to.via {
                builder = builder.gateway(via).onlink();
            }
            if *mtu != 0 {
                builder.get_mut().attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(*mtu)]));
            }
            builder.build()
        }
    }
}

/// The route of a message exactly as we write it; `None` for anything else.
fn from_message(message: &RouteMessage) -> Option<Route> {
    let (mut dst, mut ifindex, mut via, mut mtu, mut metric) = (Ipv4Addr::UNSPECIFIED, None, None, 0, 0);
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(addr)) = attribute {
            dst = *addr;
        } else if let RouteAttribute::Oif(index) = attribute {
            ifindex = Some(*index);
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(addr)) = attribute {
            via = Some(*addr);
        } else if let RouteAttribute::Metrics(metrics) = attribute {
            let [RouteMetric::Mtu(value)] = metrics.as_slice() else { return None };
            mtu = *value;
        } else if let RouteAttribute::Priority(value) = attribute {
            metric = *value;
        } else if !matches!(attribute, RouteAttribute::Table(_) | RouteAttribute::CacheInfo(_)) {
            return None;
        }
    }
    let destination = Prefix::new(dst, message.header.destination_prefix_length);
    if message.header.address_family != AddressFamily::Inet || message.header.tos != 0 {
        return None;
    }
    if message.header.kind == RouteType::Unreachable {
        let last = destination.len == 0 && metric == LAST && via.is_none() && mtu == 0;
        // The kernel names the loopback interface with some of these.
        return last.then_some(Route::Unreachable);
    }
    if metric != 0 {
        return None;
    }
    if message.header.kind == RouteType::Throw {
        return (ifindex.is_none() && mtu == 0).then_some(Route::Throw(destination));
    }
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let ifindex = ifindex?;
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    match (via, destination.len) {
        (Some(_), 0) if onlink => Some(Route::Default { to: RouteTo { ifindex, via }, mtu }),
        (None, 1..) if mtu == 0 => Some(Route::OnLink { destination, ifindex }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(mtu: u32) -> BTreeSet<Route> {
        BTreeSet::from([
            Route::Throw("10.244.0.0/16".parse().unwrap()),
            Route::Unreachable,
            Route::OnLink { destination: "192.168.100.0/24".parse().unwrap(), ifindex: 3 },
            Route::Default { to: RouteTo { ifindex: 2, via: Some(Ipv4Addr::new(10, 0, 0, 1)) }, mtu },
        ])
    }

    #[test]
    fn a_route_is_recognised_as_it_was_written() {
        for route in routes(8942).into_iter().chain(routes(0)) {
            assert_eq!(from_message(&to_message(&route)), Some(route));
        }
    }

    #[test]
    fn nothing_to_do_when_equal_and_replacement_needs_no_deletion() {
        let held: Vec<_> = routes(8942).iter().map(to_message).collect();
        let plan = plan_routes(&held, &routes(8942));
        assert!(plan.add.is_empty() && plan.delete.is_empty());
        let plan = plan_routes(&held, &routes(1442));
        assert_eq!(plan.add.len(), 1);
        assert!(plan.delete.is_empty());
    }

    #[test]
    fn what_is_foreign_or_unwanted_in_our_table_is_deleted() {
        let mut foreign = to_message(&Route::Throw("172.16.0.0/12".parse().unwrap()));
        foreign.attributes.push(RouteAttribute::Priority(5));
        let plan = plan_routes(&[foreign], &routes(0));
        assert_eq!((plan.add.len(), plan.delete.len()), (4, 1));
        let held: Vec<_> = routes(0).iter().map(to_message).collect();
        assert_eq!(plan_routes(&held, &BTreeSet::new()).delete.len(), 4);
    }
}
