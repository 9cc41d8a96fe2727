//! Processor time of this thread and of what the kernel does in its name.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use crate::packets::harness::processor_time;

/// The clock of a thread that stays on one CPU: its own time, softirqs that interrupt it included, and that of the kernel's
/// thread for the softirqs of that CPU, should it take over.
#[derive(Debug)]
pub(crate) struct Clock {
    softirqs: PathBuf,
}

impl Clock {
    /// For a thread on this CPU.
    pub(crate) fn of(cpu: usize) -> Result<Self> {
        let name = format!("ksoftirqd/{cpu}");
        let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let mut found = processes
            .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name));
        let process = found.next().with_context(|| format!("no {name}: is this a container?"))?;
        Ok(Self { softirqs: process.join("schedstat") })
    }

    /// Time so far.
    pub(crate) fn now(&self) -> Result<Duration> {
        Ok(processor_time()? + on_cpu(&self.softirqs)?)
    }
}

/// Of any task, by its `schedstat`.
pub(crate) fn on_cpu(schedstat: &std::path::Path) -> Result<Duration> {
    let text = fs::read_to_string(schedstat).with_context(|| format!("reading {}", schedstat.display()))?;
    let first = text.split(' ').next().context("schedstat has fields")?;
    Ok(Duration::from_nanos(first.parse()?))
}
