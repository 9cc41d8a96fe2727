//! The pinned tables and the agent's last word, read for [`inspect`](crate::inspect): works with or without a running
//! agent.

use std::path::Path;

use nix::time::{ClockId, clock_gettime};

use crate::apply::bpf::{BpfError, Maps};
use crate::inspect::View;
use crate::status;

/// What the tables pinned under `pin` hold, with names and refusals from the status file in `state_dir` if it is there.
///
/// # Errors
/// [`BpfError::NotPinned`] when there are neither tables nor a status, [`BpfError::Map`] when tables cannot be read.
pub fn view(pin: &Path, state_dir: &Path) -> Result<View, BpfError> {
    let status = status::read(state_dir);
    let maps = match Maps::open(pin) {
        // Nothing was ever served, or no more; why is in the status.
        Err(BpfError::NotPinned { .. }) if status.is_some() => {
            return Ok(View { status, ..View::default() });
        }
        maps => maps?,
    };
    let tables = maps.read_sources()?;
    let slots = tables.eips.values().map(|eip| eip.slot).chain(tables.pods.values().map(|pod| pod.slot));
    let eip_counters = maps.eip_counters(slots)?;
    let verdicts = maps.verdict_counters()?;
    Ok(View { tables, eip_counters, verdicts, now_ns: now_ns(), status, firewall: None })
}

/// CLOCK_MONOTONIC, nanoseconds: the clock of `last_seen_ns`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
