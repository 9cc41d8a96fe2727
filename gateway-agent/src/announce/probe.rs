//! Asks whether an address is free before it is used (RFC 5227 section 2.1.1): a state machine, the caller brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gateway_common::addr::Mac;

/// Probes of an address. The RFC's PROBE_NUM; its pauses of seconds are for hosts that may wait.
const TIMES: u8 = 3;
/// Time between two probes of an address.
const INTERVAL: Duration = Duration::from_millis(30);
/// Time after the last one, before silence means that the address is free.
const SILENCE: Duration = Duration::from_millis(40);
/// More than so many that wait are a crowd: what is found of it is told now and then.
const CROWD: usize = 50;
/// First pause before an address in use is asked for again; it doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(60);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// Nobody answered.
    Free,
    /// This MAC has it.
    InUse(Mac),
}

/// Where an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    /// To be asked for from then on.
    Waiting,
    /// Asked for, and to be once more.
    Going,
    /// Asked for often enough.
    Listening,
    /// Decided: free.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    queue: Queue,
    at: Instant,
    sent: u8,
    times: u8,
    refusals: u32,
    finding: Option<Finding>,
}

/// The addresses that somebody wants to have.
#[derive(Debug, Default)]
pub(super) struct Probes {
    asked: BTreeMap<Ipv4Addr, Asked>,
    waiting: BTreeSet<(Instant, Ipv4Addr)>,
    going: BTreeSet<(Instant, Ipv4Addr)>,
    listening: BTreeSet<(Instant, Ipv4Addr)>,
}

impl Probes {
    /// These addresses are wanted now. What was found of others is forgotten.
    pub(super) fn want(&mut self, now: Instant, wanted: &BTreeSet<Ipv4Addr>) {
        let gone: Vec<Ipv4Addr> =
            self.asked.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            self.leave(address);
            self.asked.remove(&address);
        }
        for address in
            wanted.iter().filter(|address| !self.asked.contains_key(address)).copied().collect::<Vec<_>>()
        {
            let new = Asked { queue: Queue::Done, at: now, sent: 0, times: 0, refusals: 0, finding: None };
            self.asked.insert(address, new);
            self.enter(address, Queue::Waiting, now);
        }
    }

    /// The link was lost, or is another one: what was not heard there says nothing, and all is asked again.
    pub(super) fn restart(&mut self, now: Instant) {
        for address in self.asked.keys().copied().collect::<Vec<_>>() {
            if let Some(asked) = self.asked.get_mut(&address) {
                (asked.sent, asked.refusals) = (0, 0);
                asked.finding = asked.finding.filter(|finding| *finding != Finding::Free);
            }
            self.enter(address, Queue::Waiting, now);
        }
    }

    /// The next address to ask for. Where so many wait that their probes take more than a second at this rate,
    /// each is asked for once.
    pub(super) fn due(&mut self, now: Instant, rate: u32) -> Option<Ipv4Addr> {
        let due = |queue: &BTreeSet<(Instant, Ipv4Addr)>| queue.first().copied().filter(|(at, _)| *at <= now);
        if let Some((_, address)) = due(&self.going) {
            return Some(address);
        }
        let (_, address) = due(&self.waiting)?;
        let crowded = self.waits_more_than(now, rate as usize / usize::from(TIMES));
        if let Some(asked) = self.asked.get_mut(&address)
            && asked.sent == 0
        {
            asked.times = if crowded { 1 } else { TIMES };
        }
        Some(address)
    }

    /// A probe was sent.
    pub(super) fn sent(&mut self, now: Instant, address: Ipv4Addr) {
        let Some(asked) = self.asked.get_mut(&address) else { return };
        asked.sent += 1;
        if asked.sent < asked.times {
            self.enter(address, Queue::Going, now + INTERVAL);
        } else {
            self.enter(address, Queue::Listening, now + SILENCE);
        }
    }

    /// Decides what has been silent long enough. Whether something was.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let mut settled = false;
        while let Some((_, address)) = self.listening.first().copied().filter(|(at, _)| *at <= now) {
            self.enter(address, Queue::Done, now);
            if let Some(asked) = self.asked.get_mut(&address) {
                asked.finding = Some(Finding::Free);
            }
            settled = true;
        }
        settled
    }

    /// Somebody with this MAC has an address, or wants it at the same time. Whether that is news.
    pub(super) fn heard(&mut self, now: Instant, address: Ipv4Addr, mac: Mac) -> bool {
        let Some(asked) = self.asked.get_mut(&address) else { return false };
        let news = asked.finding != Some(Finding::InUse(mac));
        let resting = asked.queue == Queue::Waiting && asked.sent == 0 && !news;
        asked.finding = Some(Finding::InUse(mac));
        if !resting {
            let pause = RETRY.saturating_mul(1 << asked.refusals.min(10)).min(RETRY_MAX);
            asked.refusals = asked.refusals.saturating_add(1);
            asked.sent = 0;
            self.enter(address, Queue::Waiting, now + pause);
        }
        news
    }

    /// What is known by now.
    pub(super) fn findings(&self) -> impl Iterator<Item = (Ipv4Addr, Finding)> {
        self.asked.iter().filter_map(|(address, asked)| Some((*address, asked.finding?)))
    }

    /// When the next probe is to be sent.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = |queue: &BTreeSet<(Instant, Ipv4Addr)>| queue.first().map(|(at, _)| *at);
        [first(&self.going), first(&self.waiting)].into_iter().flatten().min()
    }

    /// When the next decision is to be taken.
    pub(super) fn next_decision(&self) -> Option<Instant> {
        self.listening.first().map(|(at, _)| *at)
    }

    /// So many wait that their findings are not told one by one.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        self.waits_more_than(now, CROWD)
    }

    fn waits_more_than(&self, now: Instant, count: usize) -> bool {
        self.waiting.range(..=(now, Ipv4Addr::BROADCAST)).nth(count).is_some()
    }

    fn leave(&mut self, address: Ipv4Addr) {
        let Some(asked) = self.asked.get(&address) else { return };
        let key = (asked.at, address);
        match asked.queue {
            Queue::Waiting => self.waiting.remove(&key),
            Queue::Going => self.going.remove(&key),
            Queue::Listening => self.listening.remove(&key),
            Queue::Done => false,
        };
    }

    fn enter(&mut self, address: Ipv4Addr, queue: Queue, at: Instant) {
        self.leave(address);
        let Some(asked) = self.asked.get_mut(&address) else { return };
        (asked.queue, asked.at) = (queue, at);
        match queue {
            Queue::Waiting => self.waiting.insert((at, address)),
            Queue::Going => self.going.insert((at, address)),
            Queue::Listening => self.listening.insert((at, address)),
            Queue::Done => false,
        };
    }
}

#[cfg(test)]
mod tests;
