//! `gateway-agent`: serve, show, tear down.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use gateway_agent::alive;
use gateway_agent::annotation::Keys;
use gateway_agent::apply::nft;
use gateway_agent::cleanup::{self, Cleaned};
use gateway_agent::cli::{Cli, Command, LogFormat, Output, ShowArgs, Source, Table, TeardownArgs};
use gateway_agent::cluster;
use gateway_agent::inspect::{self, Format, Topic};
use gateway_agent::requirements::{self, Purpose};
use gateway_agent::run::{self, Options, SourceOptions};
use gateway_agent::show;
use gateway_agent::snapshot::{ConfigMapName, ObjectName};
use gateway_agent::source::host;
use gateway_agent::teardown::{self, TeardownError};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => {
            log(args.log_format);
            let options = Options {
                node: args.node,
                source: match args.source {
                    Source::Dir => SourceOptions::Dir(args.dir),
                    Source::Kube => SourceOptions::Kube(args.kubeconfig),
                },
                keys: Keys::new(&args.annotation_prefix),
                config_map: ConfigMapName(ObjectName::new(args.config_namespace, args.config_name)),
                pin: args.pin.pin_path,
                state: args.state.state_dir,
                object: args.object,
                metrics: args.metrics_address.0,
            };
            Runtime::new()?.block_on(run::run(options))
        }
        Command::Show(args) => show(&args),
        Command::Teardown(args) if args.cluster => Runtime::new()?.block_on(clean_up(&args)),
        Command::Teardown(args) => Runtime::new()?.block_on(tear_down(&args)),
    }
}

fn log(format: LogFormat) {
    // What goes wrong with the API server is a problem like any other, told once.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=off,kube_client=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Prints what was removed; fails when something could not be.
async fn tear_down(args: &TeardownArgs) -> anyhow::Result<()> {
    requirements::check(Purpose::Teardown)?;
    let state = &args.state.state_dir;
    if let Some(agent) = alive::running(state).filter(|_| !args.force) {
        anyhow::bail!(
            "an agent runs on this node ({agent}) and would make everything anew; end it first (in a cluster: \
             `kubectl delete -k deploy/base`), or say --force"
        );
    }
    let handle = host::connect()?;
    let mut report = teardown::teardown(&handle, &args.pin.pin_path).await;
    report.remove_status(state);
    let mut out = io::stdout().lock();
    for removed in &report.removed {
        writeln!(out, "removed {removed}")?;
    }
    if report.removed.is_empty() && report.errors.is_empty() {
        writeln!(out, "nothing to remove")?;
    }
    let failed: Vec<String> = report.errors.iter().map(TeardownError::to_string).collect();
    anyhow::ensure!(failed.is_empty(), "not everything was removed: {}", failed.join(" | "));
    if args.stay {
        writeln!(out, "staying until a signal comes")?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    Ok(())
}

/// Prints what was removed from the cluster's objects.
async fn clean_up(args: &TeardownArgs) -> anyhow::Result<()> {
    let client = cluster::client(args.kubeconfig.as_deref()).await?;
    let Cleaned { pods, nodes, events } =
        cleanup::cleanup(&client, &Keys::new(&args.annotation_prefix)).await?;
    writeln!(
        io::stdout(),
        "removed what the agents wrote to {pods} pods and {nodes} nodes, and {events} Events"
    )?;
    Ok(())
}

/// Prints what is served and what was refused.
fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let mut view = show::view(&args.pin.pin_path, &args.state.state_dir)?;
    if args.table.is_none() {
        // Without the privilege to read them they are not shown.
        view.firewall = Runtime::new()?.block_on(nft::counters()).ok().flatten();
    }
    let topic = match args.table {
        None => Topic::Overview,
        Some(Table::Eips) => Topic::Eips,
        Some(Table::Pods) => Topic::Pods,
        Some(Table::Vteps) => Topic::Vteps,
        Some(Table::Neighbors) => Topic::Neighbors,
        Some(Table::Verdicts) => Topic::Verdicts,
    };
    let format = match args.output {
        Output::Table => Format::Table { colour: io::stdout().is_terminal(), all: args.all },
        Output::Json => Format::Json,
    };
    let text = inspect::render(&view, topic, format)?;
    match io::stdout().write_all(text.as_bytes()) {
        // The reader, `head` perhaps, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
