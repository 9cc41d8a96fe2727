//! Tools that cargo builds from source, once: they are kept by version, outside any checkout.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A program of the crate of the same name.
#[derive(Debug)]
pub(crate) struct BuiltTool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

impl BuiltTool {
    /// Where this version may be: the user's cache, else the target folder.
    fn roots(&self) -> Vec<PathBuf> {
        let folders = workspace::cache().into_iter().chain([workspace::target()]);
        folders.map(|folder| folder.join(format!("tools/{}-{}", self.name, self.version))).collect()
    }

    /// The program, if it is there and runs.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let mut paths = self.roots().into_iter().map(|root| root.join("bin").join(self.name));
        paths.find(|path| workspace::output(Command::new(path).arg("--version")).is_some())
    }

    /// Builds it unless another process has done so meanwhile; `choose` adds what `cargo install` is to be told.
    pub(crate) fn install(&self, choose: impl FnOnce(&mut Command)) -> Result<()> {
        let Self { name, version } = self;
        let root = self.roots().into_iter().find(|root| fs::create_dir_all(root).is_ok());
        let root =
            root.context("neither the cache nor the target folder can be written: set $XDG_CACHE_HOME")?;
        let parent = root.parent().unwrap_or(&root);
        let lock_path = parent.join(format!(".{name}-{version}.lock"));
        let lock = File::create(&lock_path).with_context(|| format!("making {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
        if self.find().is_some() {
            return Ok(());
        }
        let mut cargo = workspace::cargo();
        cargo.args(["install", name, "--version", version, "--locked", "--force", "--root"]).arg(&root);
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_TARGET_DIR"] {
            cargo.env_remove(variable);
        }
        choose(&mut cargo);
        workspace::run(&mut cargo)?;
        if self.find().is_none() {
            bail!("{name} was built but does not run: try {}/bin/{name} --version", root.display());
        }
        Ok(())
    }
}
