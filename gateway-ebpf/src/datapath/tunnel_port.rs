//! A node's tunnel port is spoken to by other nodes' tunnels alone.
//!
//! A CNI masquerades what a pod sends to a node: its datagram would come from a known tunnel endpoint, whatever it says
//! inside. The nftables table drops that where the kernel forwards it; this drops it where a CNI goes past nftables.

use gateway_common::tables::Config;
use gateway_common::verdict::Verdict;
use gateway_common::wire::{ipv4, l4};

use super::packet::Packet;
use super::{Env, Frame, Outcome, Step};

/// Refuses a packet to the tunnel port of a node, unless this node made it. Called for what leaves by the underlay NIC.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse<F: Frame, E: Env>(frame: &mut F, env: &E, config: &Config, packet: &Packet) -> Step<()> {
    if is_to_it(frame, env, config, packet) && !is_ours(frame, config) {
        Err(Outcome::drop(Verdict::DropForgedTunnel))
    } else {
        Ok(())
    }
}

/// A later fragment has no port; a tunnel takes no fragments.
#[inline(always)]
fn is_to_it<F: Frame, E: Env>(frame: &F, env: &E, config: &Config, packet: &Packet) -> bool {
    let header = &packet.header;
    header.protocol() == ipv4::UDP
        && !header.is_later_fragment()
        && frame.load(packet.l4() + l4::DESTINATION_PORT) == Some(config.geneve_port)
        && env.vtep(header.destination()).is_some()
}

/// Whether this node made the packet: as a whole, or as a tunnel around one that goes from one NIC to another. What comes
/// from a pod leaves in a tunnel by the router port first, which marks it.
#[inline(always)]
fn is_ours<F: Frame>(frame: &mut F, config: &Config) -> bool {
    let (is_marked, from) = (frame.unmark_as_tunnel(), frame.arrived_on());
    is_marked
        || from == 0
        || from == config.external_ifindex
        || from == config.underlay_ifindex
        || from == config.router_port_ifindex
}
