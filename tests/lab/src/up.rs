//! Brings a lab up, or finds it up and repairs it. The caller holds the lock.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    LabConfig,
    agent::{self, Started},
    down, firewall, manifest, network,
    plan::{self, EIP, EIP_POD, Kind, NODES, Node, PODS, Plan},
    process::{self, Process},
    state::{Record, State, write_atomically},
    status, tool, wire,
};

/// The namespaces, their networks and the manifests. On an error an ephemeral lab is taken down again.
pub(crate) fn network(
    config: &LabConfig,
    state: &State,
    progress: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    if config.agents {
        agent::binary(config)?;
    }
    if state.exists() {
        if keep(config, state)? {
            return progress("the networks are up");
        }
        progress("taking the previous lab down")?;
        down::down(state, &config.prefix)?;
    }
    refuse_foreign(&config.prefix)?;
    progress("making namespaces and wires")?;
    let made = create(config, state);
    if made.is_err() && config.ephemeral {
        down::down(state, &config.prefix)?;
    }
    made
}

fn create(config: &LabConfig, state: &State) -> Result<()> {
    let me = Process::running(i32::try_from(std::process::id())?).context("reading /proc/self/stat")?;
    let mut record = Record { config: config.clone(), owner: me.to_string(), complete: false };
    // Before the first namespace: whatever exists from here on is known to be ours.
    state.make()?;
    state.write_record(&record)?;
    write_manifests(config, state)?;
    let wire_program = state.dir().join("wire.o");
    fs::write(&wire_program, wire::object_file()?)
        .with_context(|| format!("writing {}", wire_program.display()))?;
    network::create(config, &wire_program)?;
    record.complete = true;
    state.write_record(&record)
}

/// Whether the lab that exists can stay as it is.
fn keep(config: &LabConfig, state: &State) -> Result<bool> {
    let Some(record) = state.record() else { return Ok(false) };
    let owner: Option<Process> = record.owner.parse().ok();
    if record.config.ephemeral
        && let Some(owner) = owner.filter(Process::alive)
    {
        bail!(
            "the lab {:?} belongs to pid {}, which still runs: wait for it or choose another prefix",
            config.prefix,
            owner.pid
        );
    }
    let same = LabConfig { agent_binary: None, ..record.config }
        == LabConfig { agent_binary: None, ..config.clone() };
    if !(same && record.complete && !config.ephemeral && healthy(config)) {
        return Ok(false);
    }
    if record.config.agent_binary != config.agent_binary {
        state.write_record(&Record { config: config.clone(), owner: record.owner, complete: true })?;
    }
    Ok(true)
}

/// Whether every interface is as planned and every node has its rules.
fn healthy(config: &LabConfig) -> bool {
    let plan = Plan::new(config);
    let namespaces = status::namespaces(&config.prefix);
    let find = |namespace: &str, name: &str| {
        let namespace = namespaces.iter().find(|found| found.name == namespace)?;
        namespace.interfaces.iter().find(|found| found.name == name)
    };
    let links = plan.links.iter().all(|link| {
        link.ends.iter().all(|end| {
            find(end.namespace, &end.interface).is_some_and(|found| {
                found.up
                    && found.mtu == u32::from(link.mtu)
                    && found.mac == end.mac.to_string()
                    && (found.xdp || end.kind != Kind::Port)
                    && found.bridge.as_deref() == end.bridge
                    && end.address.iter().all(|address| found.addresses.contains(address))
            })
        })
    });
    let bridges = plan.bridges.iter().all(|bridge| {
        find(bridge.namespace, bridge.interface)
            .is_some_and(|found| found.up && bridge.address.iter().all(|a| found.addresses.contains(a)))
    });
    links && bridges && NODES.iter().all(|node| configured(&plan, config, node))
}

fn configured(plan: &Plan, config: &LabConfig, node: &Node) -> bool {
    let netns = format!("{}{}", config.prefix, node.name);
    let mut nft = tool::in_netns(&netns, "nft");
    let rules = tool::run(nft.args(["list", "table", "ip", firewall::TABLE]), "");
    let routes = tool::run(Command::new("ip").args(["-n", &netns, "route"]), "").unwrap_or_default();
    let planned = plan.routes.iter().filter(|route| route.namespace == node.name);
    rules.is_ok()
        && planned.into_iter().all(|route| routes.lines().any(|line| line.starts_with(&route.words)))
}

fn refuse_foreign(prefix: &str) -> Result<()> {
    for name in plan::namespaces() {
        if status::netns_path(prefix, name).exists() {
            bail!(
                "a network namespace {prefix}{name} exists that no lab made: choose another prefix, or remove it \
                 with `ip netns del {prefix}{name}` if nobody needs it"
            );
        }
    }
    Ok(())
}

fn write_manifests(config: &LabConfig, state: &State) -> Result<()> {
    let write = |file: &str, text: &str| write_atomically(&state.manifests().join(file), text);
    write(manifest::CONFIG_MAP_FILE, &manifest::config_map())?;
    for node in &NODES {
        write(&manifest::node_file(node.name), &manifest::node(node))?;
    }
    let eip = EIP.to_string();
    for pod in &PODS {
        let eip = (config.eip && pod.name == EIP_POD).then_some(eip.as_str());
        write(&manifest::pod_file(pod.name), &manifest::pod(pod, eip))?;
    }
    Ok(())
}

/// Starts the agents that do not run, and those anew whose binary has been replaced or changed since.
pub(crate) fn start_agents(config: &LabConfig, state: &State) -> Result<Vec<Started>> {
    if !config.agents {
        return Ok(Vec::new());
    }
    let binary = agent::binary(config)?;
    let outdated: Vec<_> =
        NODES.iter().filter_map(|node| state.agent(node.name)).filter(|agent| !agent.runs(&binary)).collect();
    process::stop(&outdated, down::GRACE)?;
    let missing = NODES.iter().filter(|node| state.agent(node.name).is_none());
    missing.map(|node| agent::start(state, &binary, &config.prefix, node.name)).collect()
}
