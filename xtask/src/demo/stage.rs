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

/// The lab and how the steps went.
pub(crate) struct Stage {
    lab: Lab,
    failed: u32,
}

impl Stage {
    pub(crate) fn new(lab: Lab) -> Self {
        Self { lab, failed: 0 }
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// Runs a step and shows what it found, or why it failed and where to look. An error only on Ctrl-C.
    pub(crate) fn step(
        &mut self,
        title: &str,
        remedy: &str,
        work: impl FnOnce(&Lab) -> Result<Findings>,
    ) -> Result<()> {
        go_on()?;
        screen::title(title);
        let found = work(&self.lab);
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
        work: impl FnOnce(&Lab) -> Result<Findings>,
    ) -> Result<()> {
        let before = self.failed;
        self.step(title, remedy, work)?;
        if self.failed == before {
            return Ok(());
        }
        for node in &NODES {
            let log = self.lab.agent_log(node.name).unwrap_or_default();
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
