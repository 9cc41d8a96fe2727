//! How fast may be written.

use std::time::{Duration, Instant};

/// A token bucket: so many at once, so many a second in the long run.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { per_second: f64::from(per_second), burst, tokens: burst, filled: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.burst);
        self.filled = now;
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Whether a token is there from `now` on, else how long until there is one.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        let missing = 1.0 - (self.tokens + since * self.per_second);
        Duration::from_secs_f64((missing / self.per_second).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_and_refills() {
        let start = Instant::now();
        let mut bucket = Bucket::new(20, 50, start);
        let taken = |bucket: &mut Bucket, now| (0..1000).take_while(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, start), 50);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(500)), 10);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 50);
        let empty = start + Duration::from_secs(3600);
        assert_eq!(bucket.wait(empty), Duration::from_millis(50));
        assert_eq!(bucket.wait(empty + Duration::from_millis(50)), Duration::ZERO);
    }
}
