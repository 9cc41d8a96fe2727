//! The label `eip-bound` decides which of two pods has an EIP: only the gateway sets it, on pods
//! and on nothing else.

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Options, PodSpec};
use serde_json::{Value, json};

use crate::cluster::{ACCOUNTS, Deployed, NAMESPACE};

const LABEL: &str = "ovn.kubernetes.io/eip-bound";
const OTHER: &str = "eip.example.com/eip-bound";

/// What a request of `user` (empty: an administrator) came to; `false` when a policy of ours denied
/// it in so many words.
fn done(deployed: &Deployed, user: &str, words: &[&str]) -> Result<bool> {
    let user = (!user.is_empty()).then(|| format!("--as={user}"));
    let words = [words, &user.as_deref().into_iter().collect::<Vec<_>>()].concat();
    match deployed.cluster.kubectl(&words).map_err(|error| format!("{error:#}")) {
        Ok(_) => Ok(true),
        Err(text) if text.contains("eip-gateway-") && text.contains("only the gateway sets") => Ok(false),
        Err(text) => anyhow::bail!("{words:?}: {text}"),
    }
}

/// Creates an object by `kubectl create`.
fn made(deployed: &Deployed, object: &Value) -> Result<bool> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), object.to_string())?;
    let path = file.path().to_str().context("a UTF-8 path")?;
    done(deployed, "", &["create", "-f", path])
}

fn template(labels: &Value) -> Value {
    json!({ "metadata": { "labels": labels },
        "spec": { "restartPolicy": "Always", "containers": [{ "name": "main", "image": "lab" }] } })
}

/// Everything of Kubernetes with a template, and a VirtualMachine.
fn workloads(labels: &Value) -> Vec<Value> {
    let selector = json!({ "matchLabels": { "app": "x" } });
    let mut all = Vec::new();
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("kubevirt.io/v1", "VirtualMachine"),
    ] {
        let mut spec = json!({ "template": template(labels) });
        match kind {
            "Job" => spec["template"]["spec"]["restartPolicy"] = json!("Never"),
            "VirtualMachine" => spec["running"] = json!(false),
            "ReplicationController" => spec["selector"] = selector["matchLabels"].clone(),
            _ => spec["selector"] = selector.clone(),
        }
        let name = kind.to_lowercase();
        all.push(
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "default" }, "spec": spec }),
        );
    }
    all
}

#[test]
fn only_the_gateway_sets_the_label_that_decides() -> Result<()> {
    let deployed = Deployed::new("d9-", Options::default())?;
    let cluster = &deployed.cluster;
    cluster.install_kubevirt()?;
    deployed.policies_in_force()?;
    cluster.create_pod(&PodSpec::of_lab("pod1a")?)?;
    let label = |value: &str| format!("{LABEL}={value}");
    let pod = |metadata: Value| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": { "containers": [{ "name": "main", "image": "lab" }] } })
    };

    // On pods, by every way a pod's labels can be written.
    for key in [LABEL, OTHER] {
        ensure!(
            !made(
                &deployed,
                &pod(json!({ "name": "forged", "namespace": "default", "labels": { key: "true" } }))
            )?,
            "a pod is made with {key}"
        );
        let patch = json!({ "metadata": { "labels": { key: "true" } } }).to_string();
        for subresource in ["", "--subresource=status"] {
            let words = ["patch", "pod", "pod1a", "--type=merge", "--patch", &patch, subresource];
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            ensure!(!done(&deployed, "", &words)?, "{words:?}");
        }
    }
    // And in what makes them; all of it is accepted without the label.
    for (labels, expected) in [(json!({ "app": "x", LABEL: "true" }), false), (json!({ "app": "x" }), true)] {
        for workload in workloads(&labels) {
            let is = made(&deployed, &workload)?;
            ensure!(is == expected, "{} with {labels}: {is}", workload["kind"]);
        }
    }
    let scaled = done(&deployed, "", &["scale", "deployment/deployment", "--replicas=2"])?;
    let edited = done(&deployed, "", &["set", "image", "deployment/deployment", "main=other"])?;
    ensure!(scaled && edited, "a workload is edited as ever");
    let patch =
        json!({ "spec": { "template": { "metadata": { "labels": { LABEL: "true" } } } } }).to_string();
    let added = done(&deployed, "", &["patch", "deployment", "deployment", "--patch", &patch])?;
    ensure!(!added, "the label is added to a template");

    no_account_of_a_tenant(&deployed)?;
    let gateway = format!("system:serviceaccount:{NAMESPACE}:{}", ACCOUNTS[0]);
    ensure!(done(&deployed, &gateway, &["label", "pod", "pod1a", &label("true")])?, "the gateway sets it");
    usable(&deployed)?;
    let changed = done(&deployed, "", &["label", "pod", "pod1a", &label("1"), "--overwrite"])?;
    ensure!(!changed, "another value");
    ensure!(done(&deployed, "", &["label", "pod", "pod1a", &format!("{LABEL}-")])?, "anybody takes it off");
    ensure!(!done(&deployed, "", &["label", "pod", "pod1a", &label("true")])?, "and nobody puts it back");
    Ok(())
}

/// A pod with the label is edited by its users and by controllers as ever; `routed` is everybody's
/// to remove.
fn usable(deployed: &Deployed) -> Result<()> {
    let routed = "ovn.kubernetes.io/routed";
    let gateway = format!("system:serviceaccount:{NAMESPACE}:{}", ACCOUNTS[0]);
    ensure!(done(deployed, &gateway, &["annotate", "pod", "pod1a", &format!("{routed}=true")])?);
    let status = json!({ "status": { "message": "seen" } }).to_string();
    let image = json!({ "spec": { "containers": [{ "name": "main", "image": "other" }] } }).to_string();
    for words in [
        &["annotate", "pod", "pod1a", "ovn.kubernetes.io/routed-"][..],
        &["annotate", "pod", "pod1a", "ovn.kubernetes.io/eip=192.168.100.101"],
        &["label", "pod", "pod1a", "app=web"],
        &["patch", "pod", "pod1a", "--subresource=status", "--type=merge", "--patch", &status],
        &["patch", "pod", "pod1a", "--patch", &image],
    ] {
        ensure!(done(deployed, "", words)?, "{words:?}");
    }
    let pod = deployed.cluster.get(&["pod", "pod1a"])?;
    ensure!(pod["metadata"]["labels"][LABEL] == "true" && pod["status"]["message"] == "seen", "{pod}");
    Ok(())
}

/// A tenant makes an account of the gateway's name, which may do everything in his namespace.
fn no_account_of_a_tenant(deployed: &Deployed) -> Result<()> {
    let cluster = &deployed.cluster;
    cluster.kubectl(&["create", "serviceaccount", ACCOUNTS[0], "-n", "default"])?;
    let subject = format!("--serviceaccount=default:{}", ACCOUNTS[0]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "all",
        "--clusterrole=cluster-admin",
        &subject,
        "-n",
        "default",
    ])?;
    let forger = format!("system:serviceaccount:default:{}", ACCOUNTS[0]);
    ensure!(
        !done(deployed, &forger, &["label", "pod", "pod1a", &format!("{LABEL}=true")])?,
        "{forger} sets it"
    );
    Ok(())
}
