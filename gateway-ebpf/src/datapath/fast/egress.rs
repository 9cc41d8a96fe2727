//! Leaving a node by the underlay NIC: from a pod here to its gateway.

use gateway_common::tables::{CONFIG_ALL_PODS_DIRECT, Config, DirectPod};
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::INNER_IP;
use gateway_common::wire::{eth, ipv4, l4};

use super::outer::{self, Inner, Tunnel};
use super::packet::{HEADERS, Headers, Ordinary, SOURCE};
use super::window::{View, Window};
use super::{ended, pod};
use crate::datapath::zeroed::Zeroed;
use crate::datapath::{Direction, Env, Frame, Outcome, Room};

const IP: usize = eth::HEADER_LEN;
/// Before the tunnel's headers, so that all their words but the first Ethernet header's are aligned: of the stack the verifier
/// wants that.
const PAD: usize = 2;
/// Room for both, in words of eight bytes.
const BUFFER: usize = (PAD + INNER_IP).next_multiple_of(8);

#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Option<Outcome> {
    let (packets, len) = (frame.segments(), frame.frame_len());
    let headers: Headers<'_> = View(frame.view::<HEADERS>()?);
    if !is_plain(headers, len) {
        return None;
    }
    let [_ttl, protocol] = headers.word::<{ IP + ipv4::TTL }>().to_ne_bytes();
    // It may be to a node's tunnel port, where not everybody may send.
    let port = headers.word::<{ IP + ipv4::HEADER_LEN + l4::DESTINATION_PORT }>();
    if protocol == ipv4::UDP && port == u16::from_ne_bytes(config.geneve_port) {
        return None;
    }
    let source = headers.wide::<SOURCE>();
    let Some(row) = pod(env, config, source) else {
        // An ICMP error of this node may be about a packet to a pod.
        let is_foreign = config.flags & CONFIG_ALL_PODS_DIRECT != 0 && protocol != ipv4::ICMP;
        return if is_foreign { ended(env, Outcome::pass(Verdict::PassNotPod), packets, len) } else { None };
    };
    let packet = Ordinary::read(headers, len)?;
    let is_here = row.vtep == [0; 4] && row.gateway != [0; 4];
    if !is_here || packet.destination == u32::from_ne_bytes(row.eip) || packet.is_martian(config) {
        return None;
    }
    if env.is_internal(packet.destination.to_ne_bytes()) {
        return ended(env, Outcome::pass(Verdict::PassInternal), packets, len);
    }
    let outcome = match encapsulate(frame, config, &packet, row, packets) {
        Some(()) => {
            env.count_eip(row.slot, Direction::Out, packets, packet.frame_len());
            Outcome::pass(Verdict::ToGateway)
        }
        None => Outcome::drop(Verdict::DropNoRoom),
    };
    ended(env, outcome, packets, len)
}

/// Whether it is IPv4 without options, exactly as long as the frame.
#[inline(always)]
fn is_plain(headers: Headers<'_>, len: u32) -> bool {
    let [version, _tos] = headers.word::<IP>().to_ne_bytes();
    let total_len = u32::from(u16::from_be(headers.word::<{ IP + 2 }>()));
    headers.word::<{ eth::ETHERTYPE }>() == eth::IPV4.to_be()
        && version == 0x45
        && total_len + IP as u32 == len
}

/// Grows the frame by the tunnel's headers and writes them. The outer Ethernet header is the frame's: the kernel has routed it
/// towards the gateway.
#[inline(always)]
fn encapsulate<F: Frame>(
    frame: &mut F,
    config: &Config,
    packet: &Ordinary,
    row: &DirectPod,
    packets: u32,
) -> Option<()> {
    let mut buffer = Zeroed::<BUFFER>::new();
    let tunnel = buffer.0.get_mut(PAD..).and_then(<[u8]>::first_chunk_mut::<INNER_IP>)?;
    let mut headers = Window(tunnel);
    let ethernet = View(frame.view::<{ eth::HEADER_LEN }>()?);
    headers.set_word::<0>(ethernet.word::<0>());
    headers.set_wide::<2>(ethernet.wide::<2>());
    headers.set_wide::<6>(ethernet.wide::<6>());
    headers.set_wide::<10>(ethernet.wide::<10>());
    let to = u32::from_ne_bytes(row.gateway);
    outer::write(
        &mut headers,
        config,
        packet,
        &Tunnel { to, inner: Inner::FROM_WORKER, is_summed: packets == 1 },
    );
    frame.grow_head(Room::Tunnel).and_then(|()| frame.store(0, headers.0))
}
