//! What leaves is whole: lengths hold together, headers of ours are right, checksums are as right as they came.

use anyhow::{Context, Result, ensure};
use etherparse::{EtherType, Ethernet2HeaderSlice};
use gateway_common::addr::Mac;
use gateway_common::verdict::{Class, Verdict};
use gateway_ebpf::datapath::{Action, Exit, Hook};

use super::handover;
use super::reader::{Checksum, Packet, Tunnel};
use crate::fixture::{TUNNEL_MTU, Tables};

/// Whether a frame that ends so leaves in the tunnel.
pub(super) fn is_tunnelled(verdict: Verdict, exit: Exit, hook: Hook) -> bool {
    let is_out = matches!(verdict, Verdict::ToWorker | Verdict::ToGateway)
        || (verdict == Verdict::ToEip && exit.action != Action::Inject);
    is_out || (verdict.class() == Class::Answer && hook == Hook::Underlay)
}

/// The packet a frame came with: on the underlay the one in the tunnel.
pub(super) fn arrived(hook: Hook, frame: &[u8]) -> Option<Packet<'_>> {
    match hook {
        Hook::Underlay => Some(Tunnel::read(frame)?.inner),
        Hook::External | Hook::UnderlayEgress | Hook::RouterPortEgress => Packet::read(frame.get(14..)?),
    }
}

/// Checks a frame that goes on or is an answer.
pub(super) fn check(
    verdict: Verdict,
    exit: Exit,
    hook: Hook,
    tables: &Tables,
    before: &[u8],
    after: &[u8],
) -> Result<()> {
    if matches!(verdict.class(), Class::Pass | Class::Drop) || verdict == Verdict::Fragmented {
        return Ok(());
    }
    if verdict == Verdict::ArpReply && hook == Hook::External && exit.action == Action::Inject {
        ensure!(before == after, "the kernel is told of another request");
        return Ok(());
    }
    if verdict == Verdict::ArpReply {
        ensure!(
            after.len() == before.len() && after[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            "no ARP reply"
        );
        return Ok(());
    }
    let ethernet = Ethernet2HeaderSlice::from_slice(after).context("no Ethernet header")?;
    ensure!(ethernet.ether_type() == EtherType::IPV4, "EtherType {:?}", ethernet.ether_type());
    let came = arrived(hook, before).context("no packet came")?;
    if is_tunnelled(verdict, exit, hook) {
        let tunnel = Tunnel::read(after).context("no whole packet in a tunnel leaves")?;
        outer(&tunnel, tables)?;
        // The kernel has cut padding before the router port; what comes out of a tunnel has none.
        let is_trimmed = matches!(hook, Hook::External | Hook::UnderlayEgress);
        ensure!(!is_trimmed || after.len() == 14 + tunnel.outer.len(), "padding in the tunnel");
        handover::check(verdict, tables, after)?;
        packets(verdict, (before, &came), &tunnel.inner)
    } else {
        packets(verdict, (before, &came), &Packet::read(&after[14..]).context("no whole packet leaves")?)
    }
}

/// Whether a frame is a copy of a packet that is to become a fragment of it.
pub(super) fn is_copy(frame: &[u8]) -> bool {
    frame.get(6..11) == Some(&Mac::FRAGMENT.0[..5])
}

/// The headers of our tunnel.
fn outer(tunnel: &Tunnel<'_>, tables: &Tables) -> Result<()> {
    let (header, config) = (&tunnel.outer.header, &tables.config);
    let to = header.destination();
    let is_node = tables.vteps.keys().any(|key| key.vtep == to);
    ensure!(header.source() == config.local_vtep && is_node, "from {:?} to {to:?}", header.source());
    ensure!(header.ttl() == 64 && header.dont_fragment() && header.ihl() == 5, "outer header {header:?}");
    ensure!(tunnel.outer.header_checksum() == Checksum::Right, "outer header checksum");
    ensure!(header.slice()[1] == tunnel.inner.header.slice()[1], "DSCP or ECN not copied");
    ensure!(tunnel.udp.destination_port().to_be_bytes() == config.geneve_port, "outer port");
    ensure!(usize::from(tunnel.udp.length()) == tunnel.outer.payload.len(), "outer UDP length");
    let [_, v0, v1, v2] = config.vni.to_be_bytes();
    ensure!(tunnel.geneve == [0, 0, 0x65, 0x58, v0, v1, v2, 0], "Geneve header {:?}", tunnel.geneve);
    ensure!(
        tunnel.room == tunnel.inner.len(),
        "{} bytes for a packet of {}",
        tunnel.room,
        tunnel.inner.len()
    );
    let inner = (tunnel.inner.header_checksum(), tunnel.inner.l4_checksum());
    match (inner, tunnel.outer.l4_checksum()) {
        ((Checksum::Right, Checksum::Right), Checksum::Right) | ((_, Checksum::Absent), Checksum::Absent) => {
        }
        // A checksum that follows from the headers is as wrong as they are.
        ((Checksum::Wrong, _) | (_, Checksum::Wrong), Checksum::Right | Checksum::Wrong) => {}
        (inner, outer) => anyhow::bail!("inner header and L4 {inner:?}, outer UDP {outer:?}"),
    }
    Ok(())
}

/// What came and what leaves: checksums are carried, never repaired and never broken. An error is ours and right. A copy may
/// have become a fragment, which the rows look at.
fn packets(verdict: Verdict, (frame, came): (&[u8], &Packet<'_>), leaves: &Packet<'_>) -> Result<()> {
    let (before, after) =
        [came, leaves].map(|packet| (packet.header_checksum(), packet.l4_checksum())).into();
    if matches!(verdict, Verdict::TimeExceeded | Verdict::FragmentationNeeded) {
        ensure!(after == (Checksum::Right, Checksum::Right), "an error with checksums {after:?}");
        ensure!(leaves.len() <= TUNNEL_MTU as usize, "an error of {} bytes", leaves.len());
        return Ok(());
    }
    ensure!(before.0 == after.0, "header checksum {:?}, now {:?}", before.0, after.0);
    if is_copy(frame) && leaves.len() < came.len() {
        ensure!(!came.header.dont_fragment() && leaves.header.is_fragmenting_payload(), "no fragment");
        return Ok(());
    }
    // What a TCP header claims beyond the segment may be looked for an MSS.
    ensure!(
        before.1 == after.1 || came.has_lying_tcp_header(),
        "L4 checksum {:?}, now {:?}",
        before.1,
        after.1
    );
    ensure!(came.len() == leaves.len(), "{} bytes came, {} leave", came.len(), leaves.len());
    Ok(())
}
