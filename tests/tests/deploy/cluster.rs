//! A cluster with `deploy/base` applied.

use anyhow::{Context, Result};
use gateway_apiserver::{Cluster, Options};
use gateway_lab::{Lab, LabConfig};
use gateway_tests::scene::agent;
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
}

/// One text of each item of a list.
pub(crate) fn texts(list: &Value, pointer: &str) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned)).collect()
}
