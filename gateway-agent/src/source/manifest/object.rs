//! One value of a manifest as an object of ours.

use std::net::{IpAddr, Ipv4Addr};

use gateway_common::addr::Prefix;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Entry, Fault, Object, ObjectId, ObjectKind, Place, Reader};
use crate::desired::problem::Problem;
use crate::snapshot::{BoundLabel, Node, ObjectName, Pod};

impl Reader {
    /// Reads a document: an object, or a list of them.
    pub(super) fn document(&self, mut value: Value, place: Place, entries: &mut Vec<Entry>) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(item_kind) = kind.strip_suffix("List") else {
            entries.push(self.object(value, place));
            return;
        };
        let of_items = ObjectKind::of(item_kind);
        let version = of_items.map_or("v1", ObjectKind::api_version);
        if let Some(entry) = wrong_version(&value, &kind, version, &place) {
            entries.push(entry);
            return;
        }
        let items = match value.get_mut("items").map(Value::take) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                entries.push(bad(None, &place, "items", "it is no list", "write a list of objects"));
                return;
            }
        };
        for (index, mut item) in items.into_iter().enumerate() {
            if let Some(fields) = item.as_object_mut()
                && !item_kind.is_empty()
            {
                // In a PodList the API server leaves the items' kind out.
                fields.entry("kind").or_insert_with(|| item_kind.into());
                fields.entry("apiVersion").or_insert_with(|| version.into());
            }
            entries.push(self.object(item, Place { item: Some(index + 1), ..place.clone() }));
        }
    }

    fn object(&self, value: Value, place: Place) -> Entry {
        let Some(fields) = value.as_object() else {
            return bad(None, &place, "document", "it is no object", "write a Pod, Node or ConfigMap");
        };
        let Some(word) = fields.get("kind").and_then(Value::as_str) else {
            return bad(None, &place, "kind", "it is missing", "write Pod, Node or ConfigMap");
        };
        let Some(kind) = ObjectKind::of(word) else {
            return ignored(&place, "kind", format!("{word} is not read here"));
        };
        let metadata = |key| value.get("metadata").and_then(|metadata| metadata.get(key));
        let Some(name) = metadata("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return bad(None, &place, "metadata.name", "it is missing or no string", "name the object");
        };
        let namespace = match (kind.namespaced(), metadata("namespace")) {
            (false, _) => "",
            (true, None) => "default",
            (true, Some(namespace)) => match namespace.as_str() {
                Some(namespace) => namespace,
                None => {
                    return bad(None, &place, "metadata.namespace", "it is no string", "put it in quotes");
                }
            },
        };
        let name = ObjectName::new(namespace, name);
        if kind == ObjectKind::ConfigMap && name != self.config_map.0 {
            let message = format!("configmap {name} is not the gateway's, which is {}", self.config_map.0);
            return ignored(&place, "metadata", message);
        }
        if let Some(entry) = wrong_version(&value, word, kind.api_version(), &place) {
            return entry;
        }
        let id = ObjectId { kind, name };
        let read = match kind {
            ObjectKind::ConfigMap => typed(value).map(config_map),
            ObjectKind::Node => typed(value).and_then(|node| self.node(node)).map(Object::Node),
            ObjectKind::Pod => typed(value).and_then(|pod| self.pod(pod)).map(Object::Pod),
            ObjectKind::ServiceCidr => typed(value).and_then(service_cidrs).map(Object::ServiceCidr),
            ObjectKind::Vmi => typed(value).map(|vmi| Object::Vmi(self.vmi(vmi))),
        };
        match read {
            Ok(object) => Entry::Object(id, object, place),
            Err(Fault { field, message, remedy }) => bad(Some(id), &place, &field, message, remedy),
        }
    }

    /// A Pod, reduced to what matters.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub(in crate::source) fn pod(&self, pod: v1::Pod) -> Result<Pod, Fault> {
        let (mut metadata, spec, status) =
            (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let mut ip = None;
        let ips = status.pod_ips.unwrap_or_default();
        for (index, entry) in ips.iter().enumerate() {
            ip = ip
                .or(host_ipv4(&entry.ip)
                    .map_err(|wrong| fault(format!("status.podIPs[{index}].ip"), wrong))?);
        }
        if let Some(text) = status.pod_ip.filter(|text| !text.is_empty()) {
            ip = ip.or(host_ipv4(&text).map_err(|wrong| fault("status.podIP".to_owned(), wrong))?);
        }
        let owner = super::owner::owner(&metadata);
        let launcher = super::vmi::launcher(&mut metadata, status.container_statuses.as_deref());
        let is_true = |value: Option<&String>| value.is_some_and(|value| value == "true");
        let mut annotations = metadata.annotations.unwrap_or_default();
        Ok(Pod {
            uid: metadata.uid.unwrap_or_default(),
            version: metadata.resource_version.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            terminating: metadata.deletion_timestamp.is_some(),
            node: spec.node_name.filter(|name| !name.is_empty()),
            host_network: spec.host_network.unwrap_or_default(),
            ip,
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ready: status
                .conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            routed: is_true(annotations.get(&self.keys.routed)),
            bound_label: BoundLabel::of(
                metadata.labels.unwrap_or_default().get(&self.keys.eip_bound).map(String::as_str),
            ),
            eip: annotations.remove(&self.keys.eip),
            owner,
            launcher,
        })
    }

    /// A Node, reduced to what matters.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub(in crate::source) fn node(&self, node: v1::Node) -> Result<Node, Fault> {
        let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
        let (mut internal_ip, mut addresses) = (None, Vec::new());
        for (index, address) in status.addresses.unwrap_or_default().iter().enumerate() {
            // A host name is none.
            addresses.extend(address.address.parse::<Ipv4Addr>());
            if address.type_ == "InternalIP" {
                let field = || format!("status.addresses[{index}].address");
                let addr = host_ipv4(&address.address).map_err(|wrong| fault(field(), wrong))?;
                internal_ip = internal_ip.or(addr);
            }
        }
        let (field, cidrs) = match spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty()) {
            Some(cidrs) => ("spec.podCIDRs", cidrs),
            None => ("spec.podCIDR", spec.pod_cidr.into_iter().filter(|cidr| !cidr.is_empty()).collect()),
        };
        let pod_cidrs = ipv4_prefixes(field, &cidrs, "write the pods' prefix, like 10.244.1.0/24")?;
        let conditions = status.conditions.unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(Node {
            internal_ip,
            addresses,
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_since: ready
                .and_then(|condition| Some(condition.last_transition_time.as_ref()?.0.as_second())),
            gateway_label: labels.get(&self.keys.external_gw).is_some_and(|value| value == "true"),
            pod_cidrs,
        })
    }
}

fn config_map(config_map: v1::ConfigMap) -> Object {
    Object::ConfigMap(config_map.data.unwrap_or_default())
}

/// The IPv4 entries of a ServiceCIDR, host bits cleared.
///
/// # Errors
/// The field that cannot be used.
pub(in crate::source) fn service_cidrs(object: ServiceCIDR) -> Result<Vec<Prefix>, Fault> {
    let cidrs = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    ipv4_prefixes("spec.cidrs", &cidrs, "write the Services' prefix, like 10.96.0.0/12")
}

fn ipv4_prefixes(field: &str, cidrs: &[String], remedy: &'static str) -> Result<Vec<Prefix>, Fault> {
    let ipv4 = cidrs.iter().filter(|cidr| !cidr.contains(':'));
    let parsed = ipv4.map(|cidr| match cidr.parse::<Prefix>() {
        Ok(prefix) => Ok(prefix.trunc()),
        Err(error) => Err(Fault { field: field.to_owned(), message: format!("{cidr:?}: {error}"), remedy }),
    });
    parsed.collect()
}

/// Reads a Kubernetes type; the fault names the field by its path.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        let message = error.into_inner().to_string();
        let quoting = message.contains("expected a string");
        let remedy =
            if quoting { "put the value in quotes" } else { "write it as the Kubernetes API has it" };
        Fault { field, message, remedy }
    })
}

/// The IPv4 address of a host; `None` for an IPv6 address, which is not for us.
fn host_ipv4(text: &str) -> Result<Option<Ipv4Addr>, String> {
    match text.parse::<IpAddr>() {
        Err(_) => Err(format!("{text:?} is not an IP address")),
        Ok(IpAddr::V6(_)) => Ok(None),
        Ok(IpAddr::V4(ip))
            if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() =>
        {
            Err(format!("{text:?} is no address a host can have"))
        }
        Ok(IpAddr::V4(ip)) => Ok(Some(ip)),
    }
}

fn fault(field: String, message: String) -> Fault {
    Fault { field, message, remedy: "write the address alone, like 10.244.1.10" }
}

fn wrong_version(value: &Value, kind: &str, right: &str, place: &Place) -> Option<Entry> {
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let message = match version {
        _ if version == right => return None,
        "" => "it is missing".to_owned(),
        other => format!("{other:?} has no {kind} that is read here"),
    };
    Some(bad(None, place, "apiVersion", message, &format!("write {right}")))
}

fn ignored(place: &Place, field: &str, message: String) -> Entry {
    let remedy = "nothing to do; it is ignored. Pod, Node, VirtualMachineInstance, ServiceCIDR and the gateway's \
                  ConfigMap are read";
    Entry::Ignored(Problem::warning(place.to_string(), field, message, remedy))
}

fn bad(id: Option<ObjectId>, place: &Place, field: &str, message: impl Into<String>, remedy: &str) -> Entry {
    let object = match &id {
        Some(id) => format!("{place}, {id}"),
        None => place.to_string(),
    };
    let remedy = format!("{remedy}; until then what the file last said stays in force");
    Entry::Bad(id, Problem::refused(object, field, message, remedy))
}
