//! Starts, watches and stops the agents: one per node, in the node's network namespace, outliving the lab command.

use std::{
    env, fs,
    fs::OpenOptions,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{LabConfig, process::Process, state::State, tool};

/// Variable that names the agent's binary when [`LabConfig::agent_binary`] does not.
pub const AGENT_VARIABLE: &str = "EIP_GATEWAY_AGENT";
/// Variable that tells `gateway-agent` where its pins are.
pub const PIN_PATH_VARIABLE: &str = "EIP_GATEWAY_PIN_PATH";
/// Variable that tells `gateway-agent` where its status file is.
pub const STATE_DIR_VARIABLE: &str = "EIP_GATEWAY_STATE_DIR";
/// What an agent logs once everything desired has been applied for the first time.
const IN_SYNC: &str = "in sync";
/// How long that may take; [`PATIENCE_VARIABLE`] multiplies it.
const SYNC_LIMIT: Duration = Duration::from_secs(15);
/// How long an agent may take to undo what it did, seconds, multiplied likewise.
const TEARDOWN_LIMIT: u32 = 5;
/// Variable that says how many times longer agents may take to start: in an emulated machine the verifier is slow.
pub const PATIENCE_VARIABLE: &str = "EIP_GATEWAY_LAB_PATIENCE";
const BPFFS: &str = "/sys/fs/bpf";

/// The binary to run, checked to exist.
pub(crate) fn binary(config: &LabConfig) -> Result<PathBuf> {
    let chosen = config.agent_binary.clone().or_else(|| env::var_os(AGENT_VARIABLE).map(PathBuf::from));
    let binary = chosen.with_context(|| {
        format!(
            "no gateway-agent to run: set {AGENT_VARIABLE}, or bring the lab up without agents (--no-agents)"
        )
    })?;
    ensure!(
        binary.is_file(),
        "no gateway-agent at {}: run `cargo xtask build`, or bring the lab up without agents (--no-agents)",
        binary.display()
    );
    binary.canonicalize().with_context(|| format!("resolving {}", binary.display()))
}

/// An agent that was just started.
pub(crate) struct Started {
    pub(crate) node: &'static str,
    child: Child,
    /// Length of its log before it ran.
    log_from: u64,
    since: Instant,
}

pub(crate) fn start(state: &State, binary: &Path, prefix: &str, node: &'static str) -> Result<Started> {
    if let Some(agent) = state.agent(node) {
        bail!("the agent of {node} already runs as pid {}: stop it first", agent.pid);
    }
    mount_bpffs()?;
    let path = state.log(node);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    let log_from = log.metadata()?.len();
    // setsid: the agent must survive the end of this process and a Ctrl-C in its terminal. Neither setsid nor
    // nsenter forks here, so the child's pid is the agent's.
    let mut command = Command::new("setsid");
    command
        .args(["nsenter", &format!("--net=/run/netns/{prefix}{node}")])
        .arg(binary)
        .args(["run", "--node", node, "--source", "dir", "--dir"])
        .arg(state.manifests())
        .env(PIN_PATH_VARIABLE, state.pin_dir(node))
        .env(STATE_DIR_VARIABLE, state.status_dir(node))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.spawn().map_err(|error| tool::explain(error, &command))?;
    let pid = i32::try_from(child.id())?;
    if let Some(process) = Process::running(pid) {
        state.write_agent(node, process)?;
    }
    Ok(Started { node, child, log_from, since: Instant::now() })
}

/// Waits until the agent has applied everything; `tick` is called meanwhile and may give up by an error.
pub(crate) fn wait_in_sync(
    state: &State,
    mut agent: Started,
    tick: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<(&'static str, Child)> {
    let Started { node, log_from, since, .. } = agent;
    loop {
        let log = log_since(state, node, log_from);
        if log.lines().any(|line| line.contains(IN_SYNC)) {
            return Ok((node, agent.child));
        }
        if let Some(status) = agent.child.try_wait()? {
            bail!(
                "the agent of {node} ended ({status}) before it was in sync; its log ends:\n{}",
                tail(&log)
            );
        }
        let limit = SYNC_LIMIT * patience();
        if since.elapsed() > limit {
            bail!("the agent of {node} is not in sync after {limit:?}; its log ends:\n{}", tail(&log));
        }
        tick(&format!("waiting for the agent of {node}"))?;
        thread::sleep(Duration::from_millis(20));
    }
}

fn patience() -> u32 {
    factor(env::var(PATIENCE_VARIABLE).ok().as_deref())
}

fn factor(patience: Option<&str>) -> u32 {
    patience.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Lets every node's agent undo what it did. Its failure is a warning: the namespaces go anyway.
pub(crate) fn teardown(state: &State, binary: &Path, prefix: &str, node: &str) {
    let mut command = Command::new("timeout");
    command
        .args([
            &(TEARDOWN_LIMIT * patience()).to_string(),
            "nsenter",
            &format!("--net=/run/netns/{prefix}{node}"),
        ])
        .arg(binary)
        .arg("teardown")
        .env(PIN_PATH_VARIABLE, state.pin_dir(node))
        .env(STATE_DIR_VARIABLE, state.status_dir(node));
    if let Err(error) = tool::run(&mut command, "") {
        eprintln!("warning: {node}: {error:#}");
    }
}

fn log_since(state: &State, node: &str, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(state.log(node))?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
    if last.is_empty() { "  (it is empty)".to_owned() } else { format!("  {}", last.join("\n  ")) }
}

fn mount_bpffs() -> Result<()> {
    if statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting bpffs at {BPFFS}; try `mount -t bpf bpf {BPFFS}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_agent_is_answered_with_the_remedy() {
        let config = LabConfig { agent_binary: Some("/nonexistent".into()), ..LabConfig::default() };
        let error = binary(&config).expect_err("there is no such file").to_string();
        assert!(error.contains("cargo xtask build"), "{error}");
    }

    #[test]
    fn patience_is_a_factor_and_one_when_it_is_none() {
        assert_eq!([Some("4"), Some("much"), None].map(factor), [4, 1, 1]);
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_twenty_lines() {
        let log: String = (0..30).map(|n| format!("line {n}\n")).collect();
        assert!(tail(&log).starts_with("  line 10\n"));
        assert!(tail(&log).ends_with("line 29"));
        assert_eq!(tail(""), "  (it is empty)");
    }
}
