//! Defends what is ours (RFC 5227 section 2.4 (c)): a state machine, the caller brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gateway_common::addr::Mac;

/// An address is defended at most once in this time.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// A conflict is told until nothing of it was heard for this long.
const QUIET: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
struct Conflict {
    mac: Mac,
    heard: Instant,
    defended: Option<Instant>,
    /// It is to be defended now.
    due: bool,
}

/// Conflicts about our addresses.
#[derive(Debug, Default)]
pub(super) struct Defence {
    conflicts: BTreeMap<Ipv4Addr, Conflict>,
    count: u64,
}

impl Defence {
    /// Forgets what is owned no more.
    pub(super) fn retain(&mut self, owned: &BTreeSet<Ipv4Addr>) {
        self.conflicts.retain(|address, _| owned.contains(address));
    }

    /// Somebody with this MAC uses one of our addresses. Whether that is news.
    pub(super) fn heard(&mut self, now: Instant, address: Ipv4Addr, mac: Mac) -> bool {
        self.count += 1;
        let before = self.conflicts.get(&address).copied();
        let defended = before.and_then(|conflict| conflict.defended);
        let due = defended.is_none_or(|at| now.saturating_duration_since(at) >= DEFEND_INTERVAL);
        self.conflicts.insert(address, Conflict { mac, heard: now, defended, due });
        before.is_none_or(|conflict| conflict.mac != mac)
    }

    /// The next address to announce.
    pub(super) fn due(&self) -> Option<Ipv4Addr> {
        self.conflicts.iter().find(|(_, conflict)| conflict.due).map(|(address, _)| *address)
    }

    /// It was announced.
    pub(super) fn announced(&mut self, now: Instant, address: Ipv4Addr) {
        if let Some(conflict) = self.conflicts.get_mut(&address) {
            (conflict.due, conflict.defended) = (false, Some(now));
        }
    }

    /// Forgets conflicts that are over. Whether there were such.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let before = self.conflicts.len();
        self.conflicts.retain(|_, conflict| now.saturating_duration_since(conflict.heard) < QUIET);
        self.conflicts.len() < before
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.conflicts.values().map(|conflict| conflict.heard + QUIET).min()
    }

    /// Who uses which of our addresses.
    pub(super) fn contested(&self) -> impl Iterator<Item = (Ipv4Addr, Mac)> {
        self.conflicts.iter().map(|(address, conflict)| (*address, conflict.mac))
    }

    /// Conflicting packets so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_defended_at_once_and_then_once_in_ten_seconds() {
        let (start, eip) = (Instant::now(), Ipv4Addr::new(192, 168, 100, 101));
        let (mut defence, mut defended) = (Defence::default(), Vec::new());
        for second in 0..25 {
            let now = start + Duration::from_secs(second);
            assert_eq!(defence.heard(now, eip, Mac([2; 6])), second == 0, "news once");
            if let Some(address) = defence.due() {
                assert_eq!(address, eip);
                defence.announced(now, address);
                defended.push(second);
            }
        }
        assert_eq!((defended, defence.count()), (vec![0, 10, 20], 25));
        assert!(defence.heard(start + Duration::from_secs(25), eip, Mac([4; 6])), "somebody else");
        assert!(!defence.settle(start + Duration::from_secs(144)));
        assert_eq!(defence.next(), Some(start + Duration::from_secs(145)));
        assert!(defence.settle(start + Duration::from_secs(145)));
        assert_eq!(defence.contested().count(), 0);
    }

    #[test]
    fn what_is_not_ours_is_not_defended() {
        let (start, eip) = (Instant::now(), Ipv4Addr::new(192, 168, 100, 101));
        let mut defence = Defence::default();
        defence.heard(start, eip, Mac([2; 6]));
        defence.retain(&BTreeSet::new());
        assert_eq!(defence.due(), None);
    }
}
