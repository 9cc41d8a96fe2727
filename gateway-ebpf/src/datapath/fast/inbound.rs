//! From a client to a pod on a worker.

use gateway_common::tables::{
    CONFIG_OWNER, CONFIG_XDP_PIECES_TO_UNDERLAY, CONFIG_XDP_TO_UNDERLAY, Config, DirectEip, direct_row,
};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::geneve::INNER_IP;

use super::outer::{self, Inner, Tunnel};
use super::packet::{Field, HEADERS, Headers, Ordinary, unpadded, whole};
use super::window::{View, Window};
use super::{eip, ended, is_eip, pieces};
use crate::datapath::{Action, Direction, Env, Exit, Frame, Outcome, Room, inside};

#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Option<Outcome> {
    let (len, in_pieces) = whole(frame, View(frame.view()?));
    let needed = CONFIG_OWNER | CONFIG_XDP_TO_UNDERLAY | pieces(in_pieces, CONFIG_XDP_PIECES_TO_UNDERLAY);
    if config.flags & needed != needed {
        return None;
    }
    let mut headers = Window(frame.window::<HEADERS>()?);
    if !is_to(headers.view(), &config.nic_mac) {
        return None;
    }
    let unpadded = unpadded(headers.view(), len);
    let mut packet = Ordinary::read(headers.view(), unpadded)?;
    if packet.ttl <= 1
        || u32::from(packet.total_len) > config.tunnel_mtu
        || packet.source.to_ne_bytes() == config.nic_ip
        || packet.is_martian(config)
        || inside::may_be(config, packet.source)
        || is_eip(env, config, packet.source)
    {
        return None;
    }
    // Where it can, the agent gives an EIP the slot of its direct row: the two then come from memory together.
    env.expect_count(direct_row(packet.destination.to_ne_bytes(), config.direct_mask));
    let row = eip(env, config, packet.destination).filter(|row| row.ifindex != 0)?;
    packet.translate(&mut headers, Field::Destination, u32::from_ne_bytes(row.pod_ip));
    if trim(frame, len, unpadded).and_then(|()| encapsulate(frame, config, &packet, row)).is_none() {
        return ended(env, Outcome::drop(Verdict::DropNoRoom), 1, len);
    }
    env.count_eip(row.slot, Direction::In, 1, packet.frame_len());
    ended(env, Outcome::new(Verdict::ToWorker, Exit::of(Action::Redirect, row.ifindex)), 1, len)
}

/// Cuts off Ethernet's padding, which must not travel into the tunnel.
#[inline(always)]
fn trim<F: Frame>(frame: &mut F, len: u32, unpadded: u32) -> Option<()> {
    if len > unpadded { frame.truncate(unpadded) } else { Some(()) }
}

/// Whether the frame is to a station.
#[inline(always)]
fn is_to(headers: Headers<'_>, mac: &[u8; 6]) -> bool {
    let [m0, m1, m2, m3, m4, m5] = *mac;
    headers.wide::<0>() == u32::from_ne_bytes([m0, m1, m2, m3])
        && headers.word::<4>() == u16::from_ne_bytes([m4, m5])
}

/// Grows the frame by the tunnel's headers and writes them.
#[inline(always)]
fn encapsulate<F: Frame>(frame: &mut F, config: &Config, packet: &Ordinary, row: &DirectEip) -> Option<()> {
    frame.grow_head(Room::Tunnel)?;
    let mut headers = Window(frame.window::<INNER_IP>()?);
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (row.destination_mac, row.source_mac);
    headers.set_wide::<0>(u32::from_ne_bytes([d0, d1, d2, d3]));
    headers.set_wide::<4>(u32::from_ne_bytes([d4, d5, s0, s1]));
    headers.set_wide::<8>(u32::from_ne_bytes([s2, s3, s4, s5]));
    headers.set_word::<{ eth::ETHERTYPE }>(eth::IPV4.to_be());
    let to = u32::from_ne_bytes(row.vtep);
    outer::write(&mut headers, config, packet, &Tunnel { to, inner: Inner::FROM_GATEWAY, is_summed: true });
    Some(())
}
