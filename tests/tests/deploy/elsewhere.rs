//! The base in another namespace, as kustomize puts it there: the policies know the agents there
//! too, and the agents their ConfigMap.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, PodSpec, User};
use gateway_lab::manifest;
use gateway_tests::scene::{EIP1, agent, eventually};

use crate::cluster::{ACCOUNTS, Deployed, deploy};
use crate::narrowed::patched;

const NAMESPACE: &str = "eip-gateway";

#[test]
fn another_namespace_does_not_switch_the_policies_off() -> Result<()> {
    let deployed = Deployed::without_base("da-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.kubectl(&["delete", "configmap", "ovn-external-gw-config", "-n", "kube-system"])?;
    cluster.kubectl(&["apply", "-k", &deploy("overlays/namespace")])?;
    cluster.apply(
        &manifest::config_map().replace("namespace: kube-system", &format!("namespace: {NAMESPACE}")),
    )?;
    deployed.policies_in_force_for(NAMESPACE)?;
    let [gateway, worker] = ACCOUNTS.map(|account| format!("{NAMESPACE}:{account}"));
    let label = r#"{"metadata":{"labels":{"ovn.kubernetes.io/external-gw":"true"}}}"#;
    cluster.kubectl(&["label", "node", "gw1", "ovn.kubernetes.io/external-gw-"])?;
    for (account, node, what, patch, allowed) in [
        (&gateway, "gw1", ["pod", "pod2b"], r#"{"metadata":{"labels":{"app":"x"}}}"#, false),
        (
            &gateway,
            "gw1",
            ["pod", "pod2b"],
            r#"{"metadata":{"labels":{"ovn.kubernetes.io/eip-bound":"true"}}}"#,
            true,
        ),
        (&worker, "worker2", ["node", "worker2"], label, false),
        (&gateway, "gw1", ["node", "worker2"], label, false),
        (&worker, "worker1", ["node", "gw1"], label, false),
        (&worker, "gw1", ["node", "gw1"], r#"{"spec":{"unschedulable":true}}"#, false),
        (&worker, "gw1", ["node", "gw1"], label, true),
    ] {
        let done = patched(&deployed, account, node, &what, patch)?;
        ensure!(done == allowed, "{account} of {node} on {what:?}: {patch}");
    }

    // The agent is told by its DaemonSet where the ConfigMap is, and may read it there.
    let set = cluster.get(&["daemonset", "eip-gateway-gateway", "-n", NAMESPACE])?;
    let env = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().context("env")?;
    let where_it_is =
        env.iter().find(|env| env["name"] == "EIP_GATEWAY_CONFIG_NAMESPACE").context("not told")?;
    ensure!(where_it_is["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace", "{where_it_is}");
    cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip(EIP1))?;
    let account = User::ServiceAccount { namespace: NAMESPACE, name: ACCOUNTS[0] };
    let kubeconfig = cluster.kubeconfig(account)?.display().to_string();
    let agent = agent()?.display().to_string();
    let words = [
        "env",
        "EIP_GATEWAY_CONFIG_NAMESPACE=eip-gateway",
        &agent,
        "run",
        "--node",
        "gw1",
        "--source",
        "kube",
    ];
    let job = deployed.lab.spawn("gw1", &[&words[..], &["--kubeconfig", &kubeconfig]].concat())?;
    eventually(Duration::from_secs(20), "bound", || {
        let pod = cluster.get(&["pod", "pod1a"])?;
        let annotations = &pod["metadata"]["annotations"];
        Ok(pod["metadata"]["labels"]["ovn.kubernetes.io/eip-bound"] == annotations["ovn.kubernetes.io/eip"])
    })
    .with_context(|| job.stderr())
}
