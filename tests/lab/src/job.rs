//! A background command in a namespace that ends with its guard.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::tool;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A command started by [`Lab::spawn`](crate::Lab::spawn). Dropping it kills it and everything it started.
#[derive(Debug)]
pub struct Job {
    child: Child,
    line: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Job {
    pub(crate) fn start(mut command: Command, jobs: &Path) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = |kind: &str| jobs.join(format!("{}-{number}.{kind}", std::process::id()));
        let (stdout, stderr) = (path("out"), path("err"));
        let create = |path: &Path| File::create(path).with_context(|| format!("making {}", path.display()));
        // A process group of its own, so that the guard reaches children of children.
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?).process_group(0);
        let line = tool::words(&command);
        let child = command.spawn().map_err(|error| tool::explain(error, &command))?;
        Ok(Self { child, line, stdout, stderr })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until its output (either stream) contains `text`, for example tcpdump's "listening on".
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait()?;
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                bail!("`{}` ended ({status}) before it said {text:?}: {}", self.line, self.stderr().trim());
            }
            if Instant::now() > deadline {
                bail!("`{}` did not say {text:?} within {limit:?}: {}", self.line, self.stderr().trim());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end; an error after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("`{}` still runs after {limit:?}: {}", self.line, self.stderr().trim());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Interrupts it as Ctrl-C would, waits for its end, and returns its standard output.
    pub fn interrupt(&mut self) -> Result<String> {
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::SIGINT);
            self.wait(Duration::from_secs(5))?;
        }
        Ok(self.stdout())
    }

    /// Sends a signal to it and to everything it started.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may just have ended; nobody else can have its pid before we have waited for it.
            let _ended = killpg(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _reaped = self.child.wait();
        }
        for path in [&self.stdout, &self.stderr] {
            let _gone = fs::remove_file(path);
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
