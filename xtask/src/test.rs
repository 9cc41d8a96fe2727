//! `cargo xtask test`: everything CI runs, in sections.

use std::{
    env, fs,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use gateway_lab::AGENT_VARIABLE;
use nix::unistd::Uid;

use crate::{bench, build, fuzz, kernels, kube, screen, setup, toolchain::BpfRustc, workspace};

/// Run every check: format, lints, unit tests, packet rows on three engines, properties, fuzzing, speed, lab tests, OVN, API server, demos.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                everything; what CI runs
  cargo xtask test fmt clippy     only these sections
  cargo xtask test oracle         the table of our answers next to OVN's
  cargo xtask test rows           builds first, then the packet rows on host, XDP and TC
  cargo xtask test demo           `cargo xtask demo`, plain and with --kube
  cargo xtask test kernels        on Debian's 6.1 and 6.12 kernels, in virtual machines; only when asked for")]
pub(crate) struct Args {
    /// Only these sections, and what they need.
    sections: Vec<Section>,
}

/// A section of the run, in the order they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// rustfmt has nothing to change.
    Fmt,
    /// The BPF object and the agent build.
    Build,
    /// clippy on the host target, warnings are errors.
    Clippy,
    /// The BPF target: clippy where the BPF toolchain has it, else the compiler's own lints.
    ClippyBpf,
    /// Duplicate dependencies and licences.
    Deny,
    /// Unit tests, and the lab's tests of itself.
    Unit,
    /// Packet rows on host, XDP and TC.
    Rows,
    /// Properties of the datapath on the host engine.
    Properties,
    /// Fuzzers for a moment each, their corpus, and random frames in the loaded programs against the host engine.
    Fuzz,
    /// Time per packet of the XDP programs against the committed ratios: warns, never fails.
    Speed,
    /// End to end in the lab.
    Lab,
    /// Our answers next to a real OVN's, as a table; it is kept in target/oracle/.
    Oracle,
    /// A real Kubernetes API server in the lab.
    Kube,
    /// Agents fed by the API server, in the lab.
    Cluster,
    /// Both demos: plain, and the session on a real API server.
    Demo,
    /// Rows, lab and the kernel's own tunnels on other kernels, in virtual machines. Only when asked for.
    Kernels,
}

enum Outcome {
    Passed,
    /// Not run, with the reason.
    NotRun(String),
    /// Run, and found something to look at that is no failure.
    Warned(String),
    Failed(String),
}

impl Section {
    fn title(self) -> &'static str {
        match self {
            Self::Fmt => "format",
            Self::Build => "build",
            Self::Clippy => "clippy, host",
            Self::ClippyBpf => "lints, BPF target",
            Self::Deny => "dependencies",
            Self::Unit => "unit tests",
            Self::Rows => "packet rows on three engines",
            Self::Properties => "properties",
            Self::Fuzz => "fuzzing",
            Self::Speed => "speed of the XDP programs",
            Self::Lab => "lab tests",
            Self::Oracle => "next to OVN",
            Self::Kube => "API server",
            Self::Cluster => "agents on the API server",
            Self::Demo => "demos",
            Self::Kernels => "other kernels",
        }
    }

    /// Whether it compiles or runs what `build` makes.
    fn needs_build(self) -> bool {
        match self {
            Self::Fmt | Self::Build | Self::ClippyBpf | Self::Deny | Self::Speed | Self::Kube => false,
            Self::Clippy
            | Self::Unit
            | Self::Rows
            | Self::Properties
            | Self::Fuzz
            | Self::Lab
            | Self::Oracle
            | Self::Cluster
            | Self::Demo
            | Self::Kernels => true,
        }
    }

    fn run(self) -> Result<Outcome> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"]),
            Self::Build => build::all(),
            Self::Clippy => cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
            Self::ClippyBpf => clippy_bpf(),
            Self::Deny => return deny(),
            Self::Unit => cargo(&[
                "test",
                "--no-fail-fast",
                "--package=gateway-common",
                "--package=gateway-ebpf",
                "--package=gateway-agent",
                "--package=gateway-bench",
                "--package=gateway-lab",
                "--package=xtask",
            ]),
            Self::Rows => suites(&["rows"], &[]),
            Self::Properties => suites(&["properties"], &[]),
            Self::Fuzz => suites(&["corpus", "differential"], &[]).and_then(|()| fuzz::short()),
            Self::Speed => return Ok(speed()),
            Self::Lab => suites(&["lab"], &["--", "--test-threads=1"]),
            Self::Oracle => suites(&["oracle"], &["--", "--test-threads=1", "--nocapture"]),
            Self::Cluster => kube::ensure().and_then(|()| {
                suites(&["kube", "kubevirt", "deploy"], &["--no-fail-fast", "--", "--test-threads=1"])
            }),
            Self::Kube => kube::ensure()
                .and_then(|()| cargo(&["test", "--package=gateway-apiserver", "--", "--test-threads=1"])),
            Self::Demo => demo(&[]).and_then(|()| demo(&["--kube"])),
            Self::Kernels => kernels::matrix::run(),
        }?;
        Ok(Outcome::Passed)
    }
}

/// Carries the verb out.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    usable(Uid::effective().is_root(), kernel.trim())?;
    setup::ensure()?;
    let chosen = selection(&args.sections);
    let mut results: Vec<(Section, Outcome, Duration)> = Vec::new();
    for section in chosen {
        screen::title(&format!("── {} ", section.title()));
        let since = Instant::now();
        let built = !results
            .iter()
            .any(|(done, outcome, _)| *done == Section::Build && matches!(outcome, Outcome::Failed(_)));
        let outcome = if section.needs_build() && !built {
            Outcome::Failed("not run: the build failed".to_owned())
        } else {
            section.run().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
        };
        match &outcome {
            Outcome::Passed => screen::good(section.title()),
            Outcome::NotRun(reason) | Outcome::Warned(reason) => screen::note(reason),
            Outcome::Failed(reason) => screen::bad(reason),
        }
        results.push((section, outcome, since.elapsed()));
    }
    summary(&results);
    let failed = results.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One line for a machine on which the tests cannot run.
fn usable(root: bool, kernel: &str) -> Result<()> {
    ensure!(
        root,
        "the tests load BPF programs and make network namespaces, which needs root: run them with sudo"
    );
    let mut numbers =
        kernel.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(
        version >= (6, 1),
        "the tests need Linux 6.1 or newer and this is {kernel}: run them on a newer kernel"
    );
    Ok(())
}

/// The sections to run, in order, with what they need.
fn selection(asked: &[Section]) -> Vec<Section> {
    let needs_build = asked.iter().any(|section| section.needs_build());
    let wanted = |section: &Section| {
        let by_default = asked.is_empty() && *section != Section::Kernels;
        by_default || asked.contains(section) || (needs_build && *section == Section::Build)
    };
    Section::value_variants().iter().copied().filter(wanted).collect()
}

fn cargo(words: &[&str]) -> Result<()> {
    workspace::run(workspace::cargo().args(words).env(AGENT_VARIABLE, workspace::agent()))
}

/// Runs suites of the package gateway-tests, with more words for cargo and, behind `--`, for the tests.
fn suites(names: &[&str], more: &[&str]) -> Result<()> {
    let names: Vec<_> = names.iter().map(|name| format!("--test={name}")).collect();
    let mut words = vec!["test", "--package=gateway-tests", "--release"];
    words.extend(names.iter().map(String::as_str));
    words.extend(more);
    cargo(&words)
}

/// Runs a demo of the agent that is built: a process of its own, so that Ctrl-C ends it as it does a person's.
fn demo(words: &[&str]) -> Result<()> {
    let xtask = env::current_exe().context("finding this program")?;
    workspace::run(Command::new(xtask).arg("demo").args(words).env(AGENT_VARIABLE, workspace::agent()))
}

fn clippy_bpf() -> Result<()> {
    let rustc = BpfRustc::find()?;
    let clippy = rustc.path.with_file_name("clippy-driver");
    if !clippy.is_file() {
        screen::note(&format!(
            "{} comes without clippy: the compiler's own lints, as errors",
            rustc.version()
        ));
    }
    for package in ["gateway-ebpf", "gateway-bench-ebpf"] {
        let mut command = rustc.cargo("check", package, "ebpf-check", &["-Dwarnings"])?;
        if clippy.is_file() {
            // What cargo-clippy does, with a driver that is of the same build as the rustc.
            command.env("RUSTC_WORKSPACE_WRAPPER", &clippy).env("CLIPPY_ARGS", "");
        }
        workspace::run(&mut command)?;
    }
    Ok(())
}

fn deny() -> Result<Outcome> {
    if workspace::output(workspace::cargo().args(["deny", "--version"])).is_none() {
        return Ok(Outcome::NotRun(
            "cargo-deny is not installed: `cargo install cargo-deny` to check".to_owned(),
        ));
    }
    cargo(&["deny", "check", "bans", "licenses", "sources"])?;
    Ok(Outcome::Passed)
}

/// Speed is no failure: a busy machine is slow, and one that cannot measure has said so.
fn speed() -> Outcome {
    match bench::check() {
        Ok(true) => Outcome::Passed,
        Ok(false) => Outcome::Warned(
            "a program is more than 15 % slower than tests/bench/baseline.json says, as a ratio to plain C: see above; \
             `cargo xtask bench program --save-baseline` if that is meant"
                .to_owned(),
        ),
        Err(error) => Outcome::NotRun(format!("speed was not measured: {error:#}")),
    }
}

fn summary(results: &[(Section, Outcome, Duration)]) {
    screen::title("── summary ");
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["SECTION", "RESULT", "SECONDS"]);
    for (section, outcome, time) in results {
        let word = match outcome {
            Outcome::Passed => "passed",
            Outcome::NotRun(_) => "not run",
            Outcome::Warned(_) => "WARNING",
            Outcome::Failed(_) => "FAILED",
        };
        table.add_row([section.title().to_owned(), word.to_owned(), format!("{:.1}", time.as_secs_f64())]);
    }
    screen::line(&table.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_is_told_in_one_line() {
        assert!(usable(true, "6.1.0-13-amd64").is_ok());
        assert!(usable(true, "7.0.1").is_ok());
        for (root, kernel) in [(false, "6.18.1"), (true, "5.15.0"), (true, "6.0.19"), (true, "")] {
            let message = usable(root, kernel).expect_err("it is unusable").to_string();
            assert_eq!(message.lines().count(), 1);
        }
    }

    #[test]
    fn a_section_brings_the_build_it_needs() {
        assert_eq!(selection(&[Section::Rows]), [Section::Build, Section::Rows]);
        assert_eq!(selection(&[Section::Fmt]), [Section::Fmt]);
        let kernels = selection(&[]).contains(&Section::Kernels);
        assert!(!kernels && selection(&[]).len() == Section::value_variants().len() - 1);
    }
}
