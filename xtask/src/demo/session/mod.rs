//! `cargo xtask demo --kube`: an operator's session, with kubectl on a real API server that the agents watch.

mod binding;
mod config;
mod scene;
mod traffic;
mod vm;
mod watch;

use std::path::PathBuf;

use anyhow::Result;
use gateway_lab::{CLIENT, EIP, EIP_POD, NIC_IP};

use self::{scene::Scene, vm::LAUNCHER};
use super::stage::Stage;
use crate::screen;

const AGENTS: &str = "the log of gw1's agent";
const VERDICTS: &str = "gateway-agent show verdicts on gw1 and worker1";

/// Runs every step; the number of those that failed. Everything is gone when this returns.
pub(crate) fn show(mtu: u16, agent: PathBuf) -> Result<u32> {
    screen::title("1. A cluster's networks, a Kubernetes API server, and an agent on every node");
    super::run_steps(Scene::bring_up(mtu, agent)?, steps, "13. Cleaning up")
}

fn steps(stage: &mut Stage<Scene>) -> Result<()> {
    stage.essential("2. The ConfigMap", AGENTS, config::apply)?;
    stage.step("3. What was set up: `gateway-agent show` on gw1", AGENTS, config::overview)?;
    stage.step(&format!("4. From outside: ping {NIC_IP}"), VERDICTS, config::nic_ip)?;
    stage.essential(
        &format!("5. A KubeVirt VM `testvm`; its pod is in the place of {EIP_POD}"),
        "kubectl's answer",
        vm::start,
    )?;
    stage.essential(&format!("6. {LAUNCHER} gets the EIP {EIP}"), AGENTS, binding::assign)?;
    stage.step("7. The NAT table", "gateway-agent show eips on gw1", binding::nat_table)?;
    stage.step(&format!("8. From outside: ping and TCP to {EIP}"), VERDICTS, traffic::inwards)?;
    stage.step(&format!("9. From the VM: ping {CLIENT}"), VERDICTS, traffic::outwards)?;
    stage.step("10. Where the traffic goes, and what counts it", VERDICTS, watch::counters)?;
    stage.step(
        &format!("11. From another node: worker2 pings {EIP}"),
        "nft list table ip eip_gateway on worker2",
        traffic::from_another_node,
    )?;
    stage.step(&format!("12. What Kubernetes knows, and the end of {EIP}"), AGENTS, binding::withdraw)
}
