//! How the lab starts, watches and ends agents, with a script in the agent's place. Needs root.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use gateway_lab::{Lab, LabConfig, NODES, Signal};

/// Says what it was called with, pins something, gets in sync and stays.
const OBEDIENT: &str = r#"#!/bin/sh
echo "$@ pins at $EIP_GATEWAY_PIN_PATH in $(ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4)"
[ "$1" = teardown ] && exit 0
mkdir -p "$EIP_GATEWAY_PIN_PATH/links"
echo "in sync"
exec sleep 1000
"#;

/// An agent that does not end when asked to.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\necho in sync\nwhile :; do sleep 0.1; done\n";

/// An agent that cannot start.
const BROKEN: &str = "#!/bin/sh\necho 'no such NIC: enp8s0'\nexit 3\n";

struct Script(PathBuf);

impl Script {
    fn new(name: &str, text: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("lab-agent-{}-{name}", std::process::id()));
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    fn config(&self, prefix: &str) -> LabConfig {
        LabConfig { agent_binary: Some(self.0.clone()), ..LabConfig::ephemeral(prefix) }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

fn runs(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn every_node_gets_an_agent_in_its_namespace_with_its_own_pins() -> Result<()> {
    let script = Script::new("a1", OBEDIENT)?;
    let lab = Lab::up(&script.config("a1-"))?;
    let status = lab.status()?;
    ensure!(status.agents.len() == NODES.len() && status.agents.iter().all(|agent| agent.pid.is_some()));
    let log = lab.agent_log("worker1")?;
    let line = format!(
        "run --node worker1 --source dir --dir {} pins at /sys/fs/bpf/eip-gateway/a1-worker1 in 172.18.0.21/24",
        status.manifests.display()
    );
    ensure!(log.lines().any(|found| found == line), "{line:?} in {log}");
    ensure!(lab.pin_dir("worker1").join("links").is_dir(), "the agent's pins are on the host's bpffs");
    let pids: Vec<_> = status.agents.iter().filter_map(|agent| agent.pid).collect();
    drop(lab);
    ensure!(!pids.into_iter().any(runs), "agents outlived their lab");
    ensure!(!Path::new("/sys/fs/bpf/eip-gateway/a1-worker1").exists(), "pins were left behind");
    Ok(())
}

#[test]
fn an_agent_can_be_killed_and_started_again() -> Result<()> {
    let script = Script::new("a2", OBEDIENT)?;
    let lab = Lab::up(&script.config("a2-"))?;
    let first = lab.agent_pid("gw1").context("the agent runs")?;
    ensure!(lab.start_agent("gw1").is_err(), "it runs already");
    lab.kill_agent("gw1", Signal::SIGKILL)?;
    ensure!(lab.agent_pid("gw1").is_none() && !runs(first), "it was killed and reaped");
    lab.start_agent("gw1")?;
    ensure!(lab.agent_pid("gw1").is_some_and(|second| second != first), "another one runs");
    ensure!(lab.agent_log("gw1")?.matches("in sync").count() == 2, "both wrote to one log");
    Ok(())
}

#[test]
fn a_second_up_starts_only_what_is_dead_or_replaced() -> Result<()> {
    let script = Script::new("a3", OBEDIENT)?;
    let config = LabConfig { ephemeral: false, ..script.config("a3-") };
    let lab = Lab::up(&config)?;
    // `sleep` took the script's place, so its command line no longer names the agent: as good as replaced.
    let before = lab.agent_pid("worker2").context("the agent runs")?;
    lab.kill_agent("gw1", Signal::SIGKILL)?;
    let again = Lab::up(&config)?;
    let pids = [again.agent_pid("gw1"), again.agent_pid("worker2")];
    let down = Lab::down("a3-")?;
    ensure!(pids[0].is_some() && pids[1].is_some_and(|pid| pid != before) && down);
    Ok(())
}

#[test]
fn a_stubborn_agent_is_ended_all_the_same_and_a_running_one_kept() -> Result<()> {
    let script = Script::new("a4", STUBBORN)?;
    let config = LabConfig { ephemeral: false, ..script.config("a4-") };
    let lab = Lab::up(&config)?;
    let pid = lab.agent_pid("gw1").context("the agent runs")?;
    let again = Lab::up(&config)?;
    let kept = again.agent_pid("gw1") == Some(pid);
    drop((lab, again));
    let survived = runs(pid);
    Lab::down("a4-")?;
    ensure!(kept, "a healthy agent was restarted");
    ensure!(survived, "the handle of a lab that stays ended its agents");
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ensure!(state.is_empty() || state.contains(") Z"), "it still runs: {state}");
    Ok(())
}

#[test]
fn an_agent_that_cannot_start_is_reported_with_its_log_and_leaves_nothing() -> Result<()> {
    let script = Script::new("a5", BROKEN)?;
    let error = Lab::up(&script.config("a5-")).map(drop).expect_err("it cannot start").to_string();
    ensure!(error.contains("no such NIC: enp8s0") && error.contains("exit status: 3"), "{error}");
    ensure!(!Path::new("/run/netns/a5-gw1").exists(), "an ephemeral lab that failed is gone");
    Ok(())
}
