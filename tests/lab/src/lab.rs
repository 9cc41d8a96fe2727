//! The handle of a lab that is up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Uid};
use serde_json::Value;

use crate::{
    INVALID_DROPS, LabConfig, PIN_PATH_VARIABLE, STATE_DIR_VARIABLE, Status,
    agent::{self, Started},
    config, down, firewall,
    job::Job,
    manifest,
    plan::{self, Node, Pod},
    state::{Lock, State, write_atomically},
    status, tool, up,
};

/// A lab that is up. Dropping it takes an ephemeral one down and leaves any other alone.
#[derive(Debug)]
pub struct Lab {
    config: LabConfig,
    state: State,
    /// Agents this process started, to be reaped when they end.
    agents: Mutex<BTreeMap<&'static str, Child>>,
    ephemeral: bool,
}

impl Lab {
    /// Brings the lab up, or finds it up: what is healthy and made the same way is left alone, a dead agent is
    /// started again, anything else is made anew. An ephemeral lab always starts from nothing.
    pub fn up(config: &LabConfig) -> Result<Self> {
        Self::up_with(config, &mut |_| Ok(()))
    }

    /// As [`Lab::up`]; `progress` hears what is being done, repeatedly while waiting, and may give up by an error.
    pub fn up_with(config: &LabConfig, progress: &mut dyn FnMut(&str) -> Result<()>) -> Result<Self> {
        require_root()?;
        config.check()?;
        let lock = Lock::take()?;
        let state = State::of(&config.prefix);
        up::network(config, &state, progress)?;
        let mut lab = Self::handle(config.clone(), state);
        // From here on an error drops the handle, which takes an ephemeral lab down and wants the lock for it.
        lab.ephemeral = config.ephemeral;
        let agents = up::start_agents(config, &lab.state);
        drop(lock);
        for started in agents? {
            lab.adopt(started, progress)?;
        }
        Ok(lab)
    }

    /// The lab of that prefix if one is up, left up when the handle is dropped.
    pub fn attach(prefix: &str) -> Result<Option<Self>> {
        config::check_prefix(prefix)?;
        let state = State::of(prefix);
        Ok(state.record().map(|record| Self::handle(record.config, state)))
    }

    /// Takes the lab of that prefix down, from whatever state a crash left it in. False when there was none.
    pub fn down(prefix: &str) -> Result<bool> {
        config::check_prefix(prefix)?;
        require_root()?;
        let _lock = Lock::take()?;
        down::down(&State::of(prefix), prefix)
    }

    fn handle(config: LabConfig, state: State) -> Self {
        Self { config, state, agents: Mutex::default(), ephemeral: false }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<&'static str, Child>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self, started: Started, progress: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let (node, child) = agent::wait_in_sync(&self.state, started, progress)?;
        self.children().insert(node, child);
        Ok(())
    }

    /// How it was made.
    pub fn config(&self) -> &LabConfig {
        &self.config
    }

    /// The name under `/run/netns` of a namespace such as `gw1`, `pod1a`, `client` or `switch`.
    pub fn netns(&self, name: &str) -> Result<String> {
        let known = plan::namespaces();
        ensure!(known.contains(&name), "the lab has no namespace {name:?}; it has {}", known.join(", "));
        Ok(format!("{}{name}", self.config.prefix))
    }

    /// A command that will run in a namespace; on a node, `gateway-agent` in it finds that node's pins and status.
    pub fn command<S: AsRef<str>>(&self, name: &str, words: &[S]) -> Result<Command> {
        let (program, args) = words.split_first().context("give the command to run")?;
        let mut command = tool::in_netns(&self.netns(name)?, program.as_ref());
        command.args(args.iter().map(AsRef::as_ref));
        let node = Pod::named(name).map_or(name, |pod| pod.node);
        if Node::named(node).is_some() {
            command.env(PIN_PATH_VARIABLE, self.pin_dir(node));
            command.env(STATE_DIR_VARIABLE, self.status_dir(node));
        }
        Ok(command)
    }

    /// Runs a command in a namespace to its end. A non-zero exit is no error here: see `status` of the output.
    pub fn exec<S: AsRef<str>>(&self, name: &str, words: &[S]) -> Result<Output> {
        let mut command = self.command(name, words)?;
        command.stdin(Stdio::null()).output().map_err(|error| tool::explain(error, &command))
    }

    /// Runs a command in a namespace and returns what it printed; a non-zero exit is an error with its complaint.
    pub fn read<S: AsRef<str>>(&self, name: &str, words: &[S]) -> Result<String> {
        tool::run(&mut self.command(name, words)?, "")
    }

    /// Starts a command in a namespace; it ends when the guard is dropped.
    pub fn spawn<S: AsRef<str>>(&self, name: &str, words: &[S]) -> Result<Job> {
        Job::start(self.command(name, words)?, &self.state.jobs())
    }

    /// Sets or removes the EIP annotation of one of the lab's pods, in one step as the API server would.
    pub fn annotate(&self, pod: &str, eip: Option<&str>) -> Result<()> {
        let found =
            Pod::named(pod).with_context(|| format!("the lab has no pod {pod:?}; see `lab status`"))?;
        self.write_manifest(&manifest::pod_file(pod), &manifest::pod(found, eip))
    }

    /// Puts a file of any text in the manifests' folder, in one step.
    pub fn write_manifest(&self, file: &str, text: &str) -> Result<()> {
        write_atomically(&self.manifests().join(file), text)
    }

    /// Removes a file from the manifests' folder.
    pub fn remove_manifest(&self, file: &str) -> Result<()> {
        let path = self.manifests().join(file);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// The folder the agents watch.
    pub fn manifests(&self) -> PathBuf {
        self.state.manifests()
    }

    /// Starts the agent of a node and waits until it is in sync; what it logged before stays in the log.
    pub fn start_agent(&self, node: &str) -> Result<()> {
        let binary = agent::binary(&self.config)?;
        let started = agent::start(&self.state, &binary, &self.config.prefix, known_node(node)?.name)?;
        self.adopt(started, &mut |_| Ok(()))
    }

    /// Signals the agent of a node. For SIGTERM, SIGINT and SIGKILL returns once it has ended, at most 5 s.
    pub fn kill_agent(&self, node: &str, signal: Signal) -> Result<()> {
        let node = known_node(node)?.name;
        let agent = self.state.agent(node).with_context(|| format!("the agent of {node} does not run"))?;
        agent.signal(signal)?;
        if [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL].contains(&signal) {
            let limit = Duration::from_secs(5);
            ensure!(agent.ended_within(limit), "the agent of {node} still runs {limit:?} after {signal}");
            if let Some(mut child) = self.children().remove(node) {
                child.wait()?;
            }
        }
        Ok(())
    }

    /// The pid of a node's agent while it runs.
    pub fn agent_pid(&self, node: &str) -> Option<i32> {
        self.state.agent(node).map(|process| process.pid)
    }

    /// Everything the agent of a node has logged since the lab was made.
    pub fn agent_log(&self, node: &str) -> Result<String> {
        let path = self.state.log(known_node(node)?.name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The folder of everything this lab keeps; it goes when the lab is taken down.
    pub fn dir(&self) -> &Path {
        self.state.dir()
    }

    /// Where the agent of a node pins maps and links.
    pub fn pin_dir(&self, node: &str) -> PathBuf {
        self.state.pin_dir(node)
    }

    /// Where the agent of a node keeps its status file.
    pub fn status_dir(&self, node: &str) -> PathBuf {
        self.state.status_dir(node)
    }

    /// Packets that a node's forward chain dropped because conntrack called them INVALID.
    pub fn invalid_drops(&self, node: &str) -> Result<u64> {
        let json =
            self.read(node, &["nft", "-j", "list", "counter", "ip", firewall::TABLE, INVALID_DROPS])?;
        let value: Value = serde_json::from_str(&json)?;
        let counters = value["nftables"].as_array().into_iter().flatten();
        let mut packets = counters.filter_map(|object| object["counter"]["packets"].as_u64());
        packets.next().with_context(|| format!("nft on {node} printed no counter: {json}"))
    }

    /// What is there now.
    pub fn status(&self) -> Result<Status> {
        Ok(Status {
            prefix: self.config.prefix.clone(),
            mtu: self.config.mtu,
            pod_mtu: self.config.pod_mtu(),
            namespaces: status::namespaces(&self.config.prefix),
            pods: status::pods(&self.manifests()),
            agents: if self.config.agents { status::agents(&self.state) } else { Vec::new() },
            manifests: self.manifests(),
            state: Path::new(self.state.dir()).to_owned(),
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.ephemeral {
            return;
        }
        if let Err(error) = Self::down(&self.config.prefix) {
            eprintln!("warning: taking the lab {:?} down: {error:#}", self.config.prefix);
        }
        for child in self.children().values_mut() {
            let _reaped = child.try_wait();
        }
    }
}

fn known_node(name: &str) -> Result<&'static Node> {
    Node::named(name)
        .with_context(|| format!("the lab has no node {name:?}; it has gw1, worker1 and worker2"))
}

fn require_root() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("the lab makes network namespaces, which needs root: run it with sudo");
    }
    Ok(())
}
