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
        let config =
            LabConfig { agents: false, agent_binary: Some(agent()?), ..LabConfig::ephemeral(prefix) };
        let lab = Lab::up(&config)?;
        let cluster = Cluster::start(&lab, &options)?;
        cluster.seed_lab()?;
        cluster.kubectl(&["label", "nodes", "--all", "kubernetes.io/os=linux"])?;
        let applied =
            cluster.kubectl(&["apply", "-k", &deploy("base")]).context("kubectl apply -k deploy/base")?;
        println!("{applied}");
        Ok(Self { cluster, lab })
    }

    /// Waits until the admission policies are in force, a moment after they were made. The accounts may get pods and nodes
    /// from then on: `kubectl patch` reads what it patches, the agents do not.
    pub(crate) fn policies_in_force(&self) -> Result<()> {
        self.cluster.kubectl(&["create", "clusterrole", "reader", "--verb=get", "--resource=pods,nodes"])?;
        for account in ACCOUNTS {
            let (name, subject) =
                (format!("read-{account}"), format!("--serviceaccount={NAMESPACE}:{account}"));
            self.cluster.kubectl(&[
                "create",
                "clusterrolebinding",
                &name,
                "--clusterrole=reader",
                &subject,
            ])?;
        }
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{}", ACCOUNTS[0]);
        for (object, policy) in [("node", "nodes"), ("pod", "pods")] {
            let name = if object == "node" { "gw1" } else { self.probe()? };
            let words = ["label", object, name, "probe=x", "--dry-run=server", &user];
            eventually(Duration::from_secs(30), &format!("the policy for {policy} is in force"), || {
                let refused = self.cluster.kubectl(&words).err().map(|error| format!("{error:#}"));
                Ok(refused.is_some_and(|text| text.contains(&format!("'eip-gateway-{policy}'"))))
            })?;
        }
        Ok(())
    }

    /// A pod to try the policies on.
    fn probe(&self) -> Result<&'static str> {
        self.cluster.create_pod(&PodSpec::of_lab("pod2b")?)?;
        Ok("pod2b")
    }
}

/// One text of each item of a list.
pub(crate) fn texts(list: &Value, pointer: &str) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned)).collect()
}
