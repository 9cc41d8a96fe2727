//! What comes out of a lab, as tshark's dissectors read it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use gateway_tests::capture::Frames;

use crate::stimuli::Side;

/// When a frame was captured, seconds since 1970.
const TIME: &str = "frame.time_epoch";
/// Every field that is compared. A frame that has one several times (a quote, GRE's packet) has all of them compared.
const FIELDS: [&str; 49] = [
    "eth.src",
    "eth.dst",
    "eth.type",
    "arp.opcode",
    "arp.src.hw_mac",
    "arp.src.proto_ipv4",
    "arp.dst.hw_mac",
    "arp.dst.proto_ipv4",
    "ip.hdr_len",
    "ip.dsfield",
    "ip.len",
    "ip.id",
    "ip.flags",
    "ip.frag_offset",
    "ip.ttl",
    "ip.proto",
    "ip.checksum.status",
    "ip.src",
    "ip.dst",
    "ip.opt.type",
    "ip.opt.len",
    "ip.opt.ptr",
    "ip.opt.ra",
    "ip.rec_rt",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.window_size_value",
    "tcp.options.mss_val",
    "tcp.checksum.status",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "udp.checksum",
    "udp.checksum.status",
    "icmp.type",
    "icmp.code",
    "icmp.checksum.status",
    "icmp.ident",
    "icmp.seq",
    "icmp.mtu",
    "icmp.redir_gw",
    "sctp.verification_tag",
    "sctp.checksum",
    "gre.proto",
    "esp.spi",
    "data.data",
];

/// Fragments are looked at as they are.
const OPTIONS: [&str; 2] = ["-o", "ip.defragment:FALSE"];
/// What is an answer: what hosts ask each other about neighbours is none.
const FILTER: &str = "ip || arp.opcode == 2";

/// A packet that arrived at one of the two ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packet {
    /// When, in seconds since 1970.
    pub(crate) time: f64,
    /// Its fields, those that it has.
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Packet {
    /// A field's first value, of the outermost header that has it.
    pub(crate) fn first(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.split(',').next()
    }

    /// Whether a router made it, and did not merely pass it on.
    pub(crate) fn is_a_routers(&self) -> bool {
        matches!(self.first("ip.src"), Some("192.168.100.254" | "10.244.1.1"))
    }

    fn protocol(&self) -> String {
        let number = |field| self.first(field).unwrap_or_default();
        if self.first("arp.opcode").is_some() {
            return format!("ARP reply, {}", number("arp.src.hw_mac"));
        }
        if self.first("ip.proto").is_none() {
            return "not an IPv4 packet".to_owned();
        }
        let offset = number("ip.frag_offset");
        let more = self.first("ip.flags") == Some("0x01");
        if offset != "0" || more {
            return format!("fragment at {offset}");
        }
        match number("ip.proto") {
            "1" => format!("ICMP {}/{}", number("icmp.type"), number("icmp.code")),
            "6" if number("tcp.flags") == "0x0014" => "TCP RST".to_owned(),
            "6" => "TCP".to_owned(),
            "17" => "UDP".to_owned(),
            "132" => "SCTP".to_owned(),
            "47" => "GRE".to_owned(),
            "50" => "ESP".to_owned(),
            "112" => "VRRP".to_owned(),
            other => format!("protocol {other}"),
        }
    }
}

/// In a few words: protocol, TTL, and who sent it where that is not one of the two ends by the address it is known by.
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol())?;
        if let Some(ttl) = self.first("ip.ttl") {
            write!(f, ", TTL {ttl}")?;
        }
        if let Some(mtu) = self.first("icmp.mtu").filter(|_| self.is_a_routers()) {
            write!(f, ", MTU {mtu}")?;
        }
        match self.first("ip.src") {
            None | Some("192.168.100.1" | "192.168.100.101") => Ok(()),
            Some(source) => write!(f, ", from {source}"),
        }
    }
}

/// Everything that was captured at one end, in order.
pub(crate) fn packets(frames: &Frames) -> Result<Vec<Packet>> {
    let wanted: Vec<_> = [TIME].into_iter().chain(FIELDS).collect();
    let rows = frames.fields(FILTER, &wanted, &OPTIONS)?;
    rows.iter()
        .map(|row| {
            let (time, values) = row.split_first().context("a row has a time")?;
            let present = FIELDS.into_iter().zip(values).filter(|(_, value)| !value.is_empty());
            let fields = present.map(|(field, value)| (field, value.clone())).collect();
            Ok(Packet { time: time.parse().with_context(|| format!("{TIME} {time}"))?, fields })
        })
        .collect()
}

/// What one stimulus brought out of one lab.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// At the client.
    pub(crate) client: Vec<Packet>,
    /// At the pod.
    pub(crate) pod: Vec<Packet>,
}

impl Answer {
    /// What arrived at one end.
    pub(crate) fn at(&self, side: Side) -> &[Packet] {
        match side {
            Side::Client => &self.client,
            Side::Pod => &self.pod,
        }
    }
}

/// A packet a line.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |side| self.at(side).iter().map(move |packet| format!("{side}: {packet}"));
        let lines: Vec<_> = all(Side::Client).chain(all(Side::Pod)).collect();
        f.write_str(if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }.as_str())
    }
}
