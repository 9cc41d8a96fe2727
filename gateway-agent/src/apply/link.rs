//! The router port: a macvlan in bridge mode on the external NIC, with `nic-mac` and `nic-ip`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::{StreamExt, TryStreamExt};
use gateway_common::addr::Prefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, MacVlanMode};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkMacVlan, LinkUnspec};
use tracing::{info, warn};

use super::NetlinkError;
use crate::desired::RouterPort;
use crate::snapshot::Link;

/// Why the router port is not as desired.
#[derive(Debug, thiserror::Error)]
pub enum RouterPortError {
    /// The external NIC is missing.
    #[error("external NIC {parent} does not exist; set `external-gw-nic` to the NIC on the external network")]
    NoParent {
        /// `external-gw-nic`.
        parent: String,
    },
    /// Somebody else's interface has our name.
    #[error("interface {} exists and is no macvlan; rename or delete it", RouterPort::NAME)]
    NameTaken,
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Makes the router port as `wanted`, or removes it. Returns whether anything was changed.
///
/// `links` is what the kernel holds now.
///
/// # Errors
/// [`RouterPortError`]; what was done so far stays and is taken up by the next call.
pub async fn apply(
    handle: &Handle,
    links: &BTreeMap<String, Link>,
    wanted: Option<&RouterPort>,
) -> Result<bool, RouterPortError> {
    let held = links.get(RouterPort::NAME);
    if held.is_some_and(|held| held.parent.is_none()) {
        return if wanted.is_some() { Err(RouterPortError::NameTaken) } else { Ok(false) };
    }
    let Some(wanted) = wanted else {
        let Some(held) = held else { return Ok(false) };
        delete(handle, held.ifindex).await?;
        info!(interface = RouterPort::NAME, "router port removed");
        return Ok(true);
    };
    let parent = links
        .get(&wanted.parent)
        .ok_or_else(|| RouterPortError::NoParent { parent: wanted.parent.clone() })?;
    let mut changed = false;
    if !parent.up {
        let up = LinkUnspec::new_with_index(parent.ifindex).up().build();
        let action = format!("set external NIC {} up", wanted.parent);
        handle.link().set(up).execute().await.map_err(NetlinkError::of(action))?;
        info!(interface = wanted.parent, "external NIC set up");
        changed = true;
    }
    match held {
        Some(held) if held.mac == wanted.mac && held.parent == Some(parent.ifindex) => {
            Ok(repair(handle, held, wanted).await? | changed)
        }
        Some(held) => {
            delete(handle, held.ifindex).await?;
            create(handle, parent.ifindex, wanted).await?;
            Ok(true)
        }
        None => {
            create(handle, parent.ifindex, wanted).await?;
            Ok(true)
        }
    }
}

async fn delete(handle: &Handle, ifindex: u32) -> Result<(), NetlinkError> {
    match handle.link().del(ifindex).execute().await {
        Err(error) if !NetlinkError::is(&error, Errno::ENODEV) => {
            Err(NetlinkError::of(format!("delete interface {}", RouterPort::NAME))(error))
        }
        _ => Ok(()),
    }
}

async fn create(handle: &Handle, parent: u32, wanted: &RouterPort) -> Result<(), NetlinkError> {
    let action = || format!("create {} on {} with MAC {}", RouterPort::NAME, wanted.parent, wanted.mac);
    let message = LinkMacVlan::new(RouterPort::NAME, parent, MacVlanMode::Bridge)
        .address(wanted.mac.0.to_vec())
        .mtu(wanted.mtu)
        .down()
        .build();
    handle.link().add(message).execute().await.map_err(NetlinkError::of(action()))?;
    let mut made = handle.link().get().match_name(RouterPort::NAME).execute().boxed();
    let made = made.try_next().await.map_err(NetlinkError::of(action()))?;
    let ifindex = made.map_or(0, |message| message.header.index);
    silence_ipv6(handle, ifindex).await;
    let held = Link { ifindex, mac: wanted.mac, mtu: wanted.mtu, ..Link::default() };
    repair(handle, &held, wanted).await?;
    info!(
        interface = RouterPort::NAME,
        parent = wanted.parent,
        mac = %wanted.mac,
        address = %wanted.address,
        mtu = wanted.mtu,
        "router port created"
    );
    Ok(())
}

/// MTU, address and state of an existing router port.
async fn repair(handle: &Handle, held: &Link, wanted: &RouterPort) -> Result<bool, NetlinkError> {
    let mut changed = false;
    if held.mtu != wanted.mtu {
        let message = LinkUnspec::new_with_index(held.ifindex).mtu(wanted.mtu).build();
        let action = format!("set the MTU of {} to {}", RouterPort::NAME, wanted.mtu);
        handle.link().set(message).execute().await.map_err(NetlinkError::of(action))?;
        changed = true;
    }
    if !held.addresses.contains(&wanted.address) {
        let action = format!("add {} to {}", wanted.address, RouterPort::NAME);
        add_address(handle, held.ifindex, wanted.address).await.map_err(NetlinkError::of(action))?;
        changed = true;
    }
    for address in held.addresses.iter().filter(|address| **address != wanted.address) {
        let message = address_message(held.ifindex, *address);
        let action = format!("remove {address} from {}", RouterPort::NAME);
        handle.address().del(message).execute().await.map_err(NetlinkError::of(action))?;
        changed = true;
    }
    if !held.up {
        let message = LinkUnspec::new_with_index(held.ifindex).up().build();
        let action = format!("set {} up", RouterPort::NAME);
        handle.link().set(message).execute().await.map_err(NetlinkError::of(action))?;
        changed = true;
    }
    Ok(changed)
}

/// `ip addr add ADDRESS dev IFINDEX noprefixroute`: the main table gets no route to the external subnet.
async fn add_address(handle: &Handle, ifindex: u32, address: Prefix) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(ifindex, IpAddr::V4(address.addr), address.len);
    request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    request.replace().execute().await
}

fn address_message(ifindex: u32, address: Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = ifindex;
    message.header.prefix_len = address.len;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.addr)));
    message
}

/// No IPv6 on the router port: it must not speak on the external network on its own.
async fn silence_ipv6(handle: &Handle, ifindex: u32) {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let message = LinkUnspec::new_with_index(ifindex)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
        .build();
    let by_netlink = handle.link().set(message).execute().await;
    let sysctl = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", RouterPort::NAME);
    let by_sysctl = tokio::fs::write(&sysctl, "1").await;
    if let (Err(netlink), Err(sysctl_error)) = (by_netlink, by_sysctl)
        && tokio::fs::try_exists("/proc/sys/net/ipv6").await.unwrap_or(false)
    {
        warn!(%netlink, %sysctl_error, "IPv6 stays on at {}; set {sysctl} to 1", RouterPort::NAME);
    }
}
