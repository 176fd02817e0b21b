//! The fetches under way, so that concurrent calls for one key fetch once. Plain threads and tasks
//! of any runtime wait for each other.

use crate::cache::{CacheKey, Entry, Mark, Purges};
use reflex_llm::Tenant;
use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Fetches at once. Past it no call leads, and each call fetches for itself.
const FLIGHTS_MAX: usize = 65_536;

/// All fetches under way.
#[derive(Debug)]
pub struct Flights {
    /// After a purge, however it was made, no call joins an earlier fetch.
    purges: Arc<Purges>,
    flights: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    waiting: AtomicUsize,
    waiters_max: usize,
}

/// The outcome of a fetch, for the followers.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is in the cache.
    Found(Entry),
    /// It failed, with an error of the leader's type.
    Failed(Arc<dyn Any + Send + Sync>),
    /// The answer is for the leader only.
    Unshared,
    /// The leader is gone without an outcome.
    Gone,
}

/// What to do about an answer that is not in the cache.
#[derive(Debug)]
pub enum Turn {
    /// Fetch it, for the followers too.
    Lead(Lead),
    /// A leader fetches it already.
    Wait(Waiter),
    /// Fetch it, without followers.
    Alone,
}

#[derive(Debug)]
struct Flight {
    since: Mark,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// Of the tasks that wait, by the number that each has here.
    wakers: HashMap<u64, Waker>,
    next_number: u64,
}

impl Flights {
    /// Of a cache with these purges, for at most so many followers at once.
    pub fn new(purges: Arc<Purges>, waiters_max: usize) -> Self {
        Self {
            purges,
            flights: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiters_max,
        }
    }

    /// Joins the fetch of a key, or begins one.
    pub fn join(self: &Arc<Self>, key: &CacheKey, tenant: &Tenant) -> Turn {
        let since = self.purges.now();
        let mut flights = lock(&self.flights);
        let is_current = |flight: &&Arc<Flight>| !self.purges.has_met(key, &tenant.0, flight.since);
        if let Some(flight) = flights.get(key).filter(is_current) {
            if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiters_max {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                return Turn::Alone;
            }
            return Turn::Wait(Waiter {
                flights: Arc::clone(self),
                flight: Arc::clone(flight),
                number: None,
            });
        }
        // One from before a purge comes to its end without others.
        flights.remove(key);
        if flights.len() >= FLIGHTS_MAX {
            return Turn::Alone;
        }
        let flight = Arc::new(Flight {
            since,
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        flights.insert(*key, Arc::clone(&flight));
        Turn::Lead(Lead {
            flights: Arc::clone(self),
            key: *key,
            flight,
        })
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// The leader's duty to fetch an answer. Dropped without an outcome, it makes the followers look
/// again.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Lead {
    /// When it began. A purge since then keeps the answer from being stored.
    pub fn since(&self) -> Mark {
        self.flight.since
    }

    /// Ends the fetch; `outcome` stores the answer.
    pub fn end(self, outcome: impl FnOnce() -> Outcome) {
        self.land(outcome);
    }

    fn land(&self, outcome: impl FnOnce() -> Outcome) {
        let mut state = lock(&self.flight.state);
        if state.outcome.is_none() {
            let outcome = outcome();
            state.outcome = Some(outcome);
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.flight.ended.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights.flights);
        // An outdated one has left already, and its place may be another's.
        if flights
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            flights.remove(&self.key);
        }
        drop(flights);
        self.land(|| Outcome::Gone);
    }
}

/// A follower: waits for the leader's fetch.
#[derive(Debug)]
pub struct Waiter {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    /// The number of its waker.
    number: Option<u64>,
}

impl Waiter {
    /// Blocks the thread, for at most `wait_max`.
    pub fn block(self, wait_max: Duration) -> Outcome {
        let state = lock(&self.flight.state);
        let (state, _timed_out) = self
            .flight
            .ended
            .wait_timeout_while(state, wait_max, |state| state.outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        // After the wait, the follower fetches for itself.
        state.outcome.clone().unwrap_or(Outcome::Unshared)
    }
}

impl Future for Waiter {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let flight = Arc::clone(&self.flight);
        let mut state = lock(&flight.state);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.next_number += 1;
            state.next_number
        });
        state.wakers.insert(number, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(number) = self.number {
            lock(&self.flight.state).wakers.remove(&number);
        }
    }
}

/// A panic while the lock was held leaves nothing half-changed here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
