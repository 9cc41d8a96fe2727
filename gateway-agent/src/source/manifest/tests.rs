use super::*;
use crate::snapshot::Owner;

fn reader() -> Reader {
    Reader { keys: Keys::default(), config_map: ConfigMapName::default() }
}

fn objects(entries: Vec<Entry>) -> Vec<(String, Object)> {
    let object = |entry| match entry {
        Entry::Object(id, object, _) => (id.to_string(), object),
        Entry::Ignored(problem) | Entry::Bad(_, problem) => panic!("{problem}"),
    };
    entries.into_iter().map(object).collect()
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  uid: 00000000-0000-4000-8000-000000000001
  resourceVersion: "7"
  creationTimestamp: "2026-01-01T00:00:07Z"
  deletionTimestamp: "2026-01-01T00:00:08Z"
  annotations:
    ovn.kubernetes.io/eip: 192.168.100.101
    ovn.kubernetes.io/routed: "true"
  labels: { ovn.kubernetes.io/eip-bound: 192.168.100.101, pod-template-hash: 5d4f8c7b9 }
  ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4f8c7b9, uid: r, controller: true }]
spec:
  nodeName: worker1
  containers: [{ name: main, image: lab }]
status:
  phase: Running
  podIP: fd00::7
  podIPs: [{ ip: "fd00::7" }, { ip: 10.244.2.10 }]
  conditions:
    - { type: Initialized, status: "True" }
    - { type: Ready, status: "True" }
"#;

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata:
  name: gw1
  labels: { ovn.kubernetes.io/external-gw: "true" }
spec:
  podCIDR: 10.244.1.0/24
  podCIDRs: [10.244.1.0/24, "fd00::/64"]
status:
  addresses:
    - { type: Hostname, address: gw1 }
    - { type: InternalIP, address: "fd00::1" }
    - { type: InternalIP, address: 10.0.0.1 }
    - { type: ExternalIP, address: 192.168.100.11 }
  conditions: [{ type: Ready, status: "True", lastTransitionTime: "2026-01-01T00:00:07Z" }]
"#;

#[test]
fn a_pod_and_a_node_are_reduced_to_what_matters() {
    let text = format!("# ours\n---{POD}--- # and\n{NODE}...\n---\n");
    let pod = Pod {
        uid: "00000000-0000-4000-8000-000000000001".to_owned(),
        version: "7".to_owned(),
        created: 1_767_225_607,
        terminating: true,
        node: Some("worker1".to_owned()),
        host_network: false,
        ip: Some([10, 244, 2, 10].into()),
        finished: false,
        ready: true,
        eip: Some("192.168.100.101".to_owned()),
        routed: true,
        bound_label: crate::snapshot::BoundLabel::Bound([192, 168, 100, 101].into()),
        owner: Some(Owner { kind: "Deployment".to_owned(), name: "web".to_owned() }),
        launcher: None,
    };
    let node = Node {
        internal_ip: Some([10, 0, 0, 1].into()),
        addresses: vec![[10, 0, 0, 1].into(), [192, 168, 100, 11].into()],
        ready: true,
        ready_since: Some(1_767_225_607),
        gateway_label: true,
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
    };
    assert_eq!(
        objects(reader().read("x.yaml", &text)),
        [("pod default/web".to_owned(), Object::Pod(pod)), ("node gw1".to_owned(), Object::Node(node)),]
    );
}

#[test]
fn a_pod_without_status_waits_and_a_finished_one_says_so() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}}\n---\n\
        {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {hostNetwork: true}, status: {phase: Failed}}";
    assert_eq!(
        objects(reader().read("x.yaml", text)),
        [
            ("pod n/a".to_owned(), Object::Pod(Pod::default())),
            (
                "pod default/b".to_owned(),
                Object::Pod(Pod { host_network: true, finished: true, ..Pod::default() })
            ),
        ]
    );
}

#[test]
fn lists_and_json_are_read() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"type": "x"},
         "metadata": {"name": "ovn-external-gw-config", "namespace": "kube-system"}}]}"#;
    let data = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
    assert_eq!(
        objects(reader().read("x.json", json)),
        [
            ("node a".to_owned(), Object::Node(Node::default())),
            ("configmap kube-system/ovn-external-gw-config".to_owned(), Object::ConfigMap(data)),
        ]
    );
    let list = "{apiVersion: v1, kind: NodeList, items: [{metadata: {name: b}}]}";
    assert_eq!(
        objects(reader().read("x.yaml", list)),
        [("node b".to_owned(), Object::Node(Node::default()))]
    );
    assert_eq!(reader().read("x.yaml", "{apiVersion: v1, kind: List}"), []);
}

/// Document, its object's name in the problem, field, message.
const BAD_DOCUMENTS: &[(&str, &str, &str, &str)] = &[
    ("just text", "", "document", "it is no object"),
    ("metadata: {name: a}", "", "kind", "it is missing"),
    ("{apiVersion: v1, kind: Pod}", "", "metadata.name", "it is missing or no string"),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: 1}}",
        "",
        "metadata.namespace",
        "it is no string",
    ),
    ("{kind: Pod, metadata: {name: a}}", "", "apiVersion", "it is missing"),
    (
        "{apiVersion: apps/v1, kind: Pod, metadata: {name: a}}",
        "",
        "apiVersion",
        "\"apps/v1\" has no Pod that is read here",
    ),
    ("{apiVersion: v1, kind: List, items: 3}", "", "items", "it is no list"),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: 10.1.1}",
        ", pod default/a",
        "status.podIP",
        "\"10.1.1\" is not an IP address",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIPs: [{ip: 10.244.1.1/24}]}",
        ", pod default/a",
        "status.podIPs[0].ip",
        "\"10.244.1.1/24\" is not an IP address",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: 127.0.0.1}",
        ", pod default/a",
        "status.podIP",
        "\"127.0.0.1\" is no address a host can have",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: \"yes\"}",
        ", pod default/a",
        "spec.hostNetwork",
        "invalid type: string \"yes\", expected a boolean",
    ),
    (
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nstatus: {addresses: [{type: InternalIP, address: x}]}",
        ", node a",
        "status.addresses[0].address",
        "\"x\" is not an IP address",
    ),
    (
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.0.0.0}",
        ", node a",
        "spec.podCIDR",
        "\"10.0.0.0\": not an IPv4 prefix like 192.168.100.1/24",
    ),
];

#[test]
fn what_cannot_be_used_names_document_object_and_field() {
    for (text, object, field, message) in BAD_DOCUMENTS {
        let entries = reader().read("x.yaml", &format!("{text}\n---\n{NODE}"));
        let [Entry::Bad(_, problem), Entry::Object(..)] = &entries[..] else { panic!("{text}: {entries:?}") };
        assert_eq!(problem.object, format!("file x.yaml, document 1{object}"), "{text}");
        assert_eq!((&problem.field[..], &problem.message[..]), (*field, *message), "{text}");
    }
}

#[test]
fn an_unquoted_value_of_the_configmap_says_what_to_do() {
    let text = "apiVersion: v1\nkind: ConfigMap\n\
        metadata: {name: ovn-external-gw-config, namespace: kube-system}\ndata: {enable-external-gw: true}";
    let entries = reader().read("x.yaml", text);
    let [Entry::Bad(Some(_), problem)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(problem.field, "data.enable-external-gw");
    assert!(problem.remedy.starts_with("put the value in quotes"), "{problem}");
}

#[test]
fn other_objects_are_ignored_with_a_warning() {
    for (text, message) in [
        ("{apiVersion: v1, kind: Service, metadata: {name: a}}", "Service is not read here"),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}", "Deployment is not read here"),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}",
            "configmap default/a is not the gateway's, which is kube-system/ovn-external-gw-config",
        ),
    ] {
        let entries = reader().read("x.yaml", text);
        let [Entry::Ignored(problem)] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((&problem.object[..], &problem.message[..]), ("file x.yaml, document 1", message));
    }
}

/// A VirtualMachineInstance in the middle of a migration, a launcher of it, and a ServiceCIDR.
const KUBEVIRT: &str = r#"
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: web
  namespace: t
  uid: u1
  annotations: { ovn.kubernetes.io/eip: 192.168.100.101 }
  ownerReferences: [{ apiVersion: kubevirt.io/v1, kind: VirtualMachine, name: web, uid: v1, controller: true }]
spec: { domain: { devices: {} } }
status:
  phase: Running
  nodeName: n1
  migrationState: { targetPod: virt-launcher-web-b, targetNodeDomainReadyTimestamp: "2026-01-01T00:00:00Z" }
---
apiVersion: v1
kind: Pod
metadata:
  name: virt-launcher-web-b
  namespace: t
  labels: { kubevirt.io: virt-launcher, kubevirt.io/created-by: u1 }
  annotations:
    ovn.kubernetes.io/eip: 192.168.100.101
    kubevirt.io/migration-target-ready-timestamp: 2026-01-01 00:00:00 +0000 UTC
  ownerReferences: [{ apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, name: web, uid: u1 }]
status: { containerStatuses: [{ name: compute, image: x, imageID: x, ready: false, restartCount: 0,
    state: { terminated: { exitCode: 0 } } }] }
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: { name: kubernetes }
spec: { cidrs: [10.96.0.0/12, "fd00:10::/108"] }
"#;

#[test]
fn kubevirt_and_service_cidrs_are_reduced_to_what_matters() {
    let eip = Some("192.168.100.101".to_owned());
    let vmi = Vmi {
        uid: "u1".to_owned(),
        eip: eip.clone(),
        node: Some("n1".to_owned()),
        migrated_to: Some("virt-launcher-web-b".to_owned()),
        by_vm: true,
        ..Vmi::default()
    };
    let launcher = crate::snapshot::Launcher {
        vmi: "web".to_owned(),
        vmi_uid: "u1".to_owned(),
        stopped: true,
        arrived: Some("2026-01-01 00:00:00 +0000 UTC".to_owned()),
    };
    let pod = Pod { eip, launcher: Some(launcher), ..Pod::default() };
    assert_eq!(
        objects(reader().read("x.yaml", KUBEVIRT)),
        [
            ("virtualmachineinstance t/web".to_owned(), Object::Vmi(vmi.clone())),
            ("pod t/virt-launcher-web-b".to_owned(), Object::Pod(pod)),
            ("servicecidr kubernetes".to_owned(), Object::ServiceCidr(vec!["10.96.0.0/12".parse().unwrap()])),
        ]
    );
    for (from, to) in [
        ("targetNodeDomainReadyTimestamp", "failed: true, targetNodeDomainReadyTimestamp"),
        ("targetNodeDomainReadyTimestamp: \"2026-01-01T00:00:00Z\"", "targetNodeDomainDetected: true"),
    ] {
        let read = objects(reader().read("x.yaml", &KUBEVIRT.replace(from, to)));
        assert_eq!(read[0].1, Object::Vmi(Vmi { migrated_to: None, ..vmi.clone() }), "{to}");
    }
}

#[test]
fn pods_of_kubevirt_that_run_no_guest_ask_for_nothing() {
    for (from, to) in [
        ("kubevirt.io: virt-launcher", "kubevirt.io: hotplug-disk"),
        (
            "kubevirt.io/migration-target-ready-timestamp: 2026-01-01 00:00:00 +0000 UTC",
            "kubevirt.io/ephemeral-provisioning: \"true\"",
        ),
    ] {
        let read = objects(reader().read("x.yaml", &KUBEVIRT.replace(from, to)));
        assert_eq!(read[1].1, Object::Pod(Pod::default()), "{to}");
    }
}

#[test]
fn bad_yaml_names_the_line_and_leaves_the_other_documents_alone() {
    let entries = reader().read("x.yaml", &format!("# first\n---\nkind: Pod\na: [1,\nb: }}\n---{NODE}"));
    let [Entry::Bad(None, problem), Entry::Object(_, _, place)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&problem.object[..], &problem.field[..]), ("file x.yaml, document 1", "YAML"));
    assert!(problem.message.starts_with("line 4: "), "{problem}");
    assert_eq!(place.to_string(), "file x.yaml, document 2");
    let twice = reader().read("x.yaml", "kind: Pod\nkind: Node\n");
    assert!(matches!(&twice[..], [Entry::Bad(None, _)]), "{twice:?}");
}
