//! `cargo xtask demo`: the whole path, shown step by step in a lab of its own.

mod binding;
mod plain;
mod session;
mod stage;
mod traffic;
mod view;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Result, ensure};
use gateway_lab::Lab;
use nix::unistd::Uid;

use self::stage::{Set, Stage, interrupted};
use crate::{build, kube, screen, setup, workspace};

/// Show the gateway at work: one EIP, real packets, client to pod and back.
///
/// Installs what is missing, builds, makes a lab of its own beside any other, and removes it again, also on Ctrl-C.
/// The exit code is 0 only when every step was as it should be.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo --kube         an operator's session: a real API server, kubectl and a KubeVirt VM
  cargo xtask demo --mtu 1500     an ordinary underlay instead of a jumbo one")]
pub(crate) struct Args {
    /// Drive the agents by a real Kubernetes API server, with kubectl (built once from source, with Go).
    #[arg(long)]
    kube: bool,
    /// MTU of the underlay and external networks.
    #[arg(long, default_value_t = gateway_lab::JUMBO_MTU)]
    mtu: u16,
}

const PREFIX: &str = "demo-";
const NETWORKS: &str =
    "outside ── client ──[external]── gw1 ──[underlay]── worker1 (pod1a, pod1b), worker2 (pod2a, pod2b)";

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        Uid::effective().is_root(),
        "the demo makes network namespaces and loads BPF programs: run it with sudo"
    );
    setup::ensure()?;
    if args.kube {
        kube::ensure()?;
    }
    let agent = agent()?;
    stage::listen_for_interrupts()?;
    if Lab::attach("")?.is_some() {
        screen::note("a lab of yours is up and is left alone; the demo makes its own");
    }
    let since = Instant::now();
    let outcome = if args.kube { session::show(args.mtu, agent) } else { plain::show(args.mtu, agent) };
    if interrupted() {
        screen::note("interrupted; the lab is removed");
        return Ok(ExitCode::from(130));
    }
    let failed = outcome?;
    let seconds = since.elapsed().as_secs_f64();
    if failed == 0 {
        screen::title(&format!(
            "All as it should be, in {seconds:.1} s. Try it yourself: cargo xtask lab up"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    screen::title(&format!("{failed} step(s) not as they should be; look closer with: cargo xtask lab up"));
    Ok(ExitCode::FAILURE)
}

/// `$EIP_GATEWAY_AGENT`, or this checkout's, built first.
fn agent() -> Result<PathBuf> {
    if let Some(chosen) = workspace::chosen_agent() {
        screen::note(&format!("nothing is built: the agent is {} as the environment says", chosen.display()));
        return Ok(chosen);
    }
    build::all()?;
    Ok(workspace::agent())
}

/// Runs the steps, then removes the set; the number of steps that failed.
fn run_steps<S: Set>(
    set: S,
    steps: impl FnOnce(&mut Stage<S>) -> Result<()>,
    last_title: &str,
) -> Result<u32> {
    let pids = set.pids();
    let mut stage = Stage::new(set);
    steps(&mut stage)?;
    let failed = stage.failed();
    screen::title(last_title);
    drop(stage);
    ensure!(Lab::attach(PREFIX)?.is_none(), "the lab is still there: cargo xtask lab --prefix {PREFIX} down");
    let left: Vec<_> = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    ensure!(left.is_empty(), "processes of the demo still run: {left:?}");
    screen::good(&format!("namespaces, pins, manifests and {} processes are gone", pids.len()));
    Ok(failed)
}
