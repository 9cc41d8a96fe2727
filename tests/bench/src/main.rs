//! Benchmarks of eip-gateway. `cargo xtask bench` builds what they need and runs them.

mod baseline;
mod chain;
mod compare;
mod control;
mod hop;
mod latency;
mod packets;
mod program;
mod report;
mod scale;
mod tables;
mod tcp;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures eip-gateway; prints a table and writes JSON, Markdown and an SVG plot.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", arg_required_else_help = true)]
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
  cargo xtask bench compare old.json target/bench/control.json")]
struct Cli {
    /// Folder of the results.
    #[arg(long, global = true, default_value = "target/bench")]
    out: PathBuf,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    Program(program::Args),
    Scale(scale::Args),
    Tables(tables::Args),
    Control(control::Args),
    Hop(hop::Args),
    Tcp(tcp::Args),
    Latency(latency::Args),
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(&cli).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.bench {
        Bench::Program(args) => return program::run(args, &cli.out),
        Bench::Scale(args) => scale::run(args)?.publish(&cli.out)?,
        Bench::Tables(args) => tables::run(args)?.publish(&cli.out)?,
        Bench::Control(args) => control::run(args)?.publish(&cli.out)?,
        Bench::Hop(args) => hop::run(args)?.publish(&cli.out)?,
        Bench::Tcp(args) => tcp::run(args)?.publish(&cli.out)?,
        Bench::Latency(args) => latency::run(args)?.publish(&cli.out)?,
        Bench::Compare(args) => compare::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Progress, on standard error.
fn say(what: &str) {
    eprintln!("  … {what}");
}
