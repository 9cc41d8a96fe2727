//! Who a packet is from and to, before and after, by the tables alone.

use anyhow::{Context, Result, ensure};
use gateway_common::tables::{EipKey, Pod, PodKey};
use gateway_common::verdict::Verdict;
use gateway_ebpf::datapath::{Action, Exit, Hook};

use super::leaving::{arrived, is_tunnelled};
use super::reader::{Packet, Tunnel};
use crate::fixture::Tables;

/// Checks a frame that was translated.
pub(super) fn check(
    verdict: Verdict,
    exit: Exit,
    hook: Hook,
    tables: &Tables,
    before: &[u8],
    after: &[u8],
) -> Result<()> {
    use Verdict::*;
    if !matches!(verdict, ToWorker | ToLocalPod | ToExternal | ToEip | ToNicIp | ToGateway | FromGateway) {
        return Ok(());
    }
    let came = arrived(hook, before).context("no packet came")?;
    let tunnel = if is_tunnelled(verdict, exit, hook) { Tunnel::read(after) } else { None };
    let leaves = match tunnel {
        Some(tunnel) => tunnel.inner,
        None => Packet::read(after.get(14..).context("a frame")?).context("no packet leaves")?,
    };
    discreet(leaves.header.options())?;
    if verdict == ToGateway {
        ensure!(came.bytes() == leaves.bytes(), "a worker changed a packet");
        return Ok(());
    }
    addresses(verdict, hook, tables, &came, &leaves)?;
    time_to_live(verdict, exit, hook, &came, &leaves)
}

/// A pod's address becomes its EIP or, for a router's error, that of the router port; an EIP becomes its pod's address.
fn addresses(
    verdict: Verdict,
    hook: Hook,
    tables: &Tables,
    came: &Packet<'_>,
    leaves: &Packet<'_>,
) -> Result<()> {
    // At the router port a pod of another node is anybody.
    let is_here = |pod: &&Pod| hook != Hook::RouterPortEgress || pod.vtep == [0; 4];
    let pod = |pod_ip| tables.pods.get(&PodKey { pod_ip }).filter(is_here);
    let (source, destination) = (came.header.source(), came.header.destination());
    let inwards = matches!(verdict, Verdict::ToWorker | Verdict::ToLocalPod | Verdict::FromGateway);
    let from_host = hook == Hook::RouterPortEgress && verdict == Verdict::ToEip;
    let becomes_source = match pod(source) {
        _ if inwards => vec![source],
        Some(pod) => vec![pod.eip, tables.config.nic_ip],
        None if from_host => vec![source, tables.config.nic_ip],
        None => vec![tables.config.nic_ip],
    };
    ensure!(
        becomes_source.contains(&leaves.header.source()),
        "from {source:?}: {:?}",
        leaves.header.source()
    );
    let to_eip = matches!(verdict, Verdict::ToWorker | Verdict::ToLocalPod | Verdict::ToEip);
    let becomes = match tables.eips.get(&EipKey { eip: destination }) {
        Some(eip) if to_eip => eip.pod_ip,
        // A worker knows its pods alone: one that reaches itself.
        None if to_eip => source,
        Some(_) | None => destination,
    };
    ensure!(leaves.header.destination() == becomes, "to {destination:?}: {:?}", leaves.header.destination());
    hidden(verdict, tables, leaves)
}

/// No pod's address in what leaves by the external NIC, nor in what it says of where the packet it quotes went.
fn hidden(verdict: Verdict, tables: &Tables, leaves: &Packet<'_>) -> Result<()> {
    if verdict != Verdict::ToExternal {
        return Ok(());
    }
    let is_inside = |addr: [u8; 4]| addr[..2] == [10, 244];
    ensure!(!is_inside(leaves.header.source()), "a pod's address leaves: {:?}", leaves.header.source());
    if let Some((_, went_to)) = leaves.quoted() {
        let is_eip = tables.pods.values().any(|pod| pod.eip == went_to);
        ensure!(is_eip && !is_inside(went_to), "an error about a packet to {went_to:?} leaves");
    }
    Ok(())
}

/// No option that routers write into, nor one that directs them, up to where the list ends or makes no sense.
fn discreet(mut options: &[u8]) -> Result<()> {
    while let [kind, rest @ ..] = options {
        let len = match (kind, rest) {
            (0, _) => break,
            (1, _) => 1,
            (_, [len, ..]) if (2..=options.len()).contains(&usize::from(*len)) => usize::from(*len),
            _ => break,
        };
        ensure!(!matches!(kind, 7 | 68 | 131 | 137), "option {kind} goes on");
        options = &options[len..];
    }
    Ok(())
}

/// A router takes one; where the kernel is the router, it does.
fn time_to_live(
    verdict: Verdict,
    exit: Exit,
    hook: Hook,
    came: &Packet<'_>,
    leaves: &Packet<'_>,
) -> Result<()> {
    let is_ours = match hook {
        Hook::External => verdict == Verdict::ToWorker,
        Hook::Underlay => {
            matches!(verdict, Verdict::ToExternal | Verdict::ToEip) && exit.action != Action::Inject
        }
        Hook::UnderlayEgress | Hook::RouterPortEgress => false,
    };
    let expected = came.header.ttl() - u8::from(is_ours);
    ensure!(leaves.header.ttl() == expected, "TTL {} became {}", came.header.ttl(), leaves.header.ttl());
    Ok(())
}
