//! Ends processes we started, and never one that merely got their pid.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process, told apart from a later one with the same pid by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    started: u64,
}

impl Process {
    /// The running process with that pid; a zombie does not count as running.
    pub(crate) fn running(pid: i32) -> Option<Self> {
        let (state, started) = stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    pub(crate) fn alive(&self) -> bool {
        Self::running(self.pid) == Some(*self)
    }

    /// Sends a signal if it is still that process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("sending {signal} to pid {}", self.pid)),
        }
    }

    /// Waits until it has ended; false when it still runs after `limit`.
    pub(crate) fn ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.alive() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Whether it still runs the file of that name as it is now: not another one, and not one replaced since.
    pub(crate) fn runs(&self, program: &Path) -> bool {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let named = words.split(|byte| *byte == 0).any(|word| word == program.as_os_str().as_encoded_bytes());
        let image = fs::read_link(format!("/proc/{}/exe", self.pid));
        named && image.is_ok_and(|image| !image.to_string_lossy().ends_with(" (deleted)"))
    }
}

/// As in a pid file: `<pid> <started>`.
impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

impl FromStr for Process {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pid, started) =
            text.trim().split_once(' ').context("a pid file holds a pid and a start time")?;
        Ok(Self { pid: pid.parse()?, started: started.parse()? })
    }
}

/// State and start time from the text of `/proc/<pid>/stat`; the name in it may hold spaces and parentheses.
fn stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Asks all of them to end, and after `grace` makes them.
pub(crate) fn stop(processes: &[Process], grace: Duration) -> Result<()> {
    for process in processes {
        process.signal(Signal::SIGTERM)?;
    }
    let deadline = Instant::now() + grace;
    for process in processes {
        if !process.ended_within(deadline.saturating_duration_since(Instant::now())) {
            process.signal(Signal::SIGKILL)?;
            process.ended_within(Duration::from_secs(1));
        }
    }
    Ok(())
}

/// Processes in one of these network namespaces, this one excepted.
pub(crate) fn in_namespaces(paths: &[impl AsRef<Path>]) -> Vec<Process> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let ours: BTreeSet<_> = paths.iter().filter_map(|path| identity(path.as_ref())).collect();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| pid != Pid::this().as_raw())
        .filter_map(Process::running)
        .filter(|process| {
            identity(Path::new(&format!("/proc/{}/ns/net", process.pid)))
                .is_some_and(|net| ours.contains(&net))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_confuse_the_parser() {
        let line = "7 (a) R (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(stat(line), Some(('S', 4711)));
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_ours() {
        let me = Process::running(Pid::this().as_raw()).expect("this process runs");
        assert!(me.alive());
        assert!(!Process { started: me.started + 1, ..me }.alive());
        assert_eq!(me.to_string().parse::<Process>().expect("a pid file reads back"), me);
    }
}
