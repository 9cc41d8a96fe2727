//! `cargo xtask demo`: the whole path, shown step by step in a lab of its own.

mod binding;
mod stage;
mod traffic;
mod view;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use gateway_lab::{EIP, EIP_POD, Lab, LabConfig, OUTSIDE};
use nix::unistd::Uid;

use self::stage::{Stage, interrupted};
use crate::{build, screen, setup, workspace};

/// Show the gateway at work: one EIP, real packets, client to pod and back.
///
/// Installs what is missing, builds, makes a lab of its own beside any other, and removes it again, also on Ctrl-C.
/// The exit code is 0 only when every step was as it should be.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo --mtu 1500     an ordinary underlay instead of a jumbo one")]
pub(crate) struct Args {
    /// MTU of the underlay and external networks.
    #[arg(long, default_value_t = gateway_lab::JUMBO_MTU)]
    mtu: u16,
}

const PREFIX: &str = "demo-";

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        Uid::effective().is_root(),
        "the demo makes network namespaces and loads BPF programs: run it with sudo"
    );
    setup::ensure()?;
    let agent = agent()?;
    stage::listen_for_interrupts()?;
    let since = Instant::now();
    let outcome = show(args.mtu, agent);
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

/// Runs every step; the number of those that failed. The lab is gone when this returns.
fn show(mtu: u16, agent: PathBuf) -> Result<u32> {
    screen::title("1. A cluster's networks, with an agent on every node");
    if Lab::attach("")?.is_some() {
        screen::note("a lab of yours is up and is left alone; the demo makes its own");
    }
    let lab = bring_up(mtu, agent)?;
    let mut stage = Stage::new(lab);
    steps(&mut stage)?;
    let failed = stage.failed();
    screen::title("12. Cleaning up");
    drop(stage);
    ensure!(Lab::attach(PREFIX)?.is_none(), "the lab is still there: cargo xtask lab --prefix {PREFIX} down");
    screen::good("namespaces, pins and manifests are gone");
    Ok(failed)
}

fn bring_up(mtu: u16, agent: PathBuf) -> Result<Lab> {
    let config = LabConfig { mtu, agent_binary: Some(agent), ..LabConfig::ephemeral(PREFIX) };
    let since = Instant::now();
    let mut progress = screen::Progress::default();
    let lab = Lab::up_with(&config, &mut |what| {
        progress.say(what);
        stage::go_on()
    })
    .context("bringing the lab up")?;
    drop(progress);
    screen::good(&format!("up and in sync in {:.1} s", since.elapsed().as_secs_f64()));
    screen::detail(
        "outside ── client ──[external]── gw1 ──[underlay]── worker1 (pod1a, pod1b), worker2 (pod2a, pod2b)",
    );
    Ok(lab)
}

fn steps(stage: &mut Stage) -> Result<()> {
    stage.essential(
        &format!("2. {EIP_POD} gets the EIP {EIP}: one annotation in its manifest"),
        "the log of gw1's agent says what it made of the annotation",
        binding::assign,
    )?;
    let before = view::eips(stage.lab()).unwrap_or_default();
    stage.step("3. ARP: the router port answers", "gateway-agent show verdicts on gw1", binding::arp)?;
    stage.step("4. ping", "gateway-agent show verdicts on gw1 and worker1", traffic::ping)?;
    stage.step("5. TCP, both ways", "compare `ethtool -k` and the MTUs in `lab status`", traffic::tcp)?;
    stage.step("6. UDP, both ways", "gateway-agent show verdicts on gw1 and worker1", traffic::udp)?;
    stage.step(
        &format!("7. {EIP_POD} pings {OUTSIDE} behind the physical gateway"),
        "`ip rule` and the nftables table of the agent on worker1",
        traffic::outside,
    )?;
    stage.step("8. What is on worker1's only wire", "gateway-agent show verdicts on worker1", view::wire)?;
    stage.step("9. Counters", "gateway-agent show eips on gw1", |lab| view::counters(lab, &before))?;
    stage.step("10. The pinned map, by bpftool", "bpftool map show pinned", view::map)?;
    stage.step(
        "11. The annotation goes, and with it the EIP",
        "the log of gw1's agent says what it made of the change",
        binding::withdraw,
    )
}
