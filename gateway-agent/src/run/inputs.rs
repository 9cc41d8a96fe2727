//! The source of pods, nodes and the ConfigMap, and news of their changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::RecommendedWatcher;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

use super::{DEBOUNCE, Options};
use crate::annotation::Keys;
use crate::snapshot::{ConfigMapName, Held, Snapshot};
use crate::source;
use crate::source::dir::{self, DirSource};
use crate::source::kube::{KubeOptions, KubeSource};

/// Files written within this time are read together.
const DIR_DEBOUNCE: Duration = Duration::from_millis(50);

/// Where pods, nodes and the ConfigMap come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceOptions {
    /// A directory of manifests.
    Dir(PathBuf),
    /// The Kubernetes API, by this kubeconfig or by this pod's ServiceAccount.
    Kube(Option<PathBuf>),
}

impl fmt::Display for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "directory {}", path.display()),
            Self::Kube(None) => write!(f, "Kubernetes API by ServiceAccount"),
            Self::Kube(Some(path)) => write!(f, "Kubernetes API by {}", path.display()),
        }
    }
}

/// Why the manifests cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the directory of manifests {path}: {source}; check --dir")]
pub(super) struct InputsError {
    path: PathBuf,
    source: io::Error,
}

/// What the source says, and news of its changes.
pub(super) struct Inputs {
    source: Source,
    keys: Keys,
    config_map: ConfigMapName,
    current: source::Inputs,
    changed_at: Option<Instant>,
}

enum Source {
    Dir { source: DirSource, watched: Option<(RecommendedWatcher, mpsc::Receiver<()>)> },
    Kube(KubeSource),
}

impl Inputs {
    /// Starts to watch the source. `held`: who was served before.
    pub(super) fn start(options: &Options, held: &Held) -> Result<Self, InputsError> {
        let (keys, config_map) = (options.keys.clone(), options.config_map.clone());
        let source = match &options.source {
            SourceOptions::Dir(path) => {
                let source = DirSource::new(path, keys.clone(), config_map.clone());
                Source::Dir { source, watched: None }
            }
            SourceOptions::Kube(kubeconfig) => {
                let source = KubeSource::start(KubeOptions {
                    kubeconfig: kubeconfig.clone(),
                    node: options.node.clone(),
                    keys: keys.clone(),
                    config_map: config_map.clone(),
                });
                Source::Kube(source.after(&held.vms))
            }
        };
        let current = source::Inputs::default();
        let mut inputs = Self { source, keys, config_map, current, changed_at: None };
        inputs.renew()?;
        Ok(inputs)
    }

    /// Waits for a change, or until time changes something. Cancelling loses nothing.
    pub(super) async fn changed(&mut self) {
        let due = match &self.source {
            Source::Dir { source, .. } => source.due(),
            // It keeps its own time.
            Source::Kube(_) => None,
        };
        tokio::select! {
            () = self.news() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
    }

    async fn news(&mut self) {
        match &mut self.source {
            Source::Kube(source) => return source.changed().await,
            Source::Dir { watched: Some((_, changes)), .. } => {
                if changes.recv().await.is_some() {
                    return;
                }
            }
            Source::Dir { watched: None, .. } => {}
        }
        // Not watched: the next `renew` sees what changed.
        std::future::pending().await
    }

    /// When a change that was just heard of is to be looked at, for the sake of what was written along with it. The API
    /// server's, at once, unless the last pass ended at `settled`, a moment ago.
    pub(super) fn settled_at(&self, settled: tokio::time::Instant) -> tokio::time::Instant {
        match &self.source {
            Source::Dir { .. } => tokio::time::Instant::now() + DIR_DEBOUNCE,
            Source::Kube(_) => settled + DEBOUNCE,
        }
    }

    /// Reads the source as it is now.
    pub(super) fn scan(&mut self) -> Result<(), InputsError> {
        match &mut self.source {
            Source::Kube(source) => (self.current, self.changed_at) = source.scan(),
            Source::Dir { source, .. } => {
                let path = |source: &DirSource| source.path().to_owned();
                self.current =
                    source.scan().map_err(|error| InputsError { path: path(source), source: error })?;
            }
        }
        Ok(())
    }

    /// Watches a directory anew, since it may be another one of the same name, and reads the source.
    pub(super) fn renew(&mut self) -> Result<(), InputsError> {
        if let Source::Dir { source, watched } = &mut self.source {
            *watched = watch(source.path());
        }
        self.scan()
    }

    /// A snapshot with what the source says.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            keys: self.keys.clone(),
            config_map: self.config_map.clone(),
            config: self.current.configured.clone(),
            pods: self.current.pods.clone(),
            partial: self.current.partial,
            vmis: self.current.vmis.clone(),
            nodes: self.current.nodes.clone(),
            service_cidrs: self.current.service_cidrs.clone(),
            problems: self.current.problems.clone(),
            labels: matches!(self.source, Source::Kube(_)),
            changed_at: self.changed_at.take(),
            ..Snapshot::default()
        }
    }
}

fn watch(path: &Path) -> Option<(RecommendedWatcher, mpsc::Receiver<()>)> {
    dir::watch(path)
        .inspect_err(|error| debug!(%error, "the directory of manifests is read every now and then only"))
        .ok()
}
