//! Events of the `dir` source, live: what the manifests say now is what the data path does within a second.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_lab::Lab;

use crate::scene::{EIP1, EIP2, Pinging, does_not_reach, eips, eventually, holds, reaches, scene};

/// Waits until the gateway's log says all of `words` in one line.
fn says(lab: &Lab, words: &[&str]) -> Result<()> {
    eventually(Duration::from_secs(2), &format!("the log says {words:?}"), || {
        Ok(lab.agent_log("gw1")?.lines().any(|line| words.iter().all(|word| line.contains(word))))
    })
    .map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.agent_log("gw1").unwrap_or_default()))
}

/// An address works within a second of the event, and from then on.
fn within_a_second(lab: &Lab, address: &str) -> Result<()> {
    let answers = || Ok(lab.exec("client", &["ping", "-n", "-c1", "-W0.1", address])?.status.success());
    eventually(Duration::from_secs(1), &format!("the client reaches {address}"), answers)?;
    reaches(lab, "client", address, 3).map(drop)
}

/// The file name of the manifest that has `part` in its name.
pub(crate) fn manifest(lab: &Lab, part: &str) -> Result<String> {
    let names = std::fs::read_dir(lab.manifests())?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.into_iter().find(|name| name.contains(part)).ok_or_else(|| anyhow::anyhow!("a manifest of {part}"))
}

/// Whether anybody on the external network answers ARP for an address.
fn arp_answered(lab: &Lab, address: &str) -> Result<bool> {
    Ok(lab.exec("client", &["arping", "-q", "-c1", "-w1", "-I", "eth0", address])?.status.success())
}

#[test]
fn set_change_and_remove() -> Result<()> {
    let lab = scene("e1-", 9000)?;
    reaches(&lab, "client", EIP1, 2)?;
    lab.annotate("pod1a", Some("192.168.100.111"))?;
    within_a_second(&lab, "192.168.100.111")?;
    holds(&lab, "gw1", &["192.168.100.111"])?;
    ensure!(!arp_answered(&lab, EIP1)?, "the old EIP is answered no more");
    lab.annotate("pod1a", None)?;
    holds(&lab, "gw1", &[])?;
    holds(&lab, "worker1", &[])?;
    ensure!(!arp_answered(&lab, "192.168.100.111")?, "the EIP is answered no more");
    does_not_reach(&lab, "client", "192.168.100.111")?;
    ensure!(!lab.read("worker1", &["ip", "rule"])?.contains("10.244.1.10"), "its rule is gone");
    // And back, on the other pod of the same node.
    lab.annotate("pod1b", Some(EIP1))?;
    within_a_second(&lab, EIP1)
}

#[test]
fn new_addresses_are_announced() -> Result<()> {
    let lab = scene("e2-", 9000)?;
    let capture = crate::capture::Capture::start(&lab, "client", "eth0")?;
    lab.annotate("pod2a", Some(EIP2))?;
    holds(&lab, "gw1", &[EIP1, EIP2])?;
    sleep(Duration::from_millis(300));
    let gratuitous = format!(
        "arp.isgratuitous == 1 && arp.src.proto_ipv4 == {EIP2} && arp.src.hw_mac == 16:52:f3:13:6a:25"
    );
    ensure!(!capture.stop()?.matching(&gratuitous)?.is_empty(), "gratuitous ARP for {EIP2}");
    Ok(())
}

#[test]
fn every_refusal_names_object_field_and_remedy() -> Result<()> {
    let lab = scene("e3-", 9000)?;
    let field = "metadata.annotations[ovn.kubernetes.io/eip]";
    for (value, why) in [
        ("not-an-address", "IPv4"),
        ("192.168.100.0/24", "prefix"),
        ("10.1.1.1", "outside"),
        ("192.168.100.254", "nic-ip"),
        ("192.168.100.1", "physical gateway"),
        ("192.168.100.255", "broadcast"),
    ] {
        lab.annotate("pod2a", Some(value))?;
        says(&lab, &["pod default/pod2a", field, why])?;
        ensure!(eips(&lab, "gw1")? == [EIP1], "{value} is not programmed, {EIP1} still is");
    }
    lab.annotate("pod2a", Some(EIP1))?;
    says(&lab, &["pod default/pod2a", field, "pod default/pod1a"])?;
    reaches(&lab, "client", EIP1, 2)?;
    // The owner goes: the other takes over by itself.
    lab.annotate("pod1a", None)?;
    holds(&lab, "worker2", &[EIP1])?;
    within_a_second(&lab, EIP1)
}

#[test]
fn bad_files_do_not_disturb_what_runs() -> Result<()> {
    let lab = scene("e4-", 9000)?;
    let mut pings = lab.spawn("client", &["ping", "-n", "-i0.02", "-c200", EIP1])?;
    lab.write_manifest("bad-yaml.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: [oops\n")?;
    says(&lab, &["bad-yaml.yaml"])?;
    lab.write_manifest("bad-kind.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n")?;
    says(&lab, &["bad-kind.yaml", "Deployment"])?;
    lab.write_manifest(
        "bad-address.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: broken, namespace: default}\nspec: {nodeName: worker1, containers: []}\n\
         status: {phase: Running, podIP: 10.244.1.999}\n",
    )?;
    says(&lab, &["bad-address.yaml", "status.podIP", "10.244.1.999"])?;
    // A file that held a pod turns bad: the pod stays as it was.
    let pod_file = manifest(&lab, "pod1a")?;
    lab.write_manifest(&pod_file, "kind: Pod\nmetadata: {{{\n")?;
    says(&lab, &[&pod_file])?;
    pings.wait(Duration::from_secs(15))?;
    let pings = crate::scene::parse_ping(pings.stdout())?;
    ensure!(pings.received == 200, "{} of 200 pings lost", 200 - pings.received);
    ensure!(eips(&lab, "gw1")? == [EIP1], "still bound");
    Ok(())
}

#[test]
fn the_config_map_is_live_and_a_bad_edit_changes_nothing() -> Result<()> {
    let lab = scene("e5-", 9000)?;
    let file = manifest(&lab, "config")?;
    let good = std::fs::read_to_string(lab.manifests().join(&file))?;
    ensure!(good.contains("192.168.100.254/24"), "{good}");

    lab.write_manifest(&file, &good.replace("192.168.100.254/24", "192.168.200.254/24"))?;
    says(&lab, &["data[nic-ip]", "192.168.200.254"])?;
    reaches(&lab, "client", EIP1, 2)?;

    lab.write_manifest(&file, &good.replace("192.168.100.254/24", "192.168.100.253/24"))?;
    eventually(Duration::from_secs(2), "nic-ip has moved", || {
        Ok(reaches(&lab, "client", "192.168.100.253", 1).is_ok())
    })?;
    ensure!(!arp_answered(&lab, "192.168.100.254")?, "the old nic-ip is answered no more");
    reaches(&lab, "client", EIP1, 2)?;
    reaches(&lab, "pod1a", "203.0.113.10", 2)?;

    lab.write_manifest(
        &file,
        &good.replace("enable-external-gw: \"true\"", "enable-external-gw: \"false\""),
    )?;
    eventually(Duration::from_secs(2), "the router port is gone", || {
        Ok(!lab.read("gw1", &["ip", "link"])?.contains("eip-router"))
    })?;
    does_not_reach(&lab, "client", EIP1)?;

    lab.write_manifest(&file, &good)?;
    eventually(Duration::from_secs(3), "everything is back", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.agent_log("gw1").unwrap_or_default()))?;
    ensure!(arp_answered(&lab, "192.168.100.254")?, "and nic-ip too");
    Ok(())
}

#[test]
fn a_config_map_that_is_deleted_and_made_again_disturbs_nothing() -> Result<()> {
    let lab = scene("e6-", 9000)?;
    let file = manifest(&lab, "config")?;
    let path = lab.manifests().join(&file);
    let good = std::fs::read_to_string(&path)?;
    let pinging = Pinging::start(&lab, "client", EIP1)?;
    for away in [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(4)] {
        std::fs::remove_file(&path)?;
        sleep(away);
        lab.write_manifest(&file, &good)?;
        sleep(Duration::from_millis(300));
    }
    pinging.none_lost()?;
    says(&lab, &["ovn-external-gw-config", "deleted", "create it again"])?;
    // Made empty first and filled later, as some tools do.
    let pinging = Pinging::start(&lab, "client", EIP1)?;
    let (head, _) = good.split_once("\ndata:").ok_or_else(|| anyhow::anyhow!("data: {good}"))?;
    lab.write_manifest(&file, head)?;
    says(&lab, &["data[enable-external-gw]", "missing"])?;
    lab.write_manifest(&file, &good)?;
    sleep(Duration::from_millis(300));

    // For good: all goes on for as long as was said, and no longer.
    std::fs::remove_file(&path)?;
    let begin = Instant::now();
    sleep(Duration::from_secs(9));
    ensure!(eips(&lab, "gw1")? == [EIP1], "still bound");
    pinging.none_lost()?;
    eventually(Duration::from_secs(4), "the router port is gone", || {
        Ok(!lab.read("gw1", &["ip", "link"])?.contains("eip-router"))
    })?;
    ensure!(begin.elapsed() > Duration::from_secs(10), "withdrawn after {:?}", begin.elapsed());
    does_not_reach(&lab, "client", EIP1)?;
    lab.write_manifest(&file, &good)?;
    eventually(Duration::from_secs(3), "all is back", || Ok(reaches(&lab, "client", EIP1, 1).is_ok()))
}
