//! NICs that give less than native XDP: the same datapath in TC alone.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::{Xdp, xdp::XdpMode};
use gateway_lab::Lab;
use gateway_tests::engines::kernel::object_path;
use nix::sched::{CloneFlags, setns};

use crate::scene::{EIP1, eventually, reaches, scene, verdict, who_am_i};

/// Switches the gateway off, lets `change` do as it likes with the NICs, and switches it on with external NIC `nic`.
fn replug<T>(lab: &Lab, nic: &str, change: impl FnOnce() -> Result<T>) -> Result<T> {
    let file = crate::events::manifest(lab, "config")?;
    let text = std::fs::read_to_string(lab.manifests().join(&file))?;
    lab.write_manifest(
        &file,
        &text.replace("enable-external-gw: \"true\"", "enable-external-gw: \"false\""),
    )?;
    eventually(Duration::from_secs(2), "the router port is gone", || {
        Ok(!lab.read("gw1", &["ip", "link"])?.contains("eip-router"))
    })?;
    let changed = change()?;
    lab.write_manifest(&file, &text.replace("\"enp8s0\"", &format!("\"{nic}\"")))?;
    Ok(changed)
}

fn works(lab: &Lab) -> Result<()> {
    eventually(Duration::from_secs(3), "the EIP answers", || Ok(reaches(lab, "client", EIP1, 1).is_ok()))?;
    // The client asks anew, and is answered.
    lab.read("client", &["ip", "neigh", "flush", "all"])?;
    reaches(lab, "client", EIP1, 5)?;
    reaches(lab, "client", "192.168.100.254", 2)?;
    reaches(lab, "pod1a", "203.0.113.10", 2)?;
    ensure!(who_am_i(lab, "client", "pod1a", "192.168.100.1")? == EIP1, "TCP out by the EIP");
    Ok(())
}

/// The agent names the NIC in a warning, and TC has done XDP's work.
fn says_so(lab: &Lab, nic: &str) -> Result<()> {
    let log = lab.agent_log("gw1")?;
    let warned =
        |line: &str| line.contains("WARN") && line.contains(nic) && line.contains("TC program does the work");
    ensure!(log.lines().any(warned), "a warning names the NIC: {log}");
    for work in ["arp_reply", "to_worker"] {
        ensure!(verdict(lab, "gw1", work)? > 0, "{work}: {}", crate::scene::show(lab, "gw1", "verdicts")?);
    }
    Ok(())
}

#[test]
fn tc_alone_on_a_nic_without_native_xdp() -> Result<()> {
    let lab = scene("g1-", 9000)?;
    // A bridge has no native XDP, and takes no frames that XDP redirects to it.
    replug(&lab, "br0", || {
        lab.read(
            "gw1",
            &["ip", "link", "add", "br0", "mtu", "9000", "type", "bridge", "forward_delay", "0"],
        )?;
        lab.read("gw1", &["ip", "link", "set", "enp8s0", "master", "br0"])?;
        lab.read("gw1", &["ip", "link", "set", "br0", "up"])
    })?;
    works(&lab)?;
    ensure!(
        verdict(&lab, "gw1", "pass_to_twin")? > 0,
        "the underlay's XDP leaves to TC what goes to the bridge"
    );
    says_so(&lab, "br0")
}

#[test]
fn tc_alone_where_another_xdp_program_sits() -> Result<()> {
    let lab = scene("g2-", 9000)?;
    let foreign = replug(&lab, "enp8s0", || occupy(&lab, "enp8s0"))?;
    works(&lab)?;
    says_so(&lab, "enp8s0")?;
    // Once the other one has gone, XDP is tried again.
    drop(foreign);
    let pin = lab.pin_dir("gw1").join("link_xdp_external");
    eventually(Duration::from_secs(35), "native XDP at last", || Ok(pin.exists()))?;
    works(&lab)
}

/// Attaches a program of its own (ours, with empty tables: it passes everything) to a NIC of the gateway.
fn occupy(lab: &Lab, nic: &'static str) -> Result<Ebpf> {
    let namespace = std::fs::File::open(format!("/run/netns/{}", lab.netns("gw1")?))?;
    let attach = move || -> Result<Ebpf> {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let mut object = Ebpf::load(&std::fs::read(object_path())?)?;
        let program: &mut Xdp = object.program_mut("xdp_external").context("xdp_external")?.try_into()?;
        program.load()?;
        program.attach(nic, XdpMode::Driver)?;
        Ok(object)
    };
    // A thread of its own: its namespace ends with it.
    std::thread::spawn(attach).join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))?
}
