//! What is in the cluster beside the pod that is measured: nodes, and pods of a realistic size.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use gateway_apiserver::Cluster;
use gateway_lab::{Lab, NIC_IP, plan::Node};
use gateway_tests::cluster::{EIP, ROUTED};
use serde_json::{Value, json};

use super::{api::Api, say};

/// The pod whose EIP is changed.
pub(super) const MEASURED_POD: &str = "pod1a";
/// Written by the gateway on pods whose EIP is bound.
const BOUND: &str = "ovn.kubernetes.io/eip-bound";
/// Nodes of pods that exist in the API only.
const NODES: u32 = 100;
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 100);
/// The first of the EIPs that are bound; those that are measured come from 192.168.101.0/24.
const FIRST_EIP: Ipv4Addr = Ipv4Addr::new(192, 168, 128, 0);
const FIRST_POD_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 64, 0);

/// The EIP of a change: another one each time.
pub(super) fn measured_eip(change: u32) -> Ipv4Addr {
    offset(Ipv4Addr::new(192, 168, 101, 1), change % 250)
}

fn offset(from: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(from) + by)
}

/// Makes 192.168.0.0/16 the external subnet: a /24 has no room. The client reaches measured EIPs by way of `nic-ip`, so
/// that no ARP of its kernel, once a second, is measured.
pub(super) fn widen_external_network(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster.patch(
        &["configmap", "ovn-external-gw-config", "-n", "kube-system"],
        &json!({"data": {"external-gw-addr": "192.168.100.1/16", "nic-ip": format!("{NIC_IP}/16"), "garp-rate": "10000"}}),
    )?;
    let route = ["ip", "route", "add", "192.168.101.0/24", "via", &NIC_IP.to_string()];
    lab.read("client", &route).map(drop)
}

/// Pods made so far.
pub(super) struct Load {
    pods: u32,
    bound: u32,
}

impl Load {
    /// Makes the nodes; `worker2` answers ARP for them.
    pub(super) fn prepare(lab: &Lab, cluster: &Cluster) -> Result<Self> {
        let worker = Node::named("worker2").context("the lab has a worker2")?;
        let mut nodes = Vec::new();
        for index in 0..NODES {
            let address = offset(FIRST_NODE, index);
            lab.read(worker.name, &["ip", "address", "add", &format!("{address}/32"), "dev", "eth0"])?;
            nodes.push(json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": node(index)},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }));
        }
        cluster.create_all(&nodes)?;
        Ok(Self { pods: 0, bound: 0 })
    }

    /// EIPs that are bound, the measured one aside.
    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    /// Makes pods with EIPs, as they look once bound, until there are so many; pods without one get one first.
    pub(super) fn bind(&mut self, api: &Api, eips: u32) -> Result<()> {
        say(&format!("{eips} EIPs"));
        let idle = self.pods - self.bound;
        self.bind_existing(api, idle.min(eips.saturating_sub(self.bound)))?;
        let new: Vec<_> =
            (self.bound..eips).map(|index| pod(index, Some(offset(FIRST_EIP, index)))).collect();
        api.create(&new)?;
        self.pods = self.pods.max(eips);
        self.bound = eips;
        Ok(())
    }

    /// Makes pods without an EIP until there are so many pods.
    pub(super) fn fill(&mut self, api: &Api, pods: u32) -> Result<()> {
        say(&format!("{pods} pods"));
        let new: Vec<_> = (self.pods..pods).map(|index| pod(index, None)).collect();
        api.create(&new)?;
        self.pods = self.pods.max(pods);
        Ok(())
    }

    /// Asks for EIPs for so many pods that have none.
    pub(super) fn bind_existing(&mut self, api: &Api, eips: u32) -> Result<()> {
        let wanted: Vec<_> = (self.bound..self.bound + eips)
            .map(|index| (format!("load-{index}"), offset(FIRST_EIP, index)))
            .collect();
        api.annotate_all(&wanted)?;
        self.bound += eips;
        Ok(())
    }
}

fn node(index: u32) -> String {
    format!("load-{index}")
}

/// A pod and its status. About 4 kB, as pods are: most of it is the container's environment.
fn pod(index: u32, eip: Option<Ipv4Addr>) -> (Value, Value) {
    let address = offset(FIRST_POD_IP, index);
    let mut metadata = json!({"name": format!("load-{index}"), "namespace": "default"});
    if let Some(eip) = eip {
        metadata["annotations"] = json!({EIP: eip, ROUTED: "true"});
        metadata["labels"] = json!({BOUND: eip});
    }
    let environment: Vec<_> = (0..40)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": "a value of a usual length, of which a pod has many"}))
        .collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeName": node(index % NODES),
            "containers": [{"name": "main", "image": "load", "env": environment}],
        },
    });
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    (object, status)
}
