//! Tells that an agent runs on this node: a file in the state directory, locked as long as the
//! process lives. The kernel lets go of the lock however the agent ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The file.
pub const FILE: &str = "agent.lock";

/// Held by an agent that runs.
#[derive(Debug)]
pub struct Alive {
    _locked: File,
}

impl Alive {
    /// Says in `dir` that this process is the agent of `node`; `None`: another one runs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn claim(dir: &Path, node: &str) -> io::Result<Option<Self>> {
        fs::create_dir_all(dir)?;
        let path = dir.join(FILE);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "of node {node}, pid {}", std::process::id())?;
        Ok(Some(Self { _locked: file }))
    }
}

/// What the agent that runs says of itself in `dir`, such as `of node gw1, pid 7`, its pid as it
/// sees it; `None`: none runs.
pub fn running(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join(FILE)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    let _known_or_not = file.read_to_string(&mut text);
    Some(text.trim().to_owned())
}

/// Removes the file when no agent runs.
///
/// # Errors
/// It cannot be removed.
pub fn remove(dir: &Path) -> io::Result<()> {
    if running(dir).is_some() {
        return Ok(());
    }
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_runs_at_a_time_and_is_known_while_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(running(&state), None);
        let alive = Alive::claim(&state, "gw1").unwrap().unwrap();
        assert_eq!(running(&state), Some(format!("of node gw1, pid {}", std::process::id())));
        assert!(Alive::claim(&state, "gw1").unwrap().is_none());
        remove(&state).unwrap();
        assert!(running(&state).is_some(), "not while it runs");
        drop(alive);
        assert_eq!(running(&state), None);
        remove(&state).unwrap();
        assert!(!state.join(FILE).exists());
        remove(&state).unwrap();
    }
}
