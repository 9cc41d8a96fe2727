//! All that this node says by ARP on the external network, and what it hears there: a state machine, the caller brings
//! the time, sends and receives. One budget of frames for all of it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gateway_common::addr::Mac;
use gateway_common::wire::arp;

use super::Order;
use super::defence::Defence;
use super::probe::{Finding, Probes};
use super::schedule::Schedule;
use crate::bucket::Bucket;
use crate::snapshot::External;

/// Pause after a frame that could not be sent.
const RETRY: Duration = Duration::from_millis(200);
/// Pause between two reports of what is known, while many addresses are asked for.
const REPORT: Duration = Duration::from_millis(500);
/// Frames at once when the rate is low, so that the probes of one address need not wait for each other.
const BURST: u32 = 4;

/// An ARP packet to broadcast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    /// It is ours.
    Announcement(Ipv4Addr),
    /// Does anybody have it?
    Probe(Ipv4Addr),
}

/// What is to be said, and what was heard.
#[derive(Debug)]
pub(super) struct Speaker {
    order: Option<Order>,
    bucket: Bucket,
    schedule: Schedule,
    probes: Probes,
    defence: Defence,
    /// Nothing is sent before.
    not_before: Option<Instant>,
    /// What is known has changed since it was reported.
    changed: bool,
    /// Conflicts were counted since.
    counted: bool,
    reported: Option<Instant>,
}

impl Speaker {
    /// One that has said nothing. An earlier agent announced `before`, for which this MAC was used.
    pub(super) fn new(now: Instant, before: Option<(Mac, BTreeSet<Ipv4Addr>)>) -> Self {
        let mut schedule = Schedule::default();
        let order = before.map(|(mac, owned)| {
            schedule.adopt(owned.iter().copied());
            Order { mac, owned, ..Order::default() }
        });
        Self {
            order,
            bucket: Bucket::new(1, 1, now),
            schedule,
            probes: Probes::default(),
            defence: Defence::default(),
            not_before: None,
            changed: false,
            counted: false,
            reported: None,
        }
    }

    /// Takes an order over; `None`: nothing is owned.
    pub(super) fn order(&mut self, now: Instant, order: Option<Order>) {
        let before = std::mem::replace(&mut self.order, order);
        let Some(order) = &self.order else {
            self.schedule.start_over();
            self.probes.want(now, &BTreeSet::new());
            self.defence = Defence::default();
            self.changed = true;
            return;
        };
        if before.as_ref().is_none_or(|before| before.rate != order.rate) {
            self.bucket = Bucket::new(order.rate, (order.rate / 10).max(BURST), now);
        }
        if before.as_ref().is_some_and(|before| before.mac != order.mac) {
            self.schedule.start_over();
        }
        self.schedule.own(now, order.nic_ip, &order.owned);
        self.probes.want(now, &order.probe);
        self.defence.retain(&order.owned);
        let same_link = before.as_ref().is_some_and(|before| {
            let key = |order: &Order| (order.link, order.epoch, order.mac, order.ready_since);
            key(before) == key(order)
        });
        if !same_link && order.link.is_some() {
            self.schedule.anew(now);
            self.not_before = None;
        }
        if before.is_none_or(|before| before.link != order.link) {
            self.probes.restart(now);
        }
        self.changed = true;
    }

    /// What to send next, if anything may be sent now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Frame> {
        let rate = self.order.as_ref().filter(|order| order.link.is_some())?.rate;
        if self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        let announcement = self.defence.due().or_else(|| self.schedule.urgent(now)).map(Frame::Announcement);
        let frame = announcement
            .or_else(|| self.probes.due(now, rate).map(Frame::Probe))
            .or_else(|| self.schedule.repeat(now).map(Frame::Announcement))?;
        self.bucket.take(now).then_some(frame)
    }

    /// It was sent.
    pub(super) fn sent(&mut self, now: Instant, frame: Frame) {
        let rate = self.order.as_ref().map_or(1, |order| order.rate);
        match frame {
            Frame::Probe(address) => self.probes.sent(now, address),
            Frame::Announcement(address) => {
                self.schedule.announced(now, address, rate);
                self.defence.announced(now, address);
            }
        }
    }

    /// It could not be sent: it is tried again.
    pub(super) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now + RETRY);
    }

    /// An ARP packet arrived (RFC 5227 section 2.1.1 and 2.4): what its sender says it has, or wants like us.
    pub(super) fn heard(&mut self, now: Instant, packet: &arp::Packet) {
        let Some(order) = &self.order else { return };
        if packet.sender_mac == order.mac {
            return;
        }
        let sender = Ipv4Addr::from(packet.sender_ip);
        let is_probe = sender.is_unspecified() && packet.operation == arp::REQUEST;
        let address = if is_probe { Ipv4Addr::from(packet.target_ip) } else { sender };
        let contested = !is_probe && order.owned.contains(&address);
        if contested {
            self.changed |= self.defence.heard(now, address, packet.sender_mac);
            self.counted = true;
        }
        self.changed |= self.probes.heard(now, address, packet.sender_mac);
    }

    /// Decides what can be decided by now; `link_works`: the cable is still there, so silence means something.
    pub(super) fn settle(&mut self, now: Instant, link_works: impl FnOnce() -> bool) {
        let decides = self.probes.next_decision().is_some_and(|at| at <= now);
        if decides && !link_works() {
            self.probes.restart(now);
            self.failed(now);
        }
        self.changed |= self.probes.settle(now);
        self.changed |= self.defence.settle(now);
    }

    /// What is known, if it has changed. While many addresses are asked for, now and then.
    pub(super) fn report(&mut self, now: Instant) -> Option<External> {
        if self.report_at(now).is_none_or(|at| at > now) {
            return None;
        }
        (self.changed, self.counted, self.reported) = (false, false, Some(now));
        let mut external = External { conflicts: self.defence.count(), ..External::default() };
        for (address, finding) in self.probes.findings() {
            match finding {
                Finding::Free => _ = external.free.insert(address),
                Finding::InUse(mac) => _ = external.in_use.insert(address, mac),
            }
        }
        external.contested = self.defence.contested().collect();
        Some(external)
    }

    fn report_at(&self, now: Instant) -> Option<Instant> {
        let later = self.reported.map_or(now, |at| at + REPORT);
        match (self.changed, self.counted) {
            (true, _) if !self.probes.is_crowded(now) => Some(now),
            (false, false) => None,
            _ => Some(later),
        }
    }

    /// How long to wait until there is something to do; `None`: until something happens.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let order = self.order.as_ref()?;
        let defended = self.defence.due().map(|_| now);
        let frames = [defended, self.schedule.next(), self.probes.next()].into_iter().flatten().min();
        let may = self.not_before.unwrap_or(now).max(now + self.bucket.wait(now));
        let send = frames.filter(|_| order.link.is_some()).map(|at| at.max(may));
        let rest = [self.probes.next_decision(), self.defence.next(), self.report_at(now)];
        let next = send.into_iter().chain(rest.into_iter().flatten()).min()?;
        Some(next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests;
