//! Writes to the API server over one connection each, so that no start of a kubectl is measured.

use std::{fs::File, net::Ipv4Addr, time::Instant};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use gateway_apiserver::{Cluster, User};
use gateway_lab::{Lab, plan::API_SERVER};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api as Resource, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Writes under way at once while the load is made.
const AT_ONCE: usize = 16;

/// A client of the pods in `default`. Its connections are made by this thread, which stays in the API server's
/// network namespace.
pub(super) struct Api {
    runtime: Runtime,
    pods: Resource<Pod>,
}

impl Api {
    /// Moves this thread into the namespace and connects.
    pub(super) fn connect(lab: &Lab, cluster: &Cluster) -> Result<Self> {
        enter(lab, API_SERVER)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(User::Admin)?)?;
        let pods = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Resource::namespaced(Client::try_from(config)?, "default"))
        })?;
        Ok(Self { runtime, pods })
    }

    /// Asks for an EIP; when the call returned.
    pub(super) fn annotate(&self, pod: &str, eip: Ipv4Addr) -> Result<Instant> {
        self.runtime.block_on(self.patch(pod, eip))?;
        Ok(Instant::now())
    }

    /// Asks for many EIPs, as fast as the API server takes it.
    pub(super) fn annotate_all(&self, wanted: &[(String, Ipv4Addr)]) -> Result<()> {
        let calls = stream::iter(wanted).map(|(pod, eip)| self.patch(pod, *eip));
        self.runtime.block_on(calls.buffer_unordered(AT_ONCE).try_collect::<()>())
    }

    async fn patch(&self, pod: &str, eip: Ipv4Addr) -> Result<()> {
        let patch = json!({ "metadata": { "annotations": { gateway_tests::cluster::EIP: eip } } });
        let patched = self.pods.patch(pod, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map(drop).with_context(|| format!("annotating {pod}"))
    }

    /// Creates pods and reports them as their kubelets would.
    pub(super) fn create(&self, pods: &[(Value, Value)]) -> Result<()> {
        let calls = stream::iter(pods).map(|(object, status)| async move {
            let pod: Pod = serde_json::from_value(object.clone())?;
            let name = pod.metadata.name.clone().unwrap_or_default();
            self.pods
                .create(&PostParams::default(), &pod)
                .await
                .with_context(|| format!("creating {name}"))?;
            let patch = Patch::Merge(status);
            let reported = self.pods.patch_status(&name, &PatchParams::default(), &patch).await;
            reported.map(drop).with_context(|| format!("reporting {name}"))
        });
        self.runtime.block_on(calls.buffer_unordered(AT_ONCE).try_collect::<()>())
    }
}

/// Moves this thread into a network namespace of the lab.
pub(super) fn enter(lab: &Lab, name: &str) -> Result<()> {
    let path = format!("/run/netns/{}", lab.netns(name)?);
    let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))
}
