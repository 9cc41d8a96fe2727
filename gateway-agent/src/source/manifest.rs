//! Kubernetes manifests (YAML or JSON) as the objects of a [`Snapshot`](crate::snapshot::Snapshot).

mod document;
mod object;
mod owner;
mod vmi;

use std::collections::BTreeMap;
use std::fmt;

use gateway_common::addr::Prefix;

use crate::annotation::Keys;
use crate::desired::problem::Problem;
use crate::snapshot::{ConfigMapName, Node, ObjectName, Pod, Vmi};

pub(super) use object::service_cidrs;

/// The kinds that are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ObjectKind {
    /// The gateway's ConfigMap.
    ConfigMap,
    /// A Node.
    Node,
    /// A Pod.
    Pod,
    /// A ServiceCIDR of `networking.k8s.io/v1`.
    ServiceCidr,
    /// A VirtualMachineInstance of KubeVirt.
    Vmi,
}

impl ObjectKind {
    /// The word in problems.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Node => "node",
            Self::Pod => "pod",
            Self::ServiceCidr => "servicecidr",
            Self::Vmi => "virtualmachineinstance",
        }
    }

    /// Its `apiVersion`.
    const fn api_version(self) -> &'static str {
        match self {
            Self::ConfigMap | Self::Node | Self::Pod => "v1",
            Self::ServiceCidr => "networking.k8s.io/v1",
            Self::Vmi => "kubevirt.io/v1",
        }
    }

    const fn namespaced(self) -> bool {
        match self {
            Self::ConfigMap | Self::Pod | Self::Vmi => true,
            Self::Node | Self::ServiceCidr => false,
        }
    }

    fn of(kind: &str) -> Option<Self> {
        match kind {
            "ConfigMap" => Some(Self::ConfigMap),
            "Node" => Some(Self::Node),
            "Pod" => Some(Self::Pod),
            "ServiceCIDR" => Some(Self::ServiceCidr),
            "VirtualMachineInstance" => Some(Self::Vmi),
            _ => None,
        }
    }
}

/// Which object it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ObjectId {
    /// Kind.
    pub kind: ObjectKind,
    /// Namespace and name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

/// An object, reduced to what matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// `data` of a ConfigMap.
    ConfigMap(BTreeMap<String, String>),
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
    /// IPv4 entries of a ServiceCIDR.
    ServiceCidr(Vec<Prefix>),
    /// A VirtualMachineInstance.
    Vmi(Vmi),
}

/// A field that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Its path.
    pub(super) field: String,
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) remedy: &'static str,
}

/// Where in a file an object stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// Number of the document in the file, from 1.
    pub document: usize,
    /// Number of the item in a list, from 1.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}, document {}", self.file, self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// What one document, or one item of a list, turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// An object.
    Object(ObjectId, Object, Place),
    /// Not an object of ours: a warning, nothing else.
    Ignored(Problem),
    /// An object that cannot be used; `None` when not even its name can be told.
    Bad(Option<ObjectId>, Problem),
}

/// Reads manifests.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Names of annotations and label.
    pub keys: Keys,
    /// The gateway's ConfigMap; others are ignored.
    pub config_map: ConfigMapName,
}

impl Reader {
    /// Reads all documents of a file. Nothing is lost: each gives at least one entry, except empty ones.
    pub fn read(&self, file: &str, text: &str) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (index, document) in document::split(text).into_iter().enumerate() {
            let place = Place { file: file.to_owned(), document: index + 1, item: None };
            match document.value() {
                Ok(serde_json::Value::Null) => {}
                Ok(value) => self.document(value, place, &mut entries),
                Err(message) => entries.push(Entry::Bad(
                    None,
                    Problem::refused(place.to_string(), "YAML", message, "correct the syntax"),
                )),
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests;
