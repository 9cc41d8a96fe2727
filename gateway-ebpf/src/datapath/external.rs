//! Frames arriving on the external NIC of the gateway that owns the external network.

use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_OWNER, Config, Eip};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::icmp::RouterError;

use super::nat::{self, Rewrite};
use super::packet::{self, Packet};
use super::pmtu::{self, Fit};
use super::quote::Swap;
use super::{
    Direction, Env, Exit, Frame, Nic, Outcome, Step, Way, arp, can_send, fragment, geneve, icmp, inside,
    martian, options,
};

/// ARP and echo are answered, packets to EIPs are sent to their pods, the rest is the kernel's.
#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    if config.flags & CONFIG_OWNER == 0 {
        return Err(Outcome::pass(Verdict::PassDisabled));
    }
    match arrival(frame, config) {
        Arrival::Arp => arp::outside(frame, env, config),
        Arrival::Ours => ipv4(frame, env, config),
        Arrival::Elsewhere => Err(Outcome::pass(Verdict::PassNotForUs)),
        Arrival::Other => Err(Outcome::pass(Verdict::PassNotIpv4)),
        Arrival::Short => Err(Outcome::drop(Verdict::DropMalformed)),
    }
}

/// What a frame's Ethernet header says. Without data, so that it travels in a register.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Arrival {
    Arp,
    /// IPv4 to our MAC.
    Ours,
    /// IPv4 or ARP to another station. A switch floods: that is not ours to answer a second time.
    Elsewhere,
    Other,
    Short,
}

/// A function of its own, for the stack's sake.
#[inline(never)]
fn arrival<F: Frame>(frame: &F, config: &Config) -> Arrival {
    match packet::ethernet(frame) {
        Ok(ethernet) => {
            let to_us = ethernet.destination == Mac(config.nic_mac);
            match ethernet.ethertype {
                eth::IPV4 if to_us => Arrival::Ours,
                // To all, or to our MAC, when the sender checks that we are still there.
                eth::ARP if to_us || ethernet.destination.is_multicast() => Arrival::Arp,
                eth::IPV4 | eth::ARP => Arrival::Elsewhere,
                _ => Arrival::Other,
            }
        }
        Err(_) => Arrival::Short,
    }
}

#[inline(always)]
fn ipv4<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let packet = Packet::behind_ethernet(frame)?;
    let destination = packet.header.destination();
    let eip = env.eip(destination);
    if eip.is_some() || destination == config.nic_ip {
        martian::refuse_outside(config, &packet.header)?;
        inside::refuse_outside(env, packet.header.source())?;
        options::refuse(frame, &packet)?;
    }
    match eip {
        Some(_) if packet.header.ttl() <= 1 => expired(frame, env, config, packet),
        Some(eip) if eip.vtep == [0; 4] => to_local_pod(frame, env, packet, eip),
        Some(eip) => to_worker(frame, env, config, packet, eip),
        None if destination == config.nic_ip => icmp::echo(frame, config, &packet),
        // The kernel would route it inwards. TC cannot tell: it sees what XDP has translated, too.
        None if !F::KERNEL_RESOLVES && inside::may_be(config, u32::from_ne_bytes(destination)) => {
            inside::refuse_inwards(env, config, destination)?;
            Err(Outcome::pass(Verdict::PassNotForUs))
        }
        None => Err(Outcome::pass(Verdict::PassNotForUs)),
    }
}

/// The header of an answer to where the frame came from.
#[inline(always)]
fn turned<F: Frame>(frame: &F) -> Step<[u8; eth::HEADER_LEN]> {
    let ethernet = packet::ethernet(frame)?;
    Ok(eth::Header { destination: ethernet.source, source: ethernet.destination, ..ethernet }.emit())
}

/// The kernel would say so for a pod on this node too, but by a route of its own and from an address of its own.
#[inline(always)]
fn expired<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config, mut packet: Packet) -> Step<Outcome> {
    can_send(frame, config, Nic::EXTERNAL)?;
    let (error, turned) = (RouterError::TimeExceeded, turned(frame)?);
    icmp::permit(frame, env, config, &packet, error)?;
    icmp::report(frame, config, &mut packet, error, &turned)?;
    Ok(Outcome::new(Verdict::TimeExceeded, Exit::REFLECT))
}

/// The pod is on this node: the kernel, as the router, takes it from here (TTL included).
#[inline(always)]
fn to_local_pod<F: Frame, E: Env>(frame: &mut F, env: &E, mut packet: Packet, eip: &Eip) -> Step<Outcome> {
    nat::rewrite(
        frame,
        &mut packet,
        Rewrite { source: None, destination: Some(eip.pod_ip), quoted: Swap::NONE, hop: false },
    )?;
    env.count_eip(eip.slot, Direction::In, frame.segments(), packet.frame_len());
    Ok(Outcome::pass(Verdict::ToLocalPod))
}

#[inline(always)]
fn to_worker<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    mut packet: Packet,
    eip: &Eip,
) -> Step<Outcome> {
    match pmtu::fit(frame, &packet, config.tunnel_mtu) {
        Fit::Fits => {}
        Fit::Report => {
            can_send(frame, config, Nic::EXTERNAL)?;
            let error = pmtu::too_long(config.tunnel_mtu)?;
            icmp::permit(frame, env, config, &packet, error)?;
            let turned = turned(frame)?;
            icmp::report(frame, config, &mut packet, error, &turned)?;
            return Ok(Outcome::new(Verdict::FragmentationNeeded, Exit::REFLECT));
        }
        Fit::Fragment => {
            let number = fragment::number(frame, env, config, (&packet, config.tunnel_mtu), Way::Arriving)?;
            fragment::cut(frame, &mut packet, config.tunnel_mtu, number)?;
        }
    }
    let hop = geneve::hop_to(frame, env, config, eip.vtep)?;
    packet.trim(frame)?;
    pmtu::clamp_mss(frame, &packet, config);
    nat::rewrite(
        frame,
        &mut packet,
        Rewrite { source: None, destination: Some(eip.pod_ip), quoted: Swap::NONE, hop: true },
    )?;
    let packets = frame.segments();
    geneve::encapsulate(frame, config, &packet, &hop.tunnel)?;
    env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToWorker, hop.exit))
}
