//! Reading what comes out of the tunnel (RFC 8926), and taking the tunnel off.

use gateway_common::csum::Sum;
use gateway_common::ecn;
use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::geneve::{self as wire, INNER_IP, OVERHEAD};
use gateway_common::wire::{eth, ipv4, l4};

use super::geneve::{self, L4Sum};
use super::packet::Packet;
use super::sum;
use super::{Env, Frame, Outcome, Step};

/// Offset of the outer addresses.
const OUTER_ADDRESSES: usize = eth::HEADER_LEN + 12;
/// Offset of the outer UDP header.
const OUTER_UDP: usize = eth::HEADER_LEN + ipv4::HEADER_LEN;
/// What everything under a right checksum sums to.
const VALID: u16 = 0xffff;

/// A packet found in our tunnel.
#[derive(Clone, Copy)]
pub(super) struct Tunnelled {
    /// Source VTEP.
    pub(super) from: [u8; 4],
    /// The sender's row of `vteps`: its flags.
    pub(super) vtep_flags: u32,
    /// Bytes from the outer Ethernet header to the inner one.
    pub(super) depth: usize,
    /// The inner packet, where it stands in the tunnelled frame; with the mark of congestion that the outer header has,
    /// which the frame's bytes lack.
    pub(super) packet: Packet,
}

/// Reads a frame that arrived on the underlay. Nothing is changed.
#[inline(always)]
pub(super) fn inspect<F: Frame, E: Env>(frame: &F, env: &E, config: &Config) -> Step<Tunnelled> {
    if is_foreign(frame, config) {
        return Err(Outcome::pass(Verdict::PassNotTunnel));
    }
    let packet = Packet { ip: 0, header: ipv4::Header([0; ipv4::HEADER_LEN]) };
    let mut tunnelled = Tunnelled { from: [0; 4], vtep_flags: 0, depth: 0, packet };
    match read(frame, env, config, &mut tunnelled) {
        None => {}
        Some(end) if matches!(end, Verdict::PassNotTunnel | Verdict::PassForeignVni) => {
            return Err(Outcome::pass(end));
        }
        Some(end) => return Err(Outcome::drop(end)),
    }
    let l4 = geneve::l4_sum(frame, &tunnelled.packet);
    if checksum_follows(frame, &tunnelled, l4) || checksum_holds(frame) {
        Ok(tunnelled)
    } else {
        Err(Outcome::drop(Verdict::DropOuterChecksum))
    }
}

/// What most of a node's traffic shows by two fields: it is no UDP, or for another port. [`find`] looks at the rest.
#[inline(always)]
fn is_foreign<F: Frame>(frame: &F, config: &Config) -> bool {
    let udp = match frame.load(eth::HEADER_LEN + ipv4::TTL) {
        Some([_ttl, protocol]) => protocol == ipv4::UDP,
        None => false,
    };
    !udp || frame.load(OUTER_UDP + l4::DESTINATION_PORT) != Some(config.geneve_port)
}

/// A function of its own, for the stack's sake: `None` when `found` is filled in, else the frame's end.
#[inline(never)]
fn read<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, found: &mut Tunnelled) -> Option<Verdict> {
    find(frame, env, config, found).err()
}

#[inline(always)]
fn find<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, found: &mut Tunnelled) -> Result<(), Verdict> {
    const NOT_OURS: Verdict = Verdict::PassNotTunnel;
    let outer = ipv4::Header(frame.load(eth::HEADER_LEN).ok_or(NOT_OURS)?);
    let is_candidate = outer.0[0] == 0x45
        && outer.protocol() == ipv4::UDP
        && outer.destination() == config.local_vtep
        && !outer.is_fragment()
        // What follows a shorter packet is padding.
        && usize::from(outer.payload_len()) >= l4::UDP_LEN + wire::HEADER_LEN;
    if !is_candidate {
        return Err(NOT_OURS);
    }
    let b: [u8; 16] = frame.load(eth::HEADER_LEN + ipv4::HEADER_LEN).ok_or(NOT_OURS)?;
    if [b[2], b[3]] != config.geneve_port {
        return Err(NOT_OURS);
    }
    let header = wire::Header::parse(&[b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
    if header.vni != config.vni {
        return Err(Verdict::PassForeignVni);
    }
    found.from = outer.source();
    found.vtep_flags = env.vtep(outer.source()).ok_or(Verdict::DropUnknownVtep)?.flags;
    if header.version != 0 {
        return Err(Verdict::DropGeneveVersion);
    }
    if header.control {
        return Err(Verdict::DropGeneveControl);
    }
    if header.critical {
        return Err(Verdict::DropCriticalOption);
    }
    found.depth = OVERHEAD + header.options_len;
    let inner_type: [u8; 2] = frame.load(found.depth + 12).ok_or(Verdict::DropMalformed)?;
    if header.protocol_type != eth::TEB || u16::from_be_bytes(inner_type) != eth::IPV4 {
        return Err(Verdict::DropNotIpv4Inside);
    }
    found.packet = Packet::at(frame, found.depth + eth::HEADER_LEN).map_err(|end| end.verdict)?;
    fits(frame, &outer, u16::from_be_bytes([b[4], b[5]]), &found.packet)?;
    mark(&outer, &mut found.packet)
}

/// Lengths do not contradict each other: of the frame, of the outer packet, of its UDP datagram, of the inner packet.
#[inline(always)]
fn fits<F: Frame>(frame: &F, outer: &ipv4::Header, udp_len: u16, inner: &Packet) -> Result<(), Verdict> {
    let available = frame.frame_len().saturating_sub(eth::HEADER_LEN as u32);
    let end = OUTER_UDP as u32 + u32::from(udp_len);
    if outer.is_sound(available) && outer.payload_len() == udp_len && inner.frame_len() <= end {
        Ok(())
    } else {
        Err(Verdict::DropMalformed)
    }
}

/// Carries a mark of congestion on the outer header to the inner one (RFC 6040 section 4.2). The inner DSCP stays (the
/// pipe model of RFC 2983).
#[inline(always)]
fn mark(outer: &ipv4::Header, inner: &mut Packet) -> Result<(), Verdict> {
    let tos = inner.header.tos();
    let ecn = ecn::decapsulated(outer.tos() & ecn::MASK, tos & ecn::MASK).ok_or(Verdict::DropCongestion)?;
    if ecn != tos & ecn::MASK {
        inner.header.set_tos(tos & !ecn::MASK | ecn);
    }
    Ok(())
}

/// Whether the outer UDP checksum is none, or the one that follows from the headers if the inner L4 checksum is right
/// (local checksum offload, the other way round). It need not be: then the inner checksum, which we never repair, is
/// wrong at the pod or its peer too, who will see it. `false` when the headers do not tell.
#[inline(never)]
fn checksum_follows<F: Frame>(frame: &F, tunnelled: &Tunnelled, l4: L4Sum) -> bool {
    // The kernel writes the checksums of a GSO packet's segments, later.
    let Some([l0, l1, c0, c1]) = frame.load(OUTER_UDP + 4) else { return false };
    if frame.segments() > 1 || [c0, c1] == [0, 0] {
        return true;
    }
    let udp_len = u16::from_be_bytes([l0, l1]);
    // A wrong inner header would make up for its addresses in the inner pseudo-header.
    let is_plain = tunnelled.depth == OVERHEAD
        && Sum::ZERO.bytes(&tunnelled.packet.header.0).fold() == VALID
        && tunnelled.packet.header.header_len() == ipv4::HEADER_LEN
        && u32::from(udp_len) + OUTER_UDP as u32 == tunnelled.packet.frame_len();
    if !is_plain {
        return false;
    }
    // From the outer addresses, half of the pseudo-header, to the inner IPv4 header's end.
    match (sum::chunk(frame, OUTER_ADDRESSES, INNER_IP + ipv4::HEADER_LEN - OUTER_ADDRESSES), l4.get()) {
        (Some(headers), Some(l4)) => {
            let sum = Sum::of_native(headers).word(u16::from(ipv4::UDP)).word(udp_len);
            sum.word(l4).fold() == VALID
        }
        _ => false,
    }
}

/// Whether the outer UDP checksum is right, by all the bytes. Far from every packet: see [`checksum_follows`].
#[inline(never)]
fn checksum_holds<F: Frame>(frame: &F) -> bool {
    whole_sum(frame).is_some_and(|sum| sum.fold() == VALID)
}

/// The sum over the outer pseudo-header and datagram; `None` when that is too long.
#[inline(always)]
fn whole_sum<F: Frame>(frame: &F) -> Option<Sum> {
    let addresses: [u8; 8] = frame.load(OUTER_ADDRESSES)?;
    let [l0, l1] = frame.load(OUTER_UDP + 4)?;
    let len = u16::from_be_bytes([l0, l1]);
    let pseudo = Sum::ZERO.bytes(&addresses).word(u16::from(ipv4::UDP)).word(len);
    Some(pseudo.word(sum::over(frame, OUTER_UDP, len as usize)?.fold()))
}

/// Takes the tunnel's headers off and writes `ethernet` as the frame's header. The inner packet then starts at
/// offset 14, and its view says so: one view, since the stack is short.
#[inline(always)]
pub(super) fn decapsulate<F: Frame>(
    frame: &mut F,
    tunnelled: &mut Tunnelled,
    ethernet: &[u8; eth::HEADER_LEN],
) -> Step<()> {
    tunnelled.packet.ip = eth::HEADER_LEN;
    match frame.shrink_head(tunnelled.depth).and_then(|()| frame.store(0, ethernet)) {
        Some(()) => Ok(()),
        None => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}
