//! When to stop asking a daemon that does not answer.

/// After this many failures in a row, the daemon is not asked for a while.
const FAILURES_MAX: u32 = 5;

/// The pause. After it one request tries again, and the next only after another pause.
const PAUSE_MS: u64 = 1000;

/// Counts failed calls to the daemon.
#[derive(Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// While it is open: when the next call may be tried.
    closed_from_ms: Option<u64>,
}

impl Breaker {
    /// Whether a call may be made now. An open breaker lets one call through after each pause, as a
    /// probe.
    pub fn allows(&mut self, now_ms: u64) -> bool {
        match self.closed_from_ms {
            None => true,
            // A clock that was set back ends the pause.
            Some(from) if now_ms < from && from - now_ms <= PAUSE_MS => false,
            Some(_) => {
                self.closed_from_ms = Some(now_ms + PAUSE_MS);
                true
            }
        }
    }

    /// The daemon has answered, also with a refusal.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The daemon has not answered, or its reply is invalid.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.closed_from_ms = Some(now_ms + PAUSE_MS);
        }
    }

    /// Whether the breaker is open.
    pub fn is_open(&self) -> bool {
        self.closed_from_ms.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_at_the_first_answer() {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed(0);
            assert!(breaker.allows(0));
        }
        breaker.answered();
        for _ in 0..FAILURES_MAX {
            assert!(breaker.allows(0));
            breaker.failed(0);
        }
        assert!(breaker.is_open() && !breaker.allows(PAUSE_MS - 1));
        assert!(breaker.allows(PAUSE_MS));
        assert!(!breaker.allows(PAUSE_MS + 1), "one try in each pause");
        breaker.answered();
        assert!(!breaker.is_open() && breaker.allows(PAUSE_MS + 2));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_it_open() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            breaker.failed(1_000_000);
        }
        assert!(breaker.allows(5));
    }
}
