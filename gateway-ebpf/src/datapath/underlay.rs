//! Frames arriving on the underlay NIC: Geneve from the workers (on a gateway) and from gateways (on a worker).

use gateway_common::addr::Mac;
use gateway_common::tables::{Config, Eip, Pod, VTEP_GATEWAY};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;
use gateway_common::wire::icmp::RouterError;

use super::arrival::{self, Tunnelled};
use super::geneve::{self, Hop};
use super::nat::{self, Sender};
use super::packet;
use super::pmtu::{self, Fit};
use super::quote;
use super::{
    Action, Direction, Env, Exit, Frame, Nic, Outcome, Step, Way, can_send, fragment, icmp, inside, martian,
    on_external_link, options, resolve,
};

/// From an EIP pod: translate and send on. For an EIP pod on this node: hand to the kernel. Else not ours, or forged.
#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let ethernet = packet::ethernet(frame)?;
    if ethernet.ethertype != eth::IPV4 {
        return Err(Outcome::pass(Verdict::PassNotIpv4));
    }
    let mut tunnelled = arrival::inspect(frame, env, config)?;
    let inner = &tunnelled.packet.header;
    martian::refuse(config, inner)?;
    options::refuse(frame, &tunnelled.packet)?;
    let sender = match env.pod(inner.source()) {
        Some(pod) if pod.vtep == tunnelled.from => Sender::pod(inner.source(), pod),
        Some(_) | None => {
            let from_gateway = tunnelled.vtep_flags & VTEP_GATEWAY != 0;
            match env.pod(inner.destination()) {
                Some(pod) if from_gateway && pod.vtep == [0; 4] => {
                    inside::refuse(env, inner.source())?;
                    return to_pod(frame, env, &ethernet, &mut tunnelled, pod);
                }
                Some(_) | None => router_on_the_way(frame, env, config, &tunnelled, from_gateway)?,
            }
        }
    };
    from_pod(frame, env, config, &mut tunnelled, &sender)
}

/// The node of a pod, or a router of its CNI, with an ICMP error about a packet to that pod.
#[inline(always)]
fn router_on_the_way<F: Frame, E: Env>(
    frame: &F,
    env: &E,
    config: &Config,
    tunnelled: &Tunnelled,
    from_gateway: bool,
) -> Step<Sender> {
    let pod_ip = quote::destination(frame, &tunnelled.packet);
    match env.pod(pod_ip) {
        Some(pod) if pod.vtep == tunnelled.from => Ok(Sender::router(pod_ip, pod, config)),
        Some(_) | None if from_gateway => Err(Outcome::drop(Verdict::DropNoSuchPod)),
        Some(_) | None => Err(Outcome::drop(Verdict::DropSpoofedSource)),
    }
}

/// On the worker: out of the tunnel, into the kernel, as if the gateway had routed it here.
#[inline(always)]
fn to_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    ethernet: &eth::Header,
    tunnelled: &mut Tunnelled,
    pod: &Pod,
) -> Step<Outcome> {
    let packets = frame.segments();
    arrival::decapsulate(frame, tunnelled, &ethernet.emit())?;
    let packet = &mut tunnelled.packet;
    frame.store(packet.ip, &packet.header.0).ok_or(Outcome::drop(Verdict::DropNoRoom))?;
    env.count_eip(pod.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::pass(Verdict::FromGateway))
}

/// On the gateway: where does the pod's packet go?
#[inline(always)]
fn from_pod<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &mut Tunnelled,
    sender: &Sender,
) -> Step<Outcome> {
    let destination = tunnelled.packet.header.destination();
    let eip = env.eip(destination);
    // It neither translates nor answers what it cannot send.
    if config.external_ifindex == 0 && eip.is_none_or(|eip| eip.vtep == [0; 4]) {
        return Err(Outcome::drop(Verdict::DropNoExternal));
    }
    // What is for the router itself goes no further hop (RFC 1812 section 4.2.2.9).
    if tunnelled.packet.header.ttl() <= 1 && destination != config.nic_ip {
        return error_to_pod(frame, env, config, tunnelled, RouterError::TimeExceeded);
    }
    match eip {
        Some(eip) if eip.vtep == [0; 4] => inject(frame, env, config, tunnelled, sender, Some(eip)),
        Some(eip) => to_other_eip(frame, env, config, tunnelled, sender, eip),
        None if destination == config.nic_ip => inject(frame, env, config, tunnelled, sender, None),
        None => to_external(frame, env, config, tunnelled, sender),
    }
}

#[inline(always)]
fn to_external<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &mut Tunnelled,
    sender: &Sender,
) -> Step<Outcome> {
    let fragment = match pmtu::fit(frame, &tunnelled.packet, config.external_mtu) {
        Fit::Fits => 0,
        Fit::Report => {
            return error_to_pod(frame, env, config, tunnelled, pmtu::too_long(config.external_mtu)?);
        }
        Fit::Fragment => {
            fragment::number(frame, env, config, (&tunnelled.packet, config.external_mtu), Way::Arriving)?
        }
    };
    can_send(frame, config, Nic::EXTERNAL)?;
    let destination = tunnelled.packet.header.destination();
    let next_hop = if on_external_link(config, destination) { destination } else { config.physical_gateway };
    let (mac, exit) = match env.neighbor(next_hop) {
        Some(neighbor) => (Mac(neighbor.mac), Exit::of(Action::Redirect, config.external_ifindex)),
        None => (Mac([0; 6]), resolve::<F, E>(env, config, config.router_port_ifindex, next_hop)?),
    };
    let packets = frame.segments();
    let ethernet = eth::Header { destination: mac, source: Mac(config.nic_mac), ethertype: eth::IPV4 };
    arrival::decapsulate(frame, tunnelled, &ethernet.emit())?;
    let packet = &mut tunnelled.packet;
    if F::KERNEL_RESOLVES && fragment > 0 {
        fragment::cut(frame, packet, config.external_mtu, fragment)?;
    }
    pmtu::clamp_mss(frame, packet, config);
    nat::rewrite(frame, packet, sender.rewrite(None, true))?;
    env.count_eip(sender.slot, Direction::Out, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToExternal, exit))
}

/// From an EIP pod to an EIP on another node, or on its own: turned round, both addresses translated.
#[inline(always)]
fn to_other_eip<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    tunnelled: &mut Tunnelled,
    sender: &Sender,
    eip: &Eip,
) -> Step<Outcome> {
    let hop = geneve::hop_to(frame, env, config, eip.vtep)?;
    let packets = frame.segments();
    arrival::decapsulate(frame, tunnelled, &hop.tunnel.outer)?;
    let packet = &mut tunnelled.packet;
    pmtu::clamp_mss(frame, packet, config);
    nat::rewrite(frame, packet, sender.rewrite(Some(eip.pod_ip), true))?;
    geneve::encapsulate(frame, config, packet, &hop.tunnel)?;
    env.count_eip(sender.slot, Direction::Out, packets, packet.frame_len());
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
    tunnelled: &mut Tunnelled,
    sender: &Sender,
    eip: Option<&Eip>,
) -> Step<Outcome> {
    if !F::KERNEL_RESOLVES {
        return Err(Outcome::pass(Verdict::PassToTwin));
    }
    let nic_mac = Mac(config.nic_mac);
    let packets = frame.segments();
    let ethernet = eth::Header { destination: nic_mac, source: Mac::TUNNEL_WORKER, ethertype: eth::IPV4 };
    arrival::decapsulate(frame, tunnelled, &ethernet.emit())?;
    let packet = &mut tunnelled.packet;
    let destination = eip.map(|eip| eip.pod_ip);
    // The way back is by the tunnel.
    pmtu::clamp_mss(frame, packet, config);
    // To a pod the kernel is the router and takes its hop itself.
    nat::rewrite(frame, packet, sender.rewrite(destination, false))?;
    env.count_eip(sender.slot, Direction::Out, packets, packet.frame_len());
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
    tunnelled: &mut Tunnelled,
    error: RouterError,
) -> Step<Outcome> {
    let verdict = match error {
        RouterError::TimeExceeded => Verdict::TimeExceeded,
        RouterError::FragmentationNeeded { .. } => Verdict::FragmentationNeeded,
    };
    let Hop { tunnel, exit } = geneve::hop_to(frame, env, config, tunnelled.from)?;
    icmp::permit(frame, env, config, &tunnelled.packet, error)?;
    arrival::decapsulate(frame, tunnelled, &tunnel.outer)?;
    let packet = &mut tunnelled.packet;
    icmp::report(frame, config, packet, error, &tunnel.outer)?;
    geneve::encapsulate(frame, config, packet, &tunnel)?;
    Ok(Outcome::new(verdict, exit))
}
