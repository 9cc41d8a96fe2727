//! Interleaved rounds: each candidate once a round, right behind the harness alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{candidate::Candidate, harness::Harness};
use crate::report::{Figure, Statistic};

/// Time per run without the harness, nanoseconds, by candidate: one a round.
#[derive(Default)]
pub(crate) struct Rounds {
    net: BTreeMap<String, Vec<f64>>,
}

impl Rounds {
    /// Runs them all, `rounds` times, `packets` runs each or more; and once before that.
    pub(crate) fn run(
        harness: &mut Harness,
        candidates: &[Candidate],
        (rounds, packets): (u32, u32),
    ) -> Result<Self> {
        let mut net: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        // A first look at caches and clocks, which does not count.
        for candidate in candidates {
            candidate.run(harness, packets)?;
        }
        for _ in 0..rounds {
            for candidate in candidates {
                let alone = candidate.run_nothing(harness, packets)?;
                let with = candidate.run(harness, packets)?;
                net.entry(candidate.name.clone()).or_default().push(with - alone);
            }
        }
        Ok(Self { net })
    }

    /// Adds the rounds of the same candidates elsewhere.
    pub(crate) fn append(&mut self, others: Self) {
        for (name, net) in others.net {
            self.net.entry(name).or_default().extend(net);
        }
    }

    /// What each candidate takes, then the ratios that are asked for.
    pub(crate) fn figures(&self, candidates: &[Candidate]) -> Result<Vec<Figure>> {
        let aimed = |figure: Figure, aim: Option<f64>| match aim {
            Some(below) => figure.aim(Statistic::Median, below),
            None => figure,
        };
        let mut figures = Vec::new();
        for candidate in candidates {
            figures.push(aimed(self.net(&candidate.name)?, candidate.net_below));
        }
        for candidate in candidates {
            if let Some(per) = &candidate.per {
                figures.push(aimed(self.ratio(&candidate.name, per)?, candidate.ratio_below));
            }
        }
        Ok(figures)
    }

    fn net(&self, name: &str) -> Result<Figure> {
        Ok(Figure::new(name, "ns net", self.of(name)?.clone()))
    }

    /// What it takes for each nanosecond of another, round by round.
    fn ratio(&self, name: &str, per: &str) -> Result<Figure> {
        let pairs = self.of(name)?.iter().zip(self.of(per)?);
        Ok(Figure::new(format!("{name} / {per}"), "×", pairs.map(|(net, per)| net / per).collect()))
    }

    fn of(&self, name: &str) -> Result<&Vec<f64>> {
        self.net.get(name).with_context(|| format!("{name} was not measured"))
    }
}

/// Keeps this thread on one CPU, the last it may use; which one.
pub(crate) fn pin() -> Result<usize> {
    let last = *cpus()?.last().context("no CPU to run on")?;
    pin_to(last)?;
    Ok(last)
}

/// Keeps this thread on a CPU.
pub(crate) fn pin_to(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// The CPUs that this thread may use.
pub(crate) fn cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect())
}
