//! Builds frames with etherparse, independently of the datapath: every length and checksum is its.

use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpDscp, IpEcn, IpFragOffset,
    IpNumber, Ipv4Header, TcpHeader, TcpOptionElement, UdpHeader,
};
use gateway_common::addr::Mac;
use gateway_common::flow;

use crate::fixture::VNI;

/// The IPv4 header of a packet; lengths, protocol and checksum follow.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source.
    pub source: [u8; 4],
    /// Destination.
    pub destination: [u8; 4],
    /// Time to live.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Don't fragment.
    pub dont_fragment: bool,
    /// More fragments.
    pub more_fragments: bool,
    /// Fragment offset, units of 8 bytes.
    pub fragment_offset: u16,
    /// Identification.
    pub identification: u16,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
}

/// A packet from `source` to `destination` with a TTL of 64, DF set.
pub fn ip(source: [u8; 4], destination: [u8; 4]) -> Ip {
    Ip {
        source,
        destination,
        ttl: 64,
        tos: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        identification: 0x1234,
        options: Vec::new(),
    }
}

impl Ip {
    /// With another TTL.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    fn header(&self, protocol: u8, payload: usize) -> Ipv4Header {
        let len = u16::try_from(payload).expect("payload fits");
        let mut header = Ipv4Header::new(len, self.ttl, IpNumber(protocol), self.source, self.destination)
            .expect("payload fits");
        header.dscp = IpDscp::try_new(self.tos >> 2).expect("6 bits");
        header.ecn = IpEcn::try_new(self.tos & 3).expect("2 bits");
        header.identification = self.identification;
        header.dont_fragment = self.dont_fragment;
        header.more_fragments = self.more_fragments;
        header.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
        header.options = self.options.as_slice().try_into().expect("options are a multiple of 4 bytes");
        header.total_len += u16::try_from(self.options.len()).expect("options fit");
        header.header_checksum = header.calc_header_checksum();
        header
    }

    /// A packet of any protocol.
    pub fn raw(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = self.header(protocol, payload.len()).to_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A UDP datagram with its checksum.
    pub fn udp(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let ip = self.header(17, UdpHeader::LEN + payload.len());
        let udp = UdpHeader::with_ipv4_checksum(source, destination, &ip, payload).expect("payload fits");
        self.raw(17, &[&udp.to_bytes(), payload].concat())
    }

    /// A UDP datagram without checksum.
    pub fn udp_without_checksum(&self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let udp = UdpHeader::without_ipv4_checksum(source, destination, payload.len()).expect("payload fits");
        self.raw(17, &[&udp.to_bytes(), payload].concat())
    }

    /// A TCP segment, ACK set, or a SYN when it carries options.
    pub fn tcp(
        &self,
        source: u16,
        destination: u16,
        options: &[TcpOptionElement],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut tcp = TcpHeader::new(source, destination, 0x0102_0304, 64_000);
        tcp.syn = !options.is_empty();
        tcp.ack = options.is_empty();
        tcp.set_options(options).expect("options fit");
        self.tcp_segment(tcp, payload)
    }

    /// A SYN with options given as bytes, padded to a multiple of 4.
    pub fn syn_raw(&self, options: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(40_000, 80, 0x0102_0304, 64_000);
        tcp.syn = true;
        tcp.set_options_raw(options).expect("options fit");
        self.tcp_segment(tcp, &[])
    }

    fn tcp_segment(&self, mut tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
        let ip = self.header(6, tcp.header_len() + payload.len());
        tcp.checksum = tcp.calc_checksum_ipv4(&ip, payload).expect("payload fits");
        self.raw(6, &[tcp.to_bytes().as_slice(), payload].concat())
    }

    /// An ICMP message.
    pub fn icmp(&self, message: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
        let header = Icmpv4Header::with_checksum(message, payload);
        self.raw(1, &[header.to_bytes().as_slice(), payload].concat())
    }

    /// An ICMP echo request.
    pub fn echo_request(&self, payload: &[u8]) -> Vec<u8> {
        self.icmp(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 0x4321, seq: 1 }), payload)
    }

    /// An ICMP echo reply.
    pub fn echo_reply(&self, payload: &[u8]) -> Vec<u8> {
        self.icmp(Icmpv4Type::EchoReply(IcmpEchoHeader { id: 0x4321, seq: 1 }), payload)
    }
}

/// An Ethernet frame.
pub fn frame(source: Mac, destination: Mac, ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: source.0, destination: destination.0, ether_type: ethertype };
    [header.to_bytes().as_slice(), payload].concat()
}

/// An Ethernet frame with an IPv4 packet.
pub fn ipv4_frame(source: Mac, destination: Mac, packet: &[u8]) -> Vec<u8> {
    frame(source, destination, EtherType::IPV4, packet)
}

/// A TCP segment or UDP datagram in one packet, as its sender leaves the checksum to a NIC: the sum of the pseudo-header alone.
pub fn left_to_nic(packet: &[u8]) -> Vec<u8> {
    let header_len = usize::from(packet[0] & 15) * 4;
    let field = header_len + if packet[9] == 6 { 16 } else { 6 };
    let words = packet[12..20].as_chunks::<2>().0.iter().map(|word| usize::from(u16::from_be_bytes(*word)));
    let sum = words.sum::<usize>() + usize::from(packet[9]) + packet.len() - header_len;
    let folded = u16::try_from(sum % 0xffff).expect("less than 16 bits");
    let mut left = packet.to_vec();
    left[field..field + 2].copy_from_slice(&folded.to_be_bytes());
    left
}

/// A Geneve frame between two nodes.
#[derive(Clone, Debug)]
pub struct Geneve {
    /// Outer source and destination MAC.
    pub macs: (Mac, Mac),
    /// Outer source and destination address.
    pub nodes: ([u8; 4], [u8; 4]),
    /// Inner source and destination MAC.
    pub inner_macs: (Mac, Mac),
    /// The first four bytes of the Geneve header: version, option length, flags, protocol type.
    pub head: [u8; 4],
    /// Virtual network.
    pub vni: u32,
    /// Options.
    pub options: Vec<u8>,
    /// Outer UDP checksum is there.
    pub checksum: bool,
    /// Outer UDP destination port.
    pub port: u16,
    /// Outer UDP source port; `None`: as our flow hash says for the inner packet.
    pub source_port: Option<u16>,
    /// Inner EtherType.
    pub inner_type: EtherType,
    /// Outer DSCP and ECN; `None`: those of the inner packet.
    pub tos: Option<u8>,
}

/// Our tunnel as a gateway writes it.
pub fn geneve(macs: (Mac, Mac), nodes: ([u8; 4], [u8; 4])) -> Geneve {
    Geneve {
        macs,
        nodes,
        inner_macs: (Mac::TUNNEL_GATEWAY, Mac::TUNNEL_WORKER),
        head: [0, 0, 0x65, 0x58],
        vni: VNI,
        options: Vec::new(),
        checksum: true,
        port: 6081,
        source_port: None,
        inner_type: EtherType::IPV4,
        tos: None,
    }
}

impl Geneve {
    /// As a worker writes it.
    #[must_use]
    pub fn from_worker(mut self) -> Self {
        self.inner_macs = (Mac::TUNNEL_WORKER, Mac::TUNNEL_GATEWAY);
        self
    }

    /// Without the outer UDP checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// With an outer DSCP and ECN of its own.
    #[must_use]
    pub fn with_tos(mut self, tos: u8) -> Self {
        self.tos = Some(tos);
        self
    }

    /// With options, `critical` or not.
    #[must_use]
    pub fn with_options(mut self, options: &[u8], critical: bool) -> Self {
        self.options = options.to_vec();
        self.head[0] = u8::try_from(options.len() / 4).expect("options fit");
        self.head[1] = if critical { 0x40 } else { 0 };
        self
    }

    /// The frame that carries `packet`.
    pub fn carry(&self, packet: &[u8]) -> Vec<u8> {
        let inner = frame(self.inner_macs.0, self.inner_macs.1, self.inner_type, packet);
        let [_, v0, v1, v2] = self.vni.to_be_bytes();
        let body = [&self.head[..], &[v0, v1, v2, 0], &self.options, &inner].concat();
        let outer =
            Ip { identification: 0, tos: self.tos.unwrap_or(packet[1]), ..ip(self.nodes.0, self.nodes.1) };
        let source = self.source_port.unwrap_or_else(|| flow_port(packet));
        let datagram = if self.checksum {
            outer.udp(source, self.port, &body)
        } else {
            outer.udp_without_checksum(source, self.port, &body)
        };
        ipv4_frame(self.macs.0, self.macs.1, &datagram)
    }
}

/// The source port our tunnel gives the flow of an IPv4 packet.
fn flow_port(packet: &[u8]) -> u16 {
    let four = |at: usize| [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
    let header_len = usize::from(packet[0] & 15) * 4;
    let is_fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
    let ports = matches!(packet[9], 6 | 17 | 136) && !is_fragment && packet.len() >= header_len + 4;
    flow::source_port(four(12), four(16), packet[9], if ports { four(header_len) } else { [0; 4] })
}
