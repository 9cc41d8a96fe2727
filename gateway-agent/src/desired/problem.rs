//! What is refused or worth a warning: the object, the field, the reason and the remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The object's wish is not carried out.
    Refused,
    /// Another object holds the EIP.
    Conflict,
    /// A stranger on the external network uses the same address.
    Contested,
    /// It works, but not as well as it could.
    Warning,
}

/// One thing an operator should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
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

impl Problem {
    /// The object's wish is not carried out.
    pub fn refused(
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Refused, object, field, message, remedy)
    }

    /// Another object holds the EIP.
    pub fn conflict(
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Conflict, object, field, message, remedy)
    }

    /// A stranger on the external network uses the same address.
    pub fn contested(
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Contested, object, field, message, remedy)
    }

    /// It works, but not as well as it could.
    pub fn warning(
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Kind::Warning, object, field, message, remedy)
    }

    fn new(
        kind: Kind,
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            object: object.into(),
            field: field.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}
