//! `nic-ip` is the gateway's presence on the external network, no way to its own ports and none
//! inwards, unless the ConfigMap opens it.

use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_lab::{Job, Lab};

use crate::scene::{CLIENT, EIP0, Scene, eventually, holds, metric, reaches, scene, verdict, who_am_i};

const NIC_IP: &str = "192.168.100.254";
/// MAC of the external NIC itself.
const NIC: &str = "02:00:c0:a8:64:0b";
/// What listens on the gateway as sshd does.
const SSHD: u16 = 2222;
/// NodePort of a pod elsewhere.
const ELSEWHERE: u16 = 30080;
/// NodePort of an EIP pod on the gateway.
const HERE: u16 = 30081;
/// Where the pods behind the NodePorts, and all others, listen.
const POD_PORT: u16 = 8080;

/// Whether a TCP connection comes about.
fn connects(lab: &Lab, from: &str, to: &str, port: u16) -> Result<bool> {
    let script = format!("exec 3<>/dev/tcp/{to}/{port}");
    Ok(lab.exec(from, &["timeout", "1", "bash", "-c", &script])?.status.success())
}

/// A TCP server.
fn listen(lab: &Lab, on: &str, port: u16) -> Result<Job> {
    let mut server =
        lab.spawn(on, &["socat", "-d", "-d", &format!("TCP-LISTEN:{port},reuseaddr,fork"), "PIPE"])?;
    server.wait_for("listening on", Duration::from_secs(10))?;
    Ok(server)
}

/// A gateway as it is in the wild: no filter of reverse paths, a route to the external network, and
/// what a cluster has there. An EIP pod on it too.
fn exposed(prefix: &str) -> Result<(Scene, Vec<Job>)> {
    let lab = scene(prefix, 1500)?;
    lab.annotate("pod0a", Some(EIP0))?;
    holds(&lab, "gw1", &["192.168.100.101", EIP0])?;
    eventually(Duration::from_secs(3), "the EIP on the gateway", || {
        Ok(reaches(&lab, "client", EIP0, 1).is_ok())
    })?;
    for name in ["all", "eip-router", "enp8s0", "eth0"] {
        lab.read("gw1", &["sysctl", "-qw", &format!("net.ipv4.conf.{name}.rp_filter=0")])?;
    }
    lab.read("gw1", &["ip", "route", "add", "192.168.100.0/24", "dev", "eip-router"])?;
    let rules = format!(
        "add rule ip kube services fib daddr type local tcp dport {ELSEWHERE} dnat to 10.244.2.11:{POD_PORT}\n\
         add rule ip kube services fib daddr type local tcp dport {HERE} dnat to 10.244.0.10:{POD_PORT}\n\
         add rule ip kube postrouting ct status dnat ip daddr 10.244.2.11 masquerade\n"
    );
    lab.read("gw1", &["nft", &rules])?;
    for inside in ["10.244.0.0/16", "172.18.0.0/24", "10.96.0.0/12"] {
        lab.read("client", &["ip", "route", "add", inside, "via", NIC_IP])?;
    }
    let servers = vec![
        listen(&lab, "gw1", SSHD)?,
        listen(&lab, "pod2b", POD_PORT)?,
        listen(&lab, "pod0a", POD_PORT)?,
        listen(&lab, "worker2", SSHD)?,
    ];
    Ok((lab, servers))
}

/// A packet of the client's to an address inside, by nic-mac, gets to the namespace.
fn gets_in(lab: &Lab, to: &str, namespace: &str) -> Result<bool> {
    let mut receiver =
        lab.spawn(namespace, &["tcpdump", "--immediate-mode", "-lnqi", "any", "-c1", "udp port 9"])?;
    receiver.wait_for("listening on", Duration::from_secs(10))?;
    lab.read(
        "client",
        &[
            "bash",
            "-c",
            &format!("for i in 1 2 3; do echo x >/dev/udp/{to}/9; sleep 0.1; done 2>/dev/null; true"),
        ],
    )?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(!receiver.interrupt()?.trim().is_empty())
}

/// What the gateway itself does by `nic-ip`, and what EIP pods on it do.
fn undisturbed(lab: &Lab) -> Result<()> {
    reaches(lab, "client", NIC_IP, 3)?;
    reaches(lab, "client", EIP0, 3)?;
    reaches(lab, "outside", EIP0, 2)?;
    reaches(lab, "pod0a", "203.0.113.10", 2)?;
    reaches(lab, "gw1", EIP0, 2)?;
    ensure!(who_am_i(lab, "pod0a", "client", EIP0)? == CLIENT, "TCP to the EIP pod");
    ensure!(who_am_i(lab, "client", "pod0a", CLIENT)? == EIP0, "and from it");
    ensure!(connects(lab, "client", EIP0, POD_PORT)?, "its own ports");
    let mut server = lab.spawn(
        "client",
        &["socat", "-d", "-d", "TCP-LISTEN:7001,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"],
    )?;
    server.wait_for("listening on", Duration::from_secs(10))?;
    let to = format!("TCP:{CLIENT}:7001,bind={NIC_IP},connect-timeout=3");
    let seen = lab.read("gw1", &["socat", "-T5", "-u", &to, "-"])?;
    ensure!(seen.trim() == NIC_IP, "the gateway's own connection out: {seen}");
    // Port unreachable, at once.
    for (from, bind) in [("gw1", format!(",bind={NIC_IP}")), ("pod0a", String::new())] {
        let script = format!("(echo a; sleep 0.3; echo b) | socat -T2 - UDP:{CLIENT}:9{bind}");
        let refused = lab.exec(from, &["bash", "-c", &script])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(said.contains("Connection refused"), "{from} hears of errors: {said}");
    }
    Ok(())
}

fn open(lab: &Lab, open: bool) -> Result<()> {
    let file = crate::events::manifest(lab, "config")?;
    let text = std::fs::read_to_string(lab.manifests().join(&file))?;
    let text = text.replace("  nic-ip-open: \"true\"\n", "");
    let text = if open { text + "  nic-ip-open: \"true\"\n" } else { text };
    lab.write_manifest(&file, &text)
}

#[test]
fn nothing_of_the_host_and_nothing_inwards_by_nic_ip_unless_opened() -> Result<()> {
    let (lab, _servers) = exposed("n1-")?;
    let ports =
        [(NIC_IP, SSHD), (NIC_IP, ELSEWHERE), (NIC_IP, HERE), ("172.18.0.11", SSHD), ("10.96.0.10", 80)];
    // As far as worker2, which filters reverse paths itself.
    let inwards = [("10.244.2.11", "worker2"), ("172.18.0.22", "worker2")];
    // By the kernel, or by XDP before it.
    let refused = |lab: &Lab| -> Result<u64> {
        let by_kernel = metric(lab, "gw1", "eip_gateway_drop_router_port_packets_total")?;
        Ok(by_kernel + verdict(lab, "gw1", "drop_inwards")?)
    };
    for (to, port) in ports {
        let before = refused(&lab)?;
        ensure!(!connects(&lab, "client", to, port)?, "the client reaches {to}:{port}");
        ensure!(refused(&lab)? > before, "{to}:{port} is counted");
    }
    for (to, namespace) in inwards {
        let before = refused(&lab)?;
        ensure!(!gets_in(&lab, to, namespace)?, "the client reaches {to}");
        ensure!(refused(&lab)? >= before + 3, "{to} is counted");
    }
    undisturbed(&lab)?;
    // By the NIC's own MAC it is the same nic-ip.
    lab.read(
        "client",
        &["ip", "neigh", "replace", NIC_IP, "lladdr", NIC, "dev", "eth0", "nud", "permanent"],
    )?;
    for port in [SSHD, ELSEWHERE, HERE] {
        ensure!(!connects(&lab, "client", NIC_IP, port)?, "{port} by the NIC's MAC");
    }
    lab.read("client", &["ip", "neigh", "del", NIC_IP, "dev", "eth0"])?;

    open(&lab, true)?;
    for (to, port) in ports {
        eventually(Duration::from_secs(3), &format!("{to}:{port} is open"), || {
            connects(&lab, "client", to, port)
        })?;
    }
    for (to, namespace) in inwards {
        ensure!(gets_in(&lab, to, namespace)?, "{to} is open");
    }
    undisturbed(&lab)?;

    open(&lab, false)?;
    eventually(Duration::from_secs(3), "closed again", || Ok(!connects(&lab, "client", NIC_IP, SSHD)?))
}

/// The host's own address on that NIC is its own business.
#[test]
fn the_host_s_own_address_on_the_external_nic_stays_open() -> Result<()> {
    let lab = scene("n2-", 1500)?;
    lab.read("gw1", &["ip", "addr", "add", "192.168.100.11/24", "dev", "enp8s0"])?;
    let _server = listen(&lab, "gw1", SSHD)?;
    eventually(Duration::from_secs(3), "its own sshd", || connects(&lab, "client", "192.168.100.11", SSHD))?;
    ensure!(!connects(&lab, "client", NIC_IP, SSHD)?, "but not by nic-ip");
    reaches(&lab, "client", NIC_IP, 2).map(drop)
}
