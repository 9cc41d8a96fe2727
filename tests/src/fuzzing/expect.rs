//! What must hold of every outcome, whatever the frame.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use gateway_common::limit::Limited;
use gateway_common::tables::{EipKey, PodKey, VerdictCounter, VtepKey};
use gateway_common::verdict::{Class, Verdict};
use gateway_ebpf::datapath::{Action, Exit, Hook};

use super::{hex, leaving, translation};
use crate::engines::{Kind, Seen, host};
use crate::fixture::{POD_PORT, Tables};

/// Runs a frame on the host engine, as XDP and as TC, and checks both outcomes.
///
/// # Errors
/// What does not hold.
pub fn check(hook: Hook, tables: &Tables, frame: &[u8]) -> Result<(), String> {
    outcomes(hook, tables, frame).map_err(|error| format!("{error:#}"))
}

fn outcomes(hook: Hook, tables: &Tables, frame: &[u8]) -> Result<()> {
    let tc = checked(Kind::Tc, hook, tables, frame)?;
    if matches!(hook, Hook::External | Hook::Underlay) {
        let xdp = checked(Kind::Xdp, hook, tables, frame)?;
        let verdict = verdict(&xdp, frame)?;
        ensure!(
            left_to_twin(verdict) || verdict == Verdict::DropInwards || xdp == tc,
            "as XDP {}\nas TC {}",
            shown(&xdp),
            shown(&tc)
        );
    }
    Ok(())
}

/// Where XDP and TC differ by design: XDP leaves the untouched frame to its twin, who lets the kernel resolve or route.
/// Everything else is the same on every engine, to the byte and the counter.
pub fn left_to_twin(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::PassUnresolved | Verdict::PassToTwin)
}

fn checked(kind: Kind, hook: Hook, tables: &Tables, frame: &[u8]) -> Result<Seen> {
    let seen = host::run(kind, hook, tables, frame);
    let again = host::run(kind, hook, tables, frame);
    ensure!(seen == again, "the same frame, two outcomes: {}\n{}", shown(&seen), shown(&again));
    let slow = host::run_without_fast_path(kind, hook, tables, frame);
    ensure!(seen == slow, "with the fast path {}\nand without {}", shown(&seen), shown(&slow));
    outcome(kind, hook, tables, frame, &seen).with_context(|| format!("as {kind:?}: {}", shown(&seen)))?;
    Ok(seen)
}

/// An outcome in one line, its frame as hexadecimal digits.
pub fn shown(seen: &Seen) -> String {
    let Seen { action, exit, frame, verdicts, counters } = seen;
    format!("{action:?} {exit:?} {verdicts:?} {counters:?} {}", hex(frame))
}

fn outcome(kind: Kind, hook: Hook, tables: &Tables, frame: &[u8], seen: &Seen) -> Result<()> {
    let verdict = verdict(seen, frame)?;
    let exit = seen.exit.context("the host engine says its exit")?;
    ensure!(belongs(verdict, hook), "{verdict:?} is no verdict of {hook:?}");
    ensure!(kind == Kind::Tc || !needs_kernel(exit), "{exit:?} is not for XDP");
    ensure!(does(verdict, exit.action), "{verdict:?} does not go with {exit:?}");
    ensure!(is_known(exit, tables), "nobody knows the interface of {exit:?}");
    untouched(verdict, hook, frame, &seen.frame)?;
    counted(verdict, tables, seen)?;
    limited(verdict, exit, tables)?;
    trusted(kind, verdict, hook, tables, frame)?;
    leaving::check(verdict, exit, hook, tables, frame, &seen.frame)?;
    translation::check(verdict, exit, hook, tables, frame, &seen.frame)
}

/// The one verdict, counted as one packet with all its bytes.
fn verdict(seen: &Seen, frame: &[u8]) -> Result<Verdict> {
    let (verdict, _) = seen.verdicts.first_key_value().context("no verdict")?;
    let once = VerdictCounter { packets: 1, bytes: frame.len() as u64 };
    ensure!(seen.verdicts == BTreeMap::from([(*verdict, once)]), "verdicts {:?}", seen.verdicts);
    Ok(*verdict)
}

/// Whether a frame may end so at a hook.
fn belongs(verdict: Verdict, hook: Hook) -> bool {
    use Verdict::*;
    let is_refused = matches!(
        verdict,
        DropIpOption
            | DropShortQuote
            | DropForeignQuote
            | DropRedirect
            | DropSourceQuench
            | DropMalformed
            | DropMartian
            | PassDisabled
    );
    let is_too_long = matches!(verdict, FragmentationNeeded | DropTooBig | Fragmented | DropErrorLimit);
    let has_no_hop = matches!(verdict, PassUnresolved | PassToTwin | DropSlowPathLimit);
    match hook {
        Hook::External => {
            let answers = matches!(verdict, ArpReply | EchoReply | TimeExceeded | DropExpired);
            let sends = matches!(verdict, ToWorker | ToLocalPod);
            let passes = matches!(verdict, PassNotIpv4 | PassNotForUs | PassNicIp | PassArpConflict);
            let is_forged = matches!(verdict, DropInsideSource | DropInwards);
            is_refused || is_too_long || has_no_hop || answers || sends || passes || is_forged
        }
        Hook::Underlay => {
            let sends = matches!(verdict, ToExternal | ToEip | ToNicIp | FromGateway);
            let passes = matches!(verdict, PassNotIpv4 | PassNotTunnel | PassForeignVni);
            let drops = matches!(verdict, DropUnknownVtep | DropSpoofedSource | DropNoSuchPod)
                || matches!(verdict, DropNotIpv4Inside | DropGeneveVersion | DropGeneveControl)
                || matches!(verdict, DropCriticalOption | DropOuterChecksum | DropCongestion)
                || matches!(verdict, TimeExceeded | DropExpired | DropInsideSource | DropNoExternal);
            is_refused || is_too_long || has_no_hop || sends || passes || drops
        }
        Hook::UnderlayEgress => {
            let passes = matches!(verdict, PassNotIpv4 | PassNotPod | PassInternal);
            is_refused || passes || matches!(verdict, ToGateway | ToEip | DropForgedTunnel)
        }
        Hook::RouterPortEgress => {
            let passes = matches!(verdict, PassNotIpv4 | PassNotPod);
            let is_refused =
                is_refused || matches!(verdict, DropSlowPathLimit | DropInsideSource | DropNoExternal);
            is_refused || is_too_long || passes || matches!(verdict, ToExternal | ToEip | ArpReply)
        }
    }
}

fn needs_kernel(exit: Exit) -> bool {
    matches!(exit.action, Action::RedirectNeighbor | Action::Inject)
}

fn does(verdict: Verdict, action: Action) -> bool {
    match verdict.class() {
        // Its copies go on.
        Class::Forward if verdict == Verdict::Fragmented => matches!(action, Action::Drop | Action::Reflect),
        Class::Forward => action != Action::Drop,
        Class::Answer => !matches!(action, Action::Drop | Action::Pass),
        Class::Pass => action == Action::Pass,
        Class::Drop => action == Action::Drop,
    }
}

fn is_known(exit: Exit, tables: &Tables) -> bool {
    let config = &tables.config;
    match exit.action {
        Action::Pass | Action::Drop | Action::Reflect => exit == Exit { action: exit.action, ..Exit::PASS },
        Action::Redirect => {
            exit.ifindex == config.external_ifindex
                || tables.vteps.values().any(|vtep| vtep.ifindex == exit.ifindex && exit.ifindex != 0)
        }
        Action::RedirectNeighbor | Action::Inject => {
            exit.ifindex == config.underlay_ifindex || exit.ifindex == config.router_port_ifindex
        }
    }
}

/// What passes is as it came, and so is what is dropped: unless it turned out late that it had to be, when the tunnel
/// was off or the length cut. Nobody sees such a frame again.
fn untouched(verdict: Verdict, hook: Hook, before: &[u8], after: &[u8]) -> Result<()> {
    use Verdict::*;
    let is_quote = matches!(verdict, DropShortQuote | DropForeignQuote | DropRedirect | DropSourceQuench);
    let is_cut = verdict == DropSlowPathLimit && leaving::is_copy(before);
    let is_late = is_quote || is_cut || (hook == Hook::Underlay && verdict == DropTooBig);
    let stays = match verdict.class() {
        Class::Pass => true,
        Class::Drop => !is_late,
        Class::Forward | Class::Answer => false,
    };
    ensure!(!stays || before == after, "{verdict:?}, but the frame was changed");
    Ok(())
}

/// What is done so often in a second is done while its budget lasts, and refused for that reason nowhere else.
fn limited(verdict: Verdict, exit: Exit, tables: &Tables) -> Result<()> {
    let is_spent = |what: Limited| tables.budgets[what.row() as usize].spent_until_ns == u64::MAX;
    // On the worker the kernel's own error goes where its route is.
    let asks = exit.action == Action::RedirectNeighbor && verdict != Verdict::ToGateway;
    let takes: Vec<Limited> = [
        (verdict == Verdict::TimeExceeded, Limited::TimeExceeded),
        (verdict == Verdict::FragmentationNeeded, Limited::FragmentationNeeded),
        (verdict == Verdict::Fragmented, Limited::Fragments),
        (asks, Limited::NextHops),
    ]
    .into_iter()
    .filter_map(|(takes, what)| takes.then_some(what))
    .collect();
    ensure!(!takes.iter().any(|what| is_spent(*what)), "{takes:?} is spent");
    let any_spent = |whats: [Limited; 2]| whats.into_iter().any(is_spent);
    let errors = [Limited::TimeExceeded, Limited::FragmentationNeeded];
    ensure!(verdict != Verdict::DropErrorLimit || any_spent(errors), "an error was to be had");
    let slow_path = [Limited::Fragments, Limited::NextHops];
    ensure!(verdict != Verdict::DropSlowPathLimit || any_spent(slow_path), "the kernel was to be asked");
    Ok(())
}

/// Who speaks is not somebody inside, where it came from outside, and no pod speaks as its node.
fn trusted(kind: Kind, verdict: Verdict, hook: Hook, tables: &Tables, frame: &[u8]) -> Result<()> {
    use Verdict::*;
    let is_ipv4 = frame.get(12..14) == Some(&[8, 0]);
    let Some(packet) = leaving::arrived(hook, frame).filter(|_| is_ipv4) else { return Ok(()) };
    let source = packet.header.source();
    let is_pod_or_internal = |addr: [u8; 4]| {
        tables.internal.iter().any(|prefix| prefix.contains(addr.into()))
            || tables.pods.contains_key(&PodKey { pod_ip: addr })
    };
    let to_us = frame.get(..6) == Some(&tables.config.nic_mac[..]);
    let is_inside = is_pod_or_internal(source)
        || (hook == Hook::External && tables.eips.contains_key(&EipKey { eip: source }));
    let is_from_pod = tables.pods.get(&PodKey { pod_ip: source }).is_some_and(|pod| pod.vtep == [0; 4]);
    let is_from_host = hook == Hook::RouterPortEgress && verdict == ToEip && !is_from_pod;
    let is_report = is_from_host && packet.quoted().is_some();
    let is_from_outside = hook == Hook::External || verdict == FromGateway || (is_from_host && !is_report);
    let is_taken = matches!(verdict.class(), Class::Forward | Class::Answer) || verdict == PassNicIp;
    ensure!(!(is_from_outside && is_taken && is_inside), "{source:?} is inside");
    ensure!(verdict != DropInsideSource || is_inside, "{source:?} is not inside");
    let inwards = is_pod_or_internal(packet.header.destination());
    let is_let_in = kind == Kind::Xdp && hook == Hook::External && verdict == PassNotForUs;
    ensure!(!(is_let_in && inwards && to_us), "it goes inwards");
    if hook == Hook::UnderlayEgress && tables.arrived_on == POD_PORT {
        let to_node = tables.vteps.contains_key(&VtepKey { vtep: packet.header.destination() });
        let to_tunnel = packet.udp_port() == Some(tables.config.geneve_port) && to_node;
        ensure!(
            (verdict == DropForgedTunnel) == to_tunnel,
            "a pod sends to the port of a tunnel: {to_tunnel}"
        );
    }
    let goes_out = matches!(verdict, ToExternal | ToNicIp);
    ensure!(!goes_out || tables.config.external_ifindex != 0, "there is no external side");
    ensure!(
        !(hook == Hook::RouterPortEgress && verdict == PassNotPod && is_inside),
        "{source:?} leaves as it is"
    );
    Ok(())
}

/// Each pod whose packet went on has counted it once, and nobody else anything.
fn counted(verdict: Verdict, tables: &Tables, seen: &Seen) -> Result<()> {
    let goes_on = verdict.class() == Class::Forward && verdict != Verdict::Fragmented;
    ensure!(goes_on != seen.counters.is_empty(), "EIP counters {:?}", seen.counters);
    let known = |slot| {
        tables.eips.values().any(|eip| eip.slot == slot) || tables.pods.values().any(|pod| pod.slot == slot)
    };
    for (slot, counter) in &seen.counters {
        ensure!(known(*slot), "a counter of nobody: {slot}");
        let counts = [(counter.in_packets, counter.in_bytes), (counter.out_packets, counter.out_bytes)];
        for (packets, bytes) in counts {
            ensure!(packets <= 1 && (packets == 0) == (bytes == 0), "slot {slot}: {counter:?}");
        }
    }
    Ok(())
}
