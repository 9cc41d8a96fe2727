//! What a lab leaves on disk so that a later command, or one after a crash, finds it again.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{LabConfig, process::Process};

const ROOT: &str = "/run/eip-gateway-lab";
const PINS: &str = "/sys/fs/bpf/eip-gateway";

/// The folder of one lab.
#[derive(Clone, Debug)]
pub(crate) struct State {
    prefix: String,
    dir: PathBuf,
}

/// How a lab was made, and by whom when it lives only as long as its maker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) config: LabConfig,
    pub(crate) owner: String,
    /// Set once everything was made.
    pub(crate) complete: bool,
}

impl State {
    pub(crate) fn of(prefix: &str) -> Self {
        let name = if prefix.is_empty() { "default" } else { prefix };
        Self { prefix: prefix.to_owned(), dir: Path::new(ROOT).join(name) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub(crate) fn log(&self, node: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{node}.log"))
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.dir.join("jobs")
    }

    /// Where the agent of that node pins its maps and links.
    pub(crate) fn pin_dir(&self, node: &str) -> PathBuf {
        Path::new(PINS).join(format!("{}{node}", self.prefix))
    }

    /// Where the agent of that node keeps its status file; the agent makes it.
    pub(crate) fn status_dir(&self, node: &str) -> PathBuf {
        self.dir.join("status").join(node)
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn make(&self) -> Result<()> {
        for dir in ["manifests", "logs", "agents", "jobs"] {
            let dir = self.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(())
    }

    pub(crate) fn record(&self) -> Option<Record> {
        serde_json::from_str(&fs::read_to_string(self.dir.join("lab.json")).ok()?).ok()
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        write_atomically(&self.dir.join("lab.json"), &serde_json::to_string_pretty(record)?)
    }

    fn pid_file(&self, node: &str) -> PathBuf {
        self.dir.join("agents").join(format!("{node}.pid"))
    }

    /// The agent of that node, if it runs.
    pub(crate) fn agent(&self, node: &str) -> Option<Process> {
        let process: Process = fs::read_to_string(self.pid_file(node)).ok()?.parse().ok()?;
        process.alive().then_some(process)
    }

    pub(crate) fn write_agent(&self, node: &str, process: Process) -> Result<()> {
        write_atomically(&self.pid_file(node), &process.to_string())
    }

    /// Removes the folder and the pins of `nodes`.
    pub(crate) fn remove(&self, nodes: &[&str]) -> Result<()> {
        for dir in nodes.iter().map(|node| self.pin_dir(node)).chain([self.dir.clone()]) {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", dir.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        // Not empty: another lab, or an agent of this machine's own.
        let _others = fs::remove_dir(PINS);
        Ok(())
    }
}

/// Held while a lab is made or taken down; released on drop.
pub(crate) struct Lock {
    _root: File,
}

impl Lock {
    /// Waits for other lab commands of this machine to finish.
    pub(crate) fn take() -> Result<Self> {
        loop {
            fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}"))?;
            let root = File::open(ROOT).with_context(|| format!("opening {ROOT}"))?;
            root.lock().with_context(|| format!("locking {ROOT}"))?;
            // The last holder may have taken the folder away while we waited for it.
            let locked = root.metadata()?;
            if fs::metadata(ROOT).is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino())) {
                return Ok(Self { _root: root });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Fails while a lab is in it.
        let _in_use = fs::remove_dir(ROOT);
    }
}

/// Puts a whole file in place at once: a watcher sees the old text or the new, never a part. The temporary
/// name starts with a dot, which watchers of manifests skip.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let name = path.file_name().context("a file to write has a name")?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&temporary, text).with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("renaming to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_its_own_folder_and_pins() {
        let (plain, demo) = (State::of(""), State::of("demo-"));
        assert_eq!(plain.dir(), Path::new("/run/eip-gateway-lab/default"));
        assert_eq!(demo.manifests(), Path::new("/run/eip-gateway-lab/demo-/manifests"));
        assert_eq!(demo.pin_dir("gw1"), Path::new("/sys/fs/bpf/eip-gateway/demo-gw1"));
    }
}
