//! Finds what compiles and links BPF: a rustc with a core library for it, and bpf-linker.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{built::BuiltTool, workspace};

/// The BPF target, little-endian as every machine we run on.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The version of bpf-linker that is known to work with LLVM 22.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
const LINKER: BuiltTool = BuiltTool { name: "bpf-linker", version: LINKER_VERSION };
/// Debian's LLVM for it.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// How to get a rustc that can compile BPF.
pub(crate) const RUSTC_REMEDY: &str = "no rustc here can compile for BPF. Either of these gives one:
  rustup toolchain install nightly --component rust-src     (any distribution; $EBPF_TOOLCHAIN names another)
  apt-get install rustc-web libstd-rust-web-dev-bpf         (Debian 12; about 200 MB)
or point $EBPF_RUSTC at one whose sysroot has the bpfel-unknown-none core or the sources of the library";

/// A rustc that can compile BPF.
#[derive(Debug)]
pub(crate) struct BpfRustc {
    pub(crate) path: PathBuf,
    /// Its sysroot has a compiled core for BPF; otherwise it has the sources, and cargo compiles core.
    pub(crate) prebuilt_core: bool,
}

impl BpfRustc {
    /// The first of `$EBPF_RUSTC`, rustup's `${EBPF_TOOLCHAIN:-nightly}` and `/usr/bin/rustc` that can.
    pub(crate) fn find() -> Result<Self> {
        if let Some(chosen) = env::var_os("EBPF_RUSTC") {
            let chosen = PathBuf::from(chosen);
            return Self::at(&chosen).with_context(|| {
                format!("$EBPF_RUSTC is {}, which cannot: {RUSTC_REMEDY}", chosen.display())
            });
        }
        let toolchain = env::var("EBPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".to_owned());
        let rustup =
            workspace::output(Command::new("rustup").args(["which", "rustc", "--toolchain", &toolchain]));
        let mut candidates = rustup.map(PathBuf::from).into_iter().chain([PathBuf::from("/usr/bin/rustc")]);
        candidates.find_map(|path| Self::at(&path)).context(RUSTC_REMEDY)
    }

    fn at(path: &Path) -> Option<Self> {
        let mut command = Command::new(path);
        let sysroot = workspace::output(command.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN"))?;
        let library = Path::new(&sysroot).join("lib/rustlib");
        let prebuilt_core = library.join(TARGET).is_dir();
        let usable = prebuilt_core || library.join("src/rust/library").is_dir();
        usable.then(|| Self { path: path.to_owned(), prebuilt_core })
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> String {
        workspace::output(Command::new(&self.path).arg("-V")).unwrap_or_else(|| "rustc".to_owned())
    }

    /// A cargo command for a package's program of the same name, for the BPF target with this rustc and its own target folder.
    pub(crate) fn cargo(
        &self,
        verb: &str,
        package: &str,
        target_dir: &str,
        extra_flags: &[&str],
    ) -> Result<Command> {
        let linker = linker().with_context(|| {
            format!("bpf-linker {LINKER_VERSION} is not there: run `cargo xtask setup`, which builds it once")
        })?;
        let mut path = vec![linker.parent().unwrap_or(&linker).to_owned()];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let arch = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
        let mut flags = vec![arch.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf"];
        flags.extend(extra_flags);

        let mut cargo = workspace::cargo();
        cargo
            .args([verb, "--package", package, "--bin", package, "--release", "--target", TARGET])
            .arg("--target-dir")
            .arg(workspace::target().join(target_dir))
            .env("RUSTC", &self.path)
            // -Z build-std and aya-ebpf's attributes want nightly features of whatever rustc this is.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("PATH", env::join_paths(path)?)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        for variable in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        if !self.prebuilt_core {
            cargo.arg("-Zbuild-std=core");
        }
        Ok(cargo)
    }
}

/// The bpf-linker of that version, if it is there and runs.
pub(crate) fn linker() -> Option<PathBuf> {
    LINKER.find()
}

/// Builds bpf-linker unless another process has done so meanwhile.
pub(crate) fn install_linker() -> Result<()> {
    LINKER.install(|cargo| {
        if Path::new(LLVM_PREFIX).is_dir() {
            cargo.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LLVM_PREFIX);
        }
    })
}
