//! A program that runs until it is no longer needed.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::namespace::Namespace;

/// Runs a command in a session of its own, whose processes go before all that are not real-time: the scheduler shares a CPU
/// among sessions first (sched(7), autogroup).
pub(crate) const GO_FIRST: [&str; 5] = [
    "setsid",
    "sh",
    "-c",
    "if [ -w /proc/self/autogroup ]; then echo -20 > /proc/self/autogroup; fi; exec \"$@\"",
    "sh",
];

/// A program in a namespace; ended when dropped, and when we end.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it. What it says on standard output nobody hears.
    pub(crate) fn start(namespace: &Namespace, words: &[&str]) -> Result<Self> {
        let with_us = [&["setpriv", "--pdeathsig", "KILL"], words].concat();
        let mut command = namespace.command(&with_us);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("starting `{}`", words.join(" ")))?))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0.id().try_into()?), signal).with_context(|| format!("sending {signal}"))
    }

    /// Its folder in /proc.
    pub(crate) fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.0.id()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
