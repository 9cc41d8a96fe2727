//! What is refused or worth a warning: the object, the field, the reason and the remedy.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The object's wish is not carried out.
    Refused,
    /// Another object holds the EIP.
    Conflict,
    /// It works, but not as well as it could.
    Warning,
}

/// One thing an operator should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub kind: Kind,
    /// The object: `pod default/web`, `configmap kube-system/ovn-external-gw-config`, `file pods.yaml`.
    pub object: String,
    /// The field: `metadata.annotations[ovn.kubernetes.io/eip]`, `data[nic-ip]`.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.object, self.field, self.message, self.remedy)
    }
}
