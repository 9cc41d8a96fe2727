//! Every candidate in a chain of its own, and one wire with nothing in between; measured one after the other.

use anyhow::{Context, Result, bail, ensure};
use gateway_ebpf::datapath::Hook;

use crate::{
    chain::{
        clock::Clock,
        ends::{End, Expected, require_all},
        flow::{self, EIPS, Way},
        gateway::{Gateway, Programs, Standing},
        namespace::Namespace,
        ovs::Ovs,
        sender::Sender,
        wires::{CLIENT_END, Direct, WORKER_END, Wiring},
    },
    packets::{
        candidate::{Candidate as Program, REDIRECT},
        frames,
        harness::Harness,
    },
};

/// Processor time per packet, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// With a wire in the gateway's place.
    pub(super) direct: f64,
    /// With the gateway.
    pub(super) whole: f64,
}

impl Time {
    /// What the gateway takes.
    pub(super) fn net(self) -> f64 {
        self.whole - self.direct
    }
}

/// All that is set up.
pub(super) struct Bench {
    clock: Clock,
    harness: Harness,
    direct: Direct,
    direct_counters: [End; 2],
    candidates: Vec<Candidate>,
}

/// A gateway in its chain, with what sends from the client and from the worker, and a counter at the worker and one at the client.
struct Candidate {
    gateway: Gateway,
    standing: Standing,
    senders: [Sender; 2],
    counters: [End; 2],
}

impl Candidate {
    fn stand(gateway: Gateway) -> Result<Self> {
        let standing = gateway.stand(Wiring { mtu: 1500, gateway_gro: true, ends_gro: false })?;
        let counter = |way, namespace: &Namespace, (interface, ifindex)| {
            namespace.enter()?;
            let expected = flow::expected(way, gateway.work());
            if gateway.sends_skbs(way) {
                End::counter_of_skbs(interface, expected)
            } else {
                End::counter(ifindex, expected)
            }
        };
        let counters = [
            counter(Way::In, &standing.chain.worker, ("w0", WORKER_END))?,
            counter(Way::Out, &standing.chain.client, ("c0", CLIENT_END))?,
        ];
        let sender = |way| Sender::load(&flow::sent(way, gateway.work()));
        Ok(Self { gateway, standing, senders: [sender(Way::In)?, sender(Way::Out)?], counters })
    }
}

impl Bench {
    /// Sets everything up, for a thread on this CPU.
    pub(super) fn stand(cpu: usize, gateways: &[Gateway]) -> Result<Self> {
        let direct = Direct::lay()?;
        direct.worker.enter()?;
        let at_worker = End::counter(WORKER_END, Expected::default())?;
        direct.client.enter()?;
        let at_client = End::counter(CLIENT_END, Expected::default())?;
        Ok(Self {
            clock: Clock::of(cpu)?,
            harness: Harness::load()?,
            direct,
            direct_counters: [at_worker, at_client],
            candidates: gateways.iter().copied().map(Candidate::stand).collect::<Result<_>>()?,
        })
    }

    /// Sends packets through a candidate, right after as many over a wire alone.
    pub(super) fn measure(&mut self, gateway: Gateway, way: Way, packets: u32) -> Result<Time> {
        let candidate = find(&mut self.candidates, gateway)?;
        let chain = &candidate.standing.chain;
        let (direct, whole, end, side) = match way {
            Way::In => (&self.direct.client, &chain.client, CLIENT_END, 0),
            Way::Out => (&self.direct.worker, &chain.worker, WORKER_END, 1),
        };
        let places = [
            ("one wire", direct, &self.direct_counters[side]),
            (gateway.name(), whole, &candidate.counters[side]),
        ];
        let mut ns = [0.0; 2];
        for (ns, (name, namespace, counter)) in ns.iter_mut().zip(places) {
            namespace.enter()?;
            let (before, since) = (counter.counted()?, self.clock.now()?);
            candidate.senders[side].send(end, packets)?;
            let taken = self.clock.now()?.saturating_sub(since);
            let received = counter.counted()? - before;
            require_all(&format!("{name}, {}", way.name()), received, u64::from(packets))?;
            *ns = taken.as_secs_f64() * 1e9 / received as f64;
        }
        Ok(Time { direct: ns[0], whole: ns[1] })
    }

    /// Sends to Open vSwitch more than it can take; thousands of packets that arrive for each second that its threads work.
    pub(super) fn flood(&mut self, gateway: Gateway, way: Way, packets: u32) -> Result<f64> {
        let candidate = find(&mut self.candidates, gateway)?;
        let Programs::Ovs(ovs) = &candidate.standing.programs else { bail!("{}: no such", gateway.name()) };
        let (namespace, end, side) = match way {
            Way::In => (&candidate.standing.chain.client, CLIENT_END, 0),
            Way::Out => (&candidate.standing.chain.worker, WORKER_END, 1),
        };
        namespace.enter()?;
        let counter = &candidate.counters[side];
        let (before, meter) = (counter.counted()?, ovs.meter()?);
        candidate.senders[side].send(end, packets)?;
        let received = counter.counted()? - before;
        let taken = ovs.busy_since(&meter)?;
        ensure!(received > 0, "{}, {}: nothing arrived as it should", gateway.name(), way.name());
        Ok(received as f64 / taken.as_secs_f64() / 1e3)
    }

    /// The Open vSwitch among the candidates.
    pub(super) fn ovs(&self) -> Result<&Ovs> {
        let mut programs = self.candidates.iter().map(|candidate| &candidate.standing.programs);
        let found = programs.find_map(|programs| match programs {
            Programs::Ovs(ovs) => Some(ovs),
            Programs::None | Programs::Floor(_) | Programs::Ours(_) => None,
        });
        found.context("Open vSwitch is not set up")
    }

    /// The program of ours or of the floor alone, as `scale` measures ours: nanoseconds without the harness.
    pub(super) fn program(&mut self, gateway: Gateway, way: Way, packets: u32) -> Result<f64> {
        let (hook, side, mut pair) = match way {
            Way::In => (Hook::External, 0, frames::inbound()),
            Way::Out => (Hook::Underlay, 1, frames::outbound()),
        };
        let fd = match &mut find(&mut self.candidates, gateway)?.standing.programs {
            Programs::Ours(kernel) => kernel.xdp_fd(hook)?.try_clone()?,
            Programs::Floor(ends) => {
                pair = flow::forwarded(way, &pair.before);
                ends[side].forwarder()?
            }
            Programs::None | Programs::Ovs(_) => bail!("{} has no program of its own", gateway.name()),
        };
        let program = Program::new(way.name(), fd, pair, REDIRECT).of_many(EIPS);
        let alone = program.run_nothing(&mut self.harness, packets)?;
        Ok(program.run(&mut self.harness, packets)? - alone)
    }
}

fn find(candidates: &mut [Candidate], gateway: Gateway) -> Result<&mut Candidate> {
    let found = candidates.iter_mut().find(|candidate| candidate.gateway == gateway);
    found.with_context(|| format!("{} is not set up", gateway.name()))
}
