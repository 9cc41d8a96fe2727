//! The kernel of this host by rtnetlink: links, IPv4 addresses, neighbours and routes, and news of their changes.
//!
//! Notifications of neighbours are applied one by one; those of links, addresses and routes only mark what is dumped
//! anew by [`Watch::refresh`]. When the kernel reports that notifications were lost, everything is dumped anew.

mod dump;
mod features;
mod message;

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup};
use tracing::{debug, warn};

use crate::snapshot::Host;

pub use dump::{links, neighbors};
pub use message::{Neighbor, neighbor};

/// Receive buffer of the notification socket, bytes: a burst of some ten thousand neighbour messages.
const RECEIVE_BUFFER: usize = 4 << 20;

type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// Why the kernel's state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {source}; run the agent as root or with CAP_NET_ADMIN")]
    Socket {
        /// Cause.
        source: io::Error,
    },
    /// A dump or a look-up failed.
    #[error("cannot read the kernel's {what}: {source}")]
    Dump {
        /// `links`, `addresses`, …
        what: &'static str,
        /// Cause.
        source: rtnetlink::Error,
    },
    /// The notification socket was closed.
    #[error("the kernel's notifications ended; restart the agent")]
    Closed,
}

/// A netlink connection for requests; its messages are handled by a task of the current tokio runtime.
///
/// # Errors
/// [`HostError::Socket`].
pub fn connect() -> Result<Handle, HostError> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| HostError::Socket { source })?;
    tokio::spawn(connection);
    Ok(handle)
}

/// What has to be read anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Dirty {
    links: bool,
    neighbors: bool,
    routes: bool,
}

impl Dirty {
    const ALL: Self = Self { links: true, neighbors: true, routes: true };
}

/// The current [`Host`], kept up to date.
pub struct Watch {
    handle: Handle,
    messages: Messages,
    host: Host,
    dirty: Dirty,
    asked: BTreeSet<Ipv4Addr>,
    managed: BTreeSet<(u32, Ipv4Addr)>,
    ours: BTreeSet<(u32, Ipv4Addr)>,
    stale: BTreeSet<(u32, Ipv4Addr)>,
    interest: BTreeSet<u32>,
    disturbed: bool,
}

impl Watch {
    /// Subscribes to the kernel's notifications; `handle` is used for dumps. Nothing is read before the first
    /// [`Self::refresh`].
    ///
    /// # Errors
    /// [`HostError::Socket`].
    pub fn start(handle: Handle) -> Result<Self, HostError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ];
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|source| HostError::Socket { source })?;
        if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER) {
            debug!(%error, "receive buffer of the notification socket stays at its default");
        }
        tokio::spawn(connection);
        Ok(Self {
            handle,
            messages: messages.map(|(message, _)| message).boxed(),
            host: Host::default(),
            dirty: Dirty::ALL,
            asked: BTreeSet::new(),
            managed: BTreeSet::new(),
            ours: BTreeSet::new(),
            stale: BTreeSet::new(),
            interest: BTreeSet::new(),
            disturbed: true,
        })
    }

    /// Waits for a notification that may change the [`Host`]. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`HostError::Closed`].
    pub async fn changed(&mut self) -> Result<(), HostError> {
        loop {
            let message = self.messages.next().await.ok_or(HostError::Closed)?;
            if self.absorb(message) {
                return Ok(());
            }
        }
    }

    /// Everything is read anew by the next [`Self::refresh`].
    pub fn invalidate(&mut self) {
        self.dirty = Dirty::ALL;
        self.disturbed = true;
    }

    /// Whether links, addresses, routes or rules changed since the last call, by whomever.
    pub fn take_disturbed(&mut self) -> bool {
        std::mem::take(&mut self.disturbed)
    }

    /// Interfaces whose neighbours are to be kept fresh: their going stale counts as a change.
    pub fn set_interest(&mut self, ifindexes: BTreeSet<u32>) {
        self.interest = ifindexes;
    }

    /// The host as of now, with the route to each of `destinations`.
    ///
    /// # Errors
    /// [`HostError::Dump`]; the next call tries again.
    pub async fn refresh(&mut self, destinations: &BTreeSet<Ipv4Addr>) -> Result<&Host, HostError> {
        while let Some(Some(message)) = futures_util::FutureExt::now_or_never(self.messages.next()) {
            self.absorb(message);
        }
        if self.dirty.links {
            self.host.links = dump::links(&self.handle).await?;
            self.dirty.links = false;
            // A link that went away may have taken routes and neighbours along without a word about each.
            self.dirty.routes = true;
        }
        if self.dirty.neighbors {
            let neighbors = dump::neighbors(&self.handle).await?;
            self.host.neighbors.clear();
            self.managed.clear();
            self.ours.clear();
            self.stale.clear();
            for neighbor in neighbors {
                self.learn(neighbor);
            }
            self.dirty.neighbors = false;
        }
        if self.dirty.routes || self.asked != *destinations {
            self.host.routes = dump::routes(&self.handle, destinations).await?;
            self.asked.clone_from(destinations);
            self.dirty.routes = false;
        }
        Ok(&self.host)
    }

    /// Neighbours the kernel was asked to keep fresh by itself (`NTF_EXT_MANAGED`).
    pub fn managed(&self) -> &BTreeSet<(u32, Ipv4Addr)> {
        &self.managed
    }

    /// Of these, the ones that we asked it for, this agent or one before.
    pub fn ours(&self) -> &BTreeSet<(u32, Ipv4Addr)> {
        &self.ours
    }

    /// Neighbours that went stale since the last call; what they resolve to is still used.
    pub fn take_stale(&mut self) -> BTreeSet<(u32, Ipv4Addr)> {
        std::mem::take(&mut self.stale)
    }

    /// Whether a netlink message may change the host.
    fn absorb(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        use RouteNetlinkMessage as M;
        let inner = match message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Overrun(_) => {
                warn!("kernel notifications were lost, reading everything anew");
                self.invalidate();
                return true;
            }
            NetlinkPayload::Noop | NetlinkPayload::Done(_) | NetlinkPayload::Error(_) | _ => return false,
        };
        if inner.is_new_link() || inner.is_del_link() || inner.is_new_address() || inner.is_del_address() {
            (self.dirty.links, self.disturbed) = (true, true);
            return true;
        }
        if matches!(&inner, M::NewRoute(_) | M::DelRoute(_) | M::NewRule(_) | M::DelRule(_)) {
            (self.dirty.routes, self.disturbed) = (true, true);
            return true;
        }
        let gone = matches!(&inner, M::DelNeighbour(_));
        if let M::NewNeighbour(message) | M::DelNeighbour(message) = inner {
            return neighbor(&message)
                .is_some_and(|found| self.learn(if gone { found.without_mac() } else { found }));
        }
        false
    }

    /// Whether the neighbour changes the host, or went stale where that matters.
    fn learn(&mut self, neighbor: Neighbor) -> bool {
        let key = (neighbor.ifindex, neighbor.addr);
        let was_managed =
            if neighbor.managed { !self.managed.insert(key) } else { self.managed.remove(&key) };
        if neighbor.ours {
            self.ours.insert(key);
        } else {
            self.ours.remove(&key);
        }
        let lost_management = was_managed && !neighbor.managed;
        let went_stale = neighbor.stale && self.interest.contains(&neighbor.ifindex);
        if went_stale {
            self.stale.insert(key);
        } else {
            self.stale.remove(&key);
        }
        let before = match neighbor.mac {
            Some(mac) => self.host.neighbors.insert(key, mac),
            None => self.host.neighbors.remove(&key),
        };
        before != neighbor.mac || went_stale || lost_management
    }
}
