//! From a client to a pod on a worker.

use gateway_common::csum::Native;
use gateway_common::flow;
use gateway_common::tables::{CONFIG_OWNER, CONFIG_XDP_TO_UNDERLAY, Config, DirectEip, direct_row};
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::{self, INNER_IP};
use gateway_common::wire::{eth, ipv4, l4};

use super::packet::{Field, HEADERS, Headers, Ordinary, unpadded};
use super::window::Window;
use super::{eip, ended};
use crate::datapath::geneve::{FROM_GATEWAY, OUTER_TTL};
use crate::datapath::{Action, Direction, Env, Exit, Frame, Outcome, Room};

#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Option<Outcome> {
    let needed = CONFIG_OWNER | CONFIG_XDP_TO_UNDERLAY;
    if config.flags & needed != needed {
        return None;
    }
    let len = frame.linear_len();
    let mut headers = Window(frame.window::<HEADERS>()?);
    if !is_to(&headers, &config.nic_mac) {
        return None;
    }
    let unpadded = unpadded(&headers, len);
    let mut packet = Ordinary::read(&headers, unpadded)?;
    if packet.ttl <= 1
        || u32::from(packet.total_len) > config.tunnel_mtu
        || packet.source.to_ne_bytes() == config.nic_ip
        || packet.is_martian(config)
    {
        return None;
    }
    // Where it can, the agent gives an EIP the slot of its direct row: the two then come from memory together.
    env.expect_count(direct_row(packet.destination.to_ne_bytes(), config.direct_mask));
    let row = eip(env, config, packet.destination).filter(|row| row.ifindex != 0)?;
    packet.translate(&mut headers, Field::Destination, u32::from_ne_bytes(row.pod_ip));
    if trim(frame, len, unpadded).and_then(|()| encapsulate(frame, config, &packet, row)).is_none() {
        return ended(env, Outcome::drop(Verdict::DropNoRoom), len);
    }
    env.count_eip(row.slot, Direction::In, 1, packet.frame_len());
    ended(env, Outcome::new(Verdict::ToWorker, Exit::of(Action::Redirect, row.ifindex)), len)
}

/// Cuts off Ethernet's padding, which must not travel into the tunnel.
#[inline(always)]
fn trim<F: Frame>(frame: &mut F, len: u32, unpadded: u32) -> Option<()> {
    if len > unpadded { frame.truncate(unpadded) } else { Some(()) }
}

/// Whether the frame is to a station.
#[inline(always)]
fn is_to(headers: &Headers<'_>, mac: &[u8; 6]) -> bool {
    let [m0, m1, m2, m3, m4, m5] = *mac;
    headers.wide::<0>() == u32::from_ne_bytes([m0, m1, m2, m3])
        && headers.word::<4>() == u16::from_ne_bytes([m4, m5])
}

/// Grows the frame by the tunnel's headers and writes them (RFC 8926).
#[inline(always)]
fn encapsulate<F: Frame>(frame: &mut F, config: &Config, inner: &Ordinary, row: &DirectEip) -> Option<()> {
    const UDP: usize = eth::HEADER_LEN + ipv4::HEADER_LEN;
    let udp_len = (l4::UDP_LEN + geneve::HEADER_LEN + eth::HEADER_LEN) as u16 + inner.total_len;
    frame.grow_head(Room::Tunnel)?;
    let mut headers = Window(frame.window::<INNER_IP>()?);
    outer_ethernet(&mut headers, row);
    outer_ipv4(&mut headers, config, inner, row, udp_len);
    let port = flow::source_port(
        inner.source.to_ne_bytes(),
        inner.destination.to_ne_bytes(),
        inner.protocol,
        inner.ports.to_ne_bytes(),
    );
    let [g0, g1, g2, g3, v0, v1, v2, v3] = geneve::emit(config.vni);
    let (geneve, vni) = (u32::from_ne_bytes([g0, g1, g2, g3]), u32::from_ne_bytes([v0, v1, v2, v3]));
    let (source_port, destination_port) = (port.to_be(), u16::from_ne_bytes(config.geneve_port));
    headers.set_word::<UDP>(source_port);
    headers.set_word::<{ UDP + l4::DESTINATION_PORT }>(destination_port);
    headers.set_word::<{ UDP + 4 }>(udp_len.to_be());
    headers.set_wide::<{ UDP + 8 }>(geneve);
    headers.set_wide::<{ UDP + 12 }>(vni);
    inner_ethernet(&mut headers);
    // By local checksum offload: what is inside sums to the complement of its own pseudo-header.
    let sum = Native::ZERO
        .wide(u32::from_ne_bytes(config.local_vtep))
        .wide(u32::from_ne_bytes(row.vtep))
        .word(u16::from(ipv4::UDP).to_be())
        .word(udp_len.to_be())
        .word(source_port)
        .word(destination_port)
        .word(udp_len.to_be())
        .wide(geneve)
        .wide(vni)
        .plus(FROM_GATEWAY_SUM)
        .word(inner.l4_sum());
    headers.set_word::<{ UDP + 6 }>(match sum.checksum() {
        0 => 0xffff,
        checksum => checksum,
    });
    Some(())
}

#[inline(always)]
fn outer_ethernet(headers: &mut Window<'_, INNER_IP>, row: &DirectEip) {
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (row.destination_mac, row.source_mac);
    headers.set_wide::<0>(u32::from_ne_bytes([d0, d1, d2, d3]));
    headers.set_wide::<4>(u32::from_ne_bytes([d4, d5, s0, s1]));
    headers.set_wide::<8>(u32::from_ne_bytes([s2, s3, s4, s5]));
    headers.set_word::<{ eth::ETHERTYPE }>(eth::IPV4.to_be());
}

#[inline(always)]
fn outer_ipv4(
    headers: &mut Window<'_, INNER_IP>,
    config: &Config,
    inner: &Ordinary,
    row: &DirectEip,
    udp_len: u16,
) {
    const IP: usize = eth::HEADER_LEN;
    let total_len = (ipv4::HEADER_LEN as u16 + udp_len).to_be();
    // RFC 6040 section 4.1, normal mode: DSCP and ECN are copied.
    let version = u16::from_ne_bytes([0x45, inner.tos]);
    let hop = u16::from_ne_bytes([OUTER_TTL, ipv4::UDP]);
    let (source, destination) = (u32::from_ne_bytes(config.local_vtep), u32::from_ne_bytes(row.vtep));
    let dont_fragment = ipv4::DONT_FRAGMENT.to_be();
    let sum = Native::ZERO.word(version).word(total_len).word(dont_fragment).word(hop);
    headers.set_word::<IP>(version);
    headers.set_word::<{ IP + 2 }>(total_len);
    headers.set_word::<{ IP + 4 }>(0);
    headers.set_word::<{ IP + 6 }>(dont_fragment);
    headers.set_word::<{ IP + 8 }>(hop);
    headers.set_word::<{ IP + 10 }>(sum.wide(source).wide(destination).checksum());
    headers.set_wide::<{ IP + 12 }>(source);
    headers.set_wide::<{ IP + 16 }>(destination);
}

/// The words of the inner Ethernet header.
const INNER_ETHERNET: ([u32; 3], u16) = {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *FROM_GATEWAY;
    let words = [
        u32::from_ne_bytes([d0, d1, d2, d3]),
        u32::from_ne_bytes([d4, d5, s0, s1]),
        u32::from_ne_bytes([s2, s3, s4, s5]),
    ];
    (words, u16::from_ne_bytes([t0, t1]))
};
const FROM_GATEWAY_SUM: Native = {
    let ([a, b, c], d) = INNER_ETHERNET;
    Native::ZERO.wide(a).wide(b).wide(c).word(d)
};

#[inline(always)]
fn inner_ethernet(headers: &mut Window<'_, INNER_IP>) {
    const AT: usize = INNER_IP - eth::HEADER_LEN;
    let ([a, b, c], d) = INNER_ETHERNET;
    headers.set_wide::<AT>(a);
    headers.set_wide::<{ AT + 4 }>(b);
    headers.set_wide::<{ AT + 8 }>(c);
    headers.set_word::<{ AT + 12 }>(d);
}
