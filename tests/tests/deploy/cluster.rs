//! A cluster with `deploy/base` applied.

use std::time::Duration;

use anyhow::{Context, Result};
use gateway_apiserver::{Cluster, Options, PodSpec};
use gateway_lab::{Lab, LabConfig};
use gateway_tests::scene::{agent, eventually};
use serde_json::Value;

/// Namespace of everything in it.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The ServiceAccounts.
pub(crate) const ACCOUNTS: [&str; 2] = ["eip-gateway-gateway", "eip-gateway-worker"];

/// Path of something in `deploy/`.
pub(crate) fn deploy(path: &str) -> String {
    format!("{}/../deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The cluster ends before the lab.
pub(crate) struct Deployed {
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
}

impl Deployed {
    /// A seeded cluster; `kubectl apply -k deploy/base` has been accepted.
    pub(crate) fn new(prefix: &str, options: Options) -> Result<Self> {
        let deployed = Self::without_base(prefix, options)?;
        let applied = deployed
            .cluster
            .kubectl(&["apply", "-k", &deploy("base")])
            .context("kubectl apply -k deploy/base")?;
        println!("{applied}");
        Ok(deployed)
    }

    /// A seeded cluster with nothing applied.
    pub(crate) fn without_base(prefix: &str, options: Options) -> Result<Self> {
        let config =
            LabConfig { agents: false, agent_binary: Some(agent()?), ..LabConfig::ephemeral(prefix) };
        let lab = Lab::up(&config)?;
        let cluster = Cluster::start(&lab, &options)?;
        cluster.seed_lab()?;
        cluster.kubectl(&["label", "nodes", "--all", "kubernetes.io/os=linux"])?;
        Ok(Self { cluster, lab })
    }

    /// Waits until the admission policies are in force, a moment after they were made. The accounts may get pods and nodes
    /// from then on: `kubectl patch` reads what it patches, the agents do not.
    pub(crate) fn policies_in_force(&self) -> Result<()> {
        self.policies_in_force_for(NAMESPACE)
    }

    /// As above, for accounts of another namespace.
    pub(crate) fn policies_in_force_for(&self, namespace: &str) -> Result<()> {
        self.cluster.kubectl(&["create", "clusterrole", "reader", "--verb=get", "--resource=pods,nodes"])?;
        for account in ACCOUNTS {
            let (name, subject) =
                (format!("read-{account}"), format!("--serviceaccount={namespace}:{account}"));
            self.cluster.kubectl(&[
                "create",
                "clusterrolebinding",
                &name,
                "--clusterrole=reader",
                &subject,
            ])?;
        }
        let agent = format!("--as=system:serviceaccount:{namespace}:{}", ACCOUNTS[0]);
        let kubelet = ["--as=system:node:worker1", "--as-group=system:nodes"];
        self.cluster.create_pod(&PodSpec::of_lab("pod2b")?)?;
        let probes: [(&[&str], &[&str], &str); 4] = [
            (&["node", "gw1", "probe=x"], &[&agent], "nodes"),
            (&["pod", "pod2b", "probe=x"], &[&agent], "pods"),
            (&["pod", "pod2b", "probe/eip-bound=x"], &[], "bound"),
            (&["node", "worker1", "probe/external-gw=x"], &kubelet, "kubelets"),
        ];
        for (what, user, policy) in probes {
            let words = [&["label", "--dry-run=server"], what, user].concat();
            eventually(Duration::from_secs(30), &format!("the policy for {policy} is in force"), || {
                let refused = self.cluster.kubectl(&words).err().map(|error| format!("{error:#}"));
                Ok(refused.is_some_and(|text| text.contains(&format!("'eip-gateway-{policy}'"))))
            })?;
        }
        Ok(())
    }
}

/// One text of each item of a list.
pub(crate) fn texts(list: &Value, pointer: &str) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned)).collect()
}
