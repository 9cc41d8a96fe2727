//! A pod's life, and what is refused: each with real packets, also those that have nothing to do with EIPs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_apiserver::PodSpec;
use gateway_lab::manifest;
use gateway_lab::plan::{NODES, PODS, SERVICE, SERVICE_TARGET_PORT};
use gateway_tests::scene::{
    EIP0, EIP1, EIP2, Pinging, does_not_reach, eip_packets, eips, eventually, holds, metric, reaches, show,
    verdict,
};
use serde_json::json;

use gateway_tests::cluster::{EIP, ROUTED, Scene};

/// Long enough for an agent to do what it should not.
const NOTHING_HAPPENS: Duration = Duration::from_millis(400);

/// Whether a pod's refusal is in `show eips` of the gateway.
fn shown(scene: &Scene, pod: &str, why: &str) -> Result<bool> {
    let all = show(&scene.lab, "gw1", "eips")?;
    let problems = all["problems"].as_array().context("problems")?.iter();
    let mut of_pod = problems.filter(|problem| problem["object"] == format!("pod default/{pod}"));
    Ok(of_pod.any(|problem| problem["message"].as_str().is_some_and(|text| text.contains(why))))
}

#[test]
fn each_refusal_is_told_thrice_and_disturbs_nothing() -> Result<()> {
    let scene = Scene::new("b1-")?;
    let refused = || metric(&scene.lab, "gw1", r#"eip_gateway_eips{state="refused"}"#);
    let pinging = Pinging::start(&scene.lab, "pod2a", "10.244.1.10")?;
    for (value, why) in [
        ("not-an-address", "is not an IPv4 address"),
        ("192.168.100.101.7", "is not an IPv4 address"),
        ("fd00::1", "is not an IPv4 address"),
        ("192.168.100.0/24", "is a prefix, not an address"),
        ("10.1.1.1", "is outside the external subnet 192.168.100.0/24"),
        ("192.168.100.254", "(nic-ip)"),
        ("192.168.100.1", "is the physical gateway"),
        ("192.168.100.0", "is the network address"),
        ("192.168.100.255", "is the broadcast address"),
    ] {
        scene.annotate("pod2a", Some(value))?;
        scene.event("pod2a", "EipRefused", &[value, why])?;
        ensure!(shown(&scene, "pod2a", why)?, "`show eips` tells of {value}");
        ensure!(refused()? == 1, "{value} is counted");
        for node in ["gw1", "worker2"] {
            ensure!(eips(&scene.lab, node)?.is_empty(), "{value} is not programmed on {node}");
        }
    }
    let mut host = PodSpec::new("on-the-host", "worker1", [172, 18, 0, 21].into()).eip(EIP1);
    host.host_network = true;
    scene.cluster.create_pod(&host)?;
    scene.event("on-the-host", "EipRefused", &["shares its node's address"])?;
    ensure!(shown(&scene, "on-the-host", "shares its node's address")? && refused()? == 2);
    does_not_reach(&scene.lab, "client", EIP1)?;
    pinging.none_lost().context("the refused pod's own traffic")?;

    // A good value needs no second step.
    scene.annotate("pod2a", Some(EIP2))?;
    scene.works(EIP2)?;
    ensure!(refused()? == 1 && !shown(&scene, "pod2a", "")?);
    scene.routed("pod2a", true)
}

#[test]
fn from_pending_to_finished() -> Result<()> {
    let scene = Scene::new("b2-")?;
    // Pending: it waits, and nobody is told that anything is wrong.
    let mut pod = PodSpec { ip: None, ..PodSpec::of_lab("pod1b")?.eip(EIP0) };
    scene.cluster.create_pod(&pod)?;
    std::thread::sleep(NOTHING_HAPPENS);
    ensure!(eips(&scene.lab, "gw1")?.is_empty(), "nothing is programmed for a pod without an address");
    let events = scene.cluster.get(&["events.v1.events.k8s.io"])?;
    ensure!(events["items"].as_array().is_some_and(Vec::is_empty), "{events}");
    pod.ip = PodSpec::of_lab("pod1b")?.ip;
    scene.cluster.report_pod(&pod)?;
    scene.works(EIP0)?;
    scene.routed("pod1b", true)?;

    // Terminating: it is served while it lasts, and no longer.
    scene.cluster.delete(&["pod", "pod1b"])?;
    std::thread::sleep(NOTHING_HAPPENS);
    reaches(&scene.lab, "client", EIP0, 2).context("a terminating pod nobody takes over from")?;
    let pod = |pod: &str| ["pod".to_owned(), pod.to_owned()];
    let finish = |name: &str, phase: &str| scene.cluster.patch_status(&pod(name), &json!({ "phase": phase }));
    finish("pod1b", "Failed")?;
    gone(&scene, "worker1", EIP0)?;
    scene.cluster.delete_now(&pod("pod1b"))?;

    // Finished: released at once, and `routed` is ours to take back.
    for (name, node, eip, phase) in
        [("pod1a", "worker1", EIP1, "Succeeded"), ("pod2a", "worker2", EIP2, "Failed")]
    {
        scene.annotate(name, Some(eip))?;
        scene.works(eip)?;
        scene.routed(name, true)?;
        finish(name, phase)?;
        gone(&scene, node, eip)?;
        scene.routed(name, false)?;
        scene.event(name, "EipReleased", &[eip])?;
        ensure!(scene.annotation(name, EIP)?.as_deref() == Some(eip), "the wish is the user's, and stays");
    }

    // Deleted without grace: there is no last word.
    scene.cluster.create_pod(&PodSpec::of_lab("pod2b")?.eip(EIP2))?;
    scene.works(EIP2)?;
    scene.cluster.delete_now(&pod("pod2b"))?;
    gone(&scene, "worker2", EIP2)?;
    scene.agents_live()
}

/// Released within the second that is promised, with no row left and no answer.
fn gone(scene: &Scene, node: &str, eip: &str) -> Result<()> {
    holds(&scene.lab, "gw1", &[])?;
    holds(&scene.lab, node, &[])?;
    does_not_reach(&scene.lab, "client", eip)
}

#[test]
fn an_eip_pod_talks_to_the_cluster_as_ever() -> Result<()> {
    let scene = Scene::new("b3-")?;
    let lab = &scene.lab;
    let listen = format!("TCP-LISTEN:{SERVICE_TARGET_PORT},reuseaddr,fork");
    let mut server = lab.spawn("pod2b", &["socat", "-d", "-d", &listen, "SYSTEM:echo $SOCAT_PEERADDR"])?;
    server.wait_for("listening on", Duration::from_secs(3))?;
    let ask = |address: &str, port: u16| {
        let target = format!("TCP:{address}:{port},connect-timeout=3");
        lab.read("pod1a", &["socat", "-T3", "-", &target]).map(|answer| answer.trim().to_owned())
    };
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    let (tunnelled, counted) = (verdict(lab, "worker1", "to_gateway")?, eip_packets(lab, "gw1", EIP1)?);
    let addresses = NODES.iter().map(|node| node.ip).chain(PODS.iter().map(|pod| pod.ip));
    for address in addresses {
        reaches(lab, "pod1a", &address.to_string(), 2)?;
    }
    ensure!(ask("10.244.2.11", SERVICE_TARGET_PORT)? == "10.244.1.10", "a pod sees the pod");
    ensure!(ask(&SERVICE.to_string(), 80)? == "10.244.1.10", "and so does one behind a Service");
    // And the other way round.
    for from in ["gw1", "worker1", "worker2", "pod0a", "pod1b", "pod2a"] {
        reaches(lab, from, "10.244.1.10", 2)?;
    }
    ensure!(verdict(lab, "worker1", "to_gateway")? == tunnelled, "nothing of it entered the tunnel");
    ensure!(eip_packets(lab, "gw1", EIP1)? == counted, "nothing of it passed the gateway");
    reaches(lab, "pod1a", "203.0.113.10", 2)?;
    eventually(Duration::from_secs(1), "what leaves the cluster does", || {
        Ok(eip_packets(lab, "gw1", EIP1)? > counted && verdict(lab, "worker1", "to_gateway")? > tunnelled)
    })
}

/// A pod keeps its EIP while it exists: neither a probe that fails nor a drain gives it to a
/// stranger who asks for it too.
#[test]
fn a_readiness_flap_hands_an_eip_to_nobody() -> Result<()> {
    let scene = Scene::new("bf-")?;
    let pod1a = ["pod", "pod1a", "-n", "default"];
    let ready = |status: &str| {
        let conditions = [json!({ "type": "Ready", "status": status })];
        scene.cluster.patch_status(&pod1a, &json!({ "conditions": conditions }))
    };
    let stays = |what: &str| {
        std::thread::sleep(NOTHING_HAPPENS);
        let (its, other) = (eips(&scene.lab, "worker1")?, eips(&scene.lab, "worker2")?);
        ensure!(its == [EIP1] && other.is_empty(), "{what}: {its:?}, {other:?}");
        anyhow::Ok(())
    };
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    scene.routed("pod1a", true)?;
    scene.annotate("pod2a", Some(EIP1))?;
    scene.event("pod2a", "EipConflict", &["default/pod1a"])?;

    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    ready("False")?;
    stays("not ready")?;
    ready("True")?;
    stays("ready again")?;
    // What any user may write decides nothing either.
    scene.cluster.annotate("default", "pod2a", &[(ROUTED, Some("true"))])?;
    scene.cluster.annotate("default", "pod1a", &[(ROUTED, None)])?;
    stays("routed is written by a user")?;
    scene.cluster.delete(&pod1a)?;
    stays("terminating")?;
    pinging.none_lost()?;

    // Its sandbox is made anew: nobody is served, and a stranger is not either.
    scene.cluster.patch_status(&pod1a, &json!({ "podIP": null, "podIPs": null }))?;
    holds(&scene.lab, "gw1", &[])?;
    std::thread::sleep(NOTHING_HAPPENS);
    ensure!(eips(&scene.lab, "worker2")?.is_empty(), "pod2a has it while pod1a waits");
    let ip = PodSpec::of_lab("pod1a")?.ip;
    scene.cluster.patch_status(&pod1a, &json!({ "podIP": ip, "podIPs": [{ "ip": ip }] }))?;
    scene.works(EIP1)?;
    stays("with an address again")?;

    scene.cluster.delete_now(&pod1a)?;
    holds(&scene.lab, "worker2", &[EIP1])?;
    scene.works(EIP1)?;
    scene.agents_live()
}

/// `kubectl replace --force` and GitOps tools delete what they make anew.
#[test]
fn a_config_map_that_is_replaced_by_force_disturbs_nothing() -> Result<()> {
    let scene = Scene::new("bg-")?;
    scene.annotate("pod1a", Some(EIP1))?;
    scene.works(EIP1)?;
    let pinging = Pinging::start(&scene.lab, "client", EIP1)?;
    scene.cluster.delete(&["configmap", "ovn-external-gw-config", "-n", "kube-system"])?;
    scene.event("ovn-external-gw-config", "ConfigWarning", &["deleted", "create it again"])?;
    scene.cluster.apply(&manifest::config_map())?;
    std::thread::sleep(NOTHING_HAPPENS);
    pinging.none_lost()?;
    scene.agents_live()
}
