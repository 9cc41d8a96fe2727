//! A lab, an API server in it, and one agent per node that watches it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::scene::{NODES, agent, eventually};
use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Cluster, Options, PodSpec, User};
use gateway_lab::{Job, Lab, LabConfig};
use serde_json::{Value, json};

/// The annotation that asks for an EIP.
pub const EIP: &str = "ovn.kubernetes.io/eip";
/// The annotation that says it is programmed.
pub const ROUTED: &str = "ovn.kubernetes.io/routed";

/// The agents end before the API server, the API server before the lab.
pub struct Scene {
    agents: BTreeMap<&'static str, Job>,
    /// What agents log in with.
    kubeconfig: PathBuf,
    /// The API server.
    pub cluster: Cluster,
    /// The networks.
    pub lab: Lab,
}

impl Scene {
    /// A seeded cluster with pod1a and pod2a, without EIPs, and agents in sync.
    pub fn new(prefix: &str) -> Result<Self> {
        let mut scene = Self::without_agents(prefix)?;
        scene.cluster.seed_lab()?;
        for pod in ["pod1a", "pod2a"] {
            scene.cluster.create_pod(&PodSpec::of_lab(pod)?)?;
        }
        for node in NODES {
            scene.start_agent(node)?;
        }
        Ok(scene)
    }

    /// An empty cluster.
    pub fn without_agents(prefix: &str) -> Result<Self> {
        Self::with_options(prefix, &Options::default())
    }

    /// An empty cluster with controllers.
    pub fn with_options(prefix: &str, options: &Options) -> Result<Self> {
        let config =
            LabConfig { agents: false, agent_binary: Some(agent()?), ..LabConfig::ephemeral(prefix) };
        let lab = Lab::up(&config)?;
        let cluster = Cluster::start(&lab, options)?;
        let kubeconfig = cluster.kubeconfig(User::Admin)?;
        Ok(Self { agents: BTreeMap::new(), kubeconfig, cluster, lab })
    }

    /// Who the agents started from now on are.
    pub fn log_in(&mut self, user: User<'_>) -> Result<()> {
        self.kubeconfig = self.cluster.kubeconfig(user)?;
        Ok(())
    }

    /// Starts a node's agent, in place of one that ran.
    pub fn spawn_agent(&mut self, node: &'static str) -> Result<()> {
        let kubeconfig = self.kubeconfig.clone();
        self.spawn_agent_by(node, &kubeconfig, "info")
    }

    /// As [`Self::spawn_agent`], with a kubeconfig and a log level of its own.
    pub fn spawn_agent_by(&mut self, node: &'static str, kubeconfig: &Path, level: &str) -> Result<()> {
        let (binary, kubeconfig) = (agent()?.display().to_string(), kubeconfig.display().to_string());
        self.agents.remove(node);
        let log = format!("RUST_LOG=info,kube_runtime=off,kube_client=off,gateway_agent={level}");
        let run = ["run", "--node", node, "--source", "kube", "--kubeconfig", &kubeconfig];
        let words = [&["env", &log, &binary], &run[..]].concat();
        self.agents.insert(node, self.lab.spawn(node, &words)?);
        Ok(())
    }

    /// Starts a node's agent and waits until it is in sync.
    pub fn start_agent(&mut self, node: &'static str) -> Result<()> {
        self.spawn_agent(node)?;
        self.in_sync(node)
    }

    fn in_sync(&mut self, node: &'static str) -> Result<()> {
        let job = self.agents.get_mut(node).context("just started")?;
        job.wait_for("in sync", Duration::from_secs(15)).with_context(|| format!("the agent of {node}"))
    }

    /// Kills every agent (SIGKILL).
    pub fn kill_agents(&mut self) {
        self.agents.clear();
    }

    /// Kills every agent and starts new ones.
    pub fn restart_agents(&mut self) -> Result<()> {
        self.kill_agents();
        NODES.iter().try_for_each(|node| self.spawn_agent(node))?;
        NODES.iter().try_for_each(|node| self.in_sync(node))
    }

    /// Makes a pod one of the StatefulSet `web`: such pods hand an EIP on among themselves.
    ///
    /// # Errors
    /// The API server refused.
    pub fn of_web(&self, pod: &str) -> Result<()> {
        let web = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "web", "controller": true });
        let patch = json!({ "metadata": { "ownerReferences": [web] } });
        self.cluster.patch(&["pod", pod, "-n", "default"], &patch).map(drop)
    }

    /// Asks for an EIP, or no more.
    pub fn annotate(&self, pod: &str, eip: Option<&str>) -> Result<()> {
        self.cluster.annotate("default", pod, &[(EIP, eip)])
    }

    /// What the API server says of a pod's annotation.
    pub fn annotation(&self, pod: &str, key: &str) -> Result<Option<String>> {
        let pod = self.cluster.get(&["pod", pod, "-n", "default"])?;
        Ok(pod["metadata"]["annotations"][key].as_str().map(ToOwned::to_owned))
    }

    /// Waits until `routed` is `"true"` on a pod, or is not.
    pub fn routed(&self, pod: &str, wanted: bool) -> Result<()> {
        eventually(Duration::from_secs(5), &format!("routed on {pod} is {wanted}"), || {
            Ok((self.annotation(pod, ROUTED)?.as_deref() == Some("true")) == wanted)
        })
    }

    /// Waits for an Event with a reason on an object, with all of `words` in its note.
    pub fn event(&self, object: &str, reason: &str, words: &[&str]) -> Result<()> {
        let found = |events: &Value| {
            events["items"].as_array().into_iter().flatten().any(|event| {
                let about = [&event["regarding"]["name"], &event["involvedObject"]["name"]];
                let note = event["note"].as_str().or(event["message"].as_str()).unwrap_or_default();
                about.iter().any(|name| *name == object)
                    && event["reason"] == reason
                    && words.iter().all(|word| note.contains(word))
            })
        };
        eventually(Duration::from_secs(5), &format!("Event {reason} on {object} with {words:?}"), || {
            Ok(found(&self.cluster.get(&["events.events.k8s.io", "-A"])?))
        })
        .map_err(|error| {
            let seen = self.cluster.kubectl(&["get", "events", "-A"]).unwrap_or_default();
            anyhow::anyhow!("{error:#}\n{seen}")
        })
    }

    /// An address works for the client within the second that is promised, and from then on.
    pub fn works(&self, address: &str) -> Result<()> {
        let ping = ["ping", "-n", "-c1", "-W0.1", address];
        eventually(Duration::from_secs(1), &format!("the client reaches {address}"), || {
            Ok(self.lab.exec("client", &ping)?.status.success())
        })
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.logs()))?;
        crate::scene::reaches(&self.lab, "client", address, 3).map(drop)
    }

    /// A node's agent.
    pub fn agent(&mut self, node: &str) -> Result<&mut Job> {
        self.agents.get_mut(node).with_context(|| format!("no agent runs on {node}"))
    }

    /// Kills a node's agent (SIGKILL).
    pub fn kill_agent(&mut self, node: &str) {
        self.agents.remove(node);
    }

    /// What the agents have logged.
    pub fn logs(&self) -> String {
        self.agents.iter().map(|(node, job)| format!("{node}:\n{}\n", job.stderr())).collect()
    }

    /// No agent has ended by itself.
    pub fn agents_live(&self) -> Result<()> {
        for (node, job) in &self.agents {
            ensure!(
                Path::new(&format!("/proc/{}", job.pid())).exists(),
                "the agent of {node} ended: {}",
                job.stderr()
            );
        }
        Ok(())
    }
}
