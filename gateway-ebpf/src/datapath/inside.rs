//! Nobody outside speaks in the name of somebody inside.

use gateway_common::tables::{CONFIG_OPEN, Config, INSIDE_RANGES};
use gateway_common::verdict::Verdict;

use super::{Env, Outcome, Step};

/// Refuses what comes from outside with a source that is inside: of an internal prefix (pods, nodes, Services), or an EIP pod's
/// own. Called for packets that would be ours only.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse<E: Env>(env: &E, source: [u8; 4]) -> Step<()> {
    if env.is_internal(source) || env.pod(source).is_some() {
        Err(Outcome::drop(Verdict::DropInsideSource))
    } else {
        Ok(())
    }
}

/// The same on the external NIC, where no EIP is a source either: EIP pods reach each other without it.
#[inline(always)]
pub(super) fn refuse_outside<E: Env>(env: &E, source: [u8; 4]) -> Step<()> {
    if env.eip(source).is_some() {
        Err(Outcome::drop(Verdict::DropInsideSource))
    } else {
        refuse(env, source)
    }
}

/// Refuses what comes from outside for an address that is inside, unless that is open: it is reached by its EIP, or not at all.
///
/// # Errors
/// It is to be dropped.
#[inline(always)]
pub(super) fn refuse_inwards<E: Env>(env: &E, config: &Config, destination: [u8; 4]) -> Step<()> {
    if config.flags & CONFIG_OPEN == 0 && refuse(env, destination).is_err() {
        Err(Outcome::drop(Verdict::DropInwards))
    } else {
        Ok(())
    }
}

/// Whether the address, in memory order, may be one that [`refuse`] refuses. Without a look-up, for the fast path.
#[inline(always)]
pub(super) fn may_be(config: &Config, addr: u32) -> bool {
    let mut found = false;
    for at in 0..INSIDE_RANGES {
        let (network, netmask) = (config.inside_networks[at], config.inside_netmasks[at]);
        found |= addr & u32::from_ne_bytes(netmask) == u32::from_ne_bytes(network);
    }
    found
}
