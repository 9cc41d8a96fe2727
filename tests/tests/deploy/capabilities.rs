//! The agents of a cluster as their pods run them: these four capabilities and these ServiceAccounts, nothing more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, PodSpec, User};
use gateway_lab::Job;
use gateway_tests::scene::{EIP1, NODES, agent, eventually, reaches};

use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

/// Root with the container's capabilities, and no way to get more.
pub(crate) fn start(deployed: &Deployed, node: &str) -> Result<Job> {
    let name = if node == "gw1" { ACCOUNTS[0] } else { ACCOUNTS[1] };
    let account = User::ServiceAccount { namespace: NAMESPACE, name };
    let kubeconfig = deployed.cluster.kubeconfig(account)?.display().to_string();
    let agent = agent()?.display().to_string();
    let words = [
        "setpriv",
        "--bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon",
        "--inh-caps=-all",
        "--no-new-privs",
        &agent,
        "run",
        "--node",
        node,
        "--source",
        "kube",
        "--kubeconfig",
        &kubeconfig,
    ];
    let mut job = deployed.lab.spawn(node, &words)?;
    job.wait_for("in sync", Duration::from_secs(20)).with_context(|| format!("{node}: {}", job.stderr()))?;
    Ok(job)
}

#[test]
fn four_capabilities_and_the_service_accounts_are_enough() -> Result<()> {
    let deployed = Deployed::new("d6-", Options::default())?;
    deployed.cluster.create_pod(&PodSpec::of_lab("pod1a")?)?;
    let mut agents = NODES.map(|node| start(&deployed, node)).into_iter().collect::<Result<Vec<_>>>()?;
    deployed.cluster.annotate("default", "pod1a", &[("ovn.kubernetes.io/eip", Some(EIP1))])?;
    let works = |from: &str| {
        eventually(Duration::from_secs(5), &format!("{from} reaches {EIP1}"), || {
            Ok(reaches(&deployed.lab, from, EIP1, 1).is_ok())
        })
    };
    for from in ["client", "worker2", "pod2a", "pod1a"] {
        works(from)?;
    }
    // Agents replaced one by one: what they left behind is taken over, or made anew without a packet lost.
    let mut pings = deployed.lab.spawn("client", &["ping", "-n", "-i0.01", "-c600", EIP1])?;
    for (node, job) in NODES.iter().zip(&mut agents) {
        job.interrupt()?;
        *job = start(&deployed, node)?;
    }
    pings.wait(Duration::from_secs(20))?;
    ensure!(pings.stdout().contains(" 600 received"), "{}", pings.stdout());
    for (node, job) in NODES.iter().zip(&agents) {
        let log = job.stderr();
        ensure!(!log.contains("adopted=false"), "{node} took over every link: {log}");
        ensure!(!log.contains("forbidden") && !log.contains("not allowed"), "{node}: {log}");
        ensure!(!log.contains("ermission") && !log.contains("not permitted"), "{node}: {log}");
    }
    Ok(())
}
