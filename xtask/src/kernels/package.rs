//! Debian's cloud kernels: found by apt, unpacked into the user's cache, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{screen, workspace};

/// A kernel series that is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// The oldest that the agent is made for: no tcx, no netdev family.
    #[value(name = "6.1")]
    V6_1,
    /// A long-term kernel between that and today's.
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// All, the oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// As in a kernel's release.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// Packages that depend on the series' newest kernel: a release's default kernel has no series in its name.
    fn metapackages(self) -> [String; 2] {
        [format!("linux-image-{}-cloud-amd64", self.name()), "linux-image-cloud-amd64".to_owned()]
    }

    /// The release of the newest kernel that apt knows.
    fn newest(self) -> Option<String> {
        self.metapackages().iter().find_map(|package| {
            let mut cache = Command::new("apt-cache");
            release(self, &workspace::output(cache.args(["depends", package]))?)
        })
    }

    /// The release of the newest kernel in the cache, for a machine that cannot ask.
    fn unpacked(self, cache: &Path) -> Option<String> {
        let names = fs::read_dir(cache).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| belongs(self, name)).max()
    }
}

/// What `apt-cache depends` says of a metapackage: the release of the kernel it depends on, if that is of the series.
fn release(series: Series, text: &str) -> Option<String> {
    let packages = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    packages.map(ToOwned::to_owned).find(|release| belongs(series, release))
}

fn belongs(series: Series, release: &str) -> bool {
    release.strip_prefix(series.name()).is_some_and(|rest| rest.starts_with(['.', '+', '-']))
}

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    /// What `uname -r` prints in it.
    pub(crate) release: String,
    dir: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series, downloaded when it is not in the cache.
    pub(crate) fn get(series: Series) -> Result<Self> {
        let cache = workspace::cache().context("set HOME or XDG_CACHE_HOME to say where kernels are kept")?;
        let cache = cache.join("kernels");
        let release = match series.newest() {
            Some(release) => release,
            None => match series.unpacked(&cache) {
                Some(release) => release,
                None => look_again(series)?,
            },
        };
        let kernel = Self { series, dir: cache.join(&release), release };
        if !kernel.dir.is_dir() {
            kernel.download(&cache)?;
        }
        Ok(kernel)
    }

    /// The image to boot.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The folder that modprobe knows as `/lib/modules/RELEASE`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.release)
    }

    /// Files of modules in the order to load them, so that these are there; nothing of what is built in.
    pub(crate) fn with_dependencies(&self, modules: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in modules {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&self.dir).args(["-S", &self.release, "--show-depends", module]);
            let text = workspace::output(&mut modprobe)
                .with_context(|| format!("kernel {} has no module {module}", self.release))?;
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    fn download(&self, cache: &Path) -> Result<()> {
        let package = format!("linux-image-{}", self.release);
        screen::title(&format!("Downloading {package}, once"));
        let work = cache.join(format!(".{}.{}", self.release, process::id()));
        fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
        let outcome = self.unpack(&package, &work);
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        outcome
    }

    fn unpack(&self, package: &str, work: &Path) -> Result<()> {
        let mut download = Command::new("apt-get");
        download.args(["download", "-qq", package]).current_dir(work);
        if workspace::output(&mut download).is_none() {
            // The lists are older than the newest kernel, or as old as one that is gone.
            update()?;
            workspace::run(&mut download)?;
        }
        let files = fs::read_dir(work)?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = files.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "deb"));
        let file = file.with_context(|| format!("apt-get download {package} left no file"))?;
        let root = work.join("root");
        workspace::run(Command::new("dpkg").arg("-x").arg(file).arg(&root))?;
        workspace::run(Command::new("depmod").arg("-b").arg(&root).arg(&self.release))?;
        match fs::rename(&root, &self.dir) {
            Err(error) if !self.dir.is_dir() => {
                Err(error).with_context(|| format!("renaming to {}", self.dir.display()))
            }
            // Else somebody else was faster.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn look_again(series: Series) -> Result<String> {
    update()?;
    series.newest().with_context(|| {
        format!(
            "apt knows no kernel {0}: neither {1} depends on one. Add the Debian suite that has it to apt's sources, \
             or unpack its package with `dpkg -x` and run `depmod -b` yourself",
            series.name(),
            series.metapackages().join(" nor ")
        )
    })
}

fn update() -> Result<()> {
    ensure!(
        workspace::output(Command::new("apt-get").arg("--version")).is_some(),
        "the kernels are Debian's and come by apt-get, which is not here"
    );
    workspace::run(Command::new("apt-get").args(["update", "-qq"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_one_that_the_metapackage_depends_on() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(release(Series::V6_1, text).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release(Series::V6_12, text), None);
        let text = "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(release(Series::V6_12, text).as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(release(Series::V6_1, text), None);
    }
}
