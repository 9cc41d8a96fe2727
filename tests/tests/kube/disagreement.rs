//! Agents that disagree for a moment, because one of them is behind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_lab::{Job, Signal};
use gateway_tests::scene::{EIP1, show};

use gateway_tests::cluster::{EIP, ROUTED, Scene};

/// How long one agent stands still.
const BEHIND: Duration = Duration::from_secs(1);
/// When it has to agree with the others again.
const CATCH_UP: Duration = Duration::from_secs(1);
/// What of that both may have the EIP: a few looks at three nodes on a busy machine.
const SLACK: Duration = Duration::from_millis(500);

/// A pod and its address.
type Pod = (&'static str, &'static str);

/// The pod's address that a node has for the EIP.
fn bound(scene: &Scene, node: &str) -> Result<Option<String>> {
    let all = show(&scene.lab, node, "eips")?;
    let rows = all["eips"].as_array().context("eips")?.iter();
    let rows: Vec<_> = rows.filter(|row| row["eip"] == EIP1).collect();
    ensure!(rows.len() < 2, "{node} has one EIP twice: {rows:?}");
    Ok(rows.first().and_then(|row| row["pod"].as_str()).map(str::to_owned))
}

/// Whom the nodes had the EIP for at one time.
#[derive(Debug)]
struct Sample {
    at: Instant,
    gateway: Option<String>,
    /// Of worker1 and worker2, which look at their own pods only.
    workers: [Option<String>; 2],
}

impl Sample {
    fn take(scene: &Scene) -> Result<Self> {
        let workers = [bound(scene, "worker1")?, bound(scene, "worker2")?];
        Ok(Self { at: Instant::now(), gateway: bound(scene, "gw1")?, workers })
    }

    fn both(&self) -> bool {
        self.workers.iter().all(Option::is_some)
    }

    fn agreed_on(&self, address: &str) -> bool {
        let workers: Vec<_> = self.workers.iter().flatten().collect();
        self.gateway.as_deref() == Some(address) && workers == [address]
    }
}

/// Samples for some time, one at least.
fn samples(scene: &Scene, time: Duration) -> Result<Vec<Sample>> {
    let begin = Instant::now();
    let mut samples = vec![Sample::take(scene)?];
    while begin.elapsed() < time {
        samples.push(Sample::take(scene)?);
    }
    Ok(samples)
}

/// Follows a pod, one line for each state that the API server tells: its EIP, a bar, `routed`.
fn follow(scene: &Scene, pod: &str) -> Result<Job> {
    let path = |key: &str| format!("{{.metadata.annotations.{}}}", key.replace('.', "\\."));
    let columns = format!("jsonpath={}|{}{{\"\\n\"}}", path(EIP), path(ROUTED));
    let words = scene.cluster.words(&["get", "pod", pod, "--watch", "--output", &columns]);
    let mut job = scene.lab.spawn("apiserver", &words)?;
    job.wait_for("|", Duration::from_secs(5))?;
    Ok(job)
}

/// Moves the EIP by annotations while the agent of `behind` stands still.
fn move_it(scene: &mut Scene, old: Pod, new: Pod, behind: &str) -> Result<()> {
    let mut states = follow(scene, old.0)?;
    scene.annotate(new.0, Some(EIP1))?;
    scene.event(new.0, "EipConflict", &[&format!("default/{}", old.0)])?;
    scene.agent(behind)?.signal(Signal::SIGSTOP);
    // What a gateway that is behind would mend, were the pod not to lose the EIP.
    scene.cluster.annotate("default", old.0, &[(ROUTED, None)])?;
    scene.annotate(old.0, None)?;
    let mut all = samples(scene, BEHIND)?;
    scene.agent(behind)?.signal(Signal::SIGCONT);
    all.extend(samples(scene, CATCH_UP)?);
    agree(&all, new.1).with_context(|| format!("{} to {}, {behind} behind", old.0, new.0))?;

    // The loser asks again, and stays the loser.
    scene.routed(new.0, true)?;
    scene.annotate(old.0, Some(EIP1))?;
    scene.event(old.0, "EipConflict", &[&format!("default/{}", new.0)])?;
    for sample in samples(scene, Duration::from_millis(300))? {
        ensure!(sample.agreed_on(new.1), "{sample:?}");
    }
    scene.annotate(old.0, None)?;
    loser_is_not_routed(&states.interrupt()?).with_context(|| format!("{} lost, {behind} behind", old.0))
}

/// In the end all agree, the gateway had somebody to send to all the time, and two workers had the EIP no longer than
/// one of them was behind.
fn agree(samples: &[Sample], address: &str) -> Result<()> {
    let last = samples.last().context("no sample")?;
    ensure!(last.agreed_on(address), "not agreed: {last:?}");
    ensure!(samples.len() >= 20, "{} samples tell little", samples.len());
    ensure!(samples.iter().all(|sample| sample.gateway.is_some()), "the gateway had nobody: {samples:?}");
    let mut both = samples.iter().filter(|sample| sample.both()).map(|sample| sample.at);
    let first = both.next();
    let overlap = first.map_or(Duration::ZERO, |first| both.next_back().unwrap_or(first) - first);
    println!("{} samples; two workers had it for {overlap:?}", samples.len());
    ensure!(overlap < BEHIND + SLACK, "two workers had it for {overlap:?}");
    Ok(())
}

/// Once the annotation is gone, `routed` may be taken away, and is not set again.
fn loser_is_not_routed(states: &str) -> Result<()> {
    let states: Vec<_> = states.lines().filter_map(|line| line.split_once('|')).collect();
    let lost = states.iter().position(|(eip, _)| eip.is_empty()).context("it never lost")?;
    let (had, has_not) = states.split_at(lost);
    ensure!(had.iter().any(|(eip, routed)| (*eip, *routed) == (EIP1, "true")), "it had it once: {states:?}");
    let mut routed = has_not.iter().map(|(_, routed)| *routed == "true");
    let set_again = routed.by_ref().any(|routed| !routed) && routed.any(|routed| routed);
    ensure!(!set_again, "{states:?}");
    Ok(())
}

#[test]
fn an_agent_a_second_behind_binds_no_longer_than_that() -> Result<()> {
    let mut scene = Scene::new("b8-")?;
    let (pod1a, pod2a) = (("pod1a", "10.244.1.10"), ("pod2a", "10.244.2.10"));
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    move_it(&mut scene, pod1a, pod2a, "worker1")?;
    scene.works(EIP1)?;
    move_it(&mut scene, pod2a, pod1a, "gw1")?;
    scene.works(EIP1)?;
    move_it(&mut scene, pod1a, pod2a, "worker2")?;
    scene.works(EIP1)?;
    scene.agents_live()
}
