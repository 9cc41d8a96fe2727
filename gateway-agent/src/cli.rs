//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gateway_common::{ABI_VERSION, tables};

use crate::{annotation, config, http, status};

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), ", tables ABI 5");
const _: () = assert!(ABI_VERSION == 5, "say the new ABI in VERSION");

const EXAMPLES: &str = "\
Examples:
  gateway-agent run --node gw1 --source dir --dir /etc/eip-gateway/manifests
                                     serve the EIPs of the pods in these manifests; edits take effect at once
  gateway-agent run --node gw1 --source kube --kubeconfig /etc/eip-gateway/kubeconfig
                                     serve the EIPs of a cluster's pods
  gateway-agent show                 this node in one screen, with or without a running agent
  gateway-agent show eips -o json    EIPs with their pods and counters, and what was refused, for machines
  gateway-agent teardown             detach and remove everything on this node
  gateway-agent teardown --cluster   remove labels, annotations and Events from the cluster's objects";

/// The gateway agent: turns pod annotations into BPF map entries.
#[derive(Clone, Debug, Parser)]
#[command(name = "gateway-agent", version = VERSION, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve: keep this node's kernel as pods, nodes and the ConfigMap say
    Run(RunArgs),
    /// Show what is served and what was refused; works without a running agent
    Show(ShowArgs),
    /// Detach the programs and remove everything the agent made on this node
    Teardown(TeardownArgs),
}

/// `gateway-agent run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of the Node this agent runs on
    #[arg(long, env = "EIP_GATEWAY_NODE", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub node: String,
    /// Where pods, nodes and the ConfigMap come from
    #[arg(long, env = "EIP_GATEWAY_SOURCE", value_enum, default_value = "dir")]
    pub source: Source,
    /// Kubeconfig, for --source kube; without it, the ServiceAccount of the pod this runs in
    #[arg(long, env = "EIP_GATEWAY_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the gateway's ConfigMap
    #[arg(long, env = "EIP_GATEWAY_CONFIG_NAMESPACE", value_name = "NAME", default_value = config::NAMESPACE)]
    pub config_namespace: String,
    /// Name of the gateway's ConfigMap
    #[arg(long, env = "EIP_GATEWAY_CONFIG_NAME", value_name = "NAME", default_value = config::NAME)]
    pub config_name: String,
    /// What annotations and labels start with, up to the slash
    #[arg(long, env = "EIP_GATEWAY_ANNOTATION_PREFIX", value_name = "DOMAIN", default_value = annotation::PREFIX,
        value_parser = annotation::parse_prefix)]
    pub annotation_prefix: String,
    /// Directory of manifests, for --source dir
    #[arg(long, env = "EIP_GATEWAY_DIR", value_name = "PATH", default_value = "/etc/eip-gateway/manifests")]
    pub dir: PathBuf,
    /// Where the tables are
    #[command(flatten)]
    pub pin: PinArgs,
    /// Where the status is
    #[command(flatten)]
    pub state: StateArgs,
    /// BPF object to load instead of the one inside this program
    #[arg(long, env = "EIP_GATEWAY_OBJECT", value_name = "PATH")]
    pub object: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served besides 127.0.0.1, over HTTP: 0.0.0.0 is the
    /// node's InternalIP, empty is nowhere at all. Never to the external network
    #[arg(
        long,
        env = "EIP_GATEWAY_METRICS_ADDRESS",
        value_name = "IP:PORT",
        default_value = http::DEFAULT_ADDRESS,
        value_parser = ListenAddress::parse
    )]
    pub metrics_address: ListenAddress,
    /// How log lines look
    #[arg(long, env = "EIP_GATEWAY_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// `gateway-agent show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Which table; an overview when absent
    #[arg(value_enum)]
    pub table: Option<Table>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    /// Also rows that say nothing, such as verdicts never counted
    #[arg(long)]
    pub all: bool,
    /// Where the tables are
    #[command(flatten)]
    pub pin: PinArgs,
    /// Where the status is
    #[command(flatten)]
    pub state: StateArgs,
}

/// `gateway-agent teardown`.
#[derive(Clone, Debug, Args)]
pub struct TeardownArgs {
    /// Also beside an agent that runs: it makes everything anew within seconds
    #[arg(long)]
    pub force: bool,
    /// Stay when all is removed, until a signal comes: for a DaemonSet, whose pods are to end only
    /// when they are deleted
    #[arg(long)]
    pub stay: bool,
    /// Instead of this node, clean the cluster's objects: what the agents wrote to pods and nodes,
    /// and their Events
    #[arg(long, conflicts_with_all = ["force", "stay"])]
    pub cluster: bool,
    /// Kubeconfig, for --cluster; without it, the ServiceAccount of the pod this runs in
    #[arg(long, env = "EIP_GATEWAY_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// What annotations and labels start with, up to the slash, for --cluster
    #[arg(long, env = "EIP_GATEWAY_ANNOTATION_PREFIX", value_name = "DOMAIN", default_value = annotation::PREFIX,
        value_parser = annotation::parse_prefix)]
    pub annotation_prefix: String,
    /// Where the tables are
    #[command(flatten)]
    pub pin: PinArgs,
    /// Where the status is
    #[command(flatten)]
    pub state: StateArgs,
}

/// Where the tables are.
#[derive(Clone, Debug, Args)]
pub struct PinArgs {
    /// Directory of the pinned tables and links, on a BPF file system
    #[arg(long, env = "EIP_GATEWAY_PIN_PATH", value_name = "PATH", default_value = tables::PIN_DIR)]
    pub pin_path: PathBuf,
}

/// Where the status is.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Directory of the file that keeps names and refusals for `show`, also when no agent runs
    #[arg(long, env = "EIP_GATEWAY_STATE_DIR", value_name = "PATH", default_value = status::STATE_DIR)]
    pub state_dir: PathBuf,
}

/// An address to listen on, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAddress(pub Option<SocketAddr>);

impl ListenAddress {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            format!("{text:?} is not IP:PORT; write one such as {}, or nothing", http::DEFAULT_ADDRESS)
        })?;
        Ok(Self(Some(address)))
    }
}

/// Where pods, nodes and the ConfigMap come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Source {
    /// The Kubernetes API
    Kube,
    /// A directory of manifests
    Dir,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For machines, one object a line
    Json,
}

/// A table to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Table {
    /// EIPs, their pods and counters, and what was refused
    Eips,
    /// EIP pods and what they leave by
    Pods,
    /// Nodes and their next hops
    Vteps,
    /// Hosts on the external network
    Neighbors,
    /// What became of packets
    Verdicts,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For machines
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn metrics_can_be_moved_and_switched_off() {
        let address = |args: &[&str]| {
            let args = ["gateway-agent", "run", "--node", "gw1"].iter().chain(args);
            let Command::Run(run) = Cli::try_parse_from(args)?.command else { panic!("not run") };
            Ok::<_, clap::Error>(run.metrics_address.0.map(|address| address.to_string()))
        };
        assert_eq!(address(&[]).unwrap().as_deref(), Some("0.0.0.0:9817"));
        assert_eq!(address(&["--metrics-address", "[::1]:1"]).unwrap().as_deref(), Some("[::1]:1"));
        assert_eq!(address(&["--metrics-address", ""]).unwrap(), None);
        assert!(address(&["--metrics-address", "9817"]).unwrap_err().to_string().contains("IP:PORT"));
    }

    #[test]
    fn the_node_must_be_named() {
        let refused = Cli::try_parse_from(["gateway-agent", "run", "--node", "", "--dir", "/x"]).unwrap_err();
        assert!(refused.to_string().contains("--node"), "{refused}");
        Cli::try_parse_from(["gateway-agent", "run", "--node", "gw1", "--source", "dir", "--dir", "/x"])
            .unwrap();
    }

    #[test]
    fn a_prefix_is_a_domain() {
        for (prefix, good) in
            [("ovn.kubernetes.io", true), ("eip", true), ("a/b", false), ("", false), ("A b", false)]
        {
            let args = ["gateway-agent", "run", "--node", "n", "--annotation-prefix", prefix];
            assert_eq!(Cli::try_parse_from(args).is_ok(), good, "{prefix:?}");
        }
    }
}
