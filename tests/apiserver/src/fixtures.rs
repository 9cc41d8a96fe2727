//! What a test finds in the cluster: nodes, namespaces, pods that "run", KubeVirt's resources.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use gateway_lab::{
    NODES, manifest,
    plan::{Node, Pod},
};
use serde_json::{Map, Value, json};

use crate::Cluster;

/// How long the API server or the controllers may take to make what every cluster has.
const SETTLED: Duration = Duration::from_secs(20);

/// A pod that some kubelet has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// Its namespace, `default` unless chosen otherwise.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its address; without one it stays Pending.
    pub ip: Option<Ipv4Addr>,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its condition Ready.
    pub ready: bool,
}

impl PodSpec {
    /// A running, ready pod.
    pub fn new(name: &str, node: &str, ip: Ipv4Addr) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            ip: Some(ip),
            host_network: false,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            ready: true,
        }
    }

    /// One of the lab's own pods, whose network namespace exists: `pod1a`, …
    pub fn of_lab(name: &str) -> Result<Self> {
        let pod = Pod::named(name).with_context(|| format!("the lab has no pod {name:?}"))?;
        Ok(Self::new(pod.name, pod.node, pod.ip))
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With the annotation that asks for an EIP.
    #[must_use]
    pub fn eip(self, eip: &str) -> Self {
        self.annotation(manifest::EIP_ANNOTATION, eip)
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The Pod object.
    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "annotations": self.annotations,
                "labels": self.labels,
            },
            "spec": {
                "nodeName": self.node,
                "hostNetwork": self.host_network,
                "containers": [{ "name": "main", "image": "lab" }],
            },
        })
    }

    /// What its kubelet reports.
    fn status(&self) -> Value {
        let Some(ip) = self.ip else { return json!({ "phase": "Pending" }) };
        json!({ "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": [ready(self.ready)] })
    }
}

fn ready(yes: bool) -> Value {
    json!({ "type": "Ready", "status": if yes { "True" } else { "False" } })
}

impl Cluster {
    /// What the lab's manifests say, in the API server: the nodes, the ConfigMap, and the ServiceAccount that pods
    /// need. The pods come when a test asks for them.
    pub fn seed_lab(&self) -> Result<()> {
        self.seed_nodes()?;
        self.apply(&manifest::config_map()).map(drop)
    }

    /// As [`Cluster::seed_lab`] without the ConfigMap: a cluster that has not heard of us.
    pub fn seed_nodes(&self) -> Result<()> {
        for namespace in ["default", "kube-system"] {
            self.settle_namespace(namespace)?;
        }
        let nodes: Vec<_> = NODES.iter().map(lab_node).collect();
        self.create_all(&nodes)?;
        self.accept_pods(&NODES.map(|node| node.name))
    }

    /// Creates a namespace, ready for pods.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&["create", "namespace", name])?;
        self.settle_namespace(name)
    }

    /// Creates a Ready node; its pods get addresses of `pod_cidr` when kwok runs them.
    pub fn create_node(
        &self,
        name: &str,
        ip: Ipv4Addr,
        pod_cidr: &str,
        labels: &[(&str, &str)],
    ) -> Result<()> {
        self.create(&node(name, ip, pod_cidr, labels))?;
        self.accept_pods(&[name])
    }

    /// Sets a node's condition Ready.
    pub fn set_node_ready(&self, name: &str, yes: bool) -> Result<()> {
        self.patch_status(&["node", name], &json!({ "conditions": [ready(yes)] }))
    }

    /// Creates a pod on its node and reports it as its kubelet would. Two writes, as in life. Returns the object as
    /// first created, with its `uid`.
    pub fn create_pod(&self, pod: &PodSpec) -> Result<Value> {
        let made = self.create(&pod.object())?;
        self.report_pod(pod)?;
        Ok(made)
    }

    /// Reports a pod anew, for example after a change of `ready` or `ip`.
    pub fn report_pod(&self, pod: &PodSpec) -> Result<()> {
        self.patch_status(&["pod", &pod.name, "--namespace", &pod.namespace], &pod.status())
    }

    /// Sets annotations of a pod, or removes them by `None`.
    pub fn annotate(&self, namespace: &str, pod: &str, annotations: &[(&str, Option<&str>)]) -> Result<()> {
        let annotations: Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let patch = json!({ "metadata": { "annotations": annotations } });
        self.patch(&["pod", pod, "--namespace", namespace], &patch)
    }

    /// Makes the API server serve VirtualMachine, VirtualMachineInstance and VirtualMachineInstanceMigration.
    pub fn install_kubevirt(&self) -> Result<()> {
        self.apply(include_str!("kubevirt.yaml"))?;
        wait_until("the resources of kubevirt.io to be served", || {
            self.kubectl(&["get", "vm,vmi,vmim", "--all-namespaces"]).is_ok()
        })
    }

    /// Waits for a namespace and its ServiceAccount `default`, without which pods are refused; makes the latter
    /// when no controller does.
    fn settle_namespace(&self, namespace: &str) -> Result<()> {
        let there = |kind, name| self.kubectl(&["get", kind, name, "--namespace", namespace]).is_ok();
        wait_until(&format!("the namespace {namespace}"), || there("namespace", namespace))?;
        if self.options.controller_manager {
            let account = format!("the ServiceAccount default of {namespace}");
            return wait_until(&account, || there("serviceaccount", "default"));
        }
        self.kubectl(&["create", "serviceaccount", "default", "--namespace", namespace]).map(drop)
    }

    /// Takes off the taint that every node is born with; a controller would when it sees the node Ready.
    fn accept_pods(&self, nodes: &[&str]) -> Result<()> {
        let mut what = vec!["node"];
        what.extend(nodes);
        self.patch(&what, &json!({ "spec": { "taints": null } }))
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + SETTLED;
    while !done() {
        if Instant::now() > deadline {
            bail!("waited {SETTLED:?} in vain for {what}: see the logs of kube-apiserver with Cluster::log");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn lab_node(of: &Node) -> Value {
    let gateway = [("ovn.kubernetes.io/external-gw", "true")];
    node(of.name, of.ip, &of.pod_cidr(), if of.gateway { &gateway } else { &[] })
}

fn node(name: &str, ip: Ipv4Addr, pod_cidr: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = Map::from_iter([("kubernetes.io/hostname".to_owned(), json!(name))]);
    all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    let room = json!({ "cpu": "64", "memory": "256Gi", "pods": "10000" });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": all },
        "spec": { "podCIDR": pod_cidr, "podCIDRs": [pod_cidr] },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": ip }, { "type": "Hostname", "address": name }],
            "conditions": [ready(true)],
            "capacity": room,
            "allocatable": room,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_an_address_is_pending() {
        let pod = PodSpec { ip: None, ..PodSpec::of_lab("pod1a").unwrap() };
        assert_eq!(pod.status(), json!({ "phase": "Pending" }));
        assert_eq!(pod.object()["spec"]["nodeName"], "worker1");
        assert!(PodSpec::of_lab("pod9z").is_err());
    }

    #[test]
    fn only_the_gateway_carries_the_label() {
        let labelled = |of| lab_node(of)["metadata"]["labels"]["ovn.kubernetes.io/external-gw"] == "true";
        assert_eq!(NODES.each_ref().map(labelled), [true, false, false]);
    }
}
