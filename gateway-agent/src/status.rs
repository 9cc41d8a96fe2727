//! What the agent last decided, in a file that outlives it: names and refusals, which the tables have no place for.
//!
//! `gateway-agent show` reads it. It is an aid only: without it the tables still say what is served.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::desired::problem::Problem;
use crate::desired::{Desired, State};
use crate::snapshot::{Held, HeldVm, ObjectName};

/// Directory of the file unless told otherwise.
pub const STATE_DIR: &str = "/run/eip-gateway";
/// Name of the file.
pub const FILE: &str = "status.json";

/// What the file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Name of this Node.
    pub node: String,
    /// What this node is; `None`: nothing, or not known.
    pub role: Option<Role>,
    /// Name of the Node that owns the external network.
    pub owner: Option<String>,
    /// EIPs and the pods they were given to, cluster-wide, by EIP.
    pub bindings: Vec<Binding>,
    /// VMs that have an EIP, or for which it is reserved while they restart, by EIP.
    pub vms: BTreeMap<Ipv4Addr, HeldVm>,
    /// All that was refused or warned of: refusals first, then conflicts, then warnings.
    pub problems: Vec<Problem>,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The gateway that owns the external network.
    Owner,
    /// Another gateway.
    Gateway,
    /// No gateway.
    Worker,
}

/// An EIP and the pod that has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Binding {
    /// The EIP.
    pub eip: Ipv4Addr,
    /// The pod; `namespace/name` in the file.
    #[serde(with = "slashed")]
    pub pod: ObjectName,
    /// Its address.
    pub pod_ip: Ipv4Addr,
    /// Name of its node.
    pub node: String,
}

/// Why the file could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {action} {path}: {source}; check --state-dir, `gateway-agent show` needs it to list refusals"
)]
pub struct StatusError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StatusError {
    fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

impl Status {
    /// The binding of an EIP to a pod address, if this is what was decided last.
    pub fn binding(&self, eip: Ipv4Addr, pod_ip: Ipv4Addr) -> Option<&Binding> {
        let at = self.bindings.binary_search_by_key(&eip, |binding| binding.eip).ok()?;
        self.bindings.get(at).filter(|binding| binding.pod_ip == pod_ip)
    }

    /// Takes a decision over. One that changes nothing leaves what was bound before.
    fn note(&mut self, decided: &Desired) {
        if decided.state == State::Keep {
            return;
        }
        let gateways = &decided.gateways;
        self.owner.clone_from(&gateways.owner);
        self.role = match &decided.state {
            State::Keep | State::Withdrawn => None,
            State::Datapath(_) if gateways.owner.as_ref() == Some(&self.node) => Some(Role::Owner),
            State::Datapath(_) if gateways.contains(&self.node) => Some(Role::Gateway),
            State::Datapath(_) => Some(Role::Worker),
        };
        let bindings = decided.served.iter().map(|(eip, claim)| Binding {
            eip: *eip,
            pod: claim.pod.clone(),
            pod_ip: claim.pod_ip,
            node: claim.node.clone(),
        });
        self.bindings = bindings.collect();
        self.vms.clone_from(&decided.vms);
    }
}

/// The file as the running agent keeps it.
#[derive(Debug)]
pub struct StatusFile {
    dir: PathBuf,
    current: Status,
    /// What the file holds, as far as we know.
    written: Option<Status>,
    /// It may hold something else than `current`, which is to be written then at the earliest.
    due: Option<Instant>,
    /// A write of a large file must not hold up the next change: pauses are in proportion to it.
    not_before: Option<Instant>,
}

/// The file is written during this share of the time at most, one in so many.
const SHARE: u32 = 10;

impl StatusFile {
    /// Takes over what an earlier agent of this node left in `dir`.
    pub fn open(dir: &Path, node: &str) -> Self {
        let written = read(dir);
        let current = written.clone().filter(|status| status.node == node).unwrap_or_default();
        Self {
            dir: dir.to_owned(),
            current: Status { node: node.to_owned(), ..current },
            written,
            due: None,
            not_before: None,
        }
    }

    /// Who was served as last decided, cluster-wide: a worker's tables know of its own pods only.
    pub fn held(&self) -> Held {
        let pods = self.current.bindings.iter().map(|binding| (binding.eip, binding.pod_ip)).collect();
        Held { pods, vms: self.current.vms.clone(), ..Held::default() }
    }

    /// Takes a decision over.
    pub fn note(&mut self, decided: &Desired) {
        self.current.note(decided);
    }

    /// Takes over what is refused or warned of, and what was noted: [`Self::flush`] writes it at [`Self::due`].
    pub fn publish(&mut self, problems: &[Problem]) {
        self.current.problems = problems.to_vec();
        self.current.problems.sort();
        self.current.problems.dedup();
        let now = Instant::now();
        self.due = Some(self.not_before.map_or(now, |earliest| earliest.max(now)));
    }

    /// When the file is to be written.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes the file if it does not hold what was published. Returns whether it was written.
    ///
    /// # Errors
    /// [`StatusError`]; what is published next tries again.
    pub fn flush(&mut self) -> Result<bool, StatusError> {
        self.due = None;
        let since = Instant::now();
        let written = self.write_changes();
        let took: Duration = since.elapsed();
        self.not_before = Some(since + took * SHARE);
        written
    }

    fn write_changes(&mut self) -> Result<bool, StatusError> {
        let path = self.dir.join(FILE);
        if self.written.as_ref() == Some(&self.current) && path.exists() {
            return Ok(false);
        }
        self.written = None;
        write(&path, &self.current)?;
        self.written = Some(self.current.clone());
        Ok(true)
    }
}

/// What an agent, perhaps no longer running, left in `dir`. `None` when there is no such file, or it is not ours.
pub fn read(dir: &Path) -> Option<Status> {
    let status: Status = serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()?;
    Some(status).filter(|status| !status.node.is_empty())
}

/// Puts the whole file in place at once: a reader sees the old one or the new one.
fn write(path: &Path, status: &Status) -> Result<(), StatusError> {
    let failed = |source| StatusError::of("write", path)(source);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut text = serde_json::to_vec(status).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// Removes the file, and the directory when nothing else is in it. Returns whether there was one.
///
/// # Errors
/// [`StatusError`].
pub fn remove(dir: &Path) -> Result<bool, StatusError> {
    let path = dir.join(FILE);
    let removed = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(StatusError::of("remove", &path)(error)),
    };
    // Not there, not empty, or a mount.
    let _stays = fs::remove_dir(dir);
    Ok(removed)
}

/// An object's name as `namespace/name`.
mod slashed {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::snapshot::ObjectName;

    pub(super) fn serialize<S: Serializer>(name: &ObjectName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectName, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| D::Error::custom(format!("{text:?} has no namespace")))?;
        Ok(ObjectName::new(namespace, name))
    }
}

#[cfg(test)]
mod tests;
