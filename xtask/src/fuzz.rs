//! `cargo xtask fuzz`: the fuzzers of `tests/fuzz`, by cargo-fuzz.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};

use crate::{built::BuiltTool, screen, setup, workspace};

/// What builds and runs them.
pub(crate) const TOOL: BuiltTool = BuiltTool { name: "cargo-fuzz", version: "0.13.2" };
/// What a target is given in `cargo xtask test`: so many inputs, some seconds' worth, the same in every run. What is new is for
/// those who look for it.
const SHORT: [&str; 2] = ["-runs=100000", "-seed=20261125"];

/// Fuzz the datapath on the host engine: any bytes as frames, and frames built from them.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                              every target, 10 seconds each
  cargo xtask fuzz underlay --seconds 600       one target for ten minutes; what it finds is kept in target/fuzz/corpus
  cargo xtask fuzz underlay tests/fuzz/artifacts/underlay/crash-0123     an input once more: what broke, and the frame
  cargo xtask fuzz seed                         the frames of the rows into tests/fuzz/corpus, after a row was added
  cargo xtask fuzz keep underlay                finds that reach something new into tests/fuzz/corpus, for good")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only this target.
    target: Option<Target>,
    /// Run these inputs once each, instead.
    inputs: Vec<PathBuf>,
    /// How long each target runs.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

#[derive(Subcommand)]
enum Verb {
    /// Write the frames of the rows into the corpus.
    Seed,
    /// Take what runs have found into the corpus: inputs that reach what no other there does.
    Keep {
        /// Only this target.
        target: Option<Target>,
    },
}

/// A fuzzer: a hook, and whether the input is the frame or decides on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    External,
    ExternalRaw,
    Underlay,
    UnderlayRaw,
    UnderlayEgress,
    UnderlayEgressRaw,
    RouterPort,
    RouterPortRaw,
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// All, or the one asked for.
    fn chosen(asked: Option<Self>) -> Vec<Self> {
        asked.map_or_else(|| Self::value_variants().to_vec(), |target| vec![target])
    }

    /// What is in the repository, read only but by [`Verb::Keep`].
    fn corpus(self) -> PathBuf {
        folder().join("fuzz/corpus").join(self.name())
    }

    /// What runs on this machine have found.
    fn finds(self) -> Result<PathBuf> {
        let finds = target_dir().join("corpus").join(self.name());
        fs::create_dir_all(&finds).with_context(|| format!("making {}", finds.display()))?;
        Ok(finds)
    }
}

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.verb {
        Some(Verb::Seed) => seed()?,
        Some(Verb::Keep { target }) => keep(target)?,
        None => {
            setup::ensure()?;
            match args.target {
                Some(target) if !args.inputs.is_empty() => replay(target, &args.inputs)?,
                _ => {
                    let limit = format!("-max_total_time={}", args.seconds);
                    fuzz(&Target::chosen(args.target), &[&limit])?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A moment of each, for `cargo xtask test`.
pub(crate) fn short() -> Result<()> {
    fuzz(&Target::chosen(None), &SHORT)
}

/// Fuzzes with these limits, as libFuzzer writes them.
fn fuzz(targets: &[Target], limits: &[&str]) -> Result<()> {
    // All at once, since cargo-fuzz would build them one by one.
    if targets.len() > 1 {
        workspace::run(&mut cargo_fuzz("build")?)?;
    }
    for target in targets {
        screen::title(&format!("Fuzzing {}", target.name()));
        let mut cargo = cargo_fuzz("run")?;
        cargo.arg(target.name()).arg(target.finds()?).arg(target.corpus());
        cargo.arg("--").args(limits).args(["-timeout=10", "-verbosity=0", "-print_final_stats=1"]);
        workspace::run(&mut cargo).with_context(|| {
            format!("{} found something: CONTRIBUTING.md says how it becomes a row", target.name())
        })?;
    }
    Ok(())
}

fn replay(target: Target, inputs: &[PathBuf]) -> Result<()> {
    let from = env::current_dir().context("finding the current folder")?;
    let inputs = inputs.iter().map(|input| from.join(input));
    workspace::run(cargo_fuzz("run")?.arg(target.name()).args(inputs))
}

fn seed() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package=gateway-tests", "--no-default-features"]);
    workspace::run(cargo.arg("--example=seed_corpus"))
}

fn keep(target: Option<Target>) -> Result<()> {
    for target in Target::chosen(target) {
        let mut cargo = cargo_fuzz("run")?;
        cargo.arg(target.name()).arg(target.corpus()).arg(target.finds()?);
        // The fewest that reach every branch, short enough to read.
        cargo.args(["--", "-set_cover_merge=1", "-use_counters=0", "-max_len=2048", "-verbosity=0"]);
        workspace::run(&mut cargo)?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("tests")
}

/// Where cargo builds them: their flags are others than everybody's.
fn target_dir() -> PathBuf {
    workspace::target().join("fuzz")
}

/// A command of cargo-fuzz. No sanitizer: everything that is run is safe Rust, in which there is nothing for one to find,
/// so that the stable compiler will do and runs are faster. Arithmetic is checked for overflow.
fn cargo_fuzz(verb: &str) -> Result<Command> {
    let tool = TOOL.find().with_context(|| {
        format!("cargo-fuzz {} is not there: run `cargo xtask setup`, which builds it once", TOOL.version)
    })?;
    let mut path = vec![tool.parent().unwrap_or(Path::new("/")).to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut cargo = workspace::cargo();
    cargo.args(["fuzz", verb, "--sanitizer=none", "--target-dir"]).arg(target_dir());
    cargo.current_dir(folder()).env("PATH", env::join_paths(path)?);
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    Ok(cargo)
}
