//! What the kernel holds now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::HostError;
use super::features;
use super::message::{self, Neighbor};
use crate::snapshot::{Link, RouteTo, Takes};

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> HostError {
    move |source| HostError::Dump { what, source }
}

/// All links by name, with their IPv4 addresses.
///
/// # Errors
/// [`HostError::Dump`].
pub async fn links(handle: &Handle) -> Result<BTreeMap<String, Link>, HostError> {
    let mut links: BTreeMap<String, Link> = handle
        .link()
        .get()
        .execute()
        .try_filter_map(async |message| Ok(message::link(&message)))
        .try_collect()
        .await
        .map_err(failed("links"))?;
    let candidates: Vec<_> =
        links.values().filter(|link| link.takes != Takes::Nothing).map(|link| link.ifindex).collect();
    if let Some(told) = features::redirect_targets(&candidates).await {
        for link in links.values_mut() {
            link.takes = told.get(&link.ifindex).copied().unwrap_or_default();
        }
    }
    let names: BTreeMap<u32, String> =
        links.iter().map(|(name, link)| (link.ifindex, name.clone())).collect();
    let addresses: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_filter_map(async |message| Ok(message::address(&message)))
        .try_collect()
        .await
        .map_err(failed("addresses"))?;
    for (ifindex, prefix) in addresses {
        if let Some(link) = names.get(&ifindex).and_then(|name| links.get_mut(name)) {
            link.addresses.push(prefix);
        }
    }
    Ok(links)
}

/// All IPv4 neighbours.
///
/// # Errors
/// [`HostError::Dump`].
pub async fn neighbors(handle: &Handle) -> Result<Vec<Neighbor>, HostError> {
    handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet)
        .execute()
        .try_filter_map(async |found| Ok(message::neighbor(&found)))
        .try_collect()
        .await
        .map_err(failed("neighbours"))
}

/// The kernel's route to each destination that has one.
///
/// # Errors
/// [`HostError::Dump`], but not for a destination without a route.
pub(super) async fn routes(
    handle: &Handle,
    destinations: &BTreeSet<Ipv4Addr>,
) -> Result<BTreeMap<Ipv4Addr, RouteTo>, HostError> {
    let mut routes = BTreeMap::new();
    for destination in destinations {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(*destination, 32).build();
        let mut answers = handle.route().get(request).execute().boxed();
        match answers.try_next().await {
            Ok(answer) => {
                let to = answer.as_ref().and_then(|answer: &RouteMessage| message::route_to(answer));
                routes.extend(to.map(|to| (*destination, to)));
            }
            Err(rtnetlink::Error::NetlinkError(error)) if is_unreachable(error.raw_code()) => {}
            Err(source) => return Err(HostError::Dump { what: "routes", source }),
        }
    }
    Ok(routes)
}

/// Whether an error code (negative errno) says that there is no way to the destination.
fn is_unreachable(code: i32) -> bool {
    use nix::errno::Errno;
    matches!(
        Errno::from_raw(-code),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL | Errno::ENETDOWN
    )
}
