//! What is watched, what of it, and what is kept.

use std::collections::BTreeMap;

use gateway_common::addr::Prefix;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;

use super::slim::SlimPod;
use super::store::Store;
use super::watch::{Context, Optional, Watched};
use super::world::World;
use crate::snapshot::{BoundLabel, Node, Pod, Vmi};
use crate::source::manifest::{Fault, ObjectKind, Reader, service_cidrs};

/// Word of VirtualMachineInstances.
pub(super) const VMIS: &str = "virtualmachineinstances";
/// Word of ServiceCIDRs.
pub(super) const SERVICE_CIDRS: &str = "servicecidrs";

/// All Nodes.
pub(super) struct Nodes;

impl Watched for Nodes {
    type Object = v1::Node;
    type Kept = Node;
    const WHAT: &'static str = "nodes";
    const KIND: ObjectKind = ObjectKind::Node;

    fn api(client: Client, _context: &Context) -> Api<v1::Node> {
        Api::all(client)
    }

    fn store(world: &mut World) -> &mut Store<Node> {
        &mut world.nodes
    }

    fn read(reader: &Reader, node: v1::Node) -> Result<Option<Node>, Fault> {
        reader.node(node).map(Some)
    }
}

/// The gateway's ConfigMap.
pub(super) struct ConfigMaps;

impl Watched for ConfigMaps {
    type Object = v1::ConfigMap;
    type Kept = BTreeMap<String, String>;
    const WHAT: &'static str = "configmaps";
    const KIND: ObjectKind = ObjectKind::ConfigMap;

    fn api(client: Client, context: &Context) -> Api<v1::ConfigMap> {
        Api::namespaced(client, &context.reader.config_map.0.namespace)
    }

    fn select(config: watcher::Config, context: &Context) -> watcher::Config {
        config.fields(&format!("metadata.name={}", context.reader.config_map.0.name))
    }

    fn store(world: &mut World) -> &mut Store<BTreeMap<String, String>> {
        &mut world.config_maps
    }

    fn read(_reader: &Reader, config_map: v1::ConfigMap) -> Result<Option<Self::Kept>, Fault> {
        Ok(Some(config_map.data.unwrap_or_default()))
    }
}

/// Pods that ask for an EIP, have one, or may run the guest of a VM that does; the others do not matter.
fn pod(reader: &Reader, SlimPod(pod): SlimPod) -> Result<Option<Pod>, Fault> {
    let pod = reader.pod(pod)?;
    let labelled = |pod: &Pod| pod.bound_label != BoundLabel::Absent;
    Ok(Some(pod).filter(|pod| pod.eip.is_some() || labelled(pod) || pod.launcher.is_some()))
}

macro_rules! pods {
    ($(#[$doc:meta])* $name:ident, $what:literal, $store:ident, $select:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Watched for $name {
            type Object = SlimPod;
            type Kept = Pod;
            const WHAT: &'static str = $what;
            const KIND: ObjectKind = ObjectKind::Pod;

            fn api(client: Client, _context: &Context) -> Api<SlimPod> {
                Api::all(client)
            }

            fn select(config: watcher::Config, context: &Context) -> watcher::Config {
                let select: fn(watcher::Config, &Context) -> watcher::Config = $select;
                select(config, context)
            }

            fn store(world: &mut World) -> &mut Store<Pod> {
                &mut world.$store
            }

            fn read(reader: &Reader, object: SlimPod) -> Result<Option<Pod>, Fault> {
                pod(reader, object)
            }
        }
    };
}

pods!(
    /// All pods.
    AllPods, "pods", all_pods, |config, _| config
);
pods!(
    /// The pods of this node.
    OwnPods, "pods of this node", own_pods,
    |config, context| config.fields(&format!("spec.nodeName={}", context.node))
);
pods!(
    /// The pods that have an EIP, on other nodes: a change of this node's own comes by [`OwnPods`], and once.
    BoundPods, "pods with an EIP", bound_pods,
    |config, context| {
        let key = &context.reader.keys.eip_bound;
        let bound = format!("{key},{key}!={}", BoundLabel::REFUSED);
        config.labels(&bound).fields(&format!("spec.nodeName!={}", context.node))
    }
);

/// KubeVirt's VirtualMachineInstances.
pub(super) struct Vmis;

impl Watched for Vmis {
    type Object = DynamicObject;
    type Kept = Vmi;
    const WHAT: &'static str = VMIS;
    const KIND: ObjectKind = ObjectKind::Vmi;
    const OPTIONAL: Option<Optional> = Some(Optional { version: "kubevirt.io/v1", plural: VMIS });

    fn api(client: Client, _context: &Context) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstance");
        Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, VMIS))
    }

    fn hint(context: &Context) -> Option<&Notify> {
        Some(&context.launched)
    }

    fn store(world: &mut World) -> &mut Store<Vmi> {
        &mut world.vmis
    }

    fn read(reader: &Reader, vmi: DynamicObject) -> Result<Option<Vmi>, Fault> {
        Ok(Some(reader.vmi(vmi)))
    }
}

/// ServiceCIDRs.
pub(super) struct ServiceCidrs;

impl Watched for ServiceCidrs {
    type Object = ServiceCIDR;
    type Kept = Vec<Prefix>;
    const WHAT: &'static str = SERVICE_CIDRS;
    const KIND: ObjectKind = ObjectKind::ServiceCidr;
    const OPTIONAL: Option<Optional> =
        Some(Optional { version: "networking.k8s.io/v1", plural: SERVICE_CIDRS });

    fn api(client: Client, _context: &Context) -> Api<ServiceCIDR> {
        Api::all(client)
    }

    fn store(world: &mut World) -> &mut Store<Vec<Prefix>> {
        &mut world.service_cidrs
    }

    fn read(_reader: &Reader, object: ServiceCIDR) -> Result<Option<Vec<Prefix>>, Fault> {
        service_cidrs(object).map(Some)
    }
}
