//! The tunnel's headers (RFC 8926), by words.

use gateway_common::csum::Native;
use gateway_common::flow;
use gateway_common::tables::Config;
use gateway_common::wire::geneve::{self, INNER_IP};
use gateway_common::wire::{eth, ipv4, l4};

use super::packet::Ordinary;
use super::window::Window;
use crate::datapath::geneve::{FROM_GATEWAY, FROM_WORKER, OUTER_TTL};

const IP: usize = eth::HEADER_LEN;
const UDP: usize = IP + ipv4::HEADER_LEN;
const GENEVE: usize = UDP + l4::UDP_LEN;
const INNER: usize = GENEVE + geneve::HEADER_LEN;

/// The inner Ethernet header, in words, and their sum.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    addresses: [u32; 3],
    ethertype: u16,
}

impl Inner {
    pub(super) const FROM_GATEWAY: Self = Self::of(FROM_GATEWAY);
    pub(super) const FROM_WORKER: Self = Self::of(FROM_WORKER);

    const fn of(header: &[u8; eth::HEADER_LEN]) -> Self {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let addresses = [
            u32::from_ne_bytes([d0, d1, d2, d3]),
            u32::from_ne_bytes([d4, d5, s0, s1]),
            u32::from_ne_bytes([s2, s3, s4, s5]),
        ];
        Self { addresses, ethertype: u16::from_ne_bytes([t0, t1]) }
    }

    #[inline(always)]
    const fn sum(self) -> Native {
        let [a, b, c] = self.addresses;
        Native::ZERO.wide(a).wide(b).wide(c).word(self.ethertype)
    }
}

/// Where a tunnel leads.
#[derive(Clone, Copy)]
pub(super) struct Tunnel {
    /// Destination VTEP, in memory order.
    pub(super) to: u32,
    pub(super) inner: Inner,
    /// Whether there is to be an outer UDP checksum. The segments of a GSO packet will have their own.
    pub(super) is_summed: bool,
}

/// Writes the headers around a packet, all but the outer Ethernet header.
#[inline(always)]
pub(super) fn write(headers: &mut Window<'_, INNER_IP>, config: &Config, packet: &Ordinary, tunnel: &Tunnel) {
    let udp_len = (l4::UDP_LEN + geneve::HEADER_LEN + eth::HEADER_LEN) as u16 + packet.total_len;
    let from = u32::from_ne_bytes(config.local_vtep);
    write_ipv4(headers, (from, tunnel.to), packet.tos, udp_len);
    let port = flow::source_port(
        packet.source.to_ne_bytes(),
        packet.destination.to_ne_bytes(),
        packet.protocol,
        packet.ports.to_ne_bytes(),
    );
    let [g0, g1, g2, g3, v0, v1, v2, v3] = geneve::emit(config.vni);
    let (geneve, vni) = (u32::from_ne_bytes([g0, g1, g2, g3]), u32::from_ne_bytes([v0, v1, v2, v3]));
    let (source_port, destination_port) = (port.to_be(), u16::from_ne_bytes(config.geneve_port));
    headers.set_word::<UDP>(source_port);
    headers.set_word::<{ UDP + l4::DESTINATION_PORT }>(destination_port);
    headers.set_word::<{ UDP + 4 }>(udp_len.to_be());
    headers.set_wide::<GENEVE>(geneve);
    headers.set_wide::<{ GENEVE + 4 }>(vni);
    let [a, b, c] = tunnel.inner.addresses;
    headers.set_wide::<INNER>(a);
    headers.set_wide::<{ INNER + 4 }>(b);
    headers.set_wide::<{ INNER + 8 }>(c);
    headers.set_word::<{ INNER + eth::ETHERTYPE }>(tunnel.inner.ethertype);
    // By local checksum offload: what is inside sums to the complement of its own pseudo-header.
    let sum = Native::ZERO
        .wide(from)
        .wide(tunnel.to)
        .word(u16::from(ipv4::UDP).to_be())
        .word(udp_len.to_be())
        .word(source_port)
        .word(destination_port)
        .word(udp_len.to_be())
        .wide(geneve)
        .wide(vni)
        .plus(tunnel.inner.sum())
        .word(packet.l4_sum());
    headers.set_word::<{ UDP + 6 }>(match sum.checksum() {
        _ if !tunnel.is_summed => 0,
        0 => 0xffff,
        checksum => checksum,
    });
}

#[inline(always)]
fn write_ipv4(headers: &mut Window<'_, INNER_IP>, (from, to): (u32, u32), tos: u8, udp_len: u16) {
    let total_len = (ipv4::HEADER_LEN as u16 + udp_len).to_be();
    // RFC 6040 section 4.1, normal mode: DSCP and ECN are copied.
    let version = u16::from_ne_bytes([0x45, tos]);
    let hop = u16::from_ne_bytes([OUTER_TTL, ipv4::UDP]);
    let dont_fragment = ipv4::DONT_FRAGMENT.to_be();
    let sum = Native::ZERO.word(version).word(total_len).word(dont_fragment).word(hop);
    headers.set_word::<IP>(version);
    headers.set_word::<{ IP + 2 }>(total_len);
    headers.set_word::<{ IP + 4 }>(0);
    headers.set_word::<{ IP + 6 }>(dont_fragment);
    headers.set_word::<{ IP + 8 }>(hop);
    headers.set_word::<{ IP + 10 }>(sum.wide(from).wide(to).checksum());
    headers.set_wide::<{ IP + 12 }>(from);
    headers.set_wide::<{ IP + 16 }>(to);
}
