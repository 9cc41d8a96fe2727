//! The lab without agents, for real: what the suites above it take for granted. Needs root.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gateway_lab::{CLIENT, Lab, LabConfig, NODES, OUTSIDE, PODS, SERVICE, Signal};

fn config(prefix: &str) -> LabConfig {
    LabConfig { agents: false, ..LabConfig::ephemeral(prefix) }
}

fn ping(lab: &Lab, from: &str, to: impl ToString, extra: &[&str]) -> Result<()> {
    let to = to.to_string();
    let mut words = vec!["ping", "-c1", "-W2", to.as_str()];
    words.extend(extra);
    lab.read(from, &words).map(drop).with_context(|| format!("{from} pings {to}"))
}

#[test]
fn everybody_reaches_whom_they_should() -> Result<()> {
    let lab = Lab::up(&config("n1-"))?;
    ping(&lab, "outside", CLIENT, &[])?;
    ping(&lab, "client", OUTSIDE, &[])?;
    for pod in &PODS {
        for other in &PODS {
            ping(&lab, pod.name, other.ip, &[])?;
        }
        for node in &NODES {
            ping(&lab, pod.name, node.ip, &[])?;
        }
    }
    // No node has a way out of its own.
    for node in &NODES {
        ensure!(
            !lab.exec(node.name, &["ping", "-c1", "-W1", "192.168.100.1"])?.status.success(),
            "{}",
            node.name
        );
    }
    ensure!(lab.invalid_drops("worker1")? == 0, "ordinary traffic was called INVALID");
    Ok(())
}

#[test]
fn a_service_is_dnat_for_pods_and_nodes() -> Result<()> {
    let lab = Lab::up(&config("n2-"))?;
    let mut server = lab.spawn(
        "pod2b",
        &["socat", "-d", "-d", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"],
    )?;
    server.wait_for("listening on", Duration::from_secs(2))?;
    let service = format!("TCP:{SERVICE}:80,connect-timeout=2");
    ensure!(lab.read("pod1a", &["socat", "-", &service])?.trim() == "10.244.1.10", "a pod's address is kept");
    ensure!(lab.read("worker1", &["socat", "-", &service])?.trim() == "172.18.0.21", "a node reaches it too");
    Ok(())
}

#[test]
fn pods_that_leave_the_cluster_are_masqueraded() -> Result<()> {
    let lab = Lab::up(&config("n3-"))?;
    let mut capture = lab.spawn("worker2", &["tcpdump", "-nli", "eth0", "icmp"])?;
    capture.wait_for("listening on", Duration::from_secs(5))?;
    ping(&lab, "pod1a", "172.18.0.22", &[])?;
    capture.wait_for("172.18.0.21 > 172.18.0.22: ICMP echo request", Duration::from_secs(2))
}

#[test]
fn wires_carry_whole_frames_of_their_mtu_and_nothing_larger() -> Result<()> {
    for (prefix, mtu, pod_mtu) in [("n4-", 9000_u16, 8900_u16), ("n5-", 1500, 1500)] {
        let lab = Lab::up(&LabConfig { mtu, ..config(prefix) })?;
        let size = |mtu: u16| (mtu - 28).to_string();
        ping(&lab, "pod1a", "10.244.2.10", &["-Mdo", "-s", &size(pod_mtu)])?;
        ping(&lab, "client", OUTSIDE, &["-Mdo", "-s", &size(mtu)])?;
        let largest = largest_frame_of_a_transfer(&lab)?;
        ensure!(largest <= u32::from(mtu) + 14, "a frame of {largest} bytes on a wire of MTU {mtu}");
        ensure!(largest > u32::from(pod_mtu), "only {largest} bytes: pods should send full segments");
    }
    Ok(())
}

/// Largest frame, as the switch sees it from worker1, of a TCP transfer between pods with all offloads on.
fn largest_frame_of_a_transfer(lab: &Lab) -> Result<u32> {
    let mut capture =
        lab.spawn("switch", &["tcpdump", "-nleqi", "worker2", "-Q", "out", "tcp", "port", "9"])?;
    capture.wait_for("listening on", Duration::from_secs(5))?;
    let mut server = lab.spawn("pod2a", &["socat", "-d", "-d", "-u", "TCP-LISTEN:9", "OPEN:/dev/null"])?;
    server.wait_for("listening on", Duration::from_secs(2))?;
    lab.read("pod1a", &["sh", "-c", "head -c 4000000 /dev/zero | socat -u - TCP:10.244.2.10:9"])?;
    server.wait(Duration::from_secs(5))?;
    let text = capture.interrupt()?;
    let lengths =
        text.lines().filter_map(|line| line.split("length ").nth(1)?.split(':').next()?.parse().ok());
    lengths.max().context("tcpdump saw no frame")
}

#[test]
fn a_second_up_changes_nothing_and_a_damaged_lab_is_made_anew() -> Result<()> {
    let persistent = LabConfig { ephemeral: false, ..config("n6-") };
    let guard = DownOnDrop("n6-");
    let lab = Lab::up(&persistent)?;
    lab.read("gw1", &["ip", "link", "add", "witness", "type", "bridge"])?;
    let lab_again = Lab::up(&persistent)?;
    lab_again.read("gw1", &["ip", "link", "show", "witness"])?;

    lab.read("worker1", &["ip", "link", "del", "eth0"])?;
    Lab::up(&persistent)?;
    ping(&lab, "pod1a", "10.244.2.10", &[])?;
    ensure!(!lab.exec("gw1", &["ip", "link", "show", "witness"])?.status.success(), "the lab was made anew");

    let smaller = Lab::up(&LabConfig { mtu: 1500, ..persistent })?;
    ensure!(smaller.status()?.pod_mtu == 1500, "another MTU makes another lab");
    drop(guard);
    ensure!(Lab::attach("n6-")?.is_none() && !Lab::down("n6-")?, "it is down");
    Ok(())
}

struct DownOnDrop(&'static str);

impl Drop for DownOnDrop {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(self.0) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    let lab = Lab::up(&config("n7-"))?;
    let state = lab.status()?.state;
    // A process that nobody guards any more keeps a namespace alive unless `down` ends it.
    let mut stray = lab.command("pod1a", &["sleep", "60"])?.spawn()?;
    drop(lab);
    ensure!(stray.wait()?.code().is_none(), "the stray process was ended by a signal");
    ensure!(!state.exists(), "{} is still there", state.display());
    let left = String::from_utf8(Command::new("ip").args(["netns", "list"]).output()?.stdout)?;
    ensure!(!left.contains("n7-"), "left behind: {left}");
    Ok(())
}

#[test]
fn down_works_from_a_half_made_lab() -> Result<()> {
    let lab = Lab::up(&LabConfig { ephemeral: false, ..config("n8-") })?;
    let state = lab.status()?.state;
    fs::write(state.join("lab.json"), "{ half")?;
    fs::write(state.join("agents/gw1.pid"), "1 1")?;
    Command::new("ip").args(["netns", "del", "n8-worker1"]).status()?;
    ensure!(Lab::down("n8-")?, "there was a lab");
    ensure!(!Path::new("/run/netns/n8-gw1").exists() && !state.exists(), "it is gone");
    Ok(())
}

#[test]
fn a_foreign_namespace_is_left_alone() -> Result<()> {
    Command::new("ip").args(["netns", "add", "n9-client"]).status()?;
    let refused = Lab::up(&config("n9-")).map(drop);
    let untouched = Path::new("/run/netns/n9-client").exists();
    Command::new("ip").args(["netns", "del", "n9-client"]).status()?;
    let message = refused.expect_err("it is not ours").to_string();
    ensure!(untouched && message.contains("ip netns del n9-client"), "{message}");
    Ok(())
}

#[test]
fn a_manifest_is_replaced_in_one_step_and_a_job_ends_with_its_guard() -> Result<()> {
    let lab = Lab::up(&config("n10-"))?;
    let eip_of = |pod: &str| -> Result<_> {
        Ok(lab.status()?.pods.into_iter().find(|found| found.name == pod).and_then(|found| found.eip))
    };
    lab.annotate("pod1b", Some("192.168.100.102"))?;
    assert_eq!(eip_of("pod1b")?.as_deref(), Some("192.168.100.102"));
    lab.annotate("pod1b", None)?;
    assert_eq!(eip_of("pod1b")?, None);
    lab.write_manifest("bad.yaml", "kind: [")?;
    assert_eq!(lab.status()?.pods.len(), PODS.len(), "a bad file disturbs nobody");
    lab.remove_manifest("bad.yaml")?;

    let job = lab.spawn("pod1a", &["sh", "-c", "sleep 60 & wait"])?;
    let pid = job.pid();
    drop(job);
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "the job was ended");
    ensure!(lab.kill_agent("gw1", Signal::SIGTERM).is_err(), "there is no agent to end");
    Ok(())
}
