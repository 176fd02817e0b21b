//! Which answers are being fetched by an edge, so that others who want the same wait for it.
//!
//! A fill is a promise, not a lock: whoever has waited long enough goes to the provider, and a
//! leader that is never heard of again is forgotten.

use crate::cache::CacheKey;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Fills at once. Past it nobody leads, and everybody asks for themselves.
const FILLS_MAX: usize = 65_536;

/// Requests that wait, for whichever fill. Past it they are not made to wait.
const WAITERS_MAX: i64 = 16_384;

/// A leader that has not come back by then does not: a long answer takes a minute.
const FILL_TIME_MAX: Duration = Duration::from_secs(120);

/// All fills under way.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    fills: Mutex<HashMap<CacheKey, Fill>>,
    waiting: Gauge,
}

/// A request that waits, as long as it is counted.
struct Waiter<'g>(&'g Gauge);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
struct Fill {
    id: String,
    began: Instant,
    /// Dropped at the fill's end, which is what the waiters wait for.
    running: watch::Sender<()>,
}

/// Who leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    /// The one who asked.
    Yours,
    /// Somebody else.
    Taken,
    /// Nobody: there are too many fills already.
    Nobody,
}

impl Fills {
    /// None yet; `waiting` will be the number of those who wait for one.
    pub(crate) fn new(waiting: Gauge) -> Self {
        Self {
            fills: Mutex::default(),
            waiting,
        }
    }

    /// Asks to lead the fill of a key, under a name that only the leader knows.
    pub(crate) fn lead(&self, key: &CacheKey, id: &str) -> Lead {
        let mut fills = self.lock();
        if let Some(fill) = fills.get(key) {
            // A leader that asks again still leads.
            if fill.id == id {
                return Lead::Yours;
            }
            if fill.began.elapsed() < FILL_TIME_MAX {
                return Lead::Taken;
            }
        } else if fills.len() == FILLS_MAX {
            fills.retain(|_, fill| fill.began.elapsed() < FILL_TIME_MAX);
            if fills.len() == FILLS_MAX {
                return Lead::Nobody;
            }
        }
        let fill = Fill {
            id: id.to_owned(),
            began: Instant::now(),
            running: watch::Sender::new(()),
        };
        fills.insert(*key, fill);
        Lead::Yours
    }

    /// Ends a fill, if it is the one of that name; those who wait go on.
    pub(crate) fn end(&self, key: &CacheKey, id: &str) -> bool {
        let mut fills = self.lock();
        let is_its = fills.get(key).is_some_and(|fill| fill.id == id);
        is_its && fills.remove(key).is_some()
    }

    /// Ends the fill of a key, whoever leads it: the answer is there.
    pub(crate) fn answered(&self, key: &CacheKey) {
        self.lock().remove(key);
    }

    /// A purge: what a leader of before it brings is not stored, so nobody need wait for that.
    pub(crate) fn forget(&self, key: &CacheKey) {
        self.lock().remove(key);
    }

    /// A purge of more than one key.
    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    /// Waits for the end of a key's fill, at most so long. Returns whether one was under way
    /// when this began, and whether it still is.
    pub(crate) async fn wait(&self, key: &CacheKey, most: Duration) -> Waited {
        let mut running = {
            let fills = self.lock();
            match fills.get(key) {
                Some(fill) if fill.began.elapsed() < FILL_TIME_MAX => fill.running.subscribe(),
                _ => return Waited::NoFill,
            }
        };
        let before = self.waiting.inc();
        let _waiter = Waiter(&self.waiting);
        if before >= WAITERS_MAX {
            return Waited::StillRuns;
        }
        // An error says that the sender is gone, which is the end that is waited for.
        match tokio::time::timeout(most, running.changed()).await {
            Ok(_) => Waited::Ended,
            Err(_) => Waited::StillRuns,
        }
    }

    /// Whether a key's fill is under way.
    pub(crate) fn runs(&self, key: &CacheKey) -> bool {
        let fills = self.lock();
        fills
            .get(key)
            .is_some_and(|fill| fill.began.elapsed() < FILL_TIME_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Fill>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.fills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There was nothing to wait for.
    NoFill,
    /// The fill is at its end, well or not.
    Ended,
    /// It takes longer.
    StillRuns,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);
    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_leads_until_the_end_that_only_the_leader_brings() {
        let fills = Fills::default();
        assert_eq!(fills.lead(&KEY, "a"), Lead::Yours);
        assert_eq!(fills.lead(&KEY, "b"), Lead::Taken);
        assert_eq!(fills.lead(&KEY, "a"), Lead::Yours);
        assert!(!fills.end(&KEY, "b"));
        assert!(fills.runs(&KEY));
        assert!(fills.end(&KEY, "a"));
        assert!(!fills.end(&KEY, "a"));
        assert_eq!(fills.lead(&KEY, "b"), Lead::Yours);
    }

    #[test]
    fn after_a_purge_somebody_else_leads() {
        let fills = Fills::default();
        fills.lead(&KEY, "a");
        fills.forget(&KEY);
        assert_eq!(fills.lead(&KEY, "b"), Lead::Yours);
        assert!(!fills.end(&KEY, "a"));
        fills.forget_all();
        assert!(!fills.runs(&KEY));
    }

    #[tokio::test]
    async fn who_waits_goes_on_at_the_end_or_when_it_has_waited_enough() {
        let fills = Arc::new(Fills::default());
        assert_eq!(fills.wait(&KEY, LONG).await, Waited::NoFill);
        fills.lead(&KEY, "a");
        assert_eq!(fills.wait(&KEY, SHORT).await, Waited::StillRuns);
        let waiting = tokio::spawn({
            let fills = Arc::clone(&fills);
            async move { fills.wait(&KEY, LONG).await }
        });
        // The runtime has one thread: after this the other has begun to wait.
        tokio::task::yield_now().await;
        fills.end(&KEY, "a");
        assert_eq!(waiting.await.expect("no panic"), Waited::Ended);
        assert_eq!(fills.waiting.get(), 0);
    }
}
