//! How often each BPF program of a node ran, by the kernel's own count.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use aya::maps::MapData;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use gateway_common::tables::name;
use gateway_lab::Lab;

/// Runs by program, since the counting began.
#[derive(Clone, Debug)]
pub(crate) struct Runs(BTreeMap<String, u64>);

impl Runs {
    /// The programs that use a node's tables. The first call switches the kernel's counting on, for as long as this process
    /// lives.
    pub(crate) fn of(lab: &Lab, node: &str) -> Result<Self> {
        static COUNTING: OnceLock<OwnedFd> = OnceLock::new();
        if COUNTING.get().is_none() {
            let _other_was_first = COUNTING.set(enable_stats(Stats::RunTime)?);
        }
        let table = MapData::from_pin(lab.pin_dir(node).join(name::VERDICTS))?.info()?.id();
        let mut runs = BTreeMap::new();
        // Another test's program may go while we look.
        for program in loaded_programs().filter_map(Result::ok) {
            if program.map_ids()?.is_some_and(|maps| maps.contains(&table)) {
                let name = program.name_as_str().context("a program's name is UTF-8")?;
                *runs.entry(name.to_owned()).or_default() += program.run_count();
            }
        }
        Ok(Self(runs))
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let more = |(name, runs): (&String, &u64)| (name.clone(), runs - before.of_program(name));
        Self(self.0.iter().map(more).collect())
    }

    /// The runs of one program; the kernel keeps 15 letters of a name.
    pub(crate) fn of_program(&self, name: &str) -> u64 {
        self.0.get(&name[..name.len().min(15)]).copied().unwrap_or_default()
    }

    /// The runs of all programs.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
