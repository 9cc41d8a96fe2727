//! The annotation comes and goes by kubectl.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gateway_lab::{EIP, EIP_POD, manifest::EIP_ANNOTATION, plan::Pod};
use serde_json::Value;

use super::{scene::Scene, vm::LAUNCHER};
use crate::demo::{
    binding::{PROMISE, answers, nobody_has_it, until},
    stage::Findings,
    view,
};

/// The annotation that says the EIP is programmed.
const ROUTED: &str = "ovn.kubernetes.io/routed";

pub(crate) fn assign(scene: &Scene) -> Result<Findings> {
    ensure!(!answers(&scene.lab, EIP)?, "{EIP} answers before anybody has it");
    let enter = Instant::now();
    let typed =
        scene.typed(&["annotate", "pod", LAUNCHER, &format!("{EIP_ANNOTATION}={EIP}"), "--overwrite"])?;
    let stored = Instant::now();
    let took =
        until(stored, || answers(&scene.lab, EIP)).with_context(|| format!("{EIP} does not answer"))?;
    ensure!(took <= PROMISE, "{EIP} answered only {} ms after kubectl's answer", took.as_millis());
    let kubectl = stored.duration_since(enter).as_millis();
    until(Instant::now(), || routed(scene)).with_context(|| format!("{ROUTED} is not \"true\""))?;
    Ok(vec![
        typed,
        format!("{EIP} answers {} ms after kubectl did, which itself took {kubectl} ms", took.as_millis()),
        format!("{ROUTED} is \"true\""),
        remove_routed(scene)?,
    ])
}

fn routed(scene: &Scene) -> Result<bool> {
    Ok(scene.annotation(ROUTED)?.as_deref() == Some("true"))
}

/// The second line of the recipe: not needed, and harmless.
fn remove_routed(scene: &Scene) -> Result<String> {
    let mut pings = scene.lab.spawn("client", &["ping", "-n", "-i0.02", &EIP.to_string()])?;
    let left = "--output=jsonpath={.metadata.annotations}";
    let typed = scene.typed(&["annotate", "pod", LAUNCHER, &format!("{ROUTED}-"), left])?;
    let removed = typed.lines().nth(1).is_some_and(|answer| !answer.contains(ROUTED));
    ensure!(removed, "{ROUTED} was not removed:\n{typed}");
    until(Instant::now(), || routed(scene)).with_context(|| format!("{ROUTED} did not return"))?;
    // Harm may come late.
    thread::sleep(Duration::from_millis(300));
    let text = pings.interrupt()?;
    let answered = unbroken(&text).with_context(|| format!("pings were lost meanwhile: {text}"))?;
    ensure!(answered >= 10, "only {answered} pings were answered in all that time: {text}");
    Ok(format!(
        "{typed}\nharmless: {ROUTED} is \"true\" again, and {answered} of {answered} pings were answered"
    ))
}

/// How many replies `ping` has seen, `None` when one is missing between them. The last request may be on its way.
fn unbroken(text: &str) -> Option<usize> {
    let replies = text.lines().filter(|line| line.contains("ttl="));
    let number = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
    let numbers = replies.map(number).collect::<Option<Vec<_>>>()?;
    numbers.iter().copied().eq(1..=numbers.len()).then_some(numbers.len())
}

pub(crate) fn nat_table(scene: &Scene) -> Result<Findings> {
    let json = view::json(&scene.lab, "eips")?;
    let rows = json["eips"].as_array().context("`show eips -o json` has no eips")?;
    let [row] = rows.as_slice() else { bail!("one row is right, not {}: {json}", rows.len()) };
    let pod = Pod::named(EIP_POD).context("the EIP's pod is one of the lab's")?;
    for (field, wanted) in [
        ("eip", EIP.to_string()),
        ("pod", pod.ip.to_string()),
        ("pod_name", format!("default/{LAUNCHER}")),
        ("node_name", pod.node.to_owned()),
    ] {
        ensure!(row[field] == wanted, "{field} is {} instead of {wanted}", row[field]);
    }
    let problems = json["problems"].as_array().context("`show eips -o json` has no problems")?;
    let [advice] = problems.as_slice() else { bail!("one piece of advice is right: {json}") };
    ensure!(advice["kind"] == "warning" && advice["remedy"] != "", "the EIP has a problem: {advice}");
    Ok(vec![
        format!("one row, {EIP} ↔ {}, both directions\n{}", pod.ip, view::eip_table(&scene.lab)?),
        format!("and advice: {}; {}", words(&advice["message"]), words(&advice["remedy"])),
    ])
}

fn words(text: &Value) -> &str {
    text.as_str().unwrap_or_default()
}

pub(crate) fn withdraw(scene: &Scene) -> Result<Findings> {
    let bound = told(scene, "EipBound", "gw1")?;
    let typed = scene.typed(&["annotate", "pod", LAUNCHER, &format!("{EIP_ANNOTATION}-")])?;
    let since = Instant::now();
    let took =
        until(since, || Ok(!answers(&scene.lab, EIP)?)).with_context(|| format!("{EIP} still answers"))?;
    ensure!(took <= PROMISE, "{EIP} answered until {} ms after the annotation went", took.as_millis());
    nobody_has_it(&scene.lab)?;
    let events = told(scene, "EipReleased", &EIP.to_string())?;
    let released = events.lines().find(|line| line.contains("EipReleased")).unwrap_or_default();
    until(since, || Ok(!routed(scene)?)).with_context(|| format!("{ROUTED} is still \"true\""))?;
    Ok(vec![
        format!("kubectl describe pod {LAUNCHER}\n{bound}"),
        format!("{typed}gone {} ms after kubectl's answer; nobody answers ARP for it", took.as_millis()),
        format!("kubectl describe pod {LAUNCHER}\n{released}"),
        format!("{ROUTED} is gone, and the VM still reaches the other pods"),
    ])
}

/// The Events of the pod as `kubectl describe` shows them, once there is one with that reason and word.
fn told(scene: &Scene, reason: &str, word: &str) -> Result<String> {
    let mut events = String::new();
    until(Instant::now(), || {
        let text = scene.cluster.kubectl(&["describe", "pod", LAUNCHER])?;
        events = text.find("Events:").map(|at| text[at..].to_owned()).unwrap_or_default();
        Ok(events.lines().any(|line| line.contains(reason) && line.contains(word)))
    })
    .with_context(|| format!("`kubectl describe pod` shows no {reason} with {word}:\n{events}"))?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::unbroken;

    #[test]
    fn a_gap_between_replies_is_a_lost_ping() {
        let reply =
            |number: &u32| format!("64 bytes from 192.168.100.101: icmp_seq={number} ttl=62 time=0.2 ms\n");
        let text = |numbers: &[u32]| numbers.iter().map(reply).collect::<String>();
        assert_eq!(unbroken(&text(&[1, 2, 3])), Some(3));
        assert_eq!(unbroken(&text(&[1, 3])), None);
        assert_eq!(unbroken(&text(&[2, 3])), None);
        assert_eq!(unbroken(""), Some(0));
        let unreachable = "From 192.168.100.1 icmp_seq=2 Destination Host Unreachable\n";
        assert_eq!(unbroken(&[&text(&[1]), unreachable, &text(&[3])].concat()), None);
    }
}
