//! `cargo xtask build`: the BPF object, then the agent that embeds it.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    screen,
    toolchain::{BpfRustc, TARGET},
    workspace,
};

/// Build the BPF programs and the agent that embeds them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build                 target/release/gateway-agent
  cargo xtask build --ebpf-only     target/ebpf/gateway-ebpf
  EBPF_RUSTC=/opt/rust/bin/rustc cargo xtask build")]
pub(crate) struct Args {
    /// Only the BPF object.
    #[arg(long)]
    ebpf_only: bool,
}

const BUILD_DIR: &str = "ebpf-build";

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ebpf()?;
    if !args.ebpf_only {
        agent()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Both, for the verbs that need them.
pub(crate) fn all() -> Result<()> {
    ebpf()?;
    agent()
}

/// Only the BPF object.
pub(crate) fn ebpf() -> Result<()> {
    programs("gateway-ebpf", "gateway-ebpf")
}

/// The benchmark's plain paths in Rust, beside the BPF object.
pub(crate) fn plain_rust() -> Result<()> {
    programs("gateway-bench-ebpf", "bench-twin.o")
}

/// Compiles a package for BPF, to a file beside the BPF object.
fn programs(package: &str, name: &str) -> Result<()> {
    let rustc = BpfRustc::find()?;
    screen::title(&format!("Building {package} with {}", rustc.version()));
    workspace::run(&mut rustc.cargo("build", package, BUILD_DIR, &[])?)?;
    let built = workspace::target().join(BUILD_DIR).join(TARGET).join("release").join(package);
    let object = workspace::target().join("ebpf").join(name);
    let size = place(&built, &object)?;
    screen::good(&format!("{} ({size} bytes)", shown(&object)));
    Ok(())
}

/// What the benchmarks of the data path compare with: C for BPF, beside the BPF object.
pub(crate) fn plain_c(clang: &str) -> Result<()> {
    screen::title(&format!("Building the plain C programs with {clang}"));
    let sources = workspace::root().join("tests/bench/c");
    // Where a distribution for several architectures has the kernel's headers of this one.
    let headers = format!("-I/usr/include/{}-linux-gnu", env::consts::ARCH);
    for name in ["harness", "plain", "hop", "send"] {
        let object = workspace::target().join(format!("ebpf/bench-{name}.o"));
        let mut command = Command::new(clang);
        command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]);
        command.arg(&headers).arg("-c").arg(sources.join(format!("{name}.c"))).arg("-o").arg(&object);
        workspace::run(&mut command)?;
        screen::good(&shown(&object));
    }
    Ok(())
}

fn agent() -> Result<()> {
    screen::title("Building the agent");
    let mut cargo = workspace::cargo();
    workspace::run(cargo.args(["build", "--package", "gateway-agent", "--release"]))?;
    screen::good(&shown(&workspace::agent()));
    Ok(())
}

/// Puts a copy in place at once, and only when it differs, so that cargo does not rebuild what embeds it.
fn place(built: &Path, object: &Path) -> Result<usize> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(bytes.len());
    }
    let temporary = object.with_extension("tmp");
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::write(&temporary, &bytes).with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, object).with_context(|| format!("renaming to {}", object.display()))?;
    Ok(bytes.len())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}
