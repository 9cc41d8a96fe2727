//! The fast path: the ordinary packet of an established flow, from a client to a pod on a worker and back, at the gateway and at
//! the worker; and what is nobody's of ours on the underlay NIC, both ways.
//!
//! What it does is what the rest of the datapath would do, byte for byte and count for count; what it does not take is left
//! untouched for that. It is quick by the calls it leaves out: each function that returns, ours or the kernel's, costs some
//! 8 ns where the CPU's return predictor is not trusted (SRSO), as much as everything else it does together. So it is one
//! function without calls but for those that move the head and send, looks into arrays instead of hashes (the direct
//! tables), and works on words: in place in XDP, and in TC, which may only read so, on a copy of the headers.

mod egress;
mod inbound;
mod outer;
mod packet;
mod tunnel;
mod window;

use gateway_common::tables::{CONFIG_ALL_EIPS_DIRECT, Config, DirectEip, DirectPod, direct_row};

use super::{Env, Frame, Hook, Outcome, on_external_link};

/// The packet's end, already counted; `None` where the fast path is not for it.
#[inline(always)]
pub(super) fn run<F: Frame, E: Env>(hook: Hook, frame: &mut F, env: &E, config: &Config) -> Option<Outcome> {
    match hook {
        Hook::External if F::IN_PLACE => inbound::run(frame, env, config),
        Hook::Underlay if F::IN_PLACE => tunnel::run(frame, env, config),
        Hook::UnderlayEgress => egress::run(frame, env, config),
        Hook::External | Hook::Underlay | Hook::RouterPortEgress => None,
    }
}

/// An end that is counted, and taken.
#[inline(always)]
fn ended<E: Env>(env: &E, outcome: Outcome, packets: u32, bytes: u32) -> Option<Outcome> {
    env.count_verdict(outcome.verdict, packets, bytes);
    Some(outcome)
}

/// The flag that a NIC has to have for a frame in pieces.
#[inline(always)]
const fn pieces(in_pieces: bool, flag: u32) -> u32 {
    if in_pieces { flag } else { 0 }
}

/// The row of an EIP, if the fast path has one.
#[inline(always)]
fn eip<'a, E: Env>(env: &'a E, config: &Config, eip: u32) -> Option<&'a DirectEip> {
    let eip = eip.to_ne_bytes();
    env.direct_eip(direct_row(eip, config.direct_mask)).filter(|row| row.eip == eip)
}

/// Whether an address, in memory order, is an EIP. All of them are in the external subnet.
#[inline(always)]
fn is_eip<E: Env>(env: &E, config: &Config, addr: u32) -> bool {
    on_external_link(config, addr.to_ne_bytes())
        && (eip(env, config, addr).is_some()
            || config.flags & CONFIG_ALL_EIPS_DIRECT == 0 && env.eip(addr.to_ne_bytes()).is_some())
}

/// The row of an EIP pod, if the fast path has one.
#[inline(always)]
fn pod<'a, E: Env>(env: &'a E, config: &Config, pod_ip: u32) -> Option<&'a DirectPod> {
    let pod_ip = pod_ip.to_ne_bytes();
    env.direct_pod(direct_row(pod_ip, config.direct_mask)).filter(|row| row.pod_ip == pod_ip)
}
