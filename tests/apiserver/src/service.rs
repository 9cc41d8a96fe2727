//! A program that runs in the API server's network namespace and ends with its guard.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a program may take to end when asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How often something awaited is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    log_from: usize,
}

impl Service {
    /// Starts a program; what it says is appended to `log`.
    pub(crate) fn start<I, S>(netns: &str, program: &Path, args: I, log: &Path) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let log_from = usize::try_from(file.metadata()?.len())?;
        // nsenter does not fork, so that the child's pid is the program's. A group of its own: Ctrl-C is for us.
        let mut command = in_netns(netns, program);
        command.args(args).process_group(0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {name} in {netns} with nsenter"))?;
        Ok(Self { name, child, log: log.to_owned(), log_from })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged since it was started.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// Waits until `ready`; an error when it ends before or is not after `limit`, with the end of its log, or when
    /// `ready` gives up by one.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready(self)? {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before it was ready; its log ends:\n{}",
                    self.name,
                    tail(&self.log())
                );
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {limit:?}; its log ends:\n{}", self.name, tail(&self.log()));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Asks it to end, and makes it after a grace time.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Ok(()); // dropping it kills it
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may just have ended; nobody else can have its pid before we have waited for it.
            let _ended = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A command that runs `program` in a network namespace, changing nothing else.
pub(crate) fn in_netns(netns: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg(program);
    command
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    if last.is_empty() { "  (it is empty)".to_owned() } else { format!("  {}", last.join("\n  ")) }
}
