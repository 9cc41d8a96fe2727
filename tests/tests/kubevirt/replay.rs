//! The replay: a VM's life step by step, agents killed in the middle of every step, pings all the time.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_lab::Lab;
use gateway_tests::cluster::Scene;
use gateway_tests::scene::{EIP1, Pinging, eventually, show};
use serde_json::json;

use super::steps::{
    DONE, FAIL, MIG1, MIG2, MIG3, MIG4, MIG4_POST_COPY, MIG5, Move, RUN, Served, Step, annotate_target,
    domain_ready, placed, take,
};
use super::vm::{A, B, C, Launcher, Vm};

/// How long agents get to do what they must not.
const QUIET: Duration = Duration::from_millis(100);

/// Who has an EIP: `pod IP @ node IP` of the gateway's row, then the workers that have a row for it.
fn rows(lab: &Lab, eip: &str) -> Result<String> {
    let has = |node: &str| -> Result<Option<serde_json::Value>> {
        let shown = show(lab, node, "eips")?;
        let rows = shown["eips"].as_array().context("an array")?;
        Ok(rows.iter().find(|row| row["eip"] == eip).cloned())
    };
    let mut text = match has("gw1")? {
        Some(row) => format!(
            "{} @ {}",
            row["pod"].as_str().unwrap_or_default(),
            row["node"].as_str().unwrap_or("172.18.0.11")
        ),
        None => "nobody".to_owned(),
    };
    for worker in ["worker1", "worker2"] {
        if has(worker)?.is_some() {
            text += &format!(", {worker}");
        }
    }
    Ok(text)
}

fn wanted(by: Option<Launcher>) -> Result<String> {
    let Some(launcher) = by else { return Ok("nobody".to_owned()) };
    let node = gateway_lab::plan::Node::named(launcher.node()?).context("a node of the lab")?;
    let worker = if node.gateway { String::new() } else { format!(", {}", node.name) };
    Ok(format!("{} @ {}{worker}", launcher.ip()?, node.ip))
}

/// Within a second an EIP is served by this launcher and no other; the client reaches it.
pub(crate) fn served_by(scene: &Scene, eip: &str, by: Option<Launcher>) -> Result<()> {
    let wanted = wanted(by)?;
    let mut seen = String::new();
    eventually(Duration::from_secs(1), &format!("{eip} is served by {wanted}"), || {
        seen = rows(&scene.lab, eip)?;
        Ok(seen == wanted)
    })
    .map_err(|error| anyhow::anyhow!("{error:#}; it is by {seen}\n{}", scene.logs()))?;
    if by.is_some() {
        eventually(Duration::from_secs(1), &format!("{wanted} answers"), || answers(&scene.lab, eip, "0.1"))?;
    }
    Ok(())
}

fn answers(lab: &Lab, eip: &str, seconds: &str) -> Result<bool> {
    Ok(lab.exec("client", &["ping", "-n", "-c1", "-W", seconds, eip])?.status.success())
}

/// As [`served_by`], where nothing is to change.
pub(crate) fn stays_with(scene: &Scene, eip: &str, by: Option<Launcher>) -> Result<()> {
    sleep(QUIET);
    let (wanted, seen) = (wanted(by)?, rows(&scene.lab, eip)?);
    ensure!(seen == wanted, "{eip} was to stay with {wanted}, it is with {seen}\n{}", scene.logs());
    ensure!(by.is_none() || answers(&scene.lab, eip, "1")?, "{wanted} does not answer");
    Ok(())
}

/// Takes a VM through steps.
struct Replay {
    scene: Scene,
    vm: Vm,
}

impl Replay {
    fn new(prefix: &str) -> Result<Self> {
        let scene = Scene::new(prefix)?;
        scene.cluster.install_kubevirt()?;
        let vm = Vm::create(&scene.cluster, "web", Some(EIP1))?;
        Ok(Self { scene, vm })
    }

    /// Writes what a step writes. In its middle the agents are killed, and the next write finds none.
    fn step(&mut self, step: &Step, from: Launcher, to: Launcher) -> Result<()> {
        self.take(step, from, to).with_context(|| step.name)
    }

    fn take(&mut self, step: &Step, from: Launcher, to: Launcher) -> Result<()> {
        let place = |served| match served {
            Served::Nowhere => None,
            Served::From => Some(from),
            Served::To => Some(to),
        };
        // A migration that fails once the guest has moved takes it back.
        let back = step.name == FAIL.name && rows(&self.scene.lab, EIP1)? == wanted(Some(to))?;
        let mut before = None;
        let pings =
            if step.name == RUN.name { None } else { Some(Pinging::start(&self.scene.lab, "client", EIP1)?) };
        for (at, (write, served)) in step.writes.iter().enumerate() {
            let away = at == 1;
            if away {
                self.scene.kill_agents();
            }
            write(&Move { cluster: &self.scene.cluster, vm: &self.vm, from, to })?;
            if away {
                self.scene.restart_agents()?;
            }
            let place = place(*served);
            if before == Some(place) {
                stays_with(&self.scene, EIP1, place)
            } else {
                served_by(&self.scene, EIP1, place)
            }
            .with_context(|| format!("after write {}", at + 1))?;
            before = Some(place);
        }
        let Some(pings) = pings else { return Ok(()) };
        let lost = pings.lost()?.len();
        println!("{}: {lost} pings lost", step.name);
        // Only where the guest itself moves: until the agents have heard of it, packets go where it was.
        let moves = [MIG4.name, MIG4_POST_COPY.name].contains(&step.name) || back;
        ensure!(lost == 0 || moves && lost < 50, "{lost} pings lost");
        Ok(())
    }

    fn at(&self, from: Launcher, to: Launcher) -> Move<'_> {
        Move { cluster: &self.scene.cluster, vm: &self.vm, from, to }
    }
}

#[test]
fn migrations_and_a_restart_step_by_step() -> Result<()> {
    let mut replay = Replay::new("v1-")?;
    replay.step(&RUN, A, A)?;
    for step in [MIG1, MIG2, MIG3, MIG4, MIG5, DONE] {
        replay.step(&step, A, B)?;
    }
    // The target is now the source, and the state says so of the last migration until the hand-off of the next.
    for step in [MIG1, MIG2, MIG3, MIG4, MIG5] {
        replay.step(&step, B, C).context("the second migration")?;
    }
    replay.step(&DONE, B, C)?;
    restart(&mut replay)
}

/// `virtctl restart`: the guest shuts down, everything goes, and comes again on another node.
fn restart(replay: &mut Replay) -> Result<()> {
    let (name, pod) = (replay.vm.name, replay.vm.pod(C));
    replay.scene.cluster.delete(&["vmi", name])?;
    stays_with(&replay.scene, EIP1, Some(C)).context("the VMI is being deleted")?;
    replay.scene.cluster.delete(&["pod", &pod])?;
    replay.scene.restart_agents()?;
    stays_with(&replay.scene, EIP1, Some(C)).context("the guest shuts down")?;
    replay.vm.pod_is_gone(&replay.scene.cluster, C)?;
    served_by(&replay.scene, EIP1, None)?;
    replay.vm.instance_is_gone(&replay.scene.cluster)?;
    replay.vm.start(&replay.scene.cluster)?;
    stays_with(&replay.scene, EIP1, None)?;
    replay.step(&RUN, B, B).context("again")
}

#[test]
fn failed_and_late_migrations() -> Result<()> {
    let mut replay = Replay::new("v2-")?;
    replay.step(&RUN, A, A)?;
    for step in [MIG1, MIG2, MIG3, FAIL] {
        replay.step(&step, A, B).context("fails before the guest moves")?;
    }
    take(&replay.at(A, B), &[MIG1, MIG2, MIG3])?;
    for step in [MIG4, FAIL] {
        replay.step(&step, A, B).context("fails after the guest has moved")?;
    }
    take(&replay.at(A, B), &[MIG1, MIG2, MIG3])?;
    replay.step(&MIG4_POST_COPY, A, B)?;
    // Minutes pass, in which agents come and go; the VMI still names the source's node.
    replay.scene.restart_agents()?;
    stays_with(&replay.scene, EIP1, Some(B))?;
    replay.vm.pod_node_label(&replay.scene.cluster, A)?;
    stays_with(&replay.scene, EIP1, Some(B))?;
    replay.step(&MIG5, A, B)?;
    replay.step(&DONE, A, B)?;
    switch_unseen(&mut replay)
}

/// The agents are away when the guest moves, and find both pods and a new state.
fn switch_unseen(replay: &mut Replay) -> Result<()> {
    take(&replay.at(B, A), &[MIG1, MIG2, MIG3])?;
    replay.scene.kill_agents();
    domain_ready(&replay.at(B, A))?;
    replay.scene.restart_agents()?;
    served_by(&replay.scene, EIP1, Some(A))?;
    replay.scene.kill_agents();
    annotate_target(&replay.at(B, A))?;
    replay.vm.migration(&replay.scene.cluster, &json!({"endTimestamp": "2026-08-22T10:00:06Z"}))?;
    placed(&replay.at(B, A), A, "Running")?;
    replay.vm.pod_ends(&replay.scene.cluster, B, "Failed")?;
    replay.scene.restart_agents()?;
    served_by(&replay.scene, EIP1, Some(A))
}
