//! Gratuitous ARP (RFC 5227 section 2.3) for addresses this node newly owns on the external network.
//!
//! Each address is announced three times within two seconds, in bounded bursts, by a task of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use gateway_common::addr::Mac;
use gateway_common::wire::{arp, eth};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// How often each address is announced.
const TIMES: u8 = 3;
/// Time between two announcements of an address.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most frames sent at once.
const BURST: usize = 64;
/// Time between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// Why an address was not announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The interface is not there, or has no link layer.
    #[error("interface {interface} is not there to announce from")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// The socket could not be opened or used.
    #[error("cannot send ARP on {interface}: {source}; run the agent as root or with CAP_NET_RAW")]
    Send {
        /// Name of the interface.
        interface: String,
        /// Cause.
        source: io::Error,
    },
}

/// What is still to be announced, and when. A state machine: the caller brings the time.
#[derive(Debug, Default)]
pub struct Schedule {
    pending: BTreeMap<Ipv4Addr, (Instant, u8)>,
}

impl Schedule {
    /// Starts over with these addresses, and drops all others.
    pub fn start(&mut self, now: Instant, addresses: &BTreeSet<Ipv4Addr>) {
        self.pending.extend(addresses.iter().map(|address| (*address, (now, TIMES))));
    }

    /// Forgets what is no longer owned.
    pub fn retain(&mut self, owned: &BTreeSet<Ipv4Addr>) {
        self.pending.retain(|address, _| owned.contains(address));
    }

    /// Addresses to announce now, at most a burst of them.
    pub fn due(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let due = self.pending.iter().filter(|(_, (at, _))| *at <= now).map(|(address, _)| *address);
        let due: Vec<_> = due.take(BURST).collect();
        for address in &due {
            if let Some((at, left)) = self.pending.get_mut(address) {
                *at = now + INTERVAL;
                *left -= 1;
                if *left == 0 {
                    self.pending.remove(address);
                }
            }
        }
        due
    }

    /// How long to wait until something is due; `None` when nothing is left.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let next = self.pending.values().map(|(at, _)| *at).min()?;
        Some(next.saturating_duration_since(now).max(PAUSE))
    }
}

/// The task's order: all that is owned, and what of it is new.
#[derive(Debug)]
struct Order {
    mac: Mac,
    owned: BTreeSet<Ipv4Addr>,
    new: BTreeSet<Ipv4Addr>,
}

/// Announces from one interface.
#[derive(Debug)]
pub struct Announcer {
    orders: mpsc::UnboundedSender<Order>,
    announced: Option<(Mac, BTreeSet<Ipv4Addr>)>,
}

impl Announcer {
    /// Starts the task on the current tokio runtime. Addresses in `held` were announced by an earlier agent.
    pub fn start(interface: &'static str, held: Option<(Mac, BTreeSet<Ipv4Addr>)>) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(work(interface, received));
        Self { orders, announced: held }
    }

    /// These are the addresses owned now, with this MAC; what is new is announced.
    pub fn own(&mut self, mac: Mac, owned: &BTreeSet<Ipv4Addr>) {
        let new = match &self.announced {
            Some((before, known)) if *before == mac => owned.difference(known).copied().collect(),
            _ => owned.clone(),
        };
        let unchanged = self.announced.as_ref().is_some_and(|(_, known)| known == owned);
        if !new.is_empty() || !unchanged {
            let order = Order { mac, owned: owned.clone(), new };
            if self.orders.send(order).is_err() {
                warn!("the announcing task has ended; restart the agent");
            }
        }
        self.announced = Some((mac, owned.clone()));
    }

    /// Nothing is owned any more.
    pub fn disown(&mut self) {
        if let Some((mac, known)) = self.announced.take()
            && !known.is_empty()
        {
            let order = Order { mac, owned: BTreeSet::new(), new: BTreeSet::new() };
            // An ended task has nothing left to announce either.
            let _ = self.orders.send(order);
        }
    }
}

async fn work(interface: &'static str, mut orders: mpsc::UnboundedReceiver<Order>) {
    let (mut schedule, mut mac) = (Schedule::default(), Mac::default());
    loop {
        let wait = schedule.wait(Instant::now());
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                mac = order.mac;
                schedule.retain(&order.owned);
                schedule.start(Instant::now(), &order.new);
                if !order.new.is_empty() {
                    debug!(interface, addresses = order.new.len(), "announcing by gratuitous ARP");
                }
            }
            () = tokio::time::sleep(wait.unwrap_or(INTERVAL)), if wait.is_some() => {}
        }
        let due = schedule.due(Instant::now());
        if let Err(error) = send(interface, mac, &due) {
            warn!(%error, addresses = due.len(), "announcement failed");
        }
    }
}

/// Sends one announcement per address, as a broadcast from `mac`.
///
/// # Errors
/// [`AnnounceError`].
pub fn send(interface: &str, mac: Mac, addresses: &[Ipv4Addr]) -> Result<(), AnnounceError> {
    if addresses.is_empty() {
        return Ok(());
    }
    let failed =
        |errno: nix::Error| AnnounceError::Send { interface: interface.to_owned(), source: errno.into() };
    let link = link_address(interface)
        .map_err(failed)?
        .ok_or_else(|| AnnounceError::NoInterface { interface: interface.to_owned() })?;
    // Protocol 0: the socket receives nothing.
    let socket: OwnedFd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
            .map_err(failed)?;
    for address in addresses {
        sendto(socket.as_raw_fd(), &frame(mac, *address), &link, MsgFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

/// The packet socket address of an interface. It is taken from the kernel's list, since it can be had there safely.
fn link_address(interface: &str) -> Result<Option<LinkAddr>, nix::Error> {
    Ok(getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied()))
}

fn frame(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let header = eth::Header { destination: Mac::BROADCAST, source: mac, ethertype: eth::ARP };
    [header.emit().as_slice(), &arp::Packet::announcement(mac, address.octets()).emit()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u32) -> BTreeSet<Ipv4Addr> {
        (0..count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).collect()
    }

    #[test]
    fn announces_three_times_within_two_seconds() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.start(start, &addresses(1));
        let mut now = start;
        for _ in 0..TIMES {
            assert_eq!(schedule.due(now).len(), 1);
            assert!(schedule.due(now).is_empty());
            now += INTERVAL;
        }
        assert!(now - start <= Duration::from_secs(3));
        assert_eq!(schedule.wait(now), None);
    }

    #[test]
    fn bursts_are_bounded_and_nothing_is_left_out() {
        let (mut now, mut schedule) = (Instant::now(), Schedule::default());
        schedule.start(now, &addresses(200));
        let mut seen = BTreeSet::new();
        while seen.len() < 200 {
            let due = schedule.due(now);
            assert!(due.len() <= BURST);
            assert!(!due.is_empty());
            seen.extend(due);
            now += PAUSE;
        }
        schedule.retain(&BTreeSet::new());
        assert_eq!(schedule.wait(now), None);
    }

    #[tokio::test]
    async fn only_what_is_new_is_ordered() {
        let (orders, mut received) = mpsc::unbounded_channel();
        let mac = Mac([2; 6]);
        let mut announcer = Announcer { orders, announced: Some((mac, addresses(2))) };
        announcer.own(mac, &addresses(2));
        assert!(received.try_recv().is_err());
        announcer.own(mac, &addresses(3));
        assert_eq!(received.recv().await.unwrap().new.len(), 1);
        announcer.own(Mac([4; 6]), &addresses(3));
        assert_eq!(received.recv().await.unwrap().new.len(), 3);
    }

    #[test]
    fn the_frame_is_a_broadcast_arp_request() {
        let bytes = frame(Mac([2; 6]), Ipv4Addr::new(192, 168, 100, 101));
        assert_eq!(bytes.len(), 42);
        assert_eq!(&bytes[..14], [[0xff; 6].as_slice(), &[2; 6], &[8, 6]].concat());
        let packet = arp::Packet::parse(bytes[14..].try_into().unwrap()).unwrap();
        assert!(packet.is_announcement());
    }
}
