//! A network namespace without a name: it goes with its last file, process and thread, whatever ends us.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes one, with the loopback interface up and without IPv6, whose own packets would be in the way.
    pub(crate) fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace, which needs root")?;
            File::open("/proc/thread-self/ns/net").context("opening the network namespace")
        });
        let Ok(file) = made.join() else { bail!("the thread that makes a network namespace panicked") };
        let namespace = Self { file: Arc::new(file?) };
        namespace.ip("link set lo up\n")?;
        let disable = ["all", "default"].map(|scope| format!("net.ipv6.conf.{scope}.disable_ipv6=1"));
        namespace.run(&["sysctl", "-eqw", &disable[0], &disable[1]], "")?;
        Ok(namespace)
    }

    /// Takes this thread into it, until it goes to another.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).context("entering a network namespace")
    }

    /// As `ip link … netns` and `nsenter --net=` take it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }

    /// A command that will run in it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(words);
        command
    }

    /// Runs a command in it with this input, and returns what it printed.
    pub(crate) fn run(&self, words: &[&str], input: &str) -> Result<String> {
        let line = words.join(" ");
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting nsenter: `cargo xtask setup`")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).with_context(|| format!("telling `{line}`"))?;
        }
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{line}` failed ({}): {}", output.status, complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Lines for `ip`.
    pub(crate) fn ip(&self, lines: &str) -> Result<()> {
        self.run(&["ip", "-batch", "-"], lines).map(drop)
    }

    /// Sets a kernel setting.
    pub(crate) fn sysctl(&self, setting: &str) -> Result<()> {
        self.run(&["sysctl", "-qw", setting], "").map(drop)
    }
}
