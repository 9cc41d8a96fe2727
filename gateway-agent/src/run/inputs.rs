//! The directory of manifests, watched.

use std::io;
use std::path::{Path, PathBuf};

use notify::RecommendedWatcher;
use tokio::sync::mpsc;
use tracing::debug;

use crate::annotation::Keys;
use crate::snapshot::{ConfigMapName, Snapshot};
use crate::source;
use crate::source::dir::{self, DirSource};

/// Why the manifests cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the directory of manifests {path}: {source}; check --dir")]
pub(super) struct InputsError {
    path: PathBuf,
    source: io::Error,
}

/// What the manifests say, and news of their changes.
pub(super) struct Inputs {
    source: DirSource,
    current: source::Inputs,
    watched: Option<(RecommendedWatcher, mpsc::Receiver<()>)>,
}

impl Inputs {
    /// Reads the directory and watches it.
    pub(super) fn start(path: &Path) -> Result<Self, InputsError> {
        let source = DirSource::new(path, Keys::default(), ConfigMapName::default());
        let mut inputs = Self { source, current: source::Inputs::default(), watched: None };
        inputs.renew()?;
        Ok(inputs)
    }

    /// Waits for a change. Cancelling loses nothing.
    pub(super) async fn changed(&mut self) {
        if let Some((_, changes)) = &mut self.watched
            && changes.recv().await.is_some()
        {
            return;
        }
        // Not watched: the next `renew` sees what changed.
        std::future::pending().await
    }

    /// Reads the directory as it is now.
    pub(super) fn scan(&mut self) -> Result<(), InputsError> {
        self.current = match self.source.scan() {
            Ok(inputs) => inputs,
            Err(source) => return Err(InputsError { path: self.source.path().to_owned(), source }),
        };
        Ok(())
    }

    /// Watches the directory anew, since it may be another one of the same name, and reads it.
    pub(super) fn renew(&mut self) -> Result<(), InputsError> {
        self.watched = dir::watch(self.source.path())
            .inspect_err(|error| debug!(%error, "the directory of manifests is read every now and then only"))
            .ok();
        self.scan()
    }

    /// A snapshot with what the manifests say.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            config: self.current.configured.clone(),
            pods: self.current.pods.clone(),
            partial: self.current.partial,
            vmis: self.current.vmis.clone(),
            nodes: self.current.nodes.clone(),
            service_cidrs: self.current.service_cidrs.clone(),
            problems: self.current.problems.clone(),
            ..Snapshot::default()
        }
    }
}
