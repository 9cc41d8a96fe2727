//! What becomes of the watches: history that is lost, another Service network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{PodSpec, User};
use gateway_tests::scene::{EIP1, EIP2, NODES, Pinging, does_not_reach, eips, eventually, holds, metric};
use serde_json::{Value, json};

use gateway_tests::cluster::Scene;

/// Time for an agent to notice that the API server answers again: its longest pause is 3 s.
const RECOVERY: Duration = Duration::from_secs(15);

/// One request to etcd, which is the API server's alone.
fn etcd(scene: &Scene, call: &str, body: &Value) -> Result<Value> {
    let (url, body) = (format!("http://127.0.0.1:2379/v3/kv/{call}"), body.to_string());
    let words = ["curl", "-sf", "--max-time", "5", "-X", "POST", "--data", &body, &url];
    let answer = scene.lab.read("apiserver", &words).with_context(|| format!("etcd: {call}"))?;
    serde_json::from_str(&answer).with_context(|| format!("etcd answers {answer}"))
}

/// A key as etcd's JSON has it.
fn key(scene: &Scene, name: &str) -> Result<String> {
    let encoded = scene.lab.read("apiserver", &["sh", "-c", "printf %s \"$0\" | base64 -w0", name])?;
    Ok(encoded.trim().to_owned())
}

/// The API server is away, and when it is back it knows nothing of what was before: a watch that wants to go on where it
/// broke off is answered "410 Gone". Meanwhile `change` is made behind its back.
fn lose_history(scene: &Scene, change: impl FnOnce() -> Result<()>) -> Result<()> {
    scene.cluster.kill_api_server()?;
    change()?;
    let put = etcd(scene, "put", &json!({ "key": key(scene, "/elsewhere")?, "value": "" }))?;
    let revision = put["header"]["revision"].as_str().context("a revision")?;
    etcd(scene, "compaction", &json!({ "revision": revision, "physical": true }))?;
    scene.cluster.start_api_server()
}

/// The watches of a node's agent that were told that what they want is gone.
fn told_gone(scene: &mut Scene, node: &str) -> Result<Vec<String>> {
    let log = scene.agent(node)?.stderr();
    let lines = log.lines().filter(|line| line.contains("trouble: Gone") && line.contains("it answers 410"));
    let what = |line: &str| Some(line.split_once("what=\"")?.1.split_once('"')?.0.to_owned());
    Ok(lines.filter_map(what).collect())
}

/// Rows that each node's agent has written.
fn written(scene: &Scene) -> Result<[u64; 3]> {
    let mut rows = [0; 3];
    for (rows, node) in rows.iter_mut().zip(NODES) {
        *rows = metric(&scene.lab, node, "eip_gateway_table_ops_total")?;
    }
    Ok(rows)
}

/// Agents that say more, and two pods with EIPs.
fn talkative(prefix: &str) -> Result<Scene> {
    let mut scene = Scene::without_agents(prefix)?;
    scene.cluster.seed_lab()?;
    for (pod, eip) in [("pod1a", EIP1), ("pod2a", EIP2)] {
        scene.cluster.create_pod(&PodSpec::of_lab(pod)?.eip(eip))?;
    }
    let admin = scene.cluster.kubeconfig(User::Admin)?;
    for node in NODES {
        scene.spawn_agent_by(node, &admin, "debug")?;
        scene.agent(node)?.wait_for("in sync", RECOVERY)?;
    }
    for (pod, eip) in [("pod1a", EIP1), ("pod2a", EIP2)] {
        scene.works(eip)?;
        scene.routed(pod, true)?;
    }
    Ok(scene)
}

#[test]
fn lost_history_is_read_anew_without_a_flap() -> Result<()> {
    let mut scene = talkative("b10-")?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    let before = written(&scene)?;
    lose_history(&scene, || Ok(()))?;
    for node in NODES {
        let watches = if node == "gw1" {
            &["nodes", "configmaps", "servicecidrs", "pods"][..]
        } else {
            &["nodes", "configmaps", "servicecidrs", "pods of this node", "pods with an EIP"][..]
        };
        let mut told = Vec::new();
        eventually(RECOVERY, &format!("{node}: each watch is told 410"), || {
            told = told_gone(&mut scene, node)?;
            Ok(watches.iter().all(|what| told.iter().any(|found| found == what)))
        })
        .with_context(|| format!("{told:?}\n{}", scene.logs()))?;
    }
    // Another pod is a sign that the new lists are in force.
    scene.cluster.create_pod(&PodSpec::of_lab("pod1b")?.eip("192.168.100.104"))?;
    eventually(RECOVERY, "events come through", || Ok(eips(&scene.lab, "gw1")?.len() == 3))?;
    scene.works("192.168.100.104")?;
    let rows = written(&scene)?;
    // Its counter is set to zero, then the row of the pod is written, and on the gateway that of the EIP; and of each the
    // one of the fast path.
    ensure!(rows[0] == before[0] + 5, "gw1 wrote for the new pod only: {before:?}, {rows:?}");
    ensure!(rows[1] == before[1] + 3, "worker1 wrote for the new pod only: {before:?}, {rows:?}");
    ensure!(rows[2] == before[2], "worker2 wrote nothing: {before:?}, {rows:?}");

    // What vanished unseen is gone once the new list is complete, and nothing else is.
    let lost = key(&scene, "/registry/pods/default/pod2a")?;
    lose_history(&scene, || etcd(&scene, "deleterange", &json!({ "key": lost })).map(drop))?;
    eventually(RECOVERY, "the pod that nobody saw go is released", || {
        Ok(metric(&scene.lab, "gw1", r#"eip_gateway_eips{state="bound"}"#)? == 2)
    })?;
    holds(&scene.lab, "gw1", &[EIP1, "192.168.100.104"])?;
    does_not_reach(&scene.lab, "client", EIP2)?;
    ensure!(written(&scene)?[1] == rows[1], "worker1 wrote nothing");
    pinging.none_lost()?;
    scene.agents_live()
}

#[test]
fn a_service_network_that_is_added_is_internal_at_once() -> Result<()> {
    let scene = Scene::new("b11-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    let thrown = |node: &str, cidr: &str| -> Result<bool> {
        let routes = scene.lab.read(node, &["ip", "route", "show", "table", "6081"])?;
        Ok(routes.lines().any(|line| line.starts_with(&format!("throw {cidr} "))))
    };
    ensure!(thrown("worker1", "10.96.0.0/12")?, "the cluster's first Service network");
    let cidr = "10.112.0.0/16";
    scene.cluster.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": "more" }, "spec": { "cidrs": [cidr] },
    }))?;
    for node in NODES {
        eventually(Duration::from_secs(1), &format!("{node} throws {cidr}"), || thrown(node, cidr))?;
    }
    scene.cluster.delete(&["servicecidr", "more"])?;
    for node in NODES {
        eventually(Duration::from_secs(1), &format!("{node} forgets {cidr}"), || Ok(!thrown(node, cidr)?))?;
    }
    Ok(())
}
