//! Several EIPs at once, EIPs from inside, and what an EIP must not change.

use anyhow::{Result, ensure};
use gateway_lab::{Lab, LabConfig};

use crate::scene::{
    CLIENT, EIP0, EIP1, EIP2, NODES, does_not_reach, holds, reaches, scene, verdict, who_am_i,
};

/// EIPs on pods of worker1, worker2 and the gateway itself.
fn three(prefix: &str, mtu: u16) -> Result<Lab> {
    let lab = scene(prefix, mtu)?;
    lab.annotate("pod2a", Some(EIP2))?;
    lab.annotate("pod0a", Some(EIP0))?;
    holds(&lab, "gw1", &[EIP1, EIP2, EIP0])?;
    holds(&lab, "worker2", &[EIP2])?;
    // The gateway's own pod also needs its rule; it follows the tables within the same application.
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(lab)
}

const PODS: [(&str, &str); 3] = [("pod1a", EIP1), ("pod2a", EIP2), ("pod0a", EIP0)];

#[test]
fn on_both_workers_and_the_gateway() -> Result<()> {
    let lab = three("s1-", 9000)?;
    for (pod, eip) in PODS {
        reaches(&lab, "client", eip, 3)?;
        reaches(&lab, "outside", eip, 2)?;
        reaches(&lab, pod, "203.0.113.10", 2)?;
        ensure!(who_am_i(&lab, pod, "client", eip)? == CLIENT, "{pod} sees the client");
        ensure!(who_am_i(&lab, "client", pod, CLIENT)? == eip, "the client sees {eip}");
    }
    Ok(())
}

#[test]
fn pod_to_pod_by_eip_and_to_itself() -> Result<()> {
    for (prefix, mtu) in [("s2-", 9000), ("s3-", 1500)] {
        let lab = three(prefix, mtu)?;
        for (from, from_eip) in PODS {
            for (to, to_eip) in PODS {
                reaches(&lab, from, to_eip, 2)?;
                ensure!(who_am_i(&lab, to, from, to_eip)? == from_eip, "{from} to {to}: each by its EIP");
            }
        }
        for node in NODES {
            ensure!(lab.invalid_drops(node)? == 0, "conntrack on {node} called packets INVALID");
        }
    }
    Ok(())
}

#[test]
fn the_cluster_is_reached_as_before() -> Result<()> {
    let lab = scene("s4-", 9000)?;
    let mut service = lab.spawn(
        "pod2b",
        &["socat", "-d", "-d", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"],
    )?;
    service.wait_for("listening on", std::time::Duration::from_secs(3))?;
    let before = verdict(&lab, "gw1", "to_external")? + verdict(&lab, "worker1", "to_gateway")?;
    for to in ["10.244.1.11", "10.244.2.10", "10.244.0.10", "172.18.0.11", "172.18.0.21", "172.18.0.22"] {
        reaches(&lab, "pod1a", to, 2)?;
    }
    let answer = lab.read("pod1a", &["socat", "-T3", "-", "TCP:10.96.0.10:80,connect-timeout=3"])?;
    ensure!(answer.trim() == "10.244.1.10", "by the Service, with its own address: {answer}");
    let after = verdict(&lab, "gw1", "to_external")? + verdict(&lab, "worker1", "to_gateway")?;
    ensure!(before == after, "nothing of it went by the gateway: {before} → {after}");
    ensure!(verdict(&lab, "worker1", "pass_internal")? > 0, "the exemption is counted");
    Ok(())
}

#[test]
fn a_pod_without_eip_is_untouched() -> Result<()> {
    let plain = Lab::up(&LabConfig { agents: false, ..LabConfig::ephemeral("s5-") })?;
    let main_tables = |lab: &Lab| -> Result<Vec<String>> {
        NODES.iter().map(|node| lab.read(node, &["ip", "-4", "route", "show", "table", "main"])).collect()
    };
    let before = main_tables(&plain)?;
    drop(plain);
    let lab = scene("s6-", 9000)?;
    ensure!(main_tables(&lab)? == before, "the main routing tables are as without us");
    for to in ["10.244.1.10", "10.244.2.10", "10.244.0.10", "172.18.0.11"] {
        reaches(&lab, "pod1b", to, 2)?;
    }
    // It had no way out before and has none now.
    does_not_reach(&lab, "pod1b", CLIENT)?;
    ensure!(
        lab.read("worker1", &["ip", "rule"])?.matches("lookup 6081").count() == 1,
        "one rule: the EIP pod's"
    );
    Ok(())
}
