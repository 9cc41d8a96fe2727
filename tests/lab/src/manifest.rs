//! The manifests an agent with `--source dir` reads: what `kubectl get -o yaml` would print, as far as we use it.

use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::plan::{
    CLIENT, EXTERNAL_NIC, NIC_IP, NIC_MAC, NODES, Node, POD_CIDR, PRIMARY_NIC, Pod, SERVICE_CIDR,
    UNDERLAY_CIDR,
};

/// File of the ConfigMap.
pub const CONFIG_MAP_FILE: &str = "configmap.yaml";
/// Annotation that asks for an EIP.
pub const EIP_ANNOTATION: &str = "ovn.kubernetes.io/eip";

/// File of a node's manifest.
pub fn node_file(node: &str) -> String {
    format!("node-{node}.yaml")
}

/// File of a pod's manifest.
pub fn pod_file(pod: &str) -> String {
    format!("pod-{pod}.yaml")
}

/// The ConfigMap of the operator's session, with gw1 as the only gateway.
pub fn config_map() -> String {
    let gateways: Vec<_> = NODES.iter().filter(|node| node.gateway).map(|node| node.name).collect();
    format!(
        r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: ovn-external-gw-config
  namespace: kube-system
data:
  type: "centralized"
  enable-external-gw: "true"
  external-gw-nodes: "{gateways}"
  external-gw-nic: "{EXTERNAL_NIC}"
  external-gw-addr: "{CLIENT}/24"
  nic-ip: "{NIC_IP}/24"
  nic-mac: "{NIC_MAC}"
  cluster-cidrs: "{POD_CIDR},{SERVICE_CIDR},{UNDERLAY_CIDR}"
  underlay-nic: "{PRIMARY_NIC}"
"#,
        gateways = gateways.join(",")
    )
}

/// A ready node.
pub fn node(node: &Node) -> String {
    let Node { name, index, ip, gateway } = node;
    let label = if *gateway { "\n    ovn.kubernetes.io/external-gw: \"true\"" } else { "" };
    let pod_cidr = node.pod_cidr();
    format!(
        r#"apiVersion: v1
kind: Node
metadata:
  name: {name}
  uid: 00000000-0000-4000-8000-0000000000{index:02x}
  creationTimestamp: "2026-01-01T00:00:{index:02}Z"
  labels:
    kubernetes.io/hostname: {name}{label}
spec:
  podCIDR: {pod_cidr}
  podCIDRs:
    - {pod_cidr}
status:
  addresses:
    - type: InternalIP
      address: {ip}
    - type: Hostname
      address: {name}
  conditions:
    - type: Ready
      status: "True"
"#
    )
}

/// A running, ready pod, with the EIP annotation when `eip` is given. The value is not checked: tests write bad ones.
pub fn pod(pod: &Pod, eip: Option<&str>) -> String {
    let Pod { name, node, ip } = pod;
    let [a, b, c, d] = ip.octets();
    let annotations =
        eip.map(|eip| format!("\n  annotations:\n    {EIP_ANNOTATION}: {eip:?}")).unwrap_or_default();
    format!(
        r#"apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  uid: 00000000-0000-4000-8000-0000{a:02x}{b:02x}{c:02x}{d:02x}
  creationTimestamp: "2026-01-01T00:{c:02}:{d:02}Z"{annotations}
spec:
  nodeName: {node}
  containers:
    - name: main
      image: lab
status:
  phase: Running
  podIP: {ip}
  podIPs:
    - ip: {ip}
  conditions:
    - type: Ready
      status: "True"
"#
    )
}

/// What `lab status` wants to know of a pod's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) node: String,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) eip: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: PodState,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodState {
    #[serde(default, rename = "podIP")]
    pod_ip: Option<Ipv4Addr>,
}

/// Reads a manifest that a person may have edited; `None` when it is no pod or cannot be read as one.
pub(crate) fn read_pod(yaml: &str) -> Option<PodFacts> {
    let manifest: Manifest = serde_saphyr::from_str(yaml).ok()?;
    (manifest.kind == "Pod").then(|| PodFacts {
        name: manifest.metadata.name,
        namespace: manifest.metadata.namespace.unwrap_or_else(|| "default".to_owned()),
        node: manifest.spec.node_name,
        ip: manifest.status.pod_ip,
        eip: manifest.metadata.annotations.get(EIP_ANNOTATION).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{EIP, EIP_POD};

    #[test]
    fn a_pod_reads_back_as_it_was_written() {
        let spec = Pod::named(EIP_POD).expect("the EIP pod exists");
        let facts = |eip| read_pod(&pod(spec, eip)).expect("our own manifest is a pod");
        let eip = EIP.to_string();
        let with = facts(Some(eip.as_str()));
        assert_eq!(with.eip.as_deref(), Some("192.168.100.101"));
        assert_eq!((with.name.as_str(), with.node.as_str(), with.ip), ("pod1a", "worker1", Some(spec.ip)));
        assert_eq!(facts(None), PodFacts { eip: None, ..with });
    }

    #[test]
    fn the_config_map_is_the_operators() {
        let text = config_map();
        for line in [
            "  external-gw-nodes: \"gw1\"",
            "  external-gw-nic: \"enp8s0\"",
            "  external-gw-addr: \"192.168.100.1/24\"",
            "  nic-ip: \"192.168.100.254/24\"",
            "  nic-mac: \"16:52:f3:13:6a:25\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn only_the_gateway_carries_the_label() {
        let labelled = |spec| node(spec).contains("ovn.kubernetes.io/external-gw: \"true\"");
        assert_eq!(NODES.each_ref().map(labelled), [true, false, false]);
    }

    #[test]
    fn what_is_no_pod_is_left_alone() {
        assert_eq!(read_pod(&config_map()), None);
        assert_eq!(read_pod("not: [yaml"), None);
    }
}
