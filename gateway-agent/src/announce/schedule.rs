//! What is to be announced next: a state machine, the caller brings the time.
//!
//! A switch sends frames to where it last saw their destination speak, so one frame with `nic-mac` is enough for it; a
//! neighbour's ARP entry is per address. So `nic-ip` comes first and often, the EIPs when they are new, and slowly in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::time::{Duration, Instant};

/// How often a new address is announced (RFC 5227 section 1.1: ANNOUNCE_NUM, and one more).
const TIMES: u8 = 3;
/// Time between two announcements of a new address.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two announcements of `nic-ip`: shorter than a switch forgets (300 s), or than it need be dead by mistake.
pub(super) const BEAT: Duration = Duration::from_secs(30);
/// Time in which all EIPs have their turn, where the rate allows.
const ROUND: Duration = Duration::from_secs(300);

/// An address that is owned.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Announcements that are left.
    left: u8,
    /// When the next one is due, if one is, and whether it is the first.
    due: Option<(bool, Instant)>,
}

/// What is still to be announced, and when. Each address is in at most one queue.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    nic_ip: Option<Ipv4Addr>,
    owned: BTreeMap<Ipv4Addr, Entry>,
    /// Never announced before.
    first: BTreeSet<(Instant, Ipv4Addr)>,
    /// To be announced once more.
    again: BTreeSet<(Instant, Ipv4Addr)>,
    /// When `nic-ip` is due again.
    beat: Option<Instant>,
    /// Whose turn was last, and when the next one's is.
    turn: Option<(Ipv4Addr, Instant)>,
}

impl Schedule {
    /// These addresses were announced before, by an earlier agent.
    pub(super) fn adopt(&mut self, owned: impl IntoIterator<Item = Ipv4Addr>) {
        self.owned.extend(owned.into_iter().map(|address| (address, Entry::default())));
    }

    /// These addresses are owned now: new ones are announced, others forgotten.
    pub(super) fn own(&mut self, now: Instant, nic_ip: Ipv4Addr, owned: &BTreeSet<Ipv4Addr>) {
        self.nic_ip = Some(nic_ip);
        let gone: Vec<Ipv4Addr> =
            self.owned.keys().filter(|address| !owned.contains(address)).copied().collect();
        for address in gone {
            self.queue(address, None);
            self.owned.remove(&address);
        }
        for address in owned {
            if !self.owned.contains_key(address) {
                self.owned.insert(*address, Entry { left: TIMES, due: None });
                self.queue(*address, Some((true, now)));
            }
        }
        self.beat.get_or_insert(now + BEAT);
        self.turn.get_or_insert((nic_ip, now + ROUND / 10));
    }

    /// Others may have lost sight of all of these: `nic-ip` at once, the rest behind it.
    pub(super) fn anew(&mut self, now: Instant) {
        let addresses: Vec<Ipv4Addr> = self.owned.keys().copied().collect();
        for address in addresses {
            let Some(entry) = self.owned.get_mut(&address) else { continue };
            entry.left = entry.left.max(1);
            let first = entry.due.is_some_and(|(first, _)| first) || Some(address) == self.nic_ip;
            self.queue(address, Some((first, now)));
        }
    }

    /// Nothing is known of what others know: all of it is new again, for instance with another MAC.
    pub(super) fn start_over(&mut self) {
        *self = Self::default();
    }

    fn queue(&mut self, address: Ipv4Addr, due: Option<(bool, Instant)>) {
        let Some(entry) = self.owned.get_mut(&address) else { return };
        if let Some((first, at)) = std::mem::replace(&mut entry.due, due) {
            let queue = if first { &mut self.first } else { &mut self.again };
            queue.remove(&(at, address));
        }
        if let Some((first, at)) = due {
            let queue = if first { &mut self.first } else { &mut self.again };
            queue.insert((at, address));
        }
    }

    /// The next address that others have not heard of from here; `nic-ip` before all.
    pub(super) fn urgent(&self, now: Instant) -> Option<Ipv4Addr> {
        let due = |(at, address): &(Instant, Ipv4Addr)| (*at <= now).then_some(*address);
        let nic_ip = self.nic_ip.filter(|nic_ip| {
            let entry = self.owned.get(nic_ip).and_then(|entry| entry.due);
            entry.is_some_and(|(first, at)| first && at <= now) || self.beat.is_some_and(|at| at <= now)
        });
        nic_ip.or_else(|| self.first.first().and_then(due))
    }

    /// The next address to be heard of once more.
    pub(super) fn repeat(&self, now: Instant) -> Option<Ipv4Addr> {
        let again = self.again.first().filter(|(at, _)| *at <= now).map(|(_, address)| *address);
        again.or_else(|| {
            let (last, _) = self.turn.filter(|(_, at)| *at <= now)?;
            let next = self.owned.range((Bound::Excluded(last), Bound::Unbounded)).chain(&self.owned);
            next.map(|(address, _)| *address).find(|address| Some(*address) != self.nic_ip)
        })
    }

    /// It was announced, at a time when `rate` frames a second may be sent.
    pub(super) fn announced(&mut self, now: Instant, address: Ipv4Addr, rate: u32) {
        if Some(address) == self.nic_ip {
            self.beat = Some(now + BEAT);
        }
        let Some(entry) = self.owned.get_mut(&address) else { return };
        if entry.due.is_none() {
            if let Some((last, at)) = &mut self.turn
                && *at <= now
                && Some(address) != self.nic_ip
            {
                let count = u32::try_from(self.owned.len()).unwrap_or(u32::MAX).max(1);
                // At most a tenth of the rate.
                let pace = (ROUND / count).max(Duration::from_secs(10) / rate.max(1));
                (*last, *at) = (address, now + pace);
            }
            return;
        }
        entry.left = entry.left.saturating_sub(1);
        let due = (entry.left > 0).then_some((false, now + INTERVAL));
        self.queue(address, due);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let queued = [&self.first, &self.again].map(|queue| queue.first().map(|(at, _)| *at));
        // `nic-ip` alone has its beat.
        let turn = self.turn.filter(|_| self.owned.len() > 1).map(|(_, at)| at);
        queued.into_iter().chain([self.beat, turn]).flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 254);

    fn addresses(count: u32) -> BTreeSet<Ipv4Addr> {
        (0..count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).chain([NIC_IP]).collect()
    }

    /// All that is due until `until`, as fast as asked for, with the time since `start` in milliseconds.
    fn run(schedule: &mut Schedule, start: Instant, until: Duration) -> Vec<(u128, Ipv4Addr)> {
        let (mut now, mut all) = (start, Vec::new());
        while now <= start + until {
            while let Some(address) = schedule.urgent(now).or_else(|| schedule.repeat(now)) {
                schedule.announced(now, address, 100);
                all.push(((now - start).as_millis(), address));
            }
            now = schedule.next().unwrap().max(now + Duration::from_millis(1));
        }
        all
    }

    #[test]
    fn what_is_new_is_announced_three_times_within_two_seconds_and_nic_ip_first() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.own(start, NIC_IP, &addresses(1));
        let eip = Ipv4Addr::new(10, 0, 0, 0);
        let expected = [(0, NIC_IP), (0, eip), (1000, eip), (1000, NIC_IP), (2000, eip), (2000, NIC_IP)];
        assert_eq!(run(&mut schedule, start, Duration::from_secs(29)), expected);
    }

    #[test]
    fn nic_ip_has_its_beat_and_all_have_their_turn_for_ever() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.adopt(addresses(9));
        schedule.own(start, NIC_IP, &addresses(9));
        let all = run(&mut schedule, start, Duration::from_secs(900));
        let beats = all.iter().filter(|(_, address)| *address == NIC_IP).count();
        assert!((29..=34).contains(&beats), "{beats}");
        for eip in addresses(9).iter().filter(|address| **address != NIC_IP) {
            let turns = all.iter().filter(|(_, address)| address == eip).count();
            assert!((3..=4).contains(&turns), "{eip}: {turns}");
        }
    }

    #[test]
    fn turns_take_a_tenth_of_the_rate_at_most() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.adopt(addresses(10_000));
        schedule.own(start, NIC_IP, &addresses(10_000));
        let all = run(&mut schedule, start, Duration::from_secs(60));
        assert!(all.len() <= 310, "{}", all.len());
    }

    #[test]
    fn anew_is_nic_ip_at_once_and_the_others_behind_what_is_new() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.adopt(addresses(2));
        let new = Ipv4Addr::new(10, 1, 0, 0);
        let owned: BTreeSet<_> = addresses(2).into_iter().chain([new]).collect();
        schedule.own(start, NIC_IP, &owned);
        schedule.anew(start);
        assert_eq!(schedule.urgent(start), Some(NIC_IP));
        schedule.announced(start, NIC_IP, 100);
        assert_eq!(schedule.urgent(start), Some(new));
        schedule.announced(start, new, 100);
        assert_eq!(schedule.urgent(start), None);
        assert_eq!(schedule.repeat(start), Some(Ipv4Addr::new(10, 0, 0, 0)));
    }

    #[test]
    fn what_is_owned_no_more_is_forgotten_and_what_was_not_sent_is_not_done() {
        let (start, mut schedule) = (Instant::now(), Schedule::default());
        schedule.own(start, NIC_IP, &addresses(1));
        schedule.own(start, NIC_IP, &BTreeSet::from([NIC_IP]));
        assert_eq!(schedule.urgent(start), Some(NIC_IP));
        assert_eq!(schedule.urgent(start), Some(NIC_IP), "until it was announced");
        schedule.announced(start, NIC_IP, 100);
        assert_eq!((schedule.urgent(start), schedule.repeat(start)), (None, None));
    }
}
