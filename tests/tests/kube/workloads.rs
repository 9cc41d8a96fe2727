//! Deployments and StatefulSets with the EIP in their template, by the real controllers and scheduler. The test is the
//! kubelet: a pod that was bound to a node "runs" in one of the lab's pods there.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gateway_apiserver::{Cluster, Options};
use gateway_lab::PODS;
use gateway_tests::scene::{EIP1, EIP2, NODES, Pinging, eips, holds};
use serde_json::{Value, json};

use gateway_tests::cluster::{EIP, Scene};

/// Time for controllers, scheduler and kubelet.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a pod takes to be ready, and to end.
const MOMENT: Duration = Duration::from_millis(300);

/// Gives pods life and takes it.
#[derive(Default)]
struct Kubelet {
    /// Where the pods of these uids run, and since when.
    running: BTreeMap<String, (&'static str, Instant)>,
    /// Pods that were told to end, and when.
    ending: BTreeMap<String, Instant>,
}

impl Kubelet {
    /// Does for each pod what is due.
    fn step(&mut self, cluster: &Cluster) -> Result<()> {
        let pods = cluster.get(&["pods", "-n", "default"])?;
        for pod in pods["items"].as_array().context("items")? {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
            let (name, uid) =
                (text("/metadata/name").context("a name")?, text("/metadata/uid").context("a uid")?);
            let Some(node) = text("/spec/nodeName") else { continue };
            let object = ["pod", name, "-n", "default"];
            if text("/metadata/deletionTimestamp").is_some() {
                let since = *self.ending.entry(uid.to_owned()).or_insert_with(Instant::now);
                if since.elapsed() > MOMENT {
                    cluster.patch_status(&object, &json!({ "phase": "Succeeded" }))?;
                    cluster.delete_now(&object)?;
                    self.running.remove(uid);
                }
            } else if let Some((place, since)) = self.running.get(uid).copied() {
                if since.elapsed() > MOMENT && pod.to_string().contains(r#""status":"False","type":"Ready""#)
                {
                    report(cluster, &object, place, true)?;
                }
            } else {
                let free = |place: &&gateway_lab::plan::Pod| {
                    place.node == node && !self.running.values().any(|(taken, _)| *taken == place.name)
                };
                let place = PODS.iter().find(free).with_context(|| format!("no place on {node}"))?.name;
                report(cluster, &object, place, false)?;
                self.running.insert(uid.to_owned(), (place, Instant::now()));
            }
        }
        Ok(())
    }

    /// Does so until `done`, looking at the gateway's table each time.
    fn until(
        &mut self,
        scene: &Scene,
        what: &str,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<Vec<Vec<String>>> {
        let deadline = Instant::now() + LIMIT;
        let mut tables = Vec::new();
        while !done(self)? {
            if Instant::now() > deadline {
                let pods = scene.cluster.kubectl(&["get", "pods", "-o", "wide"])?;
                bail!("not within {LIMIT:?}: {what}\n{pods}\n{}", scene.logs());
            }
            self.step(&scene.cluster)?;
            tables.push(eips(&scene.lab, "gw1")?);
            sleep(Duration::from_millis(20));
        }
        Ok(tables)
    }
}

/// Reports a pod as running in a place of the lab.
fn report(cluster: &Cluster, object: &[&str], place: &str, ready: bool) -> Result<()> {
    let place = gateway_lab::plan::Pod::named(place).context("a place")?;
    let ready = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
    let (ip, ips) = (place.ip, [json!({ "ip": place.ip })]);
    let status = json!({ "phase": "Running", "podIP": ip, "podIPs": ips, "conditions": [ready] });
    cluster.patch_status(object, &status)
}

/// A workload of one replica. Two of its pods never run on one node, and none on the gateway, which is cordoned.
fn workload(kind: &str, name: &str, eip: &str) -> Value {
    let labels = json!({ "app": name });
    let affinity = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": labels }, "topologyKey": "kubernetes.io/hostname" } ] } });
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels, "annotations": { EIP: eip } },
                "spec": { "affinity": affinity, "containers": [{ "name": "main", "image": "lab:1" }] },
            },
        },
    })
}

/// Agents, and controllers that make pods which may run on the workers.
fn start() -> Result<Scene> {
    let options = Options { controller_manager: true, scheduler: true, kwok: false };
    let mut scene = Scene::with_options("b9-", &options)?;
    scene.cluster.seed_lab()?;
    scene.cluster.kubectl(&["cordon", "gw1"])?;
    for node in NODES {
        scene.start_agent(node)?;
    }
    Ok(scene)
}

/// The node whose agent has the EIP.
fn server(scene: &Scene, eip: &str) -> Result<Option<&'static str>> {
    for node in ["worker1", "worker2"] {
        if eips(&scene.lab, node)?.iter().any(|found| found == eip) {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

/// The longest row of pings without an answer.
fn longest_gap(lost: &[u32]) -> u32 {
    let mut longest = 0;
    let (mut row, mut before) = (0, 0);
    for number in lost {
        row = if *number == before + 1 { row + 1 } else { 1 };
        before = *number;
        longest = longest.max(row);
    }
    longest
}

fn rolling_update(scene: &Scene, kubelet: &mut Kubelet) -> Result<()> {
    let cluster = &scene.cluster;
    cluster.create(&workload("Deployment", "web", EIP1))?;
    kubelet.until(scene, "web runs", |_| Ok(server(scene, EIP1)?.is_some()))?;
    scene.works(EIP1)?;
    let old = server(scene, EIP1)?.context("who serves")?;
    kubelet.until(scene, "web is available", |_| {
        Ok(cluster.get(&["deployment", "web"])?["status"]["availableReplicas"] == 1)
    })?;

    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    cluster.kubectl(&["set", "image", "deployment/web", "main=lab:2"])?;
    let tables = kubelet.until(scene, "the new pod alone is left", |kubelet| {
        let pods = cluster.get(&["pods", "-n", "default"])?;
        let pods = pods["items"].as_array().context("items")?;
        let new = pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "lab:2");
        Ok(new && pods.len() == 1 && kubelet.running.len() == 1)
    })?;
    ensure!(tables.iter().all(|eips| eips == &[EIP1]), "never lost: {tables:?}");
    let new = server(scene, EIP1)?.context("who serves")?;
    ensure!(new != old, "it moved from {old} to {new}");
    scene.works(EIP1)?;
    let gap = longest_gap(&pinging.lost()?);
    println!("Deployment: {} looks at the table, {gap} pings in a row lost", tables.len());
    ensure!(gap < 50, "{gap} pings in a row lost, that is a second");
    holds(&scene.lab, old, &[])
}

fn restart(scene: &Scene, kubelet: &mut Kubelet) -> Result<()> {
    let cluster = &scene.cluster;
    cluster.create(&workload("StatefulSet", "db", EIP2))?;
    kubelet.until(scene, "db runs", |_| Ok(server(scene, EIP2)?.is_some()))?;
    scene.works(EIP2)?;
    let old = server(scene, EIP2)?.context("who serves")?;
    let uid = cluster.get(&["pod", "db-0"])?["metadata"]["uid"].clone();

    // Same name, another pod, another node.
    cluster.kubectl(&["cordon", old])?;
    cluster.kubectl(&["rollout", "restart", "statefulset/db"])?;
    kubelet.until(scene, "db-0 is told to end", |kubelet| {
        Ok(kubelet.ending.contains_key(uid.as_str().context("a uid")?))
    })?;
    scene.works(EIP2).context("a pod that ends serves to its end")?;
    kubelet.until(
        scene,
        "db-0 runs elsewhere",
        |_| Ok(server(scene, EIP2)?.is_some_and(|now| now != old)),
    )?;
    scene.works(EIP2)?;
    ensure!(cluster.get(&["pod", "db-0"])?["metadata"]["uid"] != uid, "another pod of that name");
    scene.routed("db-0", true)?;
    scene.event("db-0", "EipBound", &[EIP2])
}

#[test]
fn an_eip_in_the_template_outlives_every_pod() -> Result<()> {
    let scene = start()?;
    let mut kubelet = Kubelet::default();
    rolling_update(&scene, &mut kubelet)?;
    restart(&scene, &mut kubelet)?;
    // Scaled to nothing: released; and back, with no hand.
    scene.cluster.kubectl(&["scale", "deployment/web", "--replicas=0"])?;
    kubelet.until(&scene, "web ends", |_| Ok(eips(&scene.lab, "gw1")? == [EIP2]))?;
    scene.cluster.kubectl(&["scale", "deployment/web", "--replicas=1"])?;
    kubelet.until(&scene, "web runs again", |_| Ok(server(&scene, EIP1)?.is_some()))?;
    scene.works(EIP1)?;
    scene.works(EIP2)?;
    scene.agents_live()
}
