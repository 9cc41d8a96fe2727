use kube::runtime::watcher::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::resource::{SERVICE_CIDRS, VMIS};
use super::store::{Read, Store};
use super::*;
use crate::config::tests::example_data;
use crate::snapshot::{HeldVm, Node};
use crate::source::inputs::GRACE;

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName::new(namespace, name)
}

/// A source whose API server is away: what it holds is put in by hand.
fn source(node: &str) -> KubeSource {
    let source = KubeSource::start(KubeOptions {
        kubeconfig: Some("/nonexistent/kubeconfig".into()),
        node: node.to_owned(),
        ..KubeOptions::default()
    });
    source.context.world().absent.extend([VMIS, SERVICE_CIDRS]);
    source
}

fn fill<T: PartialEq + Clone>(store: &mut Store<T>, objects: impl IntoIterator<Item = (ObjectName, T)>) {
    store.take(Event::Init);
    for (name, object) in objects {
        store.take(Event::InitApply((name, Read::Kept(object))));
    }
    store.take(Event::InitDone);
}

fn configure(world: &mut World, gateway: &str) {
    let mut data = example_data();
    data.insert("external-gw-nodes".to_owned(), gateway.to_owned());
    fill(&mut world.config_maps, [(ConfigMapName::default().0, data)]);
    let node = |i| Node { internal_ip: Some([10, 0, 0, i].into()), ready: true, ..Node::default() };
    fill(&mut world.nodes, [(name("", "gw1"), node(1)), (name("", "w1"), node(2))]);
}

fn pods(names: &str) -> Vec<(ObjectName, Pod)> {
    let pod = |text: &str| {
        let node = if text.ends_with('1') { "w1" } else { "w2" };
        (name("default", text), Pod { node: Some(node.to_owned()), ..Pod::default() })
    };
    names.split_whitespace().map(pod).collect()
}

/// The pods handed out, `?` while nothing is; a star when they are only a part.
fn seen(source: &mut KubeSource) -> String {
    let (inputs, _) = source.scan();
    if inputs.configured == Configured::Unknown {
        return "?".to_owned();
    }
    let names: Vec<_> = inputs.pods.keys().map(|name| &*name.name).collect();
    format!("{}{}", names.join(" "), if inputs.partial { "*" } else { "" })
}

fn watched(source: &KubeSource) -> Vec<&'static str> {
    source.watches.keys().copied().filter(|what| what.starts_with("pods")).collect()
}

#[tokio::test]
async fn nothing_is_handed_out_before_every_store_is_complete() {
    let mut source = source("w1");
    assert_eq!(seen(&mut source), "?");
    assert!(source.scan().1.is_none());
    configure(&mut source.context.world(), "gw1");
    assert_eq!(seen(&mut source), "?");
    assert_eq!(watched(&source), ["pods of this node", "pods with an EIP"]);
    fill(&mut source.context.world().own_pods, pods("a1"));
    assert_eq!(seen(&mut source), "?");
    source.context.world().absent.remove(VMIS);
    fill(&mut source.context.world().bound_pods, pods("b2"));
    assert_eq!(seen(&mut source), "?");
    fill(&mut source.context.world().vmis, []);
    source.context.world().changed_at = Some(std::time::Instant::now());
    let (inputs, changed_at) = source.scan();
    assert!(changed_at.is_some() && source.scan().1.is_none(), "told once");
    assert!(inputs.partial && inputs.pods.len() == 2);
    assert_eq!(seen(&mut source), "a1 b2*");
}

#[tokio::test]
async fn another_role_watches_other_pods_and_nothing_is_lost_meanwhile() {
    let mut source = source("w1");
    configure(&mut source.context.world(), "gw1");
    seen(&mut source);
    fill(&mut source.context.world().own_pods, pods("a1"));
    fill(&mut source.context.world().bound_pods, pods("b2"));
    assert_eq!(seen(&mut source), "a1 b2*");

    configure(&mut source.context.world(), "w1");
    fill(&mut source.context.world().own_pods, []);
    assert_eq!(seen(&mut source), "a1 b2*", "as it was, until it knows all pods");
    assert_eq!(watched(&source).len(), 3);
    assert!(
        matches!(&source.current.configured, Configured::Enabled(config) if config.gateway_nodes == ["gw1"])
    );
    fill(&mut source.context.world().all_pods, pods("a1 b2 c2"));
    assert_eq!(seen(&mut source), "a1 b2 c2");
    assert_eq!(watched(&source), ["pods"]);

    configure(&mut source.context.world(), "gw1");
    assert_eq!(seen(&mut source), "a1 b2 c2", "all pods are known until these are");
    assert!(
        matches!(&source.current.configured, Configured::Enabled(config) if config.gateway_nodes == ["gw1"])
    );
    fill(&mut source.context.world().own_pods, pods("a1"));
    fill(&mut source.context.world().bound_pods, pods("b2"));
    assert_eq!(seen(&mut source), "a1 b2*");
    assert_eq!(watched(&source).len(), 2);
}

#[tokio::test]
async fn a_deleted_configmap_withdraws_and_one_never_seen_does_not() {
    let mut source = source("w1");
    configure(&mut source.context.world(), "gw1");
    fill(&mut source.context.world().config_maps, []);
    seen(&mut source);
    fill(&mut source.context.world().own_pods, pods("a1"));
    fill(&mut source.context.world().bound_pods, pods(""));
    assert_eq!(source.scan().0.configured, Configured::Unknown);
    configure(&mut source.context.world(), "gw1");
    assert!(matches!(source.scan().0.configured, Configured::Enabled(_)));
    let bad = std::collections::BTreeMap::from([("enable-external-gw".to_owned(), "yes".to_owned())]);
    fill(&mut source.context.world().config_maps, [(ConfigMapName::default().0, bad)]);
    let (inputs, _) = source.scan();
    assert!(matches!(inputs.configured, Configured::Enabled(_)), "the last good one");
    let told = |problem: &Problem| problem.object == "configmap kube-system/ovn-external-gw-config";
    assert!(inputs.problems.iter().any(told), "{:?}", inputs.problems);
    // Deleted: after a while, of which the loop is told, it is gone.
    fill(&mut source.context.world().config_maps, []);
    let (inputs, _) = source.scan();
    assert!(matches!(inputs.configured, Configured::Enabled(_)), "it may come back");
    assert!(inputs.problems.iter().any(told), "{:?}", inputs.problems);
    source.last_good.pass(GRACE);
    source.changed().await;
    let (inputs, _) = source.scan();
    assert_eq!(inputs.configured, Configured::Disabled);
    assert!(!inputs.problems.iter().any(told), "{:?}", inputs.problems);
}

#[tokio::test]
async fn the_vmi_of_a_vm_is_remembered_for_a_moment() {
    let mut source = source("w1");
    configure(&mut source.context.world(), "gw1");
    seen(&mut source);
    fill(&mut source.context.world().own_pods, pods("a1"));
    fill(&mut source.context.world().bound_pods, pods(""));
    let vmi = |by_vm| Vmi { uid: "u".to_owned(), by_vm, ..Vmi::default() };
    let both = [(name("t", "vm"), vmi(true)), (name("t", "lone"), vmi(false))];
    fill(&mut source.context.world().vmis, both);
    assert_eq!(source.scan().0.vmis.len(), 2);
    fill(&mut source.context.world().vmis, []);
    let gone = source.scan().0.vmis;
    assert!(gone.len() == 1 && gone[&name("t", "vm")].gone, "{gone:?}");
    assert_eq!(source.scan().0.vmis.len(), 1);
    // The moment is over.
    for (_, until) in source.gone.values_mut() {
        *until = Instant::now();
    }
    source.changed().await;
    assert!(source.scan().0.vmis.is_empty());
}

/// An API server that answers every list and every watch with one status, and counts those of nodes.
struct Answers {
    list: u16,
    watch: u16,
    asked: std::cell::Cell<u32>,
}

impl Answers {
    async fn serve(&self, listener: tokio::net::TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A request without a body, in one piece.
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or("").to_owned();
            self.asked.set(self.asked.get() + u32::from(line.contains("/api/v1/nodes")));
            let code = if line.contains("watch=true") { self.watch } else { self.list };
            let body = match code {
                200 => r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#
                    .to_owned(),
                _ => format!(
                    r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","code":{code}}}"#
                ),
            };
            let head = "content-type: application/json\r\nconnection: close";
            let answer =
                format!("HTTP/1.1 {code} x\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // A client that is gone has heard enough.
            _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

/// What a source asks in two seconds, and how often it told that there is a problem with nodes.
async fn asked_and_told(list: u16, watch: u16) -> (u32, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = serde_json::json!({
        "clusters": [{"name": "x", "cluster": {"server": server}}], "users": [{"name": "x", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "current-context": "x",
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let answers = Answers { list, watch, asked: std::cell::Cell::default() };
    let mut source =
        KubeSource::start(KubeOptions { kubeconfig: Some(kubeconfig), ..KubeOptions::default() });
    let mut told = Vec::new();
    let follow = async {
        loop {
            source.changed().await;
            let problems = source.scan().0.problems;
            told.push(problems.iter().any(|problem| problem.field == "nodes"));
            told.dedup();
        }
    };
    let both = async { tokio::join!(answers.serve(listener), follow) };
    assert!(tokio::time::timeout(Duration::from_secs(2), both).await.is_err(), "both go on for ever");
    (answers.asked.get(), told.iter().filter(|problem| **problem).count())
}

#[tokio::test]
async fn whatever_is_refused_is_told_once_and_asked_for_less_and_less_often() {
    let rows = [(403, 403), (500, 500), (200, 403), (200, 500)];
    let outcomes =
        futures_util::future::join_all(rows.map(|(list, watch)| asked_and_told(list, watch))).await;
    for ((list, watch), (asked, told)) in rows.into_iter().zip(outcomes) {
        // After 0.2, 0.4, 0.8 s or up to half as long: five times a list, and as often a watch.
        assert!((3..=10).contains(&asked), "list {list}, watch {watch}: asked {asked} times");
        assert_eq!(told, 1, "list {list}, watch {watch}");
    }
}

#[tokio::test]
async fn a_vm_that_restarts_while_the_agent_does_is_remembered_too() {
    let (here, gone) = (name("t", "here"), name("t", "gone"));
    let held = |vmi: &ObjectName| HeldVm { vmi: vmi.clone(), uid: "u".to_owned(), ..HeldVm::default() };
    let held = [([192, 168, 100, 101], held(&here)), ([192, 168, 100, 102], held(&gone))];
    let held = held.map(|(eip, held)| (eip.into(), held)).into();
    for access in [true, false] {
        let mut source = source("w1").after(&held);
        configure(&mut source.context.world(), "gw1");
        seen(&mut source);
        fill(&mut source.context.world().own_pods, pods("a1"));
        fill(&mut source.context.world().bound_pods, pods(""));
        if access {
            let vmi = Vmi { uid: "u2".to_owned(), ..Vmi::default() };
            fill(&mut source.context.world().vmis, [(here.clone(), vmi)]);
        }
        let vmis = source.scan().0.vmis;
        if !access {
            assert!(vmis.is_empty(), "who may not read them goes by the pods: {vmis:?}");
            continue;
        }
        assert_eq!(vmis.len(), 2);
        assert!(!vmis[&here].gone && vmis[&here].uid == "u2");
        assert!(vmis[&gone].gone && vmis[&gone].eip.as_deref() == Some("192.168.100.102"));
        for (_, until) in source.gone.values_mut() {
            *until = Instant::now();
        }
        assert_eq!(source.scan().0.vmis.len(), 1);
    }
}
