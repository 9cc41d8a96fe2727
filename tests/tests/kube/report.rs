//! What the agent writes back, beyond what the other suites look at: once, by the owner alone, fighting nobody.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{PodSpec, User};
use gateway_tests::scene::{EIP1, EIP2, reaches};
use serde_json::json;

use gateway_tests::cluster::{ROUTED, Scene};

const BOUND: &str = "ovn.kubernetes.io/eip-bound";
const GATEWAY: &str = "ovn.kubernetes.io/external-gw";
const CONFIG_MAP: [&str; 4] = ["configmap", "ovn-external-gw-config", "-n", "kube-system"];
const LIMIT: Duration = Duration::from_secs(10);

/// Tries until all is as expected; says what was not in the end.
fn settles(what: &str, check: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context(what.to_owned())),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

/// `routed` and the label of a pod.
fn marks(scene: &Scene, pod: &str) -> Result<(bool, bool)> {
    let pod = scene.cluster.get(&["pod", pod, "-n", "default"])?;
    let metadata = &pod["metadata"];
    // The label names the EIP.
    let bound = metadata["labels"][BOUND].as_str().is_some_and(|eip| eip.parse::<Ipv4Addr>().is_ok());
    Ok((metadata["annotations"][ROUTED] == "true", bound))
}

fn wait_marks(scene: &Scene, pod: &str, expected: (bool, bool)) -> Result<()> {
    settles(&format!("routed and label of {pod} are {expected:?}"), || {
        let marks = marks(scene, pod)?;
        ensure!(marks == expected, "{marks:?}");
        Ok(())
    })
}

/// Waits until there are so many Events with a reason about an object, all with a word in their note.
fn wait_events(scene: &Scene, object: &str, reason: &str, count: usize, word: &str) -> Result<()> {
    settles(&format!("{count} {reason} about {object}"), || {
        let all = scene.cluster.get(&["events.events.k8s.io", "-A"])?;
        let items = all["items"].as_array().context("no items")?.iter();
        let about = items.filter(|event| event["regarding"]["name"] == object && event["reason"] == reason);
        let notes: Vec<_> = about.filter_map(|event| event["note"].as_str()).collect();
        ensure!(notes.len() == count && notes.iter().all(|note| note.contains(word)), "{notes:?}");
        Ok(())
    })
}

fn metric(scene: &Scene, line: &str) -> Result<u64> {
    let text = scene.lab.read("gw1", &["curl", "-s", "localhost:9817/metrics"])?;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')).unwrap_or("0");
    Ok(value.parse()?)
}

fn version(scene: &Scene) -> Result<serde_json::Value> {
    Ok(scene.cluster.get(&["pod", "pod1a", "-n", "default"])?["metadata"]["resourceVersion"].clone())
}

#[test]
fn pods_are_marked_and_told_about() -> Result<()> {
    let mut scene = Scene::new("re-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    wait_marks(&scene, "pod1a", (true, true))?;
    wait_events(&scene, "pod1a", "EipBound", 1, "served by gateway gw1")?;
    reaches(&scene.lab, "client", EIP1, 3)?;
    let fields = scene.cluster.get(&["pod", "pod1a", "-n", "default", "--show-managed-fields"])?;
    let managers = fields["metadata"]["managedFields"].to_string();
    ensure!(managers.contains("\"manager\":\"eip-gateway\""), "{managers}");

    // The recipe of Kube-OVN.
    scene.cluster.annotate("default", "pod1a", &[(ROUTED, None)])?;
    wait_marks(&scene, "pod1a", (true, true))?;

    scene.annotate("pod2a", Some(EIP1))?;
    wait_events(&scene, "pod2a", "EipConflict", 1, "default/pod1a")?;
    scene.annotate("pod2a", Some("192.168.100.0/24"))?;
    wait_events(&scene, "pod2a", "EipRefused", 1, "write the address alone")?;
    ensure!(marks(&scene, "pod2a")? == (false, false));

    // A restart writes nothing.
    let before = version(&scene)?;
    scene.restart_agents()?;
    sleep(Duration::from_secs(3));
    ensure!(version(&scene)? == before);
    wait_events(&scene, "pod1a", "EipBound", 1, EIP1)?;
    wait_events(&scene, "pod2a", "EipRefused", 1, "192.168.100.0/24")?;

    // The other one takes over.
    scene.annotate("pod2a", Some(EIP1))?;
    scene.annotate("pod1a", None)?;
    wait_marks(&scene, "pod2a", (true, true))?;
    wait_marks(&scene, "pod1a", (false, false))?;
    wait_events(&scene, "pod1a", "EipReleased", 1, EIP1)?;
    wait_events(&scene, "pod2a", "EipBound", 1, "worker2")?;
    let described = scene.cluster.kubectl(&["describe", "pod", "pod2a", "-n", "default"])?;
    ensure!(described.contains("EipBound"), "{described}");

    // Disabled: released.
    scene.cluster.patch(&CONFIG_MAP, &json!({ "data": { "enable-external-gw": "false" } }))?;
    wait_marks(&scene, "pod2a", (false, false))
}

#[test]
fn the_configmap_and_the_nodes_are_told_about() -> Result<()> {
    let scene = Scene::new("rc-")?;
    scene.cluster.patch(&CONFIG_MAP, &json!({ "data": { "external-gw-nodes": "gw1,nowhere" } }))?;
    wait_events(&scene, CONFIG_MAP[1], "ConfigWarning", 1, "nowhere")?;
    scene.cluster.kubectl(&["label", "node", "gw1", &format!("{GATEWAY}-")])?;
    settles("the label of gw1", || {
        let label = scene.cluster.get(&["node", "gw1"])?["metadata"]["labels"][GATEWAY].clone();
        ensure!(label == "true", "{label}");
        Ok(())
    })?;
    scene.cluster.patch(&CONFIG_MAP, &json!({ "data": { "nic-ip": "nonsense" } }))?;
    wait_events(&scene, CONFIG_MAP[1], "ConfigRefused", 1, "nonsense")?;
    let described = scene.cluster.kubectl(&["describe", "configmap", CONFIG_MAP[1], "-n", "kube-system"])?;
    ensure!(described.contains("ConfigRefused"), "{described}");
    // The last good configuration serves on.
    scene.annotate("pod1a", Some(EIP1))?;
    wait_marks(&scene, "pod1a", (true, true))?;
    reaches(&scene.lab, "client", EIP1, 3).map(drop)
}

#[test]
fn nobody_is_fought_and_an_outage_is_survived() -> Result<()> {
    let scene = Scene::new("rf-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    wait_marks(&scene, "pod1a", (true, true))?;
    for _ in 0..5 {
        scene.cluster.annotate("default", "pod1a", &[(ROUTED, None)])?;
        sleep(Duration::from_secs(1));
    }
    wait_events(&scene, "pod1a", "EipContested", 1, "managed-fields")?;
    ensure!(marks(&scene, "pod1a")? == (false, true));
    reaches(&scene.lab, "client", EIP1, 3)?;

    scene.cluster.stop_api_server()?;
    sleep(Duration::from_secs(3));
    reaches(&scene.lab, "client", EIP1, 3)?;
    scene.cluster.start_api_server()?;
    scene.annotate("pod2a", Some(EIP2))?;
    wait_marks(&scene, "pod2a", (true, true))?;
    ensure!(metric(&scene, r#"eip_gateway_api_writes_total{kind="pod",result="ok"}"#)? >= 6);
    Ok(())
}

/// May read and not write.
const READER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: ["", networking.k8s.io], resources: [pods, nodes, configmaps, servicecidrs], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: kube-system}]
"#;

#[test]
fn without_permission_the_eip_is_served_all_the_same() -> Result<()> {
    let mut scene = Scene::without_agents("rp-")?;
    scene.cluster.seed_lab()?;
    for pod in ["pod1a", "pod2a"] {
        scene.cluster.create_pod(&PodSpec::of_lab(pod)?)?;
    }
    scene.cluster.apply(READER)?;
    scene.log_in(User::ServiceAccount { namespace: "kube-system", name: "reader" })?;
    scene.start_agent("gw1")?;
    scene.start_agent("worker1")?;
    scene.annotate("pod1a", Some(EIP1))?;
    settles("the EIP", || reaches(&scene.lab, "client", EIP1, 1).map(drop))?;
    scene.annotate("pod2a", Some(EIP2))?;
    sleep(Duration::from_secs(5));
    let log = scene.logs();
    for permission in ["not allowed to patch pods", "not allowed to create events"] {
        ensure!(log.matches(permission).count() == 1, "{permission}: {log}");
    }
    ensure!(marks(&scene, "pod1a")? == (false, false));
    ensure!(metric(&scene, r#"eip_gateway_api_writes_total{kind="pod",result="forbidden"}"#)? <= 4);
    Ok(())
}
