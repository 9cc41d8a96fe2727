//! `cargo xtask demo`: agents that read manifests from a directory.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use gateway_lab::{EIP, EIP_POD, Lab, LabConfig, OUTSIDE};

use super::{
    PREFIX, binding,
    stage::{self, Stage},
    traffic, view,
};
use crate::screen;

/// Runs every step; the number of those that failed. The lab is gone when this returns.
pub(crate) fn show(mtu: u16, agent: PathBuf) -> Result<u32> {
    screen::title("1. A cluster's networks, with an agent on every node");
    super::run_steps(bring_up(mtu, agent)?, steps, "12. Cleaning up")
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
    screen::detail(super::NETWORKS);
    Ok(lab)
}

fn steps(stage: &mut Stage<Lab>) -> Result<()> {
    stage.essential(
        &format!("2. {EIP_POD} gets the EIP {EIP}: one annotation in its manifest"),
        "the log of gw1's agent says what it made of the annotation",
        binding::assign,
    )?;
    let before = view::eips(stage.set()).unwrap_or_default();
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
