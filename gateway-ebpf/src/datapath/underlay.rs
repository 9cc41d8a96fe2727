//! Frames arriving on the underlay NIC: Geneve from the workers (on a gateway) and from gateways (on a worker).

use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_XDP_TO_EXTERNAL, Config, Eip, Pod, VTEP_GATEWAY};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::icmp::RouterError;

use super::geneve::{self, Hop, Tunnelled};
use super::nat::{self, Rewrite};
use super::packet;
use super::{Action, Direction, Env, Exit, Frame, Outcome, Step, can_send, icmp, on_external_link, pmtu};

/// From an EIP pod: translate and send on. For an EIP pod on this node: hand to the kernel. Else not ours, or forged.
#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let ethernet = packet::ethernet(frame)?;
    if ethernet.ethertype != eth::IPV4 {
        return Err(Outcome::pass(Verdict::PassNotIpv4));
    }
    let tunnelled = geneve::inspect(frame, env, config)?;
    let inner = &tunnelled.packet.header;
    match env.pod(inner.source()) {
        Some(pod) if pod.vtep == tunnelled.from => return from_pod(frame, env, config, &tunnelled, pod),
        Some(_) | None => {}
    }
    if tunnelled.vtep_flags & VTEP_GATEWAY == 0 {
        return Err(Outcome::drop(Verdict::DropSpoofedSource));
    }
    match env.pod(inner.destination()) {
        Some(pod) if pod.vtep == [0; 4] => to_pod(frame, env, &ethernet, &tunnelled, pod),
        Some(_) | None => Err(Outcome::drop(Verdict::DropNoSuchPod)),
    }
}

/// On the worker: out of the tunnel, into the kernel, as if the gateway had routed it here.
#[inline(always)]
fn to_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    ethernet: &eth::Header,
    tunnelled: &Tunnelled,
    pod: &Pod,
) -> Step<Outcome> {
    let packets = frame.segments();
    let packet = geneve::decapsulate(frame, tunnelled, *ethernet)?;
    env.count_eip(pod.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::pass(Verdict::FromGateway))
}

/// On the gateway: where does the pod's packet go?
#[inline(always)]
fn from_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    pod: &Pod,
) -> Step<Outcome> {
    let destination = tunnelled.packet.header.destination();
    if tunnelled.packet.header.ttl() <= 1 {
        return error_to_pod(frame, env, config, tunnelled, RouterError::TimeExceeded);
    }
    match env.eip(destination) {
        Some(eip) if eip.vtep == [0; 4] => inject(frame, env, config, tunnelled, pod, Some(eip)),
        Some(eip) => to_other_eip(frame, env, config, tunnelled, pod, eip),
        None if destination == config.nic_ip => inject(frame, env, config, tunnelled, pod, None),
        None => to_external(frame, env, config, tunnelled, pod),
    }
}

#[inline(always)]
fn to_external<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    pod: &Pod,
) -> Step<Outcome> {
    if pmtu::exceeds(frame, &tunnelled.packet, config.external_mtu)? {
        let error = RouterError::FragmentationNeeded { mtu: config.external_mtu as u16 };
        return error_to_pod(frame, env, config, tunnelled, error);
    }
    can_send::<F>(config, CONFIG_XDP_TO_EXTERNAL)?;
    let destination = tunnelled.packet.header.destination();
    let next_hop = if on_external_link(config, destination) { destination } else { config.physical_gateway };
    let (mac, exit) = match env.neighbor(next_hop) {
        Some(neighbor) => (Mac(neighbor.mac), Exit::of(Action::Redirect, config.external_ifindex)),
        None if F::KERNEL_RESOLVES => (
            Mac([0; 6]),
            Exit { action: Action::RedirectNeighbor, ifindex: config.router_port_ifindex, next_hop },
        ),
        None => return Err(Outcome::pass(Verdict::PassUnresolved)),
    };
    let packets = frame.segments();
    let ethernet = eth::Header { destination: mac, source: Mac(config.nic_mac), ethertype: eth::IPV4 };
    let mut packet = geneve::decapsulate(frame, tunnelled, ethernet)?;
    pmtu::clamp_mss(frame, &packet, config.tunnel_mtu);
    nat::rewrite(frame, &mut packet, Rewrite { source: Some(pod.eip), destination: None, hop: true })?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToExternal, exit))
}

/// From an EIP pod to an EIP on another node, or on its own: turned round, both addresses translated.
#[inline(always)]
fn to_other_eip<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    pod: &Pod,
    eip: &Eip,
) -> Step<Outcome> {
    let hop = geneve::hop_to::<F, E>(env, config, eip.vtep)?;
    let packets = frame.segments();
    let mut packet = geneve::decapsulate(frame, tunnelled, hop.tunnel.outer)?;
    pmtu::clamp_mss(frame, &packet, config.tunnel_mtu);
    let both = Rewrite { source: Some(pod.eip), destination: Some(eip.pod_ip), hop: true };
    nat::rewrite(frame, &mut packet, both)?;
    geneve::encapsulate(frame, config, &packet, &hop.tunnel)?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToEip, hop.exit))
}

/// From an EIP pod elsewhere to an EIP pod on this node, or to the router port: the kernel takes it at the router
/// port, where the reverse path is the one it expects. Only TC can put it there.
#[inline(always)]
fn inject<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    pod: &Pod,
    eip: Option<&Eip>,
) -> Step<Outcome> {
    if !F::KERNEL_RESOLVES {
        return Err(Outcome::pass(Verdict::PassToTwin));
    }
    let nic_mac = Mac(config.nic_mac);
    let packets = frame.segments();
    let ethernet = eth::Header { destination: nic_mac, source: Mac::TUNNEL_WORKER, ethertype: eth::IPV4 };
    let mut packet = geneve::decapsulate(frame, tunnelled, ethernet)?;
    let destination = eip.map(|eip| eip.pod_ip);
    // To a pod the kernel is the router and takes its hop itself.
    nat::rewrite(frame, &mut packet, Rewrite { source: Some(pod.eip), destination, hop: false })?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    if let Some(eip) = eip {
        env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    }
    let verdict = if eip.is_some() { Verdict::ToEip } else { Verdict::ToNicIp };
    Ok(Outcome::new(verdict, Exit::of(Action::Inject, config.router_port_ifindex)))
}

/// An ICMP error about a pod's packet, back through the tunnel it came by.
#[inline(always)]
fn error_to_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    error: RouterError,
) -> Step<Outcome> {
    let (verdict, silent) = match error {
        RouterError::TimeExceeded => (Verdict::TimeExceeded, Verdict::DropExpired),
        RouterError::FragmentationNeeded { .. } => (Verdict::FragmentationNeeded, Verdict::DropTooBig),
    };
    let Hop { tunnel, exit } = geneve::hop_to::<F, E>(env, config, tunnelled.from)?;
    let packet = geneve::decapsulate(frame, tunnelled, tunnel.outer)?;
    let report = icmp::report(frame, config, &packet, error, tunnel.outer, silent)?;
    geneve::encapsulate(frame, config, &report, &tunnel)?;
    Ok(Outcome::new(verdict, exit))
}
