//! A directory of ordinary manifests, as a box without a cluster has it.
//!
//! Files end in `.yaml`, `.yml` or `.json` and hold any number of documents; names that start with a dot and
//! subdirectories are left out. What a file holds can be told from what it last held: a file that cannot be read, or an
//! object in it that cannot be used, stays in force as it last was, and only what is really gone is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::annotation::Keys;
use crate::desired::problem::Problem;
use crate::snapshot::ConfigMapName;
use crate::source::Inputs;
use crate::source::inputs::LastGood;
use crate::source::manifest::{Entry, Object, ObjectId, Place, Reader};

/// The objects a file holds, or last held.
type Objects = BTreeMap<ObjectId, (Object, Place)>;

/// A directory of manifests.
#[derive(Debug)]
pub struct DirSource {
    path: PathBuf,
    reader: Reader,
    /// What each file holds, by file name; `None` until the directory was read for the first time.
    files: Option<BTreeMap<String, Objects>>,
    /// The last good configuration.
    last_good: LastGood,
}

impl DirSource {
    /// A source that reads `path`; `config_map` is the gateway's ConfigMap.
    pub fn new(path: impl Into<PathBuf>, keys: Keys, config_map: ConfigMapName) -> Self {
        let reader = Reader { keys, config_map };
        Self { path: path.into(), reader, files: None, last_good: LastGood::default() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When a ConfigMap that is away counts as gone: [`Self::scan`] is due then.
    pub fn due(&self) -> Option<Instant> {
        self.last_good.due()
    }

    /// Reads the directory as it is now.
    ///
    /// # Errors
    /// The directory cannot be read and never could. Once it could, what it last held stays in force and the failure
    /// is one of the problems.
    pub fn scan(&mut self) -> io::Result<Inputs> {
        let mut problems = Vec::new();
        match list(&self.path) {
            Ok(names) => {
                let mut held = self.files.take().unwrap_or_default();
                let read = |name: String| {
                    let held = held.remove(&name).unwrap_or_default();
                    let objects = self.file(&name, held, &mut problems)?;
                    Some((name, objects))
                };
                let files = names.into_iter().filter_map(read).collect();
                self.files = Some(files);
            }
            Err(error) if self.files.is_none() => return Err(error),
            Err(error) => problems.push(Problem::refused(
                format!("directory {}", self.path.display()),
                "path",
                format!("it cannot be read: {error}"),
                "bring it back; until then what it last held stays in force",
            )),
        }
        let objects = self.merge(&mut problems);
        Ok(self.inputs(objects, problems))
    }

    /// What a file holds; `None` when it is gone. `held` is what it last held.
    fn file(&self, name: &str, held: Objects, problems: &mut Vec<Problem>) -> Option<Objects> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
                return None;
            }
            Err(error) => {
                problems.push(Problem::refused(
                    format!("file {name}"),
                    "content",
                    format!("it cannot be read: {error}"),
                    "make it readable; until then what it last held stays in force",
                ));
                return Some(held);
            }
        };
        Some(self.objects(name, &text, held, problems))
    }

    fn objects(&self, name: &str, text: &str, mut held: Objects, problems: &mut Vec<Problem>) -> Objects {
        let mut objects = Objects::new();
        // A document that does not even show its name may be any of the objects that are missing now.
        let mut nameless = false;
        let mut bad = BTreeSet::new();
        for entry in self.reader.read(name, text) {
            match entry {
                Entry::Object(id, object, place) => match objects.get(&id) {
                    Some((_, first)) => problems.push(duplicate(&id, &place, first)),
                    None => _ = objects.insert(id, (object, place)),
                },
                Entry::Ignored(problem) => problems.push(problem),
                Entry::Bad(id, problem) => {
                    problems.push(problem);
                    nameless |= id.is_none();
                    bad.extend(id);
                }
            }
        }
        held.retain(|id, _| (nameless || bad.contains(id)) && !objects.contains_key(id));
        objects.extend(held);
        objects
    }

    /// All objects of all files; of two definitions the one in the first file counts.
    fn merge(&self, problems: &mut Vec<Problem>) -> Objects {
        let mut objects = Objects::new();
        for (id, (object, place)) in self.files.iter().flat_map(BTreeMap::values).flatten() {
            match objects.get(id) {
                Some((_, first)) => problems.push(duplicate(id, place, first)),
                None => _ = objects.insert(id.clone(), (object.clone(), place.clone())),
            }
        }
        objects
    }

    fn inputs(&mut self, objects: Objects, problems: Vec<Problem>) -> Inputs {
        let mut inputs = Inputs { problems, ..Inputs::default() };
        let mut config_map = None;
        for (id, (object, place)) in objects {
            match object {
                Object::Pod(pod) => _ = inputs.pods.insert(id.name, pod),
                Object::Node(node) => _ = inputs.nodes.insert(id.name.name.to_string(), node),
                Object::Vmi(vmi) => _ = inputs.vmis.insert(id.name, vmi),
                Object::ServiceCidr(cidrs) => inputs.service_cidrs.extend(cidrs),
                Object::ConfigMap(data) => config_map = Some((format!("{place}, {id}"), data)),
            }
        }
        let away = self.reader.config_map.to_string();
        let (object, data) = match &config_map {
            Some((object, data)) => (object, Some(data)),
            None => (&away, None),
        };
        inputs.problems.extend(self.last_good.update(object, data, Instant::now()));
        inputs.configured.clone_from(self.last_good.configured());
        inputs
    }
}

fn duplicate(id: &ObjectId, place: &Place, first: &Place) -> Problem {
    Problem::refused(
        format!("{place}, {id}"),
        "metadata.name",
        format!("it is defined in {first} already, and that definition counts"),
        "remove one of the two",
    )
}

/// Names of the manifests in a directory, sorted.
fn list(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
        let is_manifest = matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with('.');
        if is_manifest && !entry.path().is_dir() {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Watches a directory: a `()` arrives after something in it has changed, one for any number of changes that are not
/// received yet: wait some 50 ms before scanning, so that files written together are read together. The watch ends when the guard is dropped, and when the directory is removed or replaced: so scan now
/// and then all the same.
///
/// # Errors
/// The directory does not exist, or the kernel refuses another inotify watch.
pub fn watch(path: &Path) -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    let (sender, receiver) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too: answering it with a scan would never end. Writing to one says nothing
        // before it is closed: a file that is being rewritten is empty at first.
        let changed = event.map_or(true, |event| match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => false,
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => true,
        });
        if changed {
            // Full: a change is waiting to be seen already. Closed: nobody is interested any more.
            _ = sender.try_send(());
        }
    })?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok((watcher, receiver))
}

#[cfg(test)]
mod tests;
