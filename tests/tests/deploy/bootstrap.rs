//! The first gateway: a node that the ConfigMap names runs a worker's agent until it has the label.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, User};
use gateway_lab::Job;
use gateway_tests::scene::{agent, eventually};
use serde_json::{Value, json};

use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

const LABEL: &str = "ovn.kubernetes.io/external-gw";
const CONFIG_MAP: [&str; 4] = ["configmap", "ovn-external-gw-config", "-n", NAMESPACE];

/// The agent of `here` with a token as a worker's pod on `node` has it: it names the node.
pub(crate) fn worker(deployed: &Deployed, here: &str, node: &str) -> Result<Job> {
    let account = User::ServiceAccount { namespace: NAMESPACE, name: ACCOUNTS[1] };
    let path = deployed.cluster.kubeconfig(account)?;
    let bound = format!("--bound-object-name={node}");
    let words = ["create", "token", ACCOUNTS[1], "-n", NAMESPACE, "--bound-object-kind=Node", &bound];
    let token = deployed.cluster.kubectl(&words)?;
    let mut kubeconfig: Value = serde_json::from_str(&fs::read_to_string(&path)?).context("a kubeconfig")?;
    kubeconfig["users"][0]["user"]["token"] = json!(token.trim());
    let own = path.with_extension(node);
    fs::write(&own, kubeconfig.to_string())?;
    let (agent, own) = (agent()?.display().to_string(), own.display().to_string());
    let words = [&agent, "run", "--node", here, "--source", "kube", "--kubeconfig", &own];
    deployed.lab.spawn(here, &words)
}

fn labelled(deployed: &Deployed) -> Result<bool> {
    let node = deployed.cluster.get(&["node", "gw1"])?;
    Ok(node["metadata"]["labels"][LABEL] == "true")
}

#[test]
fn a_worker_labels_its_own_node_when_the_configmap_names_it() -> Result<()> {
    let deployed = Deployed::new("d7-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.kubectl(&["label", "node", "gw1", &format!("{LABEL}-")])?;
    deployed.policies_in_force()?;
    // With a token that was stolen from another node it may not.
    let mut thief = worker(&deployed, "gw1", "worker1")?;
    thief.wait_for("ValidatingAdmissionPolicy 'eip-gateway-nodes'", Duration::from_secs(20))?;
    ensure!(!labelled(&deployed)?, "labelled by another node's agent");
    drop(thief);
    let _agent = worker(&deployed, "gw1", "gw1")?;
    eventually(Duration::from_secs(20), "gw1 has the label", || labelled(&deployed))
}

#[test]
fn a_worker_tells_of_a_configmap_from_which_no_gateway_follows() -> Result<()> {
    let deployed = Deployed::new("d8-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.kubectl(&["label", "node", "gw1", &format!("{LABEL}-")])?;
    cluster.patch(&CONFIG_MAP, &json!({ "data": { "external-gw-addr": "nowhere" } }))?;
    let agent = worker(&deployed, "gw1", "gw1")?;
    eventually(Duration::from_secs(20), "an Event on the ConfigMap", || {
        let told = cluster.get(&["events.v1.events.k8s.io", "-n", NAMESPACE])?.to_string();
        Ok(told.contains("ConfigRefused") && told.contains("external-gw-addr"))
    })
    .with_context(|| agent.stderr())
}
