//! `bench control`: how soon an annotation carries traffic, how much memory an agent takes, how soon it is in sync.
//! A real API server, real agents and real packets in a lab; the EIPs beside the measured one are of pods that
//! exist in the API only, on nodes that `worker2` answers ARP for.

mod agents;
mod api;
mod load;
mod probe;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gateway_apiserver::{Cluster, Options, PodSpec};
use gateway_lab::{Lab, LabConfig};
use gateway_tests::scene::agent;

use self::{
    agents::Agents,
    api::Api,
    load::{Load, MEASURED_POD},
    probe::Probe,
};
use crate::{
    report::{Figure, Report, Statistic},
    say,
};

/// From the annotate call to the first packet, with 0, 1,000 and 10,000 EIPs bound; memory; time to be in sync.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Changes of the annotation per load.
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Numbers of EIPs that are bound already, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000])]
    loads: Vec<u32>,
    /// Leave out memory, starts and many EIPs at once.
    #[arg(long)]
    only_changes: bool,
}

const PREFIX: &str = "bench-";
/// Pods in the API, and how many of them have an EIP, while memory and start are measured.
const PODS: u32 = 10_000;
const PODS_WITH_EIP: u32 = 2_000;
/// EIPs that are asked for at once.
const AT_ONCE: u32 = 500;
/// Starts per kind.
const STARTS: u32 = 5;

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("control");
    report.conditions = vec![
        format!(
            "Lab of three nodes in network namespaces, a real kube-apiserver and etcd on the same machine; {PODS} pods in \
             the API while memory and starts are measured and after."
        ),
        "A change is timed from the return of the PATCH that sets `ovn.kubernetes.io/eip` to the first datagram that \
         a client sent to the new EIP and got back from it, at one datagram each 0.2 ms; below zero: it came before the \
         call returned."
            .to_owned(),
    ];
    let mut bench = Bench::start()?;
    let (before, after): (Vec<u32>, Vec<u32>) = args.loads.iter().partition(|load| **load < PODS_WITH_EIP);
    for load in before {
        bench.load.bind(&bench.api, load)?;
        bench.latency(args.changes, load, &mut report)?;
    }
    if !args.only_changes {
        bench.load.bind(&bench.api, PODS_WITH_EIP)?;
        bench.load.fill(&bench.api, PODS)?;
        bench.settle(PODS_WITH_EIP)?;
        bench.starts(&mut report)?;
        bench.at_once(&mut report)?;
    }
    for load in after {
        bench.load.bind(&bench.api, load)?;
        bench.latency(args.changes, load, &mut report)?;
    }
    Ok(report)
}

/// In the order they are to end.
struct Bench {
    agents: Agents,
    load: Load,
    api: Api,
    _cluster: Cluster,
    lab: Lab,
}

impl Bench {
    fn start() -> Result<Self> {
        say("a lab, an API server and agents");
        let config =
            LabConfig { agents: false, agent_binary: Some(agent()?), ..LabConfig::ephemeral(PREFIX) };
        let lab = Lab::up(&config)?;
        let cluster = Cluster::start(&lab, &Options::default())?;
        cluster.seed_lab()?;
        load::widen_external_network(&lab, &cluster)?;
        cluster.create_pod(&PodSpec::of_lab(MEASURED_POD)?)?;
        let api = Api::connect(&lab, &cluster)?;
        let load = Load::prepare(&lab, &cluster)?;
        let mut agents = Agents::new(&cluster)?;
        agents.start_all(&lab)?;
        Ok(Self { agents, load, api, _cluster: cluster, lab })
    }

    /// Waits until the gateway's table holds so many EIPs.
    fn settle(&self, eips: u32) -> Result<()> {
        say(&format!("waiting for {eips} EIPs"));
        let deadline = Instant::now() + Duration::from_secs(120);
        while agents::bound(&self.lab)? < eips as usize {
            anyhow::ensure!(Instant::now() < deadline, "{} EIPs bound of {eips}", agents::bound(&self.lab)?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn latency(&mut self, changes: u32, bound: u32, report: &mut Report) -> Result<()> {
        self.settle(bound)?;
        say(&format!("{changes} changes with {bound} EIPs bound"));
        let probe = Probe::start(&self.lab)?;
        let mut samples = Vec::new();
        let roles = [("gw1", "gateway"), ("worker1", "worker")];
        let before = roles.map(|(node, _)| self.agents.processor_time(node));
        for change in 0..changes {
            let eip = load::measured_eip(change);
            probe.aim(change, eip);
            let returned = self.api.annotate(MEASURED_POD, eip)?;
            let came = probe.came(change).with_context(|| {
                format!("change {change} to {eip} with {bound} EIPs bound\n{}", self.agents.logs())
            })?;
            let late = came.saturating_duration_since(returned).as_secs_f64();
            let early = returned.saturating_duration_since(came).as_secs_f64();
            samples.push((late - early) * 1e3);
            // Out of step with whatever ticks in the agents.
            thread::sleep(Duration::from_millis(u64::from(change * 7 % 40) + 20));
        }
        let name = format!("annotate → first packet, {bound} EIPs bound");
        report.figures.push(Figure::new(name, "ms", samples).aim(Statistic::P99, 100.0));
        for ((node, role), before) in roles.into_iter().zip(before) {
            let per_change = (self.agents.processor_time(node)? - before?) / f64::from(changes);
            let name = format!("processor time of a {role} per change, {bound} EIPs bound");
            report.figures.push(Figure::new(name, "ms", vec![per_change]));
        }
        Ok(())
    }

    /// Memory after some life, then the time to be in sync, with tables adopted and with none.
    fn starts(&mut self, report: &mut Report) -> Result<()> {
        say("memory and starts");
        for (node, role, aim) in [("gw1", "gateway", 64.0), ("worker1", "worker", 32.0)] {
            let mut adopting = Vec::new();
            let mut memory = Vec::new();
            for _ in 0..STARTS {
                adopting.push(self.agents.restart(&self.lab, node)?.as_secs_f64());
                memory.push(self.agents.peak_memory(node)?);
            }
            let load = format!("{PODS} pods, {PODS_WITH_EIP} EIPs");
            report.figures.push(
                Figure::new(format!("memory of a {role}, {load}"), "MiB", memory).aim(Statistic::Max, aim),
            );
            report.figures.push(
                Figure::new(format!("restart of a {role} → in sync, {load}"), "s", adopting)
                    .aim(Statistic::Max, 2.0),
            );
            report.figures.push(Figure::new(
                format!("rows written by a restart of a {role}"),
                "rows",
                vec![self.agents.differences(node)?],
            ));
        }
        let mut fresh = Vec::new();
        for _ in 0..STARTS {
            self.agents.tear_down(&self.lab, "gw1")?;
            fresh.push(self.agents.restart(&self.lab, "gw1")?.as_secs_f64());
        }
        report.figures.push(
            Figure::new(
                format!("start of a gateway from nothing → {PODS_WITH_EIP} EIPs programmed"),
                "s",
                fresh,
            )
            .aim(Statistic::Max, 2.0),
        );
        Ok(())
    }

    fn at_once(&mut self, report: &mut Report) -> Result<()> {
        let already = self.load.bound();
        say(&format!("{AT_ONCE} EIPs at once"));
        let since = Instant::now();
        self.load.bind_existing(&self.api, AT_ONCE)?;
        self.settle(already + AT_ONCE)?;
        let name = format!("{AT_ONCE} EIPs at once, {already} bound → all in the table");
        report
            .figures
            .push(Figure::new(name, "s", vec![since.elapsed().as_secs_f64()]).aim(Statistic::Max, 24.0));
        Ok(())
    }
}
