//! The developer's one door: `cargo xtask setup|build|lab|demo|test`. One file a verb.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod lab;
mod screen;
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
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Lab(args) => lab::run(args),
    };
    outcome.unwrap_or_else(|error| {
        screen::failure(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
