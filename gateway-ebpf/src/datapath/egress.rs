//! Packets the kernel has routed out: of EIP pods on this node, to the gateway or (on the gateway) to the world.

use gateway_common::addr::Mac;
use gateway_common::tables::{Config, Eip, Pod};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::icmp::RouterError;

use super::geneve::{self, Tunnel};
use super::nat::{self, Rewrite};
use super::packet::{self, Packet};
use super::{Action, Direction, Env, Exit, Frame, Outcome, Step, arp, icmp, pmtu};

/// Underlay NIC: an EIP pod's packet to the world goes through the tunnel to the gateway. The kernel has resolved
/// the next hop towards the gateway, taken the TTL and answered what is too big.
#[inline(always)]
pub(super) fn underlay<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let ethernet = packet::ethernet(frame)?;
    if ethernet.ethertype != eth::IPV4 {
        return Err(Outcome::pass(Verdict::PassNotIpv4));
    }
    let packet = Packet::at(frame, eth::HEADER_LEN)?;
    let pod = match env.pod(packet.header.source()) {
        Some(pod) if pod.vtep == [0; 4] && pod.gateway != [0; 4] => pod,
        Some(_) | None => return Err(Outcome::pass(Verdict::PassNotPod)),
    };
    if env.is_internal(packet.header.destination()) {
        return Err(Outcome::pass(Verdict::PassInternal));
    }
    if packet.header.destination() == pod.eip {
        return to_itself(frame, env, config, (&ethernet, packet), pod);
    }
    packet.trim(frame)?;
    let tunnel = Tunnel {
        outer: ethernet,
        to: pod.gateway,
        inner_source: Mac::TUNNEL_WORKER,
        inner_destination: Mac::TUNNEL_GATEWAY,
    };
    let packets = frame.segments();
    geneve::encapsulate(frame, config, &packet, &tunnel)?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    Ok(Outcome::pass(Verdict::ToGateway))
}

/// A pod that reaches itself by its EIP: turned round here, as the gateway would, and into the kernel again as if the
/// gateway had sent it. A bridge would not send a frame back to the port it came from.
#[inline(always)]
fn to_itself<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    (ethernet, mut packet): (&eth::Header, Packet),
    pod: &Pod,
) -> Step<Outcome> {
    let back = eth::Header { destination: ethernet.source, source: ethernet.destination, ..*ethernet };
    match frame.store(0, &back.emit()) {
        Some(()) => {}
        None => return Err(Outcome::drop(Verdict::DropMalformed)),
    }
    let both = Rewrite { source: Some(pod.eip), destination: Some(packet.header.source()), hop: false };
    let packets = frame.segments();
    nat::rewrite(frame, &mut packet, both)?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    env.count_eip(pod.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToEip, Exit::of(Action::Inject, config.underlay_ifindex)))
}

/// Router port: an EIP pod of this node leaves with its EIP; what goes to an EIP is turned round, since nobody on
/// the external network would answer for it. The kernel has taken the TTL.
#[inline(always)]
pub(super) fn router_port<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let ethernet = packet::ethernet(frame)?;
    match ethernet.ethertype {
        // The kernel asks for an EIP: nobody outside has it, so it is answered here.
        eth::ARP => return arp::answer(frame, env, config, false, inject(config)),
        eth::IPV4 => {}
        _ => return Err(Outcome::pass(Verdict::PassNotIpv4)),
    }
    let mut packet = Packet::at(frame, eth::HEADER_LEN)?;
    let pod = env.pod(packet.header.source()).filter(|pod| pod.vtep == [0; 4]);
    let source = pod.map(|pod| pod.eip);
    let packets = frame.segments();
    let outcome = match (env.eip(packet.header.destination()), pod) {
        (Some(eip), _) => to_eip(frame, env, config, &mut packet, source, eip)?,
        (None, Some(_)) => {
            nat::rewrite(frame, &mut packet, Rewrite { source, destination: None, hop: false })?;
            Outcome::pass(Verdict::ToExternal)
        }
        (None, None) => return Err(Outcome::pass(Verdict::PassNotPod)),
    };
    if let Some(pod) = pod {
        env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    }
    Ok(outcome)
}

/// Into the kernel again, as if it had arrived at the router port.
#[inline(always)]
const fn inject(config: &Config) -> Exit {
    Exit::of(Action::Inject, config.router_port_ifindex)
}

/// From this node to an EIP, here or elsewhere.
#[inline(always)]
fn to_eip<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    packet: &mut Packet,
    source: Option<[u8; 4]>,
    eip: &Eip,
) -> Step<Outcome> {
    let packets = frame.segments();
    let rewrite = Rewrite { source, destination: Some(eip.pod_ip), hop: false };
    if eip.vtep == [0; 4] {
        nat::rewrite(frame, packet, rewrite)?;
        env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
        return Ok(Outcome::new(Verdict::ToEip, inject(config)));
    }
    if pmtu::exceeds(frame, packet, config.tunnel_mtu)? {
        let nic_mac = Mac(config.nic_mac);
        let answer = eth::Header { destination: nic_mac, source: Mac::TUNNEL_WORKER, ethertype: eth::IPV4 };
        let error = RouterError::FragmentationNeeded { mtu: config.tunnel_mtu as u16 };
        icmp::report(frame, config, packet, error, answer, Verdict::DropTooBig)?;
        return Err(Outcome::new(Verdict::FragmentationNeeded, inject(config)));
    }
    let hop = geneve::hop_to::<F, E>(env, config, eip.vtep)?;
    pmtu::clamp_mss(frame, packet, config.tunnel_mtu);
    nat::rewrite(frame, packet, rewrite)?;
    geneve::encapsulate(frame, config, packet, &hop.tunnel)?;
    env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToEip, hop.exit))
}
