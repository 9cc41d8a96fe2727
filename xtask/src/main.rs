//! The developer's one door: `cargo xtask setup|build|lab|demo|test|fuzz|bench|kernels`. One file a verb.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod built;
mod demo;
mod fuzz;
mod kernels;
mod kube;
mod lab;
mod screen;
mod setup;
mod test;
mod toolchain;
mod workspace;

/// Sets up, builds, shows and tests eip-gateway.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Setup(setup::Args),
    Bench(bench::Args),
    Build(build::Args),
    Lab(lab::Args),
    Demo(demo::Args),
    Test(test::Args),
    Fuzz(fuzz::Args),
    Kernels(kernels::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Lab(args) => lab::run(args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Kernels(args) => kernels::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        screen::failure(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
