//! Out of the tunnel: from a pod to the external network, and, on the pod's node, from a client to the pod.

use gateway_common::csum::Native;
use gateway_common::ecn;
use gateway_common::tables::{
    CONFIG_XDP_PIECES_TO_EXTERNAL, CONFIG_XDP_TO_EXTERNAL, Config, DirectNeighbor, direct_row,
};
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::OVERHEAD;
use gateway_common::wire::{eth, ipv4, l4};

use super::packet::{Field, HEADERS, Headers, Ordinary, header_sums_up, unpadded, whole};
use super::window::{View, Window};
use super::{ended, is_eip, pieces, pod};
use crate::datapath::{Action, Direction, Env, Exit, Frame, Outcome, inside, on_external_link};

/// A tunnelled frame's headers: outer Ethernet, IPv4, UDP, Geneve, and the headers of the frame inside.
const TUNNELLED: usize = OVERHEAD + HEADERS;
type Tunnelled<'a> = View<'a, TUNNELLED>;

const IP: usize = eth::HEADER_LEN;
const SOURCE: usize = IP + 12;
const DESTINATION: usize = IP + 16;
const UDP: usize = IP + ipv4::HEADER_LEN;
const GENEVE: usize = UDP + l4::UDP_LEN;
const INNER: usize = OVERHEAD;

#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Option<Outcome> {
    let outer: Headers<'_> = View(frame.view()?);
    let (len, in_pieces) = whole(frame, outer);
    if is_foreign(outer, config, len)? {
        return ended(env, Outcome::pass(Verdict::PassNotTunnel), 1, len);
    }
    let headers: Tunnelled<'_> = View(frame.view()?);
    if !is_ours(headers, config, len) {
        return None;
    }
    let inner = Ordinary::read(headers.tail(), len.wrapping_sub(OVERHEAD as u32))?;
    if !outer_agrees(headers, &inner) || inner.is_martian(config) {
        return None;
    }
    let from = headers.wide::<SOURCE>();
    match pod(env, config, inner.source) {
        Some(row) if u32::from_ne_bytes(row.vtep) == from => {
            let flags = CONFIG_XDP_TO_EXTERNAL | pieces(in_pieces, CONFIG_XDP_PIECES_TO_EXTERNAL);
            if config.flags & flags != flags {
                return None;
            }
            to_external(frame, env, config, inner, (u32::from_ne_bytes(row.eip), row.slot))
        }
        Some(_) => None,
        None => to_pod(frame, env, config, inner, from),
    }
}

/// What most of a node's traffic is: IPv4, but no UDP, or for another port. `None` for what is not IPv4, or not exactly as long
/// as the frame without padding, so that this has parts.
#[inline(always)]
fn is_foreign(headers: Headers<'_>, config: &Config, len: u32) -> Option<bool> {
    let total_len = u32::from(u16::from_be(headers.word::<{ IP + 2 }>()));
    if headers.word::<{ eth::ETHERTYPE }>() != eth::IPV4.to_be()
        || total_len + IP as u32 != unpadded(headers, len)
    {
        return None;
    }
    let [_ttl, protocol] = headers.word::<{ IP + ipv4::TTL }>().to_ne_bytes();
    let port = headers.word::<{ UDP + l4::DESTINATION_PORT }>();
    Some(protocol != ipv4::UDP || port != u16::from_ne_bytes(config.geneve_port))
}

/// Whether the outer headers, of UDP to the tunnel's port, are those of our tunnel and nothing is unusual about them: no
/// options, no fragment, lengths that fill the frame, and a source other than 0.0.0.0, by which rows say that there is no
/// other node. RFC 8926's bits for version, control and critical options are clear.
#[inline(always)]
fn is_ours(headers: Tunnelled<'_>, config: &Config, len: u32) -> bool {
    const ANY_FRAGMENT: u16 = (ipv4::MORE_FRAGMENTS | ipv4::OFFSET).to_be();
    const PLAIN: u16 = 0;
    let [version, _tos] = headers.word::<IP>().to_ne_bytes();
    let [v0, v1, v2, _reserved] = headers.wide::<{ GENEVE + 4 }>().to_ne_bytes();
    let udp_len = u32::from(u16::from_be(headers.word::<{ UDP + 4 }>()));
    version == 0x45
        && headers.word::<{ IP + 6 }>() & ANY_FRAGMENT == 0
        && headers.wide::<SOURCE>() != 0
        && headers.wide::<DESTINATION>() == u32::from_ne_bytes(config.local_vtep)
        && headers.word::<GENEVE>() == PLAIN
        && headers.word::<{ GENEVE + 2 }>() == eth::TEB.to_be()
        && u32::from_be_bytes([0, v0, v1, v2]) == config.vni
        && udp_len + UDP as u32 == len
}

/// Whether there is no mark of congestion to carry inwards (RFC 6040), and the outer UDP checksum is right or none.
#[inline(always)]
fn outer_agrees(headers: Tunnelled<'_>, inner: &Ordinary) -> bool {
    let [_version, tos] = headers.word::<IP>().to_ne_bytes();
    if (tos ^ inner.tos) & ecn::MASK != 0 {
        return false;
    }
    if headers.word::<{ UDP + 6 }>() == 0 {
        return true;
    }
    // The inner header sums to nothing, and what is behind it to the complement of its pseudo-header.
    let sum = Native::ZERO
        .wide(headers.wide::<SOURCE>())
        .wide(headers.wide::<DESTINATION>())
        .word(u16::from(ipv4::UDP).to_be())
        .word(headers.word::<{ UDP + 4 }>())
        .wide(headers.wide::<UDP>())
        .wide(headers.wide::<{ UDP + 4 }>())
        .wide(headers.wide::<GENEVE>())
        .wide(headers.wide::<{ GENEVE + 4 }>())
        .wide(headers.wide::<INNER>())
        .wide(headers.wide::<{ INNER + 4 }>())
        .wide(headers.wide::<{ INNER + 8 }>())
        .word(headers.word::<{ INNER + 12 }>())
        .word(inner.l4_sum());
    sum.fold() == 0xffff && header_sums_up(headers.tail())
}

/// On the gateway: from a pod, which has an EIP and a counter, to the external network.
#[inline(always)]
fn to_external<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    mut inner: Ordinary,
    (address, slot): (u32, u32),
) -> Option<Outcome> {
    let destination = inner.destination.to_ne_bytes();
    if is_eip(env, config, inner.destination)
        || inner.ttl <= 1
        || destination == config.nic_ip
        || u32::from(inner.total_len) > config.external_mtu
    {
        return None;
    }
    let next_hop = if on_external_link(config, destination) { destination } else { config.physical_gateway };
    let neighbor = neighbor(env, config, next_hop)?;
    let mut headers = Window(frame.window::<TUNNELLED>()?);
    inner.translate(&mut headers.tail(), Field::Source, address);
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (neighbor.mac, config.nic_mac);
    let ethernet = [
        u32::from_ne_bytes([d0, d1, d2, d3]),
        u32::from_ne_bytes([d4, d5, s0, s1]),
        u32::from_ne_bytes([s2, s3, s4, s5]),
    ];
    let bytes = inner.frame_len();
    let outcome = match decapsulate(frame, ethernet) {
        Some(()) => {
            env.count_eip(slot, Direction::Out, 1, bytes);
            Outcome::new(Verdict::ToExternal, Exit::of(Action::Redirect, config.external_ifindex))
        }
        None => Outcome::drop(Verdict::DropNoRoom),
    };
    ended(env, outcome, 1, bytes + OVERHEAD as u32)
}

/// On the pod's node: from the pod's gateway, in the name of somebody who is no EIP pod, into the kernel.
#[inline(always)]
fn to_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    inner: Ordinary,
    from: u32,
) -> Option<Outcome> {
    let row = pod(env, config, inner.destination)?;
    if inside::may_be(config, inner.source) || row.vtep != [0; 4] || u32::from_ne_bytes(row.gateway) != from {
        return None;
    }
    let headers: Tunnelled<'_> = View(frame.view()?);
    let ethernet = [headers.wide::<0>(), headers.wide::<4>(), headers.wide::<8>()];
    let bytes = inner.frame_len();
    let outcome = match decapsulate(frame, ethernet) {
        Some(()) => {
            env.count_eip(row.slot, Direction::In, 1, bytes);
            Outcome::pass(Verdict::FromGateway)
        }
        None => Outcome::drop(Verdict::DropNoRoom),
    };
    ended(env, outcome, 1, bytes + OVERHEAD as u32)
}

/// Takes the tunnel's headers off and writes an Ethernet header: its addresses by words, in memory order.
#[inline(always)]
fn decapsulate<F: Frame>(frame: &mut F, [a, b, c]: [u32; 3]) -> Option<()> {
    frame.shrink_head(OVERHEAD)?;
    let mut headers: Window<'_, { eth::HEADER_LEN }> = Window(frame.window()?);
    headers.set_wide::<0>(a);
    headers.set_wide::<4>(b);
    headers.set_wide::<8>(c);
    headers.set_word::<{ eth::ETHERTYPE }>(eth::IPV4.to_be());
    Some(())
}

#[inline(always)]
fn neighbor<'a, E: Env>(env: &'a E, config: &Config, addr: [u8; 4]) -> Option<&'a DirectNeighbor> {
    env.direct_neighbor(direct_row(addr, config.direct_mask)).filter(|row| row.addr == addr)
}
