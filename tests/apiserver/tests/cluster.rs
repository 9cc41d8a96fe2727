//! The cluster for real, in labs without agents. Needs root and `cargo xtask setup kube`.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gateway_apiserver::{Cluster, KWOK_ANNOTATION, Options, PodSpec, User};
use gateway_lab::{Lab, LabConfig, NODES, PODS, plan::API_SERVER};
use serde_json::{Value, json};

fn lab(prefix: &str) -> Result<Lab> {
    Lab::up(&LabConfig { agents: false, ..LabConfig::ephemeral(prefix) })
}

/// Starts a cluster and says how long that took.
fn cluster(lab: &Lab, options: Options) -> Result<Cluster> {
    let since = Instant::now();
    let cluster = Cluster::start(lab, &options)?;
    println!("start of {options:?}: {:?}", since.elapsed());
    let since = Instant::now();
    cluster.seed_lab()?;
    println!("seed: {:?}", since.elapsed());
    Ok(cluster)
}

fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !done()? {
        ensure!(since.elapsed() < limit, "{what}: not after {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{what}: after {:?}", since.elapsed());
    Ok(())
}

fn texts(list: &Value, pointer: &str) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned)).collect()
}

#[test]
fn nodes_of_the_lab_use_it_and_a_watch_sees_what_is_written() -> Result<()> {
    let lab = lab("k1-")?;
    let cluster = cluster(&lab, Options::default())?;

    let nodes = cluster.get(&["nodes"])?;
    ensure!(texts(&nodes, "/metadata/name") == NODES.map(|node| node.name));
    ensure!(texts(&nodes, "/status/addresses/0/address") == NODES.map(|node| node.ip.to_string()));
    ensure!(texts(&nodes, "/spec/podCIDR") == NODES.map(|node| node.pod_cidr()));
    let config = cluster.get(&["configmap", "ovn-external-gw-config", "--namespace=kube-system"])?;
    ensure!(config["data"]["nic-ip"] == "192.168.100.254/24", "{config}");

    // From another network namespace, as an agent would.
    let watch = cluster.words(&["get", "pods", "--watch", "--output-watch-events", "--output=json"]);
    let mut watch = lab.spawn("worker1", &watch)?;
    let since = Instant::now();
    for pod in &PODS {
        cluster.create_pod(&PodSpec::of_lab(pod.name)?)?;
    }
    println!("{} pods with status: {:?}", PODS.len(), since.elapsed());
    cluster.annotate("default", "pod1a", &[("ovn.kubernetes.io/eip", Some("192.168.100.101"))])?;
    watch.wait_for(r#""ovn.kubernetes.io/eip":"192.168.100.101""#, Duration::from_secs(5))?;
    ensure!(watch.stdout().contains(r#""podIP":"10.244.1.10""#), "the status came through the watch");

    let pod = cluster.get(&["pod", "pod1a"])?;
    ensure!(
        pod["status"]["phase"] == "Running" && pod["status"]["conditions"][0]["status"] == "True",
        "{pod}"
    );
    cluster.annotate("default", "pod1a", &[("ovn.kubernetes.io/eip", None)])?;
    ensure!(
        cluster.get(&["pod", "pod1a"])?["metadata"]["annotations"].get("ovn.kubernetes.io/eip").is_none()
    );
    // A running pod waits for its kubelet, of which there is none.
    cluster.delete(&["pod", "pod1a"])?;
    ensure!(cluster.get(&["pod", "pod1a"])?["metadata"]["deletionTimestamp"].is_string());
    cluster.delete_now(&["pod", "pod1a"])?;
    ensure!(!texts(&cluster.get(&["pods"])?, "/metadata/name").contains(&"pod1a".to_owned()));
    cluster.set_node_ready("worker1", false)?;
    ensure!(cluster.get(&["node", "worker1"])?["status"]["conditions"][0]["status"] == "False");
    Ok(())
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_nothing_else() -> Result<()> {
    let lab = lab("k2-")?;
    let cluster = cluster(&lab, Options::default())?;
    cluster.create_namespace("gateway")?;
    cluster.kubectl(&["create", "serviceaccount", "agent", "--namespace=gateway"])?;
    cluster.kubectl(&["create", "clusterrole", "agent", "--verb=list", "--resource=pods"])?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "agent",
        "--clusterrole=agent",
        "--serviceaccount=gateway:agent",
    ])?;
    let agent = User::ServiceAccount { namespace: "gateway", name: "agent" };
    cluster.kubectl_as(agent, &["get", "pods", "--all-namespaces"])?;
    let refusal = cluster.kubectl_as(agent, &["get", "nodes"]).expect_err("it may not").to_string();
    ensure!(
        refusal.contains("Forbidden") && refusal.contains("system:serviceaccount:gateway:agent"),
        "{refusal}"
    );

    let kubelet = User::Certificate { user: "system:node:worker1", group: "system:nodes" };
    let whoami = cluster.kubectl_as(kubelet, &["auth", "whoami", "--output=json"])?;
    let whoami: Value = serde_json::from_str(&whoami)?;
    ensure!(whoami["status"]["userInfo"]["username"] == "system:node:worker1", "{whoami}");
    Ok(())
}

#[test]
fn the_api_server_goes_and_comes_back_with_its_data_and_nothing_is_left_behind() -> Result<()> {
    let lab = lab("k3-")?;
    let cluster = cluster(&lab, Options::default())?;
    cluster.create_pod(&PodSpec::of_lab("pod1a")?.eip("192.168.100.101"))?;
    let uid = cluster.get(&["pod", "pod1a"])?["metadata"]["uid"].clone();

    for stop in [Cluster::stop_api_server, Cluster::kill_api_server] {
        let mut watch = lab.spawn("gw1", &cluster.words(&["get", "pods", "--watch"]))?;
        watch.wait_for("pod1a", Duration::from_secs(5))?;
        let since = Instant::now();
        stop(&cluster)?;
        println!("stopped: {:?}", since.elapsed());
        watch.wait(Duration::from_secs(5)).context("a watch ends with its API server")?;
        ensure!(cluster.get(&["pods"]).is_err() && stop(&cluster).is_err());
        let since = Instant::now();
        cluster.start_api_server()?;
        println!("started again: {:?}", since.elapsed());
        ensure!(cluster.get(&["pod", "pod1a"])?["metadata"]["uid"] == uid);
    }
    ensure!(cluster.start_api_server().is_err(), "it runs already");
    ensure!(Cluster::start(&lab, &Options::default()).is_err(), "one cluster a lab");
    cluster.get(&["pods"]).context("the refused second one does no harm to the first")?;

    let pids = cluster.pids();
    ensure!(pids.len() == 2);
    let since = Instant::now();
    drop(cluster);
    println!("dropped: {:?}", since.elapsed());
    ensure!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
    ensure!(!lab.dir().join(API_SERVER).exists(), "its files are gone");
    // And a new one finds nothing of the old.
    let again = Cluster::start(&lab, &Options::default())?;
    ensure!(texts(&again.get(&["pods"])?, "/metadata/name").is_empty());
    Ok(())
}

#[test]
fn a_lab_taken_down_first_takes_the_cluster_with_it() -> Result<()> {
    let lab = lab("k4-")?;
    let cluster = Cluster::start(&lab, &Options::default())?;
    let (pids, dir) = (cluster.pids(), lab.dir().to_owned());
    drop(lab);
    drop(cluster);
    ensure!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
    ensure!(!dir.exists());
    Ok(())
}

#[test]
fn kubevirt_can_be_replayed() -> Result<()> {
    let lab = lab("k5-")?;
    let cluster = cluster(&lab, Options::default())?;
    let since = Instant::now();
    cluster.install_kubevirt()?;
    println!("KubeVirt's resources: {:?}", since.elapsed());
    cluster.create_namespace("t")?;

    let vm = cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": { "name": "web", "namespace": "t" },
        "spec": { "runStrategy": "Always", "template": {
            "metadata": { "annotations": { "ovn.kubernetes.io/eip": "203.0.113.5" } },
            "spec": { "domain": { "devices": {} } },
        }},
    }))?;
    let owner = |kind: &str, of: &Value| {
        json!([{ "apiVersion": "kubevirt.io/v1", "kind": kind, "name": "web", "uid": of["metadata"]["uid"],
                 "controller": true, "blockOwnerDeletion": true }])
    };
    let vmi = cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "web", "namespace": "t", "ownerReferences": owner("VirtualMachine", &vm),
            "annotations": { "ovn.kubernetes.io/eip": "203.0.113.5" },
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": { "domain": { "devices": {} } },
        "status": { "phase": "Pending" },
    }))?;
    ensure!(vmi["status"]["phase"] == "Pending", "the status is part of the object: {vmi}");
    cluster.create(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "virt-launcher-web-aaaaa", "namespace": "t",
            "labels": { "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": vmi["metadata"]["uid"] },
            "annotations": { "kubevirt.io/domain": "web", "ovn.kubernetes.io/eip": "203.0.113.5" },
            "ownerReferences": owner("VirtualMachineInstance", &vmi),
        },
        "spec": {
            "nodeName": "worker1", "restartPolicy": "Never", "containers": [{ "name": "compute", "image": "x" }],
            "readinessGates": [{ "conditionType": "kubevirt.io/virtual-machine-unpaused" }],
        },
    }))?;
    let vmi = ["vmi", "web", "--namespace=t"];
    cluster.patch(
        &vmi,
        &json!({
            "metadata": { "labels": { "kubevirt.io/nodeName": "worker1" } },
            "status": { "phase": "Running", "nodeName": "worker1", "migrationState": { "targetPod": "b" } },
        }),
    )?;
    let now = cluster.get(&vmi)?;
    ensure!(
        now["status"]["migrationState"]["targetPod"] == "b" && now["metadata"]["generation"] == 2,
        "{now}"
    );
    let refusal = cluster.patch_status(&vmi, &json!({ "phase": "Failed" }));
    ensure!(refusal.is_err(), "a VirtualMachineInstance has no status subresource");

    cluster.create(&json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": { "name": "m1", "namespace": "t" }, "spec": { "vmiName": "web" },
    }))?;
    let migration = ["vmim", "m1", "--namespace=t"];
    cluster.patch_status(&migration, &json!({ "phase": "Scheduling" }))?;
    ensure!(cluster.get(&migration)?["status"]["phase"] == "Scheduling");
    cluster.patch_status(&["vm", "web", "--namespace=t"], &json!({ "ready": true }))?;
    // Its finalizer holds it until it is taken off, as KubeVirt does at the end.
    cluster.delete(&vmi)?;
    ensure!(cluster.get(&vmi)?["metadata"]["deletionTimestamp"].is_string());
    cluster.patch(&vmi, &json!({ "metadata": { "finalizers": null } }))?;
    ensure!(cluster.get(&vmi).is_err());
    Ok(())
}

#[test]
fn controllers_run_a_deployment_on_nodes_that_kwok_plays() -> Result<()> {
    let lab = lab("k6-")?;
    let cluster = cluster(&lab, Options::all())?;
    ensure!(cluster.pids().len() == 5);
    cluster.create_namespace("t")?;
    for node in ["worker1", "worker2"] {
        cluster.kubectl(&["annotate", "node", node, &format!("{KWOK_ANNOTATION}=fake")])?;
    }
    cluster.kubectl(&["cordon", "gw1"])?;
    cluster.kubectl(&["create", "deployment", "web", "--image=x", "--replicas=20", "--namespace=t"])?;
    let ready = |kind: &str, name: &str, field: &str, wanted: u64| {
        Ok(cluster.get(&[kind, name, "--namespace=t"])?["status"][field] == wanted)
    };
    let limit = Duration::from_secs(30);
    wait_until("a Deployment of 20", limit, || ready("deployment", "web", "readyReplicas", 20))?;

    cluster.apply(
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: gw, namespace: t}, spec: {
            selector: {matchLabels: {app: gw}}, template: {metadata: {labels: {app: gw}}, spec: {
            hostNetwork: true, nodeSelector: {ovn.kubernetes.io/external-gw: \"true\"},
            containers: [{name: gw, image: x, securityContext: {privileged: true}}]}}}}",
    )?;
    wait_until("a DaemonSet", limit, || ready("daemonset", "gw", "currentNumberScheduled", 1))?;
    let pods = cluster.get(&["pods", "--namespace=t", "--selector=app=gw"])?;
    ensure!(texts(&pods, "/spec/nodeName") == ["gw1"], "it selects the gateway");
    // A lab's pod keeps the address that the test reported, also among controllers.
    cluster.create_pod(&PodSpec::of_lab("pod0a")?)?;
    ensure!(cluster.get(&["pod", "pod0a"])?["status"]["podIP"] == "10.244.0.10");
    let log = cluster.log("kube-scheduler")?;
    ensure!(!log.is_empty() && fs::exists(lab.dir().join(API_SERVER))?);
    Ok(())
}
