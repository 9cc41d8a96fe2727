//! Manifests are accepted, and the DaemonSets' pods land where they belong.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_apiserver::{KWOK_ANNOTATION, Options};
use gateway_lab::NODES;
use gateway_tests::scene::eventually;
use serde_json::{Value, json};

use crate::cluster::{Deployed, NAMESPACE, deploy, texts};

const LABEL: &str = "ovn.kubernetes.io/external-gw";

/// The nodes with a pod of that DaemonSet.
fn nodes_of(deployed: &Deployed, component: &str) -> Result<BTreeSet<String>> {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    let pods = deployed.cluster.get(&["pods", "-n", NAMESPACE, &selector])?;
    Ok(texts(&pods, "/spec/nodeName").into_iter().collect())
}

fn placed(deployed: &Deployed, gateways: &[&str]) -> Result<()> {
    let all: BTreeSet<_> = NODES.iter().map(|node| node.name.to_owned()).collect();
    let gateways: BTreeSet<_> = gateways.iter().map(|name| (*name).to_owned()).collect();
    let workers: BTreeSet<_> = all.difference(&gateways).cloned().collect();
    eventually(Duration::from_secs(30), &format!("gateways {gateways:?}, workers {workers:?}"), || {
        Ok(nodes_of(deployed, "gateway")? == gateways && nodes_of(deployed, "worker")? == workers)
    })
}

#[test]
fn each_node_runs_the_agent_of_its_role_and_one_only() -> Result<()> {
    let deployed = Deployed::new("d1-", Options::all())?;
    let cluster = &deployed.cluster;
    cluster.kubectl(&["annotate", "nodes", "--all", &format!("{KWOK_ANNOTATION}=fake")])?;
    // What a gateway often is, and what keeps ordinary pods off.
    cluster.kubectl(&["taint", "node", "gw1", "node-role.kubernetes.io/control-plane=:NoSchedule"])?;
    cluster.kubectl(&["taint", "node", "worker1", "example.com/reserved=yes:NoExecute"])?;
    placed(&deployed, &["gw1"])?;
    cluster.kubectl(&["label", "node", "worker2", &format!("{LABEL}=true")])?;
    placed(&deployed, &["gw1", "worker2"])?;
    cluster.kubectl(&["label", "node", "worker2", &format!("{LABEL}=false"), "--overwrite"])?;
    placed(&deployed, &["gw1"])?;
    // A second application changes nothing.
    let again = cluster.kubectl(&["apply", "-k", &deploy("base")])?;
    ensure!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    Ok(())
}

#[test]
fn examples_and_the_overlay_are_accepted() -> Result<()> {
    let deployed = Deployed::new("d2-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.install_kubevirt()?;
    cluster.kubectl(&["apply", "--dry-run=server", "-f", &deploy("examples/cluster")])?;
    // Where the Prometheus operator is.
    cluster.apply(
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: \
         podmonitors.monitoring.coreos.com}, spec: {group: monitoring.coreos.com, scope: Namespaced, names: {kind: \
         PodMonitor, plural: podmonitors, singular: podmonitor}, versions: [{name: v1, served: true, storage: true, \
         schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}",
    )?;
    eventually(Duration::from_secs(10), "PodMonitors are served", || {
        Ok(cluster.kubectl(&["apply", "-k", &deploy("overlays/pod-monitor")]).is_ok())
    })?;
    let monitor = cluster.get(&["podmonitor", "eip-gateway", "-n", NAMESPACE])?;
    let port = monitor["spec"]["podMetricsEndpoints"][0]["port"].clone();
    for component in ["gateway", "worker"] {
        let set = cluster.get(&["daemonset", &format!("eip-gateway-{component}"), "-n", NAMESPACE])?;
        let pod = &set["spec"]["template"];
        let selected = monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"].clone();
        ensure!(pod["metadata"]["labels"]["app.kubernetes.io/name"] == selected, "{pod}");
        let container = &pod["spec"]["containers"][0];
        ensure!(container["ports"][0]["name"] == port, "{container}");
        ensure!(container["ports"][0]["hostPort"] == 9817, "two agents never share a node: {container}");
        hardened(pod)?;
    }
    Ok(())
}

/// Capabilities instead of `privileged`, and nothing else that is not needed.
fn hardened(pod: &Value) -> Result<()> {
    let spec = &pod["spec"];
    let security = &spec["containers"][0]["securityContext"];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        // Anywhere else idle connections of some pod would have the kubelet kill the agent.
        let probe = &spec["containers"][0][probe]["httpGet"];
        ensure!(probe["host"] == "127.0.0.1" && probe["port"] == "metrics", "{probe}");
    }
    ensure!(spec["hostNetwork"] == true && spec["hostPID"].is_null() && spec["hostIPC"].is_null(), "{spec}");
    ensure!(security["privileged"] == false && security["allowPrivilegeEscalation"] == false, "{security}");
    ensure!(security["readOnlyRootFilesystem"] == true, "{security}");
    let capabilities = json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "BPF", "PERFMON"] });
    ensure!(security["capabilities"] == capabilities, "{security}");
    let paths: Vec<_> =
        spec["volumes"].as_array().into_iter().flatten().map(|v| &v["hostPath"]["path"]).collect();
    ensure!(paths == ["/sys/fs/bpf", "/run/eip-gateway"], "{paths:?}");
    ensure!(spec["priorityClassName"] == "system-node-critical", "{spec}");
    Ok(())
}
