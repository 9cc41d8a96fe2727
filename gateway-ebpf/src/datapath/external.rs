//! Frames arriving on the external NIC of the gateway that owns the external network.

use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_OWNER, Config, Eip};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::icmp::RouterError;

use super::nat::{self, Rewrite};
use super::packet::{self, Packet};
use super::{Direction, Env, Exit, Frame, Outcome, Step, arp, geneve, icmp, pmtu};

/// ARP and echo are answered, packets to EIPs are sent to their pods, the rest is the kernel's.
#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    if config.flags & CONFIG_OWNER == 0 {
        return Err(Outcome::pass(Verdict::PassDisabled));
    }
    let ethernet = packet::ethernet(frame)?;
    match ethernet.ethertype {
        eth::ARP => arp::answer(frame, env, config, true, Exit::REFLECT),
        // A switch floods: what was sent to another station is not ours to answer a second time.
        eth::IPV4 if ethernet.destination == Mac(config.nic_mac) => ipv4(frame, env, config, &ethernet),
        eth::IPV4 => Err(Outcome::pass(Verdict::PassNotForUs)),
        _ => Err(Outcome::pass(Verdict::PassNotIpv4)),
    }
}

#[inline(always)]
fn ipv4<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config, ethernet: &eth::Header) -> Step<Outcome> {
    let packet = Packet::at(frame, eth::HEADER_LEN)?;
    let destination = packet.header.destination();
    match env.eip(destination) {
        Some(eip) if eip.vtep == [0; 4] => to_local_pod(frame, env, packet, eip),
        Some(eip) => to_worker(frame, env, config, ethernet, packet, eip),
        None if destination == config.nic_ip => icmp::echo(frame, ethernet, &packet, Exit::REFLECT),
        None => Err(Outcome::pass(Verdict::PassNotForUs)),
    }
}

/// The pod is on this node: the kernel, as the router, takes it from here (TTL included).
#[inline(always)]
fn to_local_pod<F: Frame, E: Env>(frame: &mut F, env: &E, mut packet: Packet, eip: &Eip) -> Step<Outcome> {
    nat::rewrite(frame, &mut packet, Rewrite { source: None, destination: Some(eip.pod_ip), hop: false })?;
    env.count_eip(eip.slot, Direction::In, frame.segments(), packet.frame_len());
    Ok(Outcome::pass(Verdict::ToLocalPod))
}

#[inline(always)]
fn to_worker<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    ethernet: &eth::Header,
    mut packet: Packet,
    eip: &Eip,
) -> Step<Outcome> {
    let answer =
        eth::Header { destination: ethernet.source, source: ethernet.destination, ethertype: eth::IPV4 };
    if packet.header.ttl() <= 1 {
        icmp::report(frame, config, &packet, RouterError::TimeExceeded, answer, Verdict::DropExpired)?;
        return Ok(Outcome::new(Verdict::TimeExceeded, Exit::REFLECT));
    }
    if pmtu::exceeds(frame, &packet, config.tunnel_mtu)? {
        let error = RouterError::FragmentationNeeded { mtu: config.tunnel_mtu as u16 };
        icmp::report(frame, config, &packet, error, answer, Verdict::DropTooBig)?;
        return Ok(Outcome::new(Verdict::FragmentationNeeded, Exit::REFLECT));
    }
    let hop = geneve::hop_to::<F, E>(env, config, eip.vtep)?;
    packet.trim(frame)?;
    pmtu::clamp_mss(frame, &packet, config.tunnel_mtu);
    nat::rewrite(frame, &mut packet, Rewrite { source: None, destination: Some(eip.pod_ip), hop: true })?;
    let packets = frame.segments();
    geneve::encapsulate(frame, config, &packet, &hop.tunnel)?;
    env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToWorker, hop.exit))
}
