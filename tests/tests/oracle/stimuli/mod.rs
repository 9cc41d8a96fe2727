//! What is sent into both labs: the same frames from the client and from the pod.

mod errors;
mod link;
mod odd;
mod packets;

use std::fmt;

use etherparse::EtherType;
use gateway_common::addr::Mac;
use gateway_tests::fixture::{CLIENT, EIP1, NIC_MAC, POD1};
use gateway_tests::packet::{Ip, frame, ip};

/// The client's MAC in the lab.
pub(crate) const CLIENT_MAC: Mac = Mac([0x02, 0, 192, 168, 100, 1]);
/// The pod's.
pub(crate) const POD_MAC: Mac = Mac([0x02, 0, 10, 244, 1, 10]);
/// That of the pod's default gateway.
pub(crate) const POD_ROUTER_MAC: Mac = Mac([0x02, 0, 10, 244, 1, 1]);
/// Destination port: nobody listens there, and tshark knows no protocol of it.
pub(crate) const PORT: u16 = 61_000;

/// One of the two ends, where frames are sent and where they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Pod,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Pod => "pod",
        })
    }
}

/// A frame and who sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: Side,
    pub(crate) frame: Vec<u8>,
}

/// Frames sent one after the other, and looked at together.
#[derive(Clone, Debug)]
pub(crate) struct Stimulus {
    pub(crate) name: String,
    pub(crate) sent: Vec<Sent>,
    /// Whether what is sent is sound itself; where it is not, what is passed on cannot be.
    pub(crate) sound: bool,
}

/// The way of a packet: from the client to the EIP, or from the pod to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Way {
    const BOTH: [Self; 2] = [Self::In, Self::Out];

    /// A stimulus' name with the way in front of it.
    fn named(self, name: &str) -> String {
        let way = match self {
            Self::In => "in",
            Self::Out => "out",
        };
        format!("{way}: {name}")
    }

    fn ip(self) -> Ip {
        match self {
            Self::In => ip(CLIENT, EIP1),
            Self::Out => ip(POD1, CLIENT),
        }
    }

    /// The same packet when it has arrived, as the receiver would quote it.
    fn arrived(self) -> Ip {
        match self {
            Self::In => ip(CLIENT, POD1).ttl(62),
            Self::Out => ip(EIP1, CLIENT).ttl(62),
        }
    }

    fn back(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }

    /// An Ethernet frame to the next router on the way.
    fn send(self, packet: &[u8]) -> Sent {
        let (from, source, destination) = match self {
            Self::In => (Side::Client, CLIENT_MAC, NIC_MAC),
            Self::Out => (Side::Pod, POD_MAC, POD_ROUTER_MAC),
        };
        Sent { from, frame: frame(source, destination, EtherType::IPV4, packet) }
    }
}

/// The list as it grows. Each stimulus has a port of its own, so that no connection table takes two for one.
#[derive(Debug)]
struct List {
    stimuli: Vec<Stimulus>,
    /// Port of the first.
    base: u16,
}

impl List {
    /// The source port of the next one.
    fn port(&self) -> u16 {
        self.base + u16::try_from(self.stimuli.len()).expect("a short list")
    }

    fn add(&mut self, name: String, sent: Vec<Sent>) {
        self.stimuli.push(Stimulus { name, sent, sound: true });
    }

    fn add_unsound(&mut self, name: String, sent: Vec<Sent>) {
        self.stimuli.push(Stimulus { name, sent, sound: false });
    }
}

/// The list, the first time and when some of it is sent again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Round {
    First = 50_000,
    Second = 52_000,
}

/// All of them, in the order they are sent. In another round they have other ports, and are the same otherwise.
pub(crate) fn all(round: Round) -> Vec<Stimulus> {
    let mut list = List { stimuli: Vec::new(), base: round as u16 };
    packets::add(&mut list);
    errors::add(&mut list);
    link::add(&mut list);
    odd::add(&mut list);
    list.stimuli
}
