//! `cargo xtask lab`: the cluster's networks on this machine.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use gateway_lab::{
    JUMBO_MTU, Lab, LabConfig, NIC_IP, NIC_MAC, SERVICE, SERVICE_POD, Status, plan::SERVICE_TARGET_PORT,
};

use crate::{build, screen, workspace};

/// A gateway, two workers, pods, a client and an outside host, as network namespaces on this machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lab up                                  everything, jumbo, EIP 192.168.100.101 on pod1a
  cargo xtask lab up --mtu 1500 --no-agents           only the networks
  cargo xtask lab status -o json                      names, addresses and folders for your own tools
  cargo xtask lab exec client -- ping 192.168.100.101
  cargo xtask lab exec worker1 -- tcpdump -ni eth0 udp port 6081
  cargo xtask lab down")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Put before the names of the network namespaces, so that several labs can be up at once.
    #[arg(long, global = true, default_value = "", hide_default_value = true)]
    prefix: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the lab up, or repair what is up.
    Up {
        /// MTU of the underlay and external networks; pods get 100 less on a jumbo network.
        #[arg(long, default_value_t = JUMBO_MTU)]
        mtu: u16,
        /// Start no agents: only namespaces, wires, pods and manifests.
        #[arg(long)]
        no_agents: bool,
        /// Annotate no pod with an EIP.
        #[arg(long)]
        no_eip: bool,
    },
    /// Take the lab down, from whatever state it is in. Nothing up is fine.
    Down,
    /// Show namespaces, interfaces, addresses, pods, EIPs, agents and folders.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Run a command in the network namespace of a node, a pod, client, outside or switch.
    Exec {
        /// For example gw1, worker1, pod1a, client.
        node: String,
        /// The command; its exit code becomes this command's.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Carries the verb out.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let prefix = args.prefix;
    match args.verb {
        Verb::Up { mtu, no_agents, no_eip } => up(&prefix, mtu, !no_agents, !no_eip)?,
        Verb::Down => {
            let was_up = Lab::down(&prefix)?;
            screen::good(if was_up { "the lab is down" } else { "no lab was up" });
        }
        Verb::Status { output } => status(&prefix, output)?,
        Verb::Exec { node, command } => return exec(&prefix, &node, &command),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(prefix: &str, mtu: u16, agents: bool, eip: bool) -> Result<()> {
    let agent_binary = if agents { Some(agent()?) } else { None };
    let config = LabConfig { prefix: prefix.to_owned(), mtu, agents, eip, ephemeral: false, agent_binary };
    let mut progress = screen::Progress::default();
    let lab = Lab::up_with(&config, &mut |stage| {
        progress.say(stage);
        Ok(())
    })?;
    drop(progress);
    screen::good("the lab is up");
    print(&lab.status()?);
    Ok(())
}

/// The agent to run: `$EIP_GATEWAY_AGENT`, or this checkout's, built first when it is missing.
fn agent() -> Result<PathBuf> {
    if let Some(chosen) = workspace::chosen_agent() {
        return Ok(chosen);
    }
    let agent = workspace::agent();
    if !agent.is_file() {
        screen::note("there is no gateway-agent yet");
        build::all()?;
    }
    Ok(agent)
}

fn attach(prefix: &str) -> Result<Lab> {
    Lab::attach(prefix)?.context("no lab is up: bring it up with `cargo xtask lab up`")
}

fn status(prefix: &str, format: Format) -> Result<()> {
    let status = attach(prefix)?.status()?;
    match format {
        Format::Json => screen::line(&serde_json::to_string_pretty(&status)?),
        Format::Table => print(&status),
    }
    Ok(())
}

fn exec(prefix: &str, node: &str, command: &[String]) -> Result<ExitCode> {
    let mut command = attach(prefix)?.command(node, command)?;
    let status = command.status().with_context(|| format!("running `{}`", workspace::words(&command)))?;
    // A signal has no exit code; 255 is what remains to say that the command did not end by itself.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)))
}

fn table(title: &str, header: &[&str]) -> Table {
    screen::title(title);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    table
}

fn print(status: &Status) {
    let dash = || "-".to_owned();
    let mut networks =
        table("Namespaces", &["NAMESPACE", "INTERFACE", "ADDRESS", "MAC", "MTU", "BRIDGE", "XDP", "STATE"]);
    for namespace in &status.namespaces {
        if !namespace.present {
            networks.add_row([namespace.netns.as_str(), "-", "-", "-", "-", "-", "-", "MISSING"]);
        }
        for interface in &namespace.interfaces {
            networks.add_row([
                namespace.netns.clone(),
                interface.name.clone(),
                if interface.addresses.is_empty() { dash() } else { interface.addresses.join(" ") },
                interface.mac.clone(),
                interface.mtu.to_string(),
                interface.bridge.clone().unwrap_or_else(dash),
                if interface.xdp { "yes".to_owned() } else { dash() },
                if interface.up { "up".to_owned() } else { "DOWN".to_owned() },
            ]);
        }
    }
    screen::line(&networks.to_string());
    let mut pods = table("Pods", &["POD", "NAMESPACE", "NODE", "IP", "EIP"]);
    for pod in &status.pods {
        let ip = pod.ip.map_or_else(dash, |ip| ip.to_string());
        let eip = pod.eip.clone().unwrap_or_else(dash);
        pods.add_row([pod.name.clone(), pod.namespace.clone(), pod.node.clone(), ip, eip]);
    }
    screen::line(&pods.to_string());
    if !status.agents.is_empty() {
        let mut agents = table("Agents", &["NODE", "PID", "PINS", "LOG"]);
        for agent in &status.agents {
            let pid = agent.pid.map_or_else(|| "NOT RUNNING".to_owned(), |pid| pid.to_string());
            let (pins, log) = (agent.pin_dir.display().to_string(), agent.log.display().to_string());
            agents.add_row([agent.node.clone(), pid, pins, log]);
        }
        screen::line(&agents.to_string());
    }
    screen::line(&format!("\nRouter port  {NIC_IP} at {NIC_MAC}"));
    screen::line(&format!("Service      {SERVICE}:80 → {SERVICE_POD}:{SERVICE_TARGET_PORT}"));
    screen::line(&format!("Manifests    {}", status.manifests.display()));
}
