//! `cargo xtask bench`: builds what the benchmarks need and runs them.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use gateway_lab::AGENT_VARIABLE;

use crate::{build, kube, setup, workspace};

/// Measure: tables on the screen; JSON, Markdown and an SVG plot under target/bench/.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench program                  time per packet of the XDP programs
  cargo xtask bench scale                    the same with up to a million EIPs, and memory
  cargo xtask bench tables                   the agent's writes to the tables, and its resync with them
  cargo xtask bench hop                      packets through a whole gateway: ours, the kernel's, Open vSwitch, a mere redirect
  cargo xtask bench tcp                      one TCP stream through the same gateways
  cargo xtask bench latency                  UDP round trips through them
  cargo xtask bench control                  from the annotation to the first packet, memory, start
  cargo xtask bench control --changes 20     a quick look
  cargo xtask bench compare old.json target/bench/control.json
  cargo xtask bench help                     every benchmark and its options")]
pub(crate) struct Args {
    /// The benchmark and its options.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.words.first().map(String::as_str) {
        Some("control") => {
            setup::ensure()?;
            kube::ensure()?;
            if workspace::chosen_agent().is_none() {
                build::all()?;
            }
        }
        Some("program" | "scale" | "hop" | "tcp" | "latency") => programs()?,
        Some("tables") => {
            setup::ensure()?;
            build::ebpf()?;
        }
        _ => {}
    }
    let agent = workspace::chosen_agent().unwrap_or_else(workspace::agent);
    workspace::run(cargo().args(&args.words).env(AGENT_VARIABLE, agent))?;
    Ok(ExitCode::SUCCESS)
}

fn cargo() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package", "gateway-bench", "--"]);
    cargo
}

/// Whether the XDP programs are as fast as committed; `false` when one is slower beyond noise.
///
/// # Errors
/// It could not be measured.
pub(crate) fn check() -> Result<bool> {
    /// What `bench program --check` ends with when it found something slower.
    const SLOWER: i32 = 3;
    programs()?;
    let status = cargo().args(["program", "--check"]).status().context("starting cargo")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(SLOWER) => Ok(false),
        _ => bail!("`cargo xtask bench program --check` failed ({status})"),
    }
}

/// Builds our programs, and the plain ones they are compared with, in C and in Rust.
fn programs() -> Result<()> {
    setup::ensure()?;
    let clang = setup::ensure_clang()?;
    build::ebpf()?;
    build::plain_rust()?;
    build::plain_c(clang)
}
