//! The agents under test: started, timed, weighed.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use gateway_apiserver::{Cluster, User};
use gateway_common::tables::{Eip, EipKey, name};
use gateway_lab::{Job, Lab};
use gateway_tests::scene::{NODES, agent};

const IN_SYNC: &str = "in sync";
const LIMIT: Duration = Duration::from_secs(60);

/// One per node; they end with this.
pub(super) struct Agents {
    binary: String,
    kubeconfig: String,
    running: BTreeMap<&'static str, Job>,
}

impl Agents {
    pub(super) fn new(cluster: &Cluster) -> Result<Self> {
        let binary = agent()?.display().to_string();
        let kubeconfig = cluster.kubeconfig(User::Admin)?.display().to_string();
        Ok(Self { binary, kubeconfig, running: BTreeMap::new() })
    }

    pub(super) fn start_all(&mut self, lab: &Lab) -> Result<()> {
        NODES.iter().try_for_each(|node| self.restart(lab, node).map(drop))
    }

    /// Kills a node's agent if one runs and starts another; how long that one took to be in sync.
    pub(super) fn restart(&mut self, lab: &Lab, node: &'static str) -> Result<Duration> {
        self.running.remove(node);
        let Self { binary, kubeconfig, .. } = self;
        let since = Instant::now();
        // As in deploy/base.
        let words = [
            "env",
            "MALLOC_ARENA_MAX=1",
            binary,
            "run",
            "--node",
            node,
            "--source",
            "kube",
            "--kubeconfig",
            kubeconfig,
        ];
        let mut job = lab.spawn(node, &words)?;
        job.wait_for(IN_SYNC, LIMIT).with_context(|| format!("the agent of {node}"))?;
        let took = since.elapsed();
        self.running.insert(node, job);
        Ok(took)
    }

    /// Ends a node's agent and removes all it made.
    pub(super) fn tear_down(&mut self, lab: &Lab, node: &'static str) -> Result<()> {
        self.running.remove(node);
        lab.read(node, &[&*self.binary, "teardown"]).map(drop)
    }

    /// The most a node's agent has had in memory, MiB (VmHWM, proc_pid_status(5)).
    pub(super) fn peak_memory(&self, node: &str) -> Result<f64> {
        let job = self.running.get(node).context("no such agent")?;
        let status = fs::read_to_string(format!("/proc/{}/status", job.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time a node's agent has taken, its ended children (`nft`) included, in ms (proc_pid_stat(5), fields
    /// 14 to 17, ticks of 10 ms).
    pub(super) fn processor_time(&self, node: &str) -> Result<f64> {
        let job = self.running.get(node).context("no such agent")?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", job.pid()))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(4).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? * 10.0)
    }

    /// How many rows a node's agent wrote when it started.
    pub(super) fn differences(&self, node: &str) -> Result<f64> {
        let log = self.running.get(node).context("no such agent")?.stderr();
        let log = log + &self.running.get(node).context("no such agent")?.stdout();
        let number = log.split("rows, ").nth(1).and_then(|rest| rest.split(' ').next());
        let number = number.with_context(|| format!("no word of adopted rows: {log}"))?;
        Ok(number.parse()?)
    }

    pub(super) fn logs(&self) -> String {
        self.running.iter().map(|(node, job)| format!("{node}:\n{}\n", job.stderr())).collect()
    }
}

/// How many EIPs the gateway's table holds.
pub(super) fn bound(lab: &Lab) -> Result<usize> {
    let path = lab.pin_dir("gw1").join(name::EIPS);
    let Ok(data) = MapData::from_pin(&path) else { return Ok(0) };
    let eips: HashMap<_, EipKey, Eip> = Map::HashMap(data).try_into()?;
    Ok(eips.keys().filter(std::result::Result::is_ok).count())
}
