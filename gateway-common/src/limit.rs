//! What a CPU does so many times a second, and as many times at once after a quiet second: ICMP errors (RFC 1812
//! section 4.3.2.8), and what else is dear and can be asked for by anybody.
//!
//! A token bucket by the generic cell rate algorithm (ITU-T I.371): each time costs its part of a second, and the costs
//! may run ahead of the clock by one second.

use crate::tables::{Budget, Config};

/// Nanoseconds in a second: as far as costs may run ahead.
const SECOND: u64 = 1_000_000_000;

/// What a CPU does so many times a second at most, each with a budget of its own: a flood of one kind leaves the others theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Limited {
    /// ICMP errors: time exceeded.
    TimeExceeded,
    /// ICMP errors: fragmentation needed.
    FragmentationNeeded,
    /// Copies of packets that become their fragments.
    Fragments,
    /// Packets for the kernel to find a next hop for, and to learn a changed MAC from.
    NextHops,
}

impl Limited {
    /// All of them, in the order of their rows.
    pub const ALL: [Self; 4] =
        [Self::TimeExceeded, Self::FragmentationNeeded, Self::Fragments, Self::NextHops];

    /// The row in the `budgets` table.
    #[inline(always)]
    pub const fn row(self) -> u32 {
        self as u32
    }

    /// How often in a second at most, by `config`; 0 for no limit.
    #[inline(always)]
    pub const fn per_second(self, config: &Config) -> u32 {
        match self {
            Self::TimeExceeded | Self::FragmentationNeeded => config.errors_per_second,
            Self::Fragments | Self::NextHops => config.slow_path_per_second,
        }
    }
}

/// Rows of the `budgets` table.
pub const BUDGET_ROWS: u32 = Limited::ALL.len() as u32;

impl Budget {
    /// Takes `count` of `per_second` at `now_ns` by a clock that never goes back; 0 is no limit. Whether there were so many:
    /// else none is taken.
    #[inline(always)]
    pub const fn take(&mut self, now_ns: u64, per_second: u32, count: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let spent = if self.spent_until_ns > now_ns { self.spent_until_ns } else { now_ns };
        let after = spent.saturating_add(SECOND / per_second as u64 * count as u64);
        if after > now_ns.saturating_add(SECOND) {
            return false;
        }
        self.spent_until_ns = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `asked` at once there are.
    fn taken(budget: &mut Budget, now_ns: u64, per_second: u32, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(budget.take(now_ns, per_second, 1))).sum()
    }

    #[test]
    fn a_burst_takes_a_seconds_errors_and_no_more() {
        for per_second in [1, 3, 7, 1_000, 10_000] {
            let mut budget = Budget::default();
            assert_eq!(taken(&mut budget, 5 * SECOND, per_second, 20_000), per_second);
            // What was not used long ago is not saved up.
            assert_eq!(taken(&mut budget, 500 * SECOND, per_second, 20_000), per_second);
        }
    }

    #[test]
    fn time_brings_errors_back_one_by_one() {
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, 0, 10, 100), 10);
        assert_eq!(taken(&mut budget, SECOND / 10 - 1, 10, 100), 0);
        assert_eq!(taken(&mut budget, SECOND / 10, 10, 100), 1);
        assert_eq!(taken(&mut budget, SECOND / 2, 10, 100), 4);
    }

    #[test]
    fn several_are_taken_at_once_or_not_at_all() {
        let mut budget = Budget::default();
        assert!(budget.take(0, 10, 7));
        assert!(!budget.take(0, 10, 4));
        assert!(budget.take(0, 10, 3));
        assert!(!budget.take(0, 10, 1));
        assert!(!Budget::default().take(0, 10, 11), "more than a second's");
    }

    #[test]
    fn a_flood_gets_the_rate_and_one_burst() {
        let mut budget = Budget::default();
        let ticks = (0..10 * 250).map(|tick| taken(&mut budget, tick * SECOND / 250, 1_000, 50));
        assert_eq!(ticks.sum::<u32>(), 1_000 + 10 * 1_000 - 4);
    }

    #[test]
    fn no_limit_and_a_spent_budget() {
        assert_eq!(taken(&mut Budget { spent_until_ns: u64::MAX }, 7, 0, 9), 9);
        assert_eq!(taken(&mut Budget { spent_until_ns: u64::MAX }, 7, 1_000_000, 9), 0);
    }
}
