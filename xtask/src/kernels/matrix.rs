//! `cargo xtask test kernels`: the packet rows, a part of the lab and peers that only other kernels have, on each kernel.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use gateway_lab::{AGENT_VARIABLE, PATIENCE_VARIABLE};
use serde_json::Value;

use super::{kernels, package::Kernel, quoted, vm};
use crate::{screen, workspace};

/// A run of some tests of a suite.
struct Step {
    title: &'static str,
    /// The suite of the package gateway-tests.
    suite: &'static str,
    /// Names of tests, or beginnings of names; with `--ignored`, those that need what such a kernel has.
    words: &'static [&'static str],
    /// How long it may take, in the guest.
    limit: Duration,
}

/// By how much agents start later than on this machine: 6.1's verifier takes a minute where an emulator shares its CPUs.
const PATIENCE: u32 = 40;
const MINUTE: Duration = Duration::from_secs(60);

const STEPS: [Step; 5] = [
    Step {
        title: "packet rows, XDP and TC",
        suite: "rows",
        words: &["--skip=host_as", "--skip=row_names"],
        limit: MINUTE.saturating_mul(20),
    },
    Step { title: "lab", suite: "lab", words: SMOKE, limit: MINUTE.saturating_mul(20) },
    Step {
        title: "kernel's geneve device",
        suite: "lab",
        words: &["--ignored", "peers::geneve"],
        limit: MINUTE.saturating_mul(20),
    },
    Step {
        title: "kernel's Open vSwitch",
        suite: "lab",
        words: &["--ignored", "ovs::kernel"],
        limit: MINUTE.saturating_mul(20),
    },
    Step {
        title: "xdpdump",
        suite: "lab",
        words: &["--ignored", "xdpdump::"],
        limit: MINUTE.saturating_mul(20),
    },
];

/// Bind, ping and TCP both ways; teardown and start; a peer without our code; programs that move
/// and come back, which hang on clsact before 6.6. Few, because every lab has three agents to
/// start, and none with limits of a second, which an emulated machine does not keep.
const SMOKE: &[&str] = &[
    "transfer::ping_udp_and_addresses",
    "restart::teardown_leaves_nothing_and_start_brings_all_back",
    "ovs::userspace",
    "external_side::another_external_nic_leaves_nothing_on_the_old_one",
    "external_side::programs_tables_and_rules_that_somebody_removed_come_back",
];

/// What the guest says around a step; the second with its exit code.
const BEGIN: &str = "@begin ";
const END: &str = "@end ";

/// How a step went.
#[derive(Default)]
struct Report {
    title: String,
    lines: Vec<String>,
    /// Exit code; none when the guest ended before.
    code: Option<i32>,
    time: Duration,
}

/// Runs all steps on all kernels, builds what they need of the tests before.
pub(crate) fn run() -> Result<()> {
    let kernels = kernels(None)?;
    let script = script()?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["KERNEL", "CHECK", "RESULT", "TESTS", "SECONDS"]);
    let mut red = 0;
    for kernel in &kernels {
        for report in on(kernel, &script) {
            let passed = report.passed();
            red += u32::from(!passed);
            table.add_row([
                kernel.release.clone(),
                report.title.clone(),
                if passed { "passed".to_owned() } else { "FAILED".to_owned() },
                report.count().to_string(),
                format!("{:.0}", report.time.as_secs_f64()),
            ]);
        }
    }
    screen::title("── kernels ");
    screen::line(&table.to_string());
    ensure!(red == 0, "{red} checks failed on other kernels");
    Ok(())
}

/// What the guest runs.
fn script() -> Result<String> {
    let suites = suites()?;
    let mut script = format!(
        "cd {}/tests\nexport {AGENT_VARIABLE}={} {PATIENCE_VARIABLE}={PATIENCE}\n",
        quoted(&workspace::root().to_string_lossy()),
        quoted(&workspace::agent().to_string_lossy()),
    );
    for step in &STEPS {
        let suite = suites.iter().find(|(name, _)| name == step.suite);
        let (_, binary) = suite.with_context(|| format!("cargo built no suite {}", step.suite))?;
        script += &step.script(binary);
    }
    Ok(script)
}

impl Step {
    /// Runs it, between a line with its title and one with the exit code.
    fn script(&self, binary: &str) -> String {
        let words: String = self.words.iter().map(|word| format!(" {}", quoted(word))).collect();
        format!(
            "echo {}\ntimeout -k 5 {} {}{words} --test-threads=1 --nocapture\ncode=$?\necho\necho \"{END}$code\"\n",
            quoted(&format!("{BEGIN}{}", self.title)),
            self.limit.as_secs(),
            quoted(binary),
        )
    }
}

/// Names of the suites and their programs, built when they are not yet.
fn suites() -> Result<Vec<(String, String)>> {
    screen::title("Building the tests");
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package=gateway-tests", "--release", "--test=rows", "--test=lab", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().context("starting cargo")?;
    ensure!(output.status.success(), "`{}` failed", workspace::words(&cargo));
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let suite = |message: Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, message["executable"].as_str()?.to_owned()))
    };
    Ok(messages.filter_map(suite).collect())
}

/// Runs the steps on a kernel. A guest that ends early leaves its step, and those behind it, without a code.
fn on(kernel: &Kernel, script: &str) -> Vec<Report> {
    screen::title(&format!("── {} ", kernel.release));
    let mut reports: Vec<Report> = Vec::new();
    let mut since = Instant::now();
    let limit = STEPS.iter().map(|step| step.limit).sum();
    let outcome = vm::run(kernel, script, limit, &mut |line| {
        if let Some(title) = line.strip_prefix(BEGIN) {
            since = Instant::now();
            screen::note(title);
            reports.push(Report { title: title.to_owned(), ..Report::default() });
        } else if let Some(report) = reports.last_mut().filter(|report| report.code.is_none()) {
            report.time = since.elapsed();
            match line.strip_prefix(END) {
                Some(code) => report.end(code),
                None => report.lines.push(line.to_owned()),
            }
        }
    });
    if let Err(error) = outcome {
        screen::bad(&format!("{error:#}"));
        reports.last().into_iter().filter(|report| report.code.is_none()).for_each(Report::show);
    }
    let silent = missing(&reports);
    silent.iter().for_each(|report| screen::bad(&format!("{}: not run", report.title)));
    reports.extend(silent);
    reports
}

/// A step of which the guest said nothing was not run, and is red.
fn missing(reports: &[Report]) -> Vec<Report> {
    let said_nothing = |step: &&Step| !reports.iter().any(|report| report.title == step.title);
    let red = |step: &Step| Report { title: step.title.to_owned(), ..Report::default() };
    STEPS.iter().filter(said_nothing).map(red).collect()
}

impl Report {
    fn end(&mut self, code: &str) {
        self.code = code.parse().ok();
        self.show();
    }

    fn show(&self) {
        if self.passed() {
            let told = |line: &&String| line.contains("instructions verified");
            self.lines.iter().filter(told).for_each(|line| screen::detail(line));
            screen::good(&format!("{}: {} tests", self.title, self.count()));
        } else {
            screen::detail(&self.lines.join("\n"));
            let end = self.code.map_or("the guest ended".to_owned(), |code| format!("exit code {code}"));
            screen::bad(&format!("{}: {end}", self.title));
        }
    }

    /// A filter that fits no test is no success.
    fn passed(&self) -> bool {
        self.code == Some(0) && self.count() > 0
    }

    /// Tests that passed.
    fn count(&self) -> u32 {
        passed_tests(&self.lines).unwrap_or(0)
    }
}

/// `N` of the line `test result: ok. N passed; …`.
fn passed_tests(lines: &[String]) -> Option<u32> {
    let result = lines.iter().rev().find_map(|line| line.strip_prefix("test result: "))?;
    result.split_once(". ")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_step_is_run_under_its_own_title() {
        for step in &STEPS {
            // A program that prints its arguments, in place of a suite.
            let output = Command::new("sh").args(["-c", &step.script("echo")]).output().expect("sh");
            let words = [step.words, &["--test-threads=1", "--nocapture"]].concat().join(" ");
            let expected = format!("{BEGIN}{}\n{words}\n\n{END}0\n", step.title);
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }

    #[test]
    fn a_step_that_was_not_run_is_red() {
        let reports = missing(&[]);
        assert!(reports.len() == STEPS.len() && !reports.iter().any(Report::passed));
        assert!(missing(&reports).is_empty());
    }

    #[test]
    fn a_step_passes_when_its_tests_did_and_there_were_some() {
        let report =
            |line: &str, code| Report { lines: vec![line.to_owned()], code: Some(code), ..Report::default() };
        assert!(
            report("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out", 0).passed()
        );
        assert!(
            !report("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out", 0).passed()
        );
        assert!(!report("test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured", 101).passed());
        assert!(!Report::default().passed());
    }
}
