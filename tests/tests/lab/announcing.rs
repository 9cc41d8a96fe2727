//! The switch always knows where the gateway is: what is announced, when, and how fast (RFC 5227 section 2.3).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use gateway_lab::{Lab, NIC_IP, NIC_MAC};

use crate::capture::{Capture, Frames};
use crate::events::manifest;
use crate::scene::{EIP1, EIP2, Scene, eips, eventually, reaches, scene};

/// The switch's end of the external NIC's wire.
const PORT: &str = "gw1-enp8s0";
/// Announcements a second unless configured otherwise.
const RATE: usize = 100;

/// Plugs the external NIC's cable in or out.
fn plug(lab: &Lab, state: &str) -> Result<()> {
    lab.read("switch", &["ip", "link", "set", PORT, state]).map(drop)
}

fn epoch() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// When an address was announced, ascending, seconds since the epoch; `None`: any address.
fn announced(frames: &Frames, address: Option<&str>) -> Result<Vec<f64>> {
    let mut filter = format!("arp.isgratuitous == 1 && arp.src.hw_mac == {NIC_MAC}");
    if let Some(address) = address {
        filter += &format!(" && arp.src.proto_ipv4 == {address}");
    }
    let times = frames.fields(&filter, &["frame.time_epoch"], &[])?;
    times.iter().flatten().map(|time| time.parse().with_context(|| time.clone())).collect()
}

/// Whether an address was announced within `limit` seconds of `since`.
fn soon(frames: &Frames, address: &str, since: f64, limit: f64) -> Result<()> {
    let times = announced(frames, Some(address))?;
    let first = times.iter().find(|time| **time >= since);
    ensure!(first.is_some_and(|time| time - since < limit), "{address} after {since}: {times:?}");
    Ok(())
}

/// A lab whose first announcements are over, and what arrives at the client from now on.
fn quiet(prefix: &str) -> Result<(Scene, Capture)> {
    let lab = scene(prefix, 1500)?;
    std::thread::sleep(Duration::from_millis(2500));
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    Ok((lab, capture))
}

/// All that is owned was announced within a second, and is reached.
fn all_soon(lab: &Lab, capture: Capture, since: f64) -> Result<()> {
    std::thread::sleep(Duration::from_millis(1200));
    let frames = capture.stop()?;
    soon(&frames, &NIC_IP.to_string(), since, 1.0)?;
    soon(&frames, EIP1, since, 1.0)?;
    reaches(lab, "client", EIP1, 2).map(drop)
}

#[test]
fn after_the_carrier_came_back() -> Result<()> {
    let (lab, capture) = quiet("an1-")?;
    plug(&lab, "down")?;
    std::thread::sleep(Duration::from_secs(1));
    let since = epoch()?;
    plug(&lab, "up")?;
    all_soon(&lab, capture, since)
}

#[test]
fn after_the_nic_was_down() -> Result<()> {
    let (lab, capture) = quiet("an2-")?;
    let since = epoch()?;
    // The agent sets it up again.
    lab.read("gw1", &["ip", "link", "set", "enp8s0", "down"])?;
    all_soon(&lab, capture, since)
}

#[test]
fn after_the_node_was_not_ready_and_another_gateway_may_have_owned() -> Result<()> {
    let (lab, capture) = quiet("an6-")?;
    let file = manifest(&lab, "node-gw1")?;
    let node = std::fs::read_to_string(lab.manifests().join(&file))?;
    let ready = "status: \"True\"\n";
    let since = epoch()?;
    lab.write_manifest(
        &file,
        &node.replace(ready, &format!("{ready}      lastTransitionTime: 2026-01-01T00:00:00Z\n")),
    )?;
    all_soon(&lab, capture, since)
}

#[test]
fn an_eip_that_was_added_without_carrier_when_it_is_back() -> Result<()> {
    let lab = scene("an3-", 1500)?;
    plug(&lab, "down")?;
    std::thread::sleep(Duration::from_millis(300));
    lab.annotate("pod2a", Some(EIP2))?;
    std::thread::sleep(Duration::from_secs(3));
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    let since = epoch()?;
    plug(&lab, "up")?;
    std::thread::sleep(Duration::from_millis(1200));
    soon(&capture.stop()?, EIP2, since, 1.0)?;
    reaches(&lab, "client", EIP2, 2).map(drop)
}

#[test]
fn nic_ip_again_and_again() -> Result<()> {
    let lab = scene("an4-", 1500)?;
    std::thread::sleep(Duration::from_secs(4));
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    std::thread::sleep(Duration::from_secs(31));
    let times = announced(&capture.stop()?, Some(&NIC_IP.to_string()))?;
    ensure!(times.len() == 1, "once in 30 s: {times:?}");
    Ok(())
}

/// A pod of worker1 with an EIP of 192.168.101.0/24.
fn pod(number: usize) -> String {
    let (third, fourth) = (10 + number / 200, 1 + number % 200);
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: many-{number}\n  namespace: default\n  annotations: \
         {{ovn.kubernetes.io/eip: 192.168.{}.{fourth}}}\nspec: {{nodeName: worker1, containers: []}}\nstatus:\n  \
         phase: Running\n  podIP: 10.244.{third}.{fourth}\n  conditions: [{{type: Ready, status: \"True\"}}]\n",
        101 + number / 200
    )
}

#[test]
fn three_hundred_new_eips_keep_the_rate() -> Result<()> {
    let lab = scene("an5-", 1500)?;
    let file = manifest(&lab, "config")?;
    let config = std::fs::read_to_string(lab.manifests().join(&file))?;
    lab.write_manifest(
        &file,
        &config.replace("192.168.100.1/24", "192.168.100.1/20").replace("254/24", "254/20"),
    )?;
    std::thread::sleep(Duration::from_secs(3));
    let capture = Capture::arriving(&lab, "client", "eth0")?;
    lab.write_manifest("many.yaml", &(0..300).map(pod).collect::<String>())?;
    eventually(Duration::from_secs(20), "300 EIPs are served", || Ok(eips(&lab, "gw1")?.len() == 301))?;
    std::thread::sleep(Duration::from_secs(4));
    let frames = capture.stop()?;
    let announced = frames.fields(
        &format!("arp.isgratuitous == 1 && arp.src.hw_mac == {NIC_MAC}"),
        &["arp.src.proto_ipv4"],
        &[],
    )?;
    let distinct: std::collections::BTreeSet<_> = announced.iter().flatten().collect();
    ensure!(distinct.len() >= 300, "{} were announced", distinct.len());
    // Probes count as well.
    let times = frames.fields(&format!("arp && eth.src == {NIC_MAC}"), &["frame.time_epoch"], &[])?;
    let times: Vec<f64> = times.iter().flatten().filter_map(|time| time.parse().ok()).collect();
    let in_a_second = |at: usize| times.iter().skip(at).take_while(|time| **time < times[at] + 1.0).count();
    let most = (0..times.len()).map(in_a_second).max().unwrap_or_default();
    // A tenth more may come at once, and a frame for the kernel's own next hop.
    ensure!(most <= RATE + RATE / 10 + 3, "{most} in one second");
    Ok(())
}
