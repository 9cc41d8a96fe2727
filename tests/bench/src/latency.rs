//! `bench latency`: UDP round trips through a gateway, both ends spinning.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::UdpSocket,
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::gettid;

use crate::{
    chain::{
        gateway::Gateway,
        mounts,
        ovs::Port,
        stack::Stack,
        talk::{Talk, modes},
        wires::Wiring,
    },
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
/// Of `--trips`, Open vSwitch is asked for one in so many: by AF_PACKET a round trip takes it that much longer.
const FEWER: u32 = 5;
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
    mounts::private()?;
    let cpus = cpus()?;
    let [first, .., last] = cpus[..] else { bail!("both ends spin: that takes two CPUs") };
    report.conditions = conditions([first, last], args.trips);
    for mtu in &args.mtus {
        say(&format!("setting up, MTU {mtu}"));
        let talks: Vec<_> =
            candidates(first).into_iter().map(|gateway| attempt(gateway, *mtu)).collect::<Result<_>>()?;
        say(&format!("{} rounds of {} round trips", args.rounds, args.trips));
        report.conditions.extend(modes(talks.iter().flat_map(|(_, talk)| talk), *mtu)?);
        let times = measure(&talks, args, [first, last])?;
        report.figures.extend(figures(&talks, &times, *mtu)?);
    }
    Ok(report)
}

/// All, Open vSwitch on this CPU.
fn candidates(cpu: usize) -> [Gateway; 7] {
    let (by_xdp, by_packet) = (Gateway::Ovs(Port::Xdp, cpu), Gateway::Ovs(Port::Packet, cpu));
    [Gateway::Ours, Gateway::Floor, PLAIN, Gateway::Stack(Stack::Stateless), CONNTRACK, by_xdp, by_packet]
}

/// A candidate that is up, or why it cannot be.
type Tried = (Gateway, Result<Talk, String>);

fn attempt(gateway: Gateway, mtu: u16) -> Result<Tried> {
    // Open vSwitch drops what is longer than the MTU.
    let gateway_gro = !matches!(gateway, Gateway::Ovs(..));
    Ok((gateway, Talk::attempt(gateway, Wiring { mtu, gateway_gro, ends_gro: true })?))
}

fn measure(talks: &[Tried], args: &Args, [first, last]: [usize; 2]) -> Result<BTreeMap<&'static str, Times>> {
    let mut times: BTreeMap<&str, Times> = BTreeMap::new();
    for round in 0..=args.rounds {
        for (gateway, talk) in talks {
            let Ok(talk) = talk else { continue };
            let mut trips = match gateway {
                // It has the first CPU to itself.
                Gateway::Ovs(..) => round_trips(talk, args.trips.div_ceil(FEWER), [last, last])?,
                Gateway::Ours | Gateway::Floor | Gateway::Stack(_) => {
                    round_trips(talk, args.trips, [first, last])?
                }
            };
            trips.sort_by(f64::total_cmp);
            // The first round is for caches, connections and clocks.
            if round > 0 {
                let times = times.entry(gateway.name()).or_default();
                times.p50.push(trips[trips.len() / 2]);
                times.p99.push(trips[trips.len() * 99 / 100]);
            }
        }
    }
    Ok(times)
}

fn conditions(cpus: [usize; 2], trips: u32) -> Vec<String> {
    let ends = format!(
        "UDP datagrams of {PAYLOAD} bytes from the client to the pod and back, {trips} times a round, each when the last \
             has come back; client and pod spin on CPUs {} and {} at real-time priority, the gateway works in their softirqs. A sample is the \
             percentile of a round. Chains as in `tcp`, GRO on everywhere.",
        cpus[0], cpus[1]
    );
    let ovs = format!(
        "OVS in userspace, as in `hop`, with ours at the worker, has threads of its own; a third CPU would be theirs. Of two they have CPU {} \
         to themselves, and client and pod spin on CPU {} by turns (sched_yield): only one of them has something to do at a time, \
         but each turn takes time that the others do not pay, so this is to its disadvantage. {} round trips a round; it is stopped \
         (SIGSTOP) while others are measured, and GRO at its NICs is off.",
        cpus[0],
        cpus[1],
        trips.div_ceil(FEWER)
    );
    vec![ends, ovs]
}

/// What an end does on its CPU between two looks at its socket.
#[derive(Clone, Copy)]
struct Place {
    cpu: usize,
    /// Lets the other end look, which is on the same CPU.
    takes_turns: bool,
}

impl Place {
    /// Takes this thread there, before all others, and waits for the other end to be in its place.
    fn take(self, both: &Barrier) -> Result<()> {
        let first = pin_to(self.cpu).and_then(|()| go_first());
        both.wait();
        first
    }

    fn wait(self) {
        if self.takes_turns {
            thread::yield_now();
        }
    }
}

/// Microseconds each; the client and the pod are on these CPUs.
fn round_trips(talk: &Talk, trips: u32, cpus: [usize; 2]) -> Result<Vec<f64>> {
    let _awake = talk.awake()?;
    let [here, there] = cpus.map(|cpu| Place { cpu, takes_turns: cpus[0] == cpus[1] });
    let [client, pod] = talk.sockets(PORT)?;
    for socket in [&client, &pod] {
        socket.set_nonblocking(true)?;
    }
    let (done, both) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let echo = scope.spawn(|| there.take(&both).and_then(|()| echo(&pod, there, &done)));
        let ask = scope.spawn(|| {
            let times = here.take(&both).and_then(|()| ask(&client, here, trips));
            done.store(true, Ordering::Relaxed);
            times
        });
        let (Ok(times), Ok(echoed)) = (ask.join(), echo.join()) else { bail!("a spinning thread panicked") };
        echoed?;
        times
    })
}

fn ask(client: &UdpSocket, place: Place, trips: u32) -> Result<Vec<f64>> {
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
            place.wait();
        }
        ensure!(start.elapsed() < MOST, "{trip} round trips took {MOST:?}: ask for fewer of {trips}");
        times.push(since.elapsed().as_secs_f64() * 1e6);
        ensure!(buffer == datagram, "the answer is of another question");
    }
    Ok(times)
}

fn echo(pod: &UdpSocket, place: Place, done: &AtomicBool) -> Result<()> {
    let mut buffer = [0; PAYLOAD];
    let since = Instant::now();
    while !done.load(Ordering::Relaxed) && since.elapsed() < MOST {
        match pod.recv_from(&mut buffer) {
            Ok((len, from)) => pod.send_to(&buffer[..len], from).map(drop)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => place.wait(),
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

fn figures(talks: &[Tried], times: &BTreeMap<&str, Times>, mtu: u16) -> Result<Vec<Figure>> {
    let of = |gateway: Gateway| times.get(gateway.name()).context("a candidate was not measured");
    let mut figures = Vec::new();
    for (gateway, talk) in talks {
        let name = |which| format!("MTU {mtu}, {}, {which}", gateway.name());
        if let Err(why) = talk {
            figures.extend(["p50", "p99"].map(|which| Figure::not_possible(name(which), "µs", why)));
            continue;
        }
        let Times { p50, p99 } = of(*gateway)?;
        for (which, samples) in [("p50", p50), ("p99", p99)] {
            figures.push(Figure::new(name(which), "µs", samples.clone()));
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
