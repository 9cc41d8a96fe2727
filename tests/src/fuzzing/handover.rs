//! What one node sends into the tunnel, the other takes out of it.

use anyhow::{Context, Result, ensure};
use gateway_common::tables::PodKey;
use gateway_common::verdict::{Class, Verdict};
use gateway_ebpf::datapath::Hook;

use super::TABLES;
use super::reader::{Checksum, Packet, Tunnel};
use crate::engines::{Kind, Seen, host};
use crate::fixture::{GATEWAY, Tables, WORKER1};

/// Checks a tunnelled frame at the node it goes to, where that is one of the fixture's.
pub(super) fn check(verdict: Verdict, tables: &Tables, after: &[u8]) -> Result<()> {
    let tunnel = Tunnel::read(after).context("a tunnelled frame")?;
    let inner = &tunnel.inner;
    // Outer checksums follow from the inner ones: what came damaged is dropped at the tunnel's end or the connection's.
    if inner.header_checksum() != Checksum::Right || inner.l4_checksum() == Checksum::Wrong {
        return Ok(());
    }
    let from_pod = tables.pods.contains_key(&PodKey { pod_ip: inner.header.source() });
    match (verdict, tunnel.outer.header.destination()) {
        (Verdict::ToGateway, GATEWAY) if from_pod => {
            at_gateway(&host::run(Kind::Tc, Hook::Underlay, &TABLES[0].1, after))
        }
        (Verdict::ToWorker | Verdict::ToEip, WORKER1) => {
            at_worker(&host::run(Kind::Tc, Hook::Underlay, &TABLES[1].1, after), inner)
        }
        _ => Ok(()),
    }
}

/// The gateway does something with the packet, or has a reason that lies in the packet.
fn at_gateway(seen: &Seen) -> Result<()> {
    use Verdict::*;
    let (verdict, _) = seen.verdicts.first_key_value().context("no verdict")?;
    let is_about_packet = matches!(
        verdict,
        DropShortQuote | DropForeignQuote | DropRedirect | DropSourceQuench | DropExpired | DropTooBig
    );
    let is_taken = matches!(verdict.class(), Class::Forward | Class::Answer) || is_about_packet;
    ensure!(is_taken, "the gateway refuses what its worker sent: {verdict:?}");
    Ok(())
}

/// The worker gives its pod the packet to the byte.
fn at_worker(seen: &Seen, inner: &Packet<'_>) -> Result<()> {
    ensure!(
        seen.verdicts.contains_key(&Verdict::FromGateway),
        "the worker refuses what its gateway sent: {:?}",
        seen.verdicts
    );
    let delivered = Packet::read(seen.frame.get(14..).context("a frame")?).context("a packet")?;
    ensure!(delivered.bytes() == inner.bytes(), "the worker changed the packet");
    Ok(())
}
