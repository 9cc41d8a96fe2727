//! Events: what they are about, their words and their names.

use std::net::Ipv4Addr;

use crate::desired::problem::{Kind, Problem};
use crate::report::State;
use crate::snapshot::ObjectName;

/// Longest note the API takes, bytes.
const NOTE_LIMIT: usize = 1024;

/// Kind of the object an Event is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Regarding {
    /// A Pod.
    Pod,
    /// The ConfigMap.
    ConfigMap,
}

impl Regarding {
    /// As the API writes it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// Why there is an Event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The EIP is programmed.
    EipBound,
    /// The pod no longer has the EIP.
    EipReleased,
    /// The wish is not carried out.
    EipRefused,
    /// Another pod has the EIP.
    EipConflict,
    /// The EIP waits for something that somebody has to mend.
    EipWaiting,
    /// The EIP is bound, and will be lost or changed by what happens in the life of a VM.
    EipTemporary,
    /// Somebody keeps removing what we write.
    EipContested,
    /// A stranger on the external network uses the EIP too; it is defended.
    EipDefended,
    /// A bad value; the last good configuration stays in force.
    ConfigRefused,
    /// The configuration works, but not as well as it could.
    ConfigWarning,
}

impl Reason {
    /// As the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EipBound => "EipBound",
            Self::EipReleased => "EipReleased",
            Self::EipRefused => "EipRefused",
            Self::EipConflict => "EipConflict",
            Self::EipWaiting => "EipWaiting",
            Self::EipTemporary => "EipTemporary",
            Self::EipContested => "EipContested",
            Self::EipDefended => "EipDefended",
            Self::ConfigRefused => "ConfigRefused",
            Self::ConfigWarning => "ConfigWarning",
        }
    }

    /// `Normal` rather than `Warning`.
    pub const fn is_normal(self) -> bool {
        matches!(self, Self::EipBound | Self::EipReleased)
    }

    /// What was done, as Events v1 wants it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::EipBound | Self::EipRefused | Self::EipConflict | Self::EipWaiting => "BindEip",
            Self::EipReleased => "ReleaseEip",
            Self::EipTemporary | Self::EipContested | Self::EipDefended => "ReportEip",
            Self::ConfigRefused | Self::ConfigWarning => "Configure",
        }
    }
}

/// An Event to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Event {
    /// Kind of its object.
    pub regarding: Regarding,
    /// Name of its object.
    pub object: ObjectName,
    /// Uid of its object, when known.
    pub uid: Option<String>,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub note: String,
    /// The EIP, for [`Reason::EipBound`] and [`Reason::EipReleased`].
    pub eip: Option<Ipv4Addr>,
    /// It happens now, and may have happened before: its name is not that of an earlier one. Otherwise it says what
    /// is the case, and one of its name, perhaps from before a restart, will do.
    pub anew: bool,
}

impl Event {
    /// What happened to a pod's EIP.
    pub fn of_pod(pod: &ObjectName, uid: &str, reason: Reason, eip: Ipv4Addr, note: String) -> Self {
        Self {
            regarding: Regarding::Pod,
            object: pod.clone(),
            uid: Some(uid.to_owned()),
            reason,
            note,
            eip: Some(eip),
            anew: true,
        }
    }

    /// A problem of a pod or the ConfigMap as an Event; `None` for what has no place in the API.
    pub fn of_problem(state: &State, problem: &Problem) -> Option<Self> {
        let (kind, name) = problem.object.split_once(' ')?;
        let (namespace, name) = name.split_once('/')?;
        let object = ObjectName::new(namespace, name);
        let (regarding, uid, reason) = match kind {
            "pod" => {
                let reason = match problem.kind {
                    Kind::Refused => Reason::EipRefused,
                    Kind::Conflict => Reason::EipConflict,
                    Kind::Contested => Reason::EipDefended,
                    Kind::Warning if problem.field == state.snapshot.keys.eip_field() => Reason::EipTemporary,
                    Kind::Warning => Reason::EipWaiting,
                };
                (Regarding::Pod, Some(state.snapshot.pods.get(&object)?.uid.clone()), reason)
            }
            "configmap" => {
                let reason = match problem.kind {
                    Kind::Refused | Kind::Conflict => Reason::ConfigRefused,
                    Kind::Contested | Kind::Warning => Reason::ConfigWarning,
                };
                (Regarding::ConfigMap, None, reason)
            }
            _ => return None,
        };
        let note = match regarding {
            Regarding::Pod => format!("{}; {}", problem.message, problem.remedy),
            Regarding::ConfigMap => format!("{}: {}; {}", problem.field, problem.message, problem.remedy),
        };
        Some(Self { regarding, object, uid, reason, note: shorten(note), eip: None, anew: false })
    }

    /// The same for the same object, reason and note.
    pub fn base_name(&self) -> String {
        let uid = self.uid.as_deref().unwrap_or_default();
        let parts = [self.regarding.kind(), &self.object.namespace, uid, self.reason.name(), &self.note];
        // A name is a DNS subdomain of at most 253 bytes, and so is the object's.
        let mut name = self.object.name.to_string();
        name.truncate(200);
        format!("{}.{:016x}", name.trim_end_matches(['.', '-']), fnv1a(&parts))
    }
}

/// Cuts at a character.
fn shorten(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        note.truncate(note.floor_char_boundary(NOTE_LIMIT - '…'.len_utf8()));
        note.push('…');
    }
    note
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same on every gateway and in every version.
fn fnv1a(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_events_apart_and_are_legal() {
        let pod = ObjectName::new("a", "x".repeat(250));
        let event =
            |note: &str| Event::of_pod(&pod, "u", Reason::EipBound, [1, 2, 3, 4].into(), note.to_owned());
        assert_eq!(event("a").base_name(), event("a").base_name());
        assert_ne!(event("a").base_name(), event("b").base_name());
        assert!(event("a").base_name().len() <= 253);
        assert_eq!(fnv1a(&[]), 0xcbf2_9ce4_8422_2325);
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let note = shorten("ü".repeat(1000));
        assert!(note.len() <= NOTE_LIMIT && note.ends_with("ü…"));
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
