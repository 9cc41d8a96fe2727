use kube::runtime::watcher::Event;

use super::resource::{SERVICE_CIDRS, VMIS};
use super::store::{Read, Store};
use super::*;
use crate::config::tests::example_data;
use crate::desired::problem::Problem;
use crate::snapshot::Node;

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
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
    let names: Vec<_> = inputs.pods.keys().map(|name| name.name.as_str()).collect();
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
    // A pod of this node counts as its own watch has it.
    fill(&mut source.context.world().bound_pods, pods("gone1 b2"));
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
    fill(&mut source.context.world().config_maps, []);
    assert_eq!(source.scan().0.configured, Configured::Disabled);
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
