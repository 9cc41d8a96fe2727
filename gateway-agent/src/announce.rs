//! ARP on the external network: announces what this node owns there, defends it, and asks whether a new address is free
//! (RFC 5227). A task of its own does it, on the router port; what it has found is part of the next
//! [`Snapshot`](crate::snapshot::Snapshot).

mod defence;
mod port;
mod probe;
mod schedule;
mod speaker;

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use gateway_common::addr::Mac;
use gateway_common::wire::arp;
use tokio::sync::watch;
use tracing::{debug, warn};

use self::port::Port;
use self::speaker::{Frame, Speaker};
use crate::snapshot::{External, Link};

/// Packets taken in before anything is said: a flood must not silence us.
const PACKETS: usize = 256;

/// Why nothing can be said or heard.
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
    Socket {
        /// Name of the interface.
        interface: String,
        /// Cause.
        source: io::Error,
    },
}

/// The link to the external network. Another value is another link, of which a switch may know nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uplink {
    /// Interface index of the router port.
    port: u32,
    /// Interface index of the external NIC.
    parent: u32,
    /// How often that had its carrier back: a cable that was out for a moment only shows here.
    carrier_ups: u32,
}

impl Uplink {
    /// The link by these interfaces; `None` while nothing can be sent there.
    pub fn of(port: Option<&Link>, parent: Option<&Link>) -> Option<Self> {
        let (port, parent) = (port?, parent?);
        let works = port.up && port.carrier && parent.carrier;
        works.then_some(Self { port: port.ifindex, parent: parent.ifindex, carrier_ups: parent.carrier_ups })
    }
}

/// What is to be said on the external network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// `nic-mac`.
    pub mac: Mac,
    /// `nic-ip`.
    pub nic_ip: Ipv4Addr,
    /// Name of the external NIC.
    pub nic: String,
    /// Addresses that are owned, `nic-ip` among them.
    pub owned: BTreeSet<Ipv4Addr>,
    /// Addresses to ask for.
    pub probe: BTreeSet<Ipv4Addr>,
    /// Frames a second at most, above 0.
    pub rate: u32,
    /// The link; `None`: nothing can be sent, or heard.
    pub link: Option<Uplink>,
    /// Since when this node is Ready. Another value: it was not for a while, and another gateway may have owned these
    /// addresses.
    pub ready_since: Option<i64>,
    /// Filled in by [`Announcer::own`]. Another value: this node did not own them for a while.
    pub epoch: u64,
}

impl Default for Order {
    fn default() -> Self {
        let (mac, nic_ip) = (Mac::default(), Ipv4Addr::UNSPECIFIED);
        let (owned, probe) = (BTreeSet::new(), BTreeSet::new());
        Self {
            mac,
            nic_ip,
            nic: String::new(),
            owned,
            probe,
            rate: 1,
            link: None,
            ready_since: None,
            epoch: 0,
        }
    }
}

/// Gives the task its orders. Only the latest counts.
#[derive(Debug)]
pub struct Announcer {
    orders: watch::Sender<Option<Order>>,
    epoch: u64,
}

impl Announcer {
    /// Starts the task on the current tokio runtime, and returns where it tells what it has found. An earlier agent
    /// announced `before`, with this MAC.
    pub fn start(
        interface: &'static str,
        before: Option<(Mac, BTreeSet<Ipv4Addr>)>,
    ) -> (Self, watch::Receiver<Arc<External>>) {
        let (orders, received) = watch::channel(None);
        let (findings, found) = watch::channel(Arc::default());
        let speaker = Speaker::new(Instant::now(), before);
        tokio::spawn(Task { interface, port: None, speaker, findings, failed: false }.work(received));
        (Self { orders, epoch: 1 }, found)
    }

    /// This is to be said from now on.
    pub fn own(&mut self, order: Order) {
        let order = Some(Order { epoch: self.epoch, ..order });
        self.orders.send_if_modified(|current| {
            let differs = *current != order;
            if differs {
                *current = order;
            }
            differs
        });
    }

    /// Nothing is owned any more.
    pub fn disown(&mut self) {
        self.epoch += 1;
        self.orders.send_if_modified(|current| current.take().is_some());
    }
}

struct Task {
    interface: &'static str,
    port: Option<Port>,
    speaker: Speaker,
    findings: watch::Sender<Arc<External>>,
    /// It was said that nothing can be sent.
    failed: bool,
}

impl Task {
    async fn work(mut self, mut orders: watch::Receiver<Option<Order>>) {
        let mut order: Option<Order> = None;
        loop {
            let wait = self.speaker.wait(Instant::now());
            tokio::select! {
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = orders.borrow_and_update().clone();
                    let link = |order: &Option<Order>| order.as_ref().and_then(|order| order.link);
                    if link(&now) != link(&order) {
                        // Of an interface that may be another one by now.
                        self.port = None;
                    }
                    order.clone_from(&now);
                    self.speaker.order(Instant::now(), now);
                }
                readable = async { self.port.as_ref()?.readable().await.err() }, if self.port.is_some() => {
                    if readable.is_some() {
                        self.port = None;
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            self.hear();
            if let Some(order) = &order {
                self.speaker.settle(Instant::now(), || port::has_carrier(&order.nic));
                self.speak(order);
            }
            if let Some(external) = self.speaker.report(Instant::now()) {
                self.findings.send_if_modified(|current| {
                    let differs = **current != external;
                    *current = Arc::new(external);
                    differs
                });
            }
        }
    }

    /// Takes in what has arrived.
    fn hear(&mut self) {
        let Some(port) = &self.port else { return };
        for _ in 0..PACKETS {
            match port.receive() {
                Ok(Some(packet)) => self.speaker.heard(Instant::now(), &packet),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    debug!(%error, interface = self.interface, "the ARP socket is opened anew");
                    self.port = None;
                    return;
                }
            }
        }
    }

    /// Says what is due. What could not be sent is due again.
    fn speak(&mut self, order: &Order) {
        if order.link.is_some() && self.port.is_none() {
            match Port::open(self.interface) {
                Ok(port) => self.port = Some(port),
                Err(error) => return self.complain(&error),
            }
        }
        while let Some(frame) = self.speaker.next(Instant::now()) {
            let Some(port) = &self.port else { return };
            let packet = match frame {
                Frame::Announcement(address) => arp::Packet::announcement(order.mac, address.octets()),
                Frame::Probe(address) => arp::Packet::probe(order.mac, address.octets()),
            };
            if let Err(source) = port.send(order.mac, &packet) {
                self.port = None;
                let interface = self.interface.to_owned();
                return self.complain(&AnnounceError::Socket { interface, source });
            }
            self.speaker.sent(Instant::now(), frame);
            self.failed = false;
        }
    }

    fn complain(&mut self, error: &AnnounceError) {
        if !self.failed {
            warn!(%error, "nothing is announced; trying again");
        }
        self.failed = true;
        self.speaker.failed(Instant::now());
    }
}
