//! The metrics, read by one at a time and not more often than is cheap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::Mutex;

use crate::metrics::{Exposition, ScrapeError};

/// Reading takes this share of the time at most, one in so many: with many EIPs a scrape reads
/// large tables.
const SHARE: u32 = 10;
/// What was read is good for this long at least.
const SHORTEST: Duration = Duration::from_millis(100);

/// Text that was read, and until when it is good.
#[derive(Debug)]
struct Read {
    text: Bytes,
    until: Instant,
}

impl Read {
    fn new(text: String, begin: Instant, end: Instant) -> Self {
        let took = end.saturating_duration_since(begin);
        Self { text: text.into(), until: end + (took * SHARE).max(SHORTEST) }
    }

    fn good(&self, now: Instant) -> Option<Bytes> {
        (now < self.until).then(|| self.text.clone())
    }
}

/// Answers scrapes.
#[derive(Debug)]
pub struct Scrapes {
    exposition: Arc<Exposition>,
    last: Mutex<Option<Read>>,
}

impl Scrapes {
    /// Of these metrics.
    pub fn new(exposition: Arc<Exposition>) -> Self {
        Self { exposition, last: Mutex::default() }
    }

    /// The metrics as they are, or were a moment ago.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub(super) async fn text(self: Arc<Self>) -> Result<Bytes, ScrapeError> {
        // Who asked may hang up: the reading goes on, so that the next one waits for it and starts
        // no other.
        tokio::spawn(async move {
            let mut last = self.last.lock().await;
            let begin = Instant::now();
            if let Some(text) = last.as_ref().and_then(|read| read.good(begin)) {
                return Ok(text);
            }
            let text = Arc::clone(&self.exposition).scrape().await?;
            let read = last.insert(Read::new(text, begin, Instant::now()));
            Ok(read.text.clone())
        })
        .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_good_in_proportion_to_what_it_took() {
        let begin = Instant::now();
        for (took, good, stale) in [(0, 99, 101), (5, 104, 106), (300, 3_299, 3_301)] {
            let after = |millis| begin + Duration::from_millis(millis);
            let read = Read::new("x".to_owned(), begin, after(took));
            assert!(read.good(after(good)).is_some() && read.good(after(stale)).is_none(), "{took}");
        }
    }
}
