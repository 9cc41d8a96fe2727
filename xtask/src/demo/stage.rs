//! Runs titled steps, keeps count of what failed, and stops on Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use gateway_lab::{Lab, NODES};

use crate::screen;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C, SIGTERM and SIGHUP end the demo between two packets, and it still cleans up.
pub(crate) fn listen_for_interrupts() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("listening for Ctrl-C")
}

/// Whether the demo was told to stop.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error when the demo was told to stop.
pub(crate) fn go_on() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// What a step measured, a line each.
pub(crate) type Findings = Vec<String>;

/// What the steps act on. Dropping it removes all of it.
pub(crate) trait Set {
    /// What the agent of a node has logged, nothing when it has no log.
    fn log(&self, node: &str) -> String;

    /// The processes that outlive a step: the agents, and what they need.
    fn pids(&self) -> Vec<u32>;
}

impl Set for Lab {
    fn log(&self, node: &str) -> String {
        self.agent_log(node).unwrap_or_default()
    }

    fn pids(&self) -> Vec<u32> {
        NODES.iter().filter_map(|node| u32::try_from(self.agent_pid(node.name)?).ok()).collect()
    }
}

/// The set and how the steps went.
pub(crate) struct Stage<S> {
    set: S,
    failed: u32,
}

impl<S: Set> Stage<S> {
    pub(crate) fn new(set: S) -> Self {
        Self { set, failed: 0 }
    }

    pub(crate) fn set(&self) -> &S {
        &self.set
    }

    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// Runs a step and shows what it found, or why it failed and where to look. An error only on Ctrl-C.
    pub(crate) fn step(
        &mut self,
        title: &str,
        remedy: &str,
        work: impl FnOnce(&S) -> Result<Findings>,
    ) -> Result<()> {
        go_on()?;
        screen::title(title);
        let found = work(&self.set);
        go_on()?;
        match found {
            Ok(findings) => show(&findings),
            Err(error) => {
                self.failed += 1;
                screen::bad(&format!("{error:#}"));
                screen::note(&format!("where to look: {remedy}"));
            }
        }
        Ok(())
    }

    /// A step without which the others would only repeat its failure: shows the agents' logs and stops.
    pub(crate) fn essential(
        &mut self,
        title: &str,
        remedy: &str,
        work: impl FnOnce(&S) -> Result<Findings>,
    ) -> Result<()> {
        let before = self.failed;
        self.step(title, remedy, work)?;
        if self.failed == before {
            return Ok(());
        }
        for node in &NODES {
            let log = self.set.log(node.name);
            let lines: Vec<_> = log.lines().collect();
            screen::note(&format!("the log of the agent on {}:", node.name));
            screen::detail(&lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n"));
        }
        bail!("the steps after this one need it");
    }
}

/// The first line of each finding carries the mark, the others are detail.
fn show(findings: &Findings) {
    for finding in findings {
        let (first, rest) = finding.split_once('\n').unwrap_or((finding, ""));
        screen::good(first);
        screen::detail(rest);
    }
}
