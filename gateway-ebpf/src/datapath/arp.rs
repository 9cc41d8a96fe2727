//! ARP requests for the addresses this gateway owns (RFC 826).

use gateway_common::addr::Mac;
use gateway_common::limit::Limited;
use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::{arp, eth};

use super::{Action, Env, Exit, Frame, Nic, Outcome, Step, Way, can_send};

/// Neither a request nor for an address of ours.
const NOT_OURS: Outcome = Outcome::pass(Verdict::PassNotIpv4);
/// Bytes of a frame with ARP, without padding.
const FRAME_LEN: usize = eth::HEADER_LEN + arp::PACKET_LEN;

/// On the external NIC: answers a request for an EIP or the router port, with the router port's MAC.
///
/// What another station says in the name of such an address is left to the agent, who defends it (RFC 5227 section 2.4).
/// Announcements (sender is target) are not answered.
#[inline(always)]
pub(super) fn outside<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config) -> Step<Outcome> {
    let request = read(frame)?;
    let is_ours = |addr| addr == config.nic_ip || env.eip(addr).is_some();
    if request.sender_mac != Mac(config.nic_mac) && is_ours(request.sender_ip) {
        return Err(Outcome::pass(Verdict::PassArpConflict));
    }
    if !is_request(&request) || !is_ours(request.target_ip) {
        return Err(NOT_OURS);
    }
    can_send(frame, config, Nic::EXTERNAL)?;
    let known = env.neighbor(request.sender_ip);
    if known.is_some_and(|known| known.mac != request.sender_mac.0) && config.router_port_ifindex != 0 {
        answer_and_tell(frame, env, config, &request)
    } else {
        answer(frame, config, &request, Exit::REFLECT)
    }
}

/// On the router port: the kernel asks for an EIP. Nobody outside has it, so it is answered here.
#[inline(always)]
pub(super) fn inside<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config, exit: Exit) -> Step<Outcome> {
    let request = read(frame)?;
    if !is_request(&request) || env.eip(request.target_ip).is_none() {
        return Err(NOT_OURS);
    }
    can_send(frame, config, Nic::EXTERNAL)?;
    answer(frame, config, &request, exit)
}

#[inline(always)]
fn read<F: Frame>(frame: &F) -> Step<arp::Packet> {
    let bytes: [u8; arp::PACKET_LEN] = frame.load(eth::HEADER_LEN).ok_or(NOT_OURS)?;
    arp::Packet::parse(&bytes).ok_or(NOT_OURS)
}

#[inline(always)]
fn is_request(packet: &arp::Packet) -> bool {
    packet.operation == arp::REQUEST && !packet.is_announcement()
}

/// Makes the answer of the request.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F, config: &Config, request: &arp::Packet, exit: Exit) -> Step<Outcome> {
    let mac = Mac(config.nic_mac);
    let ethernet = eth::Header { destination: request.sender_mac, source: mac, ethertype: eth::ARP };
    let stored = frame
        .store(0, &ethernet.emit())
        .and_then(|()| frame.store(eth::HEADER_LEN, &request.reply(mac).emit()));
    match stored {
        Some(()) => Ok(Outcome::new(Verdict::ArpReply, exit)),
        None => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}

/// Answers a host whose MAC is not the one the kernel knows, and lets the kernel have the request as well: it takes the
/// new MAC from it (RFC 826, the merge of the algorithm), and the agent takes it from the kernel. Who asks so often that
/// the budget is spent is only answered.
#[inline(always)]
fn answer_and_tell<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    request: &arp::Packet,
) -> Step<Outcome> {
    if !F::KERNEL_RESOLVES {
        return Err(Outcome::pass(Verdict::PassToTwin));
    }
    let kind = Limited::NextHops;
    if !env.take(kind, kind.per_second(config), 1) {
        return answer(frame, config, request, Exit::REFLECT);
    }
    let asked: [u8; FRAME_LEN] = frame.load(0).ok_or(NOT_OURS)?;
    let outcome = answer(frame, config, request, Exit::of(Action::Inject, config.router_port_ifindex))?;
    match frame.repeat(Way::Leaving).and_then(|()| frame.store(0, &asked)) {
        Some(()) => Ok(outcome),
        None => Err(Outcome::drop(Verdict::DropNoRoom)),
    }
}
