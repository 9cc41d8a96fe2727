//! `bench latency`: UDP round trips through a gateway, both ends spinning.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::UdpSocket,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::gettid;

use crate::{
    chain::{gateway::Gateway, stack::Stack, talk::Talk, wires::Wiring},
    packets::rounds::{cpus, pin_to},
    report::{Figure, Report, Statistic},
    say,
};

/// UDP round trips, both ends spinning, through ours and those it is compared with; MTU 1500 and 9000.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds, each of them all candidates.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Round trips per candidate and round.
    #[arg(long, default_value_t = 20_000)]
    trips: u32,
    /// MTUs of all wires.
    #[arg(long, value_delimiter = ',', default_values_t = [1500, 9000])]
    mtus: Vec<u16>,
}

const PLAIN: Gateway = Gateway::Stack(Stack::Plain);
const CONNTRACK: Gateway = Gateway::Stack(Stack::Conntrack);
const CANDIDATES: [Gateway; 5] =
    [Gateway::Ours, Gateway::Floor, PLAIN, Gateway::Stack(Stack::Stateless), CONNTRACK];
const PORT: u16 = 9000;
/// Bytes of a datagram; with headers a frame of 64.
const PAYLOAD: usize = 22;
/// Nobody waits longer for a datagram, so that nobody spins for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nor does anybody spin for longer at a time: it is at real-time priority, and nobody else gets the CPU.
const MOST: Duration = Duration::from_secs(2);
/// The same for the kernel, which ends us then: microseconds.
const MOST_FOR_KERNEL: &str = "--rttime=3000000:3000000";

/// Microseconds, by the percentiles of a round.
#[derive(Default)]
struct Times {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Carries it out.
pub(crate) fn run(args: &Args) -> Result<Report> {
    let mut report = Report::new("latency");
    let cpus = cpus()?;
    let [first, .., last] = cpus[..] else { bail!("both ends spin: that takes two CPUs") };
    report.conditions = conditions([first, last], args.trips);
    for mtu in &args.mtus {
        say(&format!("setting up, MTU {mtu}"));
        let talks = CANDIDATES
            .map(|gateway| Talk::stand(gateway, Wiring { mtu: *mtu, gateway_gro: true, ends_gro: true }));
        let talks: Vec<_> = talks.into_iter().collect::<Result<_>>()?;
        say(&format!("{} rounds of {} round trips", args.rounds, args.trips));
        let mut times: BTreeMap<&str, Times> = BTreeMap::new();
        for round in 0..=args.rounds {
            for (gateway, talk) in CANDIDATES.iter().zip(&talks) {
                let mut trips = round_trips(talk, args.trips, [first, last])?;
                trips.sort_by(f64::total_cmp);
                // The first round is for caches, connections and clocks.
                if round > 0 {
                    let times = times.entry(gateway.name()).or_default();
                    times.p50.push(trips[trips.len() / 2]);
                    times.p99.push(trips[trips.len() * 99 / 100]);
                }
            }
        }
        report.figures.extend(figures(&times, *mtu)?);
    }
    Ok(report)
}

fn conditions(cpus: [usize; 2], trips: u32) -> Vec<String> {
    vec![format!(
        "UDP datagrams of {PAYLOAD} bytes from the client to the pod and back, {trips} times a round, each when the last \
             has come back; client and pod spin on CPUs {} and {} at real-time priority, the gateway works in their softirqs. A sample is the \
             percentile of a round. Chains as in `tcp`, GRO on everywhere. No OVS in userspace: it wants a \
         third CPU.",
        cpus[0], cpus[1]
    )]
}

/// Microseconds each.
fn round_trips(talk: &Talk, trips: u32, [here, there]: [usize; 2]) -> Result<Vec<f64>> {
    let [client, pod] = talk.sockets(PORT)?;
    for socket in [&client, &pod] {
        socket.set_nonblocking(true)?;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&pod, there, &done));
        let ask = scope.spawn(|| ask(&client, here, trips));
        let times = ask.join();
        done.store(true, Ordering::Relaxed);
        let (Ok(times), Ok(echoed)) = (times, echo.join()) else { bail!("a spinning thread panicked") };
        echoed?;
        times
    })
}

fn ask(client: &UdpSocket, cpu: usize, trips: u32) -> Result<Vec<f64>> {
    pin_to(cpu)?;
    go_first()?;
    let mut buffer = [0; PAYLOAD];
    let mut times = Vec::new();
    let start = Instant::now();
    for trip in 0..trips {
        let mut datagram = [0; PAYLOAD];
        datagram[..4].copy_from_slice(&trip.to_be_bytes());
        let since = Instant::now();
        client.send(&datagram)?;
        while !received(client.recv(&mut buffer))? {
            ensure!(since.elapsed() < PATIENCE, "no answer within {PATIENCE:?}");
        }
        ensure!(start.elapsed() < MOST, "{trip} round trips took {MOST:?}: ask for fewer of {trips}");
        times.push(since.elapsed().as_secs_f64() * 1e6);
        ensure!(buffer == datagram, "the answer is of another question");
    }
    Ok(times)
}

fn echo(pod: &UdpSocket, cpu: usize, done: &AtomicBool) -> Result<()> {
    pin_to(cpu)?;
    go_first()?;
    let mut buffer = [0; PAYLOAD];
    let since = Instant::now();
    while !done.load(Ordering::Relaxed) && since.elapsed() < MOST {
        match pod.recv_from(&mut buffer) {
            Ok((len, from)) => pod.send_to(&buffer[..len], from).map(drop)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts this thread, which is to end soon, before all others on its CPU: who waits for a datagram is not to wait for a compiler.
fn go_first() -> Result<()> {
    let thread = gettid().to_string();
    for words in [["prlimit", MOST_FOR_KERNEL, "--pid"].as_slice(), &["chrt", "--fifo", "--pid", "1"]] {
        let status = Command::new(words[0]).args(&words[1..]).arg(&thread).status()?;
        ensure!(status.success(), "{} failed ({status})", words[0]);
    }
    Ok(())
}

fn received(result: std::io::Result<usize>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn figures(times: &BTreeMap<&str, Times>, mtu: u16) -> Result<Vec<Figure>> {
    let of = |gateway: Gateway| times.get(gateway.name()).context("a candidate was not measured");
    let mut figures = Vec::new();
    for gateway in CANDIDATES {
        let Times { p50, p99 } = of(gateway)?;
        for (which, samples) in [("p50", p50), ("p99", p99)] {
            figures.push(Figure::new(
                format!("MTU {mtu}, {}, {which}", gateway.name()),
                "µs",
                samples.clone(),
            ));
        }
    }
    // P12.
    for (other, must) in [(CONNTRACK, 0.6), (PLAIN, 1.0)] {
        let pairs = of(Gateway::Ours)?.p50.iter().zip(&of(other)?.p50);
        let name = format!("MTU {mtu}, ours / {}, p50 (P12)", other.short());
        let ratio = Figure::new(name, "×", pairs.map(|(ours, other)| ours / other).collect());
        figures.push(ratio.aim(Statistic::Median, must));
    }
    Ok(figures)
}
