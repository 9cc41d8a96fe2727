//! Finds the programs to run: what `cargo xtask setup kube` built, and etcd, which a crate carries.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

/// Variable that names a folder with the Kubernetes programs, instead of the ones in the cache.
pub const PROGRAMS_VARIABLE: &str = "EIP_GATEWAY_KUBERNETES";

/// What a folder of programs was built from; it holds the same two files.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");
const GO_SUM: &str = include_str!("../kubernetes/go.sum");

/// The folder of the Kubernetes programs.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// `$EIP_GATEWAY_KUBERNETES` if set, else the newest build of this checkout's go.mod and go.sum in the cache.
    pub fn find() -> Result<Self> {
        if let Some(dir) = env::var_os(PROGRAMS_VARIABLE).map(PathBuf::from) {
            ensure!(
                dir.join("kube-apiserver").is_file(),
                "${PROGRAMS_VARIABLE} is {}, where no kube-apiserver is: unset it, or name the folder of one",
                dir.display()
            );
            return Ok(Self { dir });
        }
        let cache = cache().context("neither $XDG_CACHE_HOME nor $HOME is set: set one of them")?;
        let dir = newest_of_ours(&cache).with_context(|| {
            format!(
                "no Kubernetes programs for this checkout in {}: run `cargo xtask setup kube` (once, about six \
                 minutes)",
                cache.display()
            )
        })?;
        Ok(Self { dir })
    }

    /// One of them: `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kubectl` or `kwok`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The etcd for this machine.
pub(crate) fn etcd() -> Result<&'static Path> {
    etcd_bin_vendored::etcd_bin_path().context("etcd-bin-vendored has no etcd for this machine")
}

fn cache() -> Option<PathBuf> {
    let chosen = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = chosen.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.map(|cache| cache.join("eip-gateway/kubernetes"))
}

/// Builds with another Go differ only in that, so that the newest will do.
fn newest_of_ours(cache: &Path) -> Option<PathBuf> {
    let same = |path: PathBuf, text: &str| fs::read_to_string(path).is_ok_and(|found| found == text);
    let age = |dir: &PathBuf| {
        fs::metadata(dir).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let dirs = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    // A name with a dot is a build that has not ended.
    dirs.filter(|dir| dir.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')))
        .filter(|dir| same(dir.join("go.mod"), GO_MOD) && same(dir.join("go.sum"), GO_SUM))
        .max_by_key(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finished_build_of_the_same_sources_is_taken() {
        let cache = env::temp_dir().join(format!("apiserver-programs-{}", std::process::id()));
        let build = |name: &str, go_mod: &str| {
            let dir = cache.join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("go.mod"), go_mod).unwrap();
            fs::write(dir.join("go.sum"), GO_SUM).unwrap();
            dir
        };
        assert_eq!(newest_of_ours(&cache), None);
        build("old", "module other");
        build(".half", GO_MOD);
        assert_eq!(newest_of_ours(&cache), None);
        let ours = build("ours", GO_MOD);
        assert_eq!(newest_of_ours(&cache), Some(ours));
        fs::remove_dir_all(&cache).unwrap();
    }
}
