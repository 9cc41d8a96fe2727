//! ARP requests for the addresses this gateway owns (RFC 826).

use gateway_common::addr::Mac;
use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::{arp, eth};

use super::{Env, Exit, Frame, Nic, Outcome, Step, can_send};

/// Answers a request for an EIP or, if `for_nic_ip`, for the router port, with the router port's MAC.
///
/// Announcements (sender is target) are not answered: they are our own, or a conflict that the kernel reports.
#[inline(always)]
pub(super) fn answer<F: Frame, E: Env>(
    frame: &mut F,
    env: &E,
    config: &Config,
    for_nic_ip: bool,
    exit: Exit,
) -> Step<Outcome> {
    const NOT_OURS: Outcome = Outcome::pass(Verdict::PassNotIpv4);
    let bytes: [u8; arp::PACKET_LEN] = frame.load(eth::HEADER_LEN).ok_or(NOT_OURS)?;
    let request = arp::Packet::parse(&bytes).ok_or(NOT_OURS)?;
    let is_ours = (for_nic_ip && request.target_ip == config.nic_ip) || env.eip(request.target_ip).is_some();
    if request.operation != arp::REQUEST || request.is_announcement() || !is_ours {
        return Err(NOT_OURS);
    }
    can_send(frame, config, Nic::EXTERNAL)?;
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
