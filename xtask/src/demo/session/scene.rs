//! The networks, an API server in them, and one agent a node that watches it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gateway_apiserver::{Cluster, Options, User};
use gateway_lab::{Job, Lab, LabConfig, NODES};

use super::vm::LAUNCHER;
use crate::{
    demo::{
        NETWORKS, PREFIX,
        stage::{Set, go_on},
    },
    screen::{self, Progress},
};

/// How long an agent may take to have read the cluster.
const START_LIMIT: Duration = Duration::from_secs(15);
/// What it says then, when nobody has configured it.
const WAITING: &str = "waiting for configmap";

/// Dropped in this order: the agents end before the API server, the API server before the lab.
pub(crate) struct Scene {
    agents: Vec<(&'static str, Job)>,
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Everything up, and the agents waiting in a cluster that has nodes and nothing for us.
    pub(crate) fn bring_up(mtu: u16, agent: PathBuf) -> Result<Self> {
        let since = Instant::now();
        let mut progress = Progress::default();
        let mut say = |what: &str| {
            progress.say(what);
            go_on()
        };
        let config =
            LabConfig { mtu, agents: false, agent_binary: Some(agent), ..LabConfig::ephemeral(PREFIX) };
        let lab = Lab::up_with(&config, &mut say).context("bringing the lab up")?;
        let cluster = Cluster::start_with(&lab, &Options::default(), &mut say)
            .context("starting the API server in the lab")?;
        say("making nodes")?;
        cluster.seed_nodes()?;
        let mut scene = Self { agents: Vec::new(), cluster, lab };
        for node in &NODES {
            scene.start_agent(node.name)?;
        }
        for (node, job) in &mut scene.agents {
            say(&format!("waiting for the agent of {node}"))?;
            waits(job).with_context(|| format!("the agent of {node}"))?;
        }
        drop(progress);
        screen::good(&format!(
            "up in {:.1} s, and the agents wait for their ConfigMap",
            since.elapsed().as_secs_f64()
        ));
        screen::detail(NETWORKS);
        screen::good("kubectl get nodes");
        screen::detail(&scene.cluster.kubectl(&["get", "nodes", "--output=wide"])?);
        Ok(scene)
    }

    fn start_agent(&mut self, node: &'static str) -> Result<()> {
        let binary = self.lab.config().agent_binary.as_ref().context("the demo chose one")?;
        let kubeconfig = self.cluster.kubeconfig(User::Admin)?;
        let (binary, kubeconfig) = (binary.to_string_lossy(), kubeconfig.to_string_lossy());
        let words = [&*binary, "run", "--node", node, "--source", "kube", "--kubeconfig", &kubeconfig];
        self.agents.push((node, self.lab.spawn(node, &words)?));
        Ok(())
    }

    /// Runs kubectl; what was typed, and below it what it answered.
    pub(crate) fn typed(&self, words: &[&str]) -> Result<String> {
        let answer = self.cluster.kubectl(words)?;
        Ok(format!("kubectl {}\n{answer}", words.join(" ")))
    }

    /// Whether every agent has applied all there is, at least once.
    pub(crate) fn in_sync(&self) -> bool {
        NODES.iter().all(|node| self.log(node.name).contains("in sync"))
    }

    /// An annotation of the VM's pod, as the API server has it.
    pub(crate) fn annotation(&self, key: &str) -> Result<Option<String>> {
        let pod = self.cluster.get(&["pod", LAUNCHER])?;
        Ok(pod["metadata"]["annotations"][key].as_str().map(str::to_owned))
    }
}

/// Waits for the agent to wait, in small steps, so that Ctrl-C is heard.
fn waits(agent: &mut Job) -> Result<()> {
    let since = Instant::now();
    loop {
        go_on()?;
        if agent.wait_for(WAITING, Duration::from_millis(200)).is_ok() {
            return Ok(());
        }
        if let Ok(status) = agent.wait(Duration::ZERO) {
            bail!("ended ({status}); its log: {}", agent.stderr());
        }
        if since.elapsed() > START_LIMIT {
            bail!("does not say {WAITING:?} within {START_LIMIT:?}; its log: {}", agent.stderr());
        }
    }
}

impl Set for Scene {
    fn log(&self, node: &str) -> String {
        let agent = self.agents.iter().find(|(name, _)| *name == node);
        agent.map(|(_, job)| job.stdout() + &job.stderr()).unwrap_or_default()
    }

    fn pids(&self) -> Vec<u32> {
        let agents = self.agents.iter().map(|(_, job)| job.pid());
        agents.chain(self.cluster.pids()).collect()
    }
}
