//! Reads packets with etherparse, independently of the datapath, and says which of their checksums are right.

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, Ipv4HeaderSlice, UdpHeaderSlice};

/// What a checksum came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// It is that of the bytes.
    Right,
    /// It is not.
    Wrong,
    /// There is none, or it covers bytes that are elsewhere.
    Absent,
}

impl Checksum {
    fn of(sum: Sum16BitWords) -> Self {
        if sum.ones_complement() == 0 { Self::Right } else { Self::Wrong }
    }
}

/// An IPv4 packet that lies wholly in the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Ipv4HeaderSlice<'a>,
    /// What is behind the header, to the packet's end.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet at the start of `bytes`.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let payload = bytes.get(header.slice().len()..usize::from(header.total_len()))?;
        Some(Self { header, payload })
    }

    /// Header and payload.
    pub fn bytes(&self) -> Vec<u8> {
        [self.header.slice(), self.payload].concat()
    }

    /// Length by its own header, bytes.
    pub fn len(&self) -> usize {
        usize::from(self.header.total_len())
    }

    /// Whether nothing is behind the header.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The header's checksum.
    pub fn header_checksum(&self) -> Checksum {
        Checksum::of(Sum16BitWords::new().add_slice(self.header.slice()))
    }

    /// The checksum of ICMP, TCP or UDP in a whole packet.
    pub fn l4_checksum(&self) -> Checksum {
        if self.header.is_fragmenting_payload() {
            return Checksum::Absent;
        }
        match self.header.protocol() {
            IpNumber::ICMP if self.payload.len() >= 8 => {
                Checksum::of(Sum16BitWords::new().add_slice(self.payload))
            }
            IpNumber::TCP if self.payload.len() >= 20 => Checksum::of(self.with_pseudo_header()),
            IpNumber::UDP => match UdpHeaderSlice::from_slice(self.payload) {
                Ok(udp) if usize::from(udp.length()) == self.payload.len() && udp.checksum() != 0 => {
                    Checksum::of(self.with_pseudo_header())
                }
                Ok(_) | Err(_) => Checksum::Absent,
            },
            _ => Checksum::Absent,
        }
    }

    fn with_pseudo_header(&self) -> Sum16BitWords {
        let len = u16::try_from(self.payload.len()).unwrap_or(u16::MAX);
        Sum16BitWords::new()
            .add_slice(&self.header.source())
            .add_slice(&self.header.destination())
            .add_2bytes([0, self.header.protocol().0])
            .add_2bytes(len.to_be_bytes())
            .add_slice(self.payload)
    }

    /// Whether a TCP header claims more than the segment has.
    pub fn has_lying_tcp_header(&self) -> bool {
        self.header.protocol() == IpNumber::TCP
            && self.payload.get(12).is_some_and(|offset| usize::from(offset >> 4) * 4 > self.payload.len())
    }

    /// The destination port of UDP, network-order bytes; `None` where there is none to see.
    pub fn udp_port(&self) -> Option<[u8; 2]> {
        let is_udp = self.header.protocol() == IpNumber::UDP && self.header.fragments_offset().value() == 0;
        self.payload.get(2..4).filter(|_| is_udp)?.try_into().ok()
    }

    /// Source and destination that an ICMP error quotes; `None` for anything else.
    pub fn quoted(&self) -> Option<([u8; 4], [u8; 4])> {
        let is_error = self.header.protocol() == IpNumber::ICMP
            && self.header.fragments_offset().value() == 0
            && matches!(self.payload.first(), Some(3 | 4 | 5 | 11 | 12));
        let quote = self.payload.get(8..28).filter(|_| is_error)?;
        Some((quote[12..16].try_into().ok()?, quote[16..20].try_into().ok()?))
    }
}

/// A frame of our tunnel, read from the outer Ethernet header on.
#[derive(Clone, Debug)]
pub struct Tunnel<'a> {
    /// The outer packet.
    pub outer: Packet<'a>,
    /// Its UDP header.
    pub udp: UdpHeaderSlice<'a>,
    /// The Geneve header with its options.
    pub geneve: &'a [u8],
    /// The packet inside.
    pub inner: Packet<'a>,
    /// Bytes from the inner packet's start to the outer packet's end.
    pub room: usize,
}

impl<'a> Tunnel<'a> {
    /// Reads the frame.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let outer = Packet::read(frame.get(14..)?)?;
        let udp = UdpHeaderSlice::from_slice(outer.payload).ok()?;
        let body = outer.payload.get(8..)?;
        let geneve = body.get(..8 + usize::from(body.first()? & 0x3f) * 4)?;
        let carried = body.get(geneve.len() + 14..)?;
        let inner = Packet::read(carried)?;
        Some(Self { outer, udp, geneve, inner, room: carried.len() })
    }
}
