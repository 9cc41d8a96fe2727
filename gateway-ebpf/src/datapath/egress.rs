//! Packets the kernel has routed out: of EIP pods on this node, to the gateway or (on the gateway) to the world.

use gateway_common::addr::Mac;
use gateway_common::tables::{CONFIG_OPEN, Config, Eip, Pod};
use gateway_common::verdict::Verdict;
use gateway_common::wire::eth;

use super::geneve::{self, FROM_WORKER, Tunnel};
use super::nat::{self, Rewrite, Sender};
use super::packet::{self, Packet};
use super::pmtu::{self, Fit};
use super::quote::{self, Swap};
use super::{
    Action, Direction, Env, Exit, Frame, Outcome, Step, Way, arp, fragment, icmp, inside, martian, offload,
    options, tunnel_port,
};

/// Underlay NIC: an EIP pod's packet to the world goes through the tunnel to the gateway. The kernel has resolved
/// the next hop towards the gateway, taken the TTL and answered what is too big.
///
/// So does this node's own ICMP error about a packet to such a pod ("fragmentation needed" of the pod's interface, "host
/// unreachable", a NetworkPolicy's refusal): the gateway hides the node. It counts as the pod's.
#[inline(always)]
pub(super) fn underlay<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    match frame.load(eth::ETHERTYPE) {
        Some(ethertype) if u16::from_be_bytes(ethertype) == eth::IPV4 => {}
        Some(_) => return Err(Outcome::pass(Verdict::PassNotIpv4)),
        None => return Err(Outcome::drop(Verdict::DropMalformed)),
    }
    let packet = Packet::behind_ethernet(frame)?;
    tunnel_port::refuse(frame, env, config, &packet)?;
    let local = |pod_ip| env.pod(pod_ip).filter(|pod| pod.vtep == [0; 4] && pod.gateway != [0; 4]);
    let own = local(packet.header.source());
    let pod = match own {
        Some(pod) => pod,
        None => local(reported(frame, &packet)).ok_or(Outcome::pass(Verdict::PassNotPod))?,
    };
    if env.is_internal(packet.header.destination()) {
        return Err(Outcome::pass(Verdict::PassInternal));
    }
    martian::refuse(config, &packet.header)?;
    options::refuse(frame, &packet)?;
    let exit = match own {
        Some(pod) if packet.header.destination() == pod.eip => {
            return to_itself(frame, env, config, packet, pod);
        }
        Some(_) => Exit::PASS,
        // The kernel may have routed it elsewhere.
        None => Exit::of(Action::RedirectNeighbor, config.underlay_ifindex),
    };
    packet.trim(frame)?;
    let packets = frame.segments();
    let outer = frame.load(0).ok_or(Outcome::drop(Verdict::DropMalformed))?;
    let tunnel = Tunnel { outer, to: pod.gateway, inner: FROM_WORKER };
    geneve::encapsulate(frame, config, &packet, &tunnel)?;
    env.count_eip(pod.slot, Direction::Out, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToGateway, exit))
}

/// Where the packet went that an ICMP error of this node's own is about; 0.0.0.0 for anything else. A pod that makes such
/// errors up does not speak for its node.
#[inline(always)]
fn reported<F: Frame>(frame: &F, packet: &Packet) -> [u8; 4] {
    if frame.arrived_on() == 0 { quote::destination(frame, packet) } else { [0; 4] }
}

/// A pod that reaches itself by its EIP: turned round here, as the gateway would, and into the kernel again as if the
/// gateway had sent it. A bridge would not send a frame back to the port it came from.
#[inline(always)]
fn to_itself<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    mut packet: Packet,
    pod: &Pod,
) -> Step<Outcome> {
    let ethernet = packet::ethernet(frame)?;
    let back = eth::Header { destination: ethernet.source, source: ethernet.destination, ..ethernet };
    match frame.store(0, &back.emit()) {
        Some(()) => {}
        None => return Err(Outcome::drop(Verdict::DropMalformed)),
    }
    let pod_ip = packet.header.source();
    let packets = frame.segments();
    nat::rewrite(frame, &mut packet, Sender::pod(pod_ip, pod).rewrite(Some(pod_ip), false))?;
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
        eth::ARP => return arp::inside(frame, env, config, inject(config)),
        eth::IPV4 => {}
        _ => return Err(Outcome::pass(Verdict::PassNotIpv4)),
    }
    let mut packet = Packet::behind_ethernet(frame)?;
    let sender = sender(frame, env, config, &packet);
    let packets = frame.segments();
    let eip = env.eip(packet.header.destination());
    if eip.is_some() || sender.is_some() {
        martian::refuse(config, &packet.header)?;
        options::refuse(frame, &packet)?;
    }
    let outcome = match (eip, sender) {
        (Some(eip), _) => to_eip(frame, env, config, &mut packet, sender, eip)?,
        (None, Some(_)) if config.external_ifindex == 0 => {
            return Err(Outcome::drop(Verdict::DropNoExternal));
        }
        (None, Some(sender)) => {
            nat::rewrite(frame, &mut packet, sender.rewrite(None, false))?;
            Outcome::pass(Verdict::ToExternal)
        }
        (None, None) => {
            // A pod whose EIP is being withdrawn, or that nobody has masqueraded.
            if config.flags & CONFIG_OPEN == 0 {
                inside::refuse(env, packet.header.source())?;
            }
            return Err(Outcome::pass(Verdict::PassNotPod));
        }
    };
    if let Some(sender) = sender {
        env.count_eip(sender.slot, Direction::Out, packets, packet.frame_len());
    }
    Ok(outcome)
}

/// An EIP pod of this node, or this node itself with an ICMP error about a packet to one; `None` for anybody else.
#[inline(always)]
fn sender<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, packet: &Packet) -> Option<Sender> {
    let local = |pod_ip| env.pod(pod_ip).filter(|pod| pod.vtep == [0; 4]);
    let source = packet.header.source();
    match local(source) {
        Some(pod) => Some(Sender::pod(source, pod)),
        None => {
            let pod_ip = reported(frame, packet);
            local(pod_ip).map(|pod| Sender::router(pod_ip, pod, config))
        }
    }
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
    sender: Option<Sender>,
    eip: &Eip,
) -> Step<Outcome> {
    let packets = frame.segments();
    let destination = Some(eip.pod_ip);
    let rewrite = match sender {
        Some(sender) => sender.rewrite(destination, false),
        None => {
            // Its pod would answer it directly, as nobody it knows.
            inside::refuse(env, packet.header.source())?;
            Rewrite { source: None, destination, quoted: Swap::NONE, hop: false }
        }
    };
    if eip.vtep == [0; 4] {
        nat::rewrite(frame, packet, rewrite)?;
        env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
        return Ok(Outcome::new(Verdict::ToEip, inject(config)));
    }
    let fit = pmtu::fit(frame, packet, config.tunnel_mtu);
    if fit == Fit::Fragment {
        let number = fragment::number(frame, env, config, (packet, config.tunnel_mtu), Way::Leaving)?;
        fragment::cut(frame, packet, config.tunnel_mtu, number)?;
    }
    if fit == Fit::Report {
        let nic_mac = Mac(config.nic_mac);
        let answer = eth::Header { destination: nic_mac, source: Mac::TUNNEL_WORKER, ethertype: eth::IPV4 };
        let error = pmtu::too_long(config.tunnel_mtu)?;
        icmp::permit(frame, env, config, packet, error)?;
        // The kernel shortens no packet to less than the checksum that is left to a NIC.
        offload::complete(frame, packet)?;
        icmp::report(frame, config, packet, error, &answer.emit())?;
        return Err(Outcome::new(Verdict::FragmentationNeeded, inject(config)));
    }
    let hop = geneve::hop_to(frame, env, config, eip.vtep)?;
    pmtu::clamp_mss(frame, packet, config);
    nat::rewrite(frame, packet, rewrite)?;
    geneve::encapsulate(frame, config, packet, &hop.tunnel)?;
    frame.mark_as_tunnel();
    env.count_eip(eip.slot, Direction::In, packets, packet.frame_len());
    Ok(Outcome::new(Verdict::ToEip, hop.exit))
}
