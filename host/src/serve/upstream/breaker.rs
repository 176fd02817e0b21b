//! Keeps requests from a provider that does not answer: after several failures in a row, one request at a
//! time finds out whether it answers again.

use crate::sync::lock;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How long the first failures keep requests away; each failed trial doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// A provider that is back gets requests within this time.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The state of one provider.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Failures in a row that open it; 0: it never opens.
    failures_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// When the next request may try.
    until: Instant,
    pause: Duration,
    /// Whether a request tries.
    is_tried: bool,
}

/// A request's leave to go to the provider. Dropped without a verdict, it says nothing of the provider: its
/// client left, or the fault was another's.
#[derive(Debug)]
pub(super) struct Leave {
    breaker: Arc<Breaker>,
    is_trial: bool,
}

impl Breaker {
    /// One that so many failures in a row open; 0: none do.
    pub(super) fn new(failures_max: u32) -> Arc<Self> {
        Arc::new(Self {
            failures_max,
            state: Mutex::default(),
        })
    }

    /// Lets a request go to the provider; none while it is open.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Option<Leave> {
        let is_trial = match &mut self.state().open {
            None => false,
            Some(open) if open.is_tried || now < open.until => return None,
            Some(open) => {
                open.is_tried = true;
                true
            }
        };
        Some(self.leave(is_trial))
    }

    /// Lets a request go to the provider, open or not.
    pub(super) fn admit_anyway(self: &Arc<Self>) -> Leave {
        self.leave(false)
    }

    /// See [`new`](Self::new).
    pub(super) fn failures_max(&self) -> u32 {
        self.failures_max
    }

    /// Whether requests are kept away, but for trials.
    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// Failures in a row, up to now.
    pub(super) fn failures(&self) -> u32 {
        self.state().failures
    }

    fn leave(self: &Arc<Self>, is_trial: bool) -> Leave {
        Leave {
            breaker: Arc::clone(self),
            is_trial,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic leaves none of them half-changed.
        lock(&self.state)
    }
}

impl Leave {
    /// The provider has answered; whether that closes the breaker.
    pub(super) fn answered(self) -> bool {
        let earlier = std::mem::take(&mut *self.breaker.state());
        earlier.open.is_some()
    }

    /// The provider has not answered; whether that opens the breaker.
    pub(super) fn failed(mut self, now: Instant) -> bool {
        let is_trial = std::mem::take(&mut self.is_trial);
        let most = self.breaker.failures_max;
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        let enough = most > 0 && state.failures >= most;
        let pause = match &state.open {
            None if enough => PAUSE,
            Some(open) if is_trial => (open.pause * 2).min(PAUSE_MAX),
            // Requests that were sent before it opened fail later than it did.
            _ => return false,
        };
        let opened = state.open.replace(Open {
            until: now + pause,
            pause,
            is_tried: false,
        });
        opened.is_none()
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(open) = &mut self.breaker.state().open
        {
            open.is_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave(breaker: &Arc<Breaker>, now: Instant) -> Leave {
        breaker.admit(now).expect("it is closed, or may be tried")
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let breaker = Breaker::new(3);
        let start = Instant::now();
        for _ in 0..2 {
            assert!(!leave(&breaker, start).failed(start));
        }
        assert!(!leave(&breaker, start).answered(), "it was not open");
        for _ in 0..2 {
            assert!(!leave(&breaker, start).failed(start), "not three in a row");
        }
        let late = leave(&breaker, start);
        assert!(leave(&breaker, start).failed(start), "the third");
        assert!(breaker.is_open() && breaker.admit(start).is_none());
        assert!(!late.failed(start), "it is open already");
        let later = start + PAUSE;
        let trial = leave(&breaker, later);
        assert!(breaker.admit(later).is_none(), "one at a time");
        assert!(trial.answered() && !breaker.is_open());
        let both = [leave(&breaker, later), leave(&breaker, later)];
        drop(both);
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn each_failed_trial_waits_longer_up_to_a_bound() {
        let breaker = Breaker::new(1);
        let mut now = Instant::now();
        assert!(leave(&breaker, now).failed(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let mut wait = Duration::ZERO;
            let trial = loop {
                match breaker.admit(now + wait) {
                    Some(trial) => break trial,
                    None => wait += PAUSE,
                }
            };
            now += wait;
            waits.push(wait);
            assert!(!trial.failed(now), "it is open already");
        }
        assert!(waits.is_sorted() && waits[0] == PAUSE, "{waits:?}");
        assert_eq!(waits.last(), Some(&PAUSE_MAX));
    }

    /// The client of a trial may leave, and the next request must not wait for it any longer.
    #[test]
    fn a_trial_without_a_verdict_makes_room_for_the_next() {
        let breaker = Breaker::new(1);
        let now = Instant::now();
        assert!(leave(&breaker, now).failed(now));
        let later = now + PAUSE;
        drop(leave(&breaker, later));
        drop(breaker.admit_anyway());
        let trial = leave(&breaker, later);
        // Another one's verdict leaves the trial what it is.
        assert!(!breaker.admit_anyway().failed(later));
        assert!(breaker.admit(later).is_none());
        assert!(trial.answered());
    }

    #[test]
    fn without_a_number_it_never_opens() {
        let breaker = Breaker::new(0);
        let now = Instant::now();
        for _ in 0..1000 {
            assert!(!leave(&breaker, now).failed(now));
        }
        assert_eq!(breaker.failures(), 1000);
    }
}
