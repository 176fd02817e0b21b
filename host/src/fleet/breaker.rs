//! Keeps lookups from a Redis that does not answer in time.
//!
//! ```text
//! closed ─► five failures in a row ─► open ─► a poll in time ─► closed
//! ```
//!
//! Failures are answers that come too late, errors, and lookups that found all places taken: each costs a
//! client its time. The poll that an edge makes each second is the one probe, so no client pays for probing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    is_open: AtomicBool,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// An answer came in time.
    pub(super) fn succeeded(&self) {
        // Most lookups only read.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// `why` is for the log, which has one line for each change.
    pub(super) fn failed(&self, why: &str) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= FAILURES_MAX && !self.is_open.swap(true, Relaxed) {
            tracing::warn!(
                why,
                "the fleet's engine does not answer in time: lookups go on without it"
            );
        }
    }

    /// A poll was answered as fast as a lookup has to be.
    pub(super) fn probed(&self) {
        if self.is_open() {
            self.failures.store(0, Relaxed);
            if self.is_open.swap(false, Relaxed) {
                tracing::info!("the fleet's engine answers in time again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_a_poll_in_time_closes_it() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed("late");
        }
        breaker.succeeded();
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.is_open());
            breaker.failed("late");
        }
        assert!(!breaker.is_open());
        breaker.failed("late");
        assert!(breaker.is_open());
        // A late answer to an earlier lookup is no probe.
        breaker.succeeded();
        assert!(breaker.is_open());
        breaker.probed();
        assert!(!breaker.is_open());
        breaker.failed("late");
        assert!(!breaker.is_open());
    }
}
