//! Lookups that must not wait for the disk: reader threads read what is not in memory.
//!
//! ```text
//! lookup_async ─► in memory, or nowhere ─► at once
//!                    └ cold ─► a reader, of a few ─► read with its checksum ─► hit
//!                                 └ the disk takes too long, or hangs ─► miss
//! ```
//!
//! Few entries are cold: those of an earlier process, once, and those whose pages the system has taken
//! away. So threads start when needed and end when idle. One of them
//! never reads: it ends waits that take too long.

use super::{Cache, CacheKey, Entry, Lookup, Use, lock};
use crate::sync::{Condvar, Mutex, MutexGuard, thread};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use std::{io, mem};

/// Upper bound of a lookup's wait for the disk. If the disk is slower than this, asking the
/// provider is faster.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Reads at once: as many as keep a disk busy.
const READS_MAX: usize = 16;

/// The readers, and the thread that looks at the clock.
const THREADS_MAX: usize = READS_MAX + 1;

/// Lookups that wait at once. Further ones are misses.
pub(super) const WAITING_MAX: usize = 1024;

/// A thread ends after this time without a read.
const IDLE_MAX: Duration = Duration::from_secs(10);

impl Cache {
    /// As [`lookup`](Self::lookup), for async callers: another thread reads from the disk if
    /// needed. It is a miss if that takes longer than a quarter of a second, or if an earlier read
    /// that did still hangs. Works in any async runtime.
    pub async fn lookup_async(&self, key: &CacheKey, now_ms: u64) -> Lookup {
        Lookup::of(self.find_async(key, Use::Hit, now_ms).await, now_ms)
    }

    /// As [`contains`](Self::contains), in the manner of [`lookup_async`](Self::lookup_async).
    pub async fn contains_async(&self, key: &CacheKey, now_ms: u64) -> bool {
        let found = self.find_async(key, Use::None, now_ms).await;
        found.is_some_and(|entry| !entry.is_expired(now_ms))
    }

    async fn find_async(&self, key: &CacheKey, counts_as: Use, now_ms: u64) -> Option<Entry> {
        if let Ok(found) = self.shared.find_now(key, counts_as, now_ms) {
            return found;
        }
        let (shared, key) = (Arc::clone(&self.shared), *key);
        let read = Box::new(move || shared.find(&key, counts_as, now_ms));
        let waiting = self.shared.readers.begin(read)?;
        poll_fn(|context| waiting.poll(context.waker())).await
    }
}

/// The threads that read. They end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Readers(Arc<Room>);

#[derive(Debug, Default)]
struct Room {
    desk: Mutex<Desk>,
    called: Condvar,
}

#[derive(Default)]
struct Desk {
    /// Reads not begun yet; at most [`WAITING_MAX`].
    reads: VecDeque<Read>,
    /// Waiting lookups by their deadline; at most [`WAITING_MAX`].
    waiting: VecDeque<(Instant, Arc<Waiting>)>,
    threads: usize,
    /// Threads that read.
    busy: usize,
    /// Threads whose read is overdue.
    hanging: usize,
    /// Reads that took too long, or were not begun because others did.
    given_up: u64,
    /// In place of [`WAIT_MAX`], for tests on a busy machine.
    wait_max: Option<Duration>,
    is_over: bool,
}

struct Read {
    what: Box<dyn FnOnce() -> Option<Entry> + Send>,
    waiting: Arc<Waiting>,
}

/// A lookup that waits for its read.
#[derive(Debug, Default)]
struct Waiting(Mutex<State>);

#[derive(Debug)]
enum State {
    /// No thread reads yet.
    Queued(Option<Waker>),
    /// A thread reads.
    Begun(Option<Waker>),
    Done(Option<Entry>),
    /// It took too long.
    GivenUp,
}

impl Default for State {
    fn default() -> Self {
        Self::Queued(None)
    }
}

impl Waiting {
    fn poll(&self, by: &Waker) -> Poll<Option<Entry>> {
        match &mut *lock(&self.0) {
            State::Queued(waker) | State::Begun(waker) => {
                *waker = Some(by.clone());
                Poll::Pending
            }
            State::Done(entry) => Poll::Ready(entry.take()),
            State::GivenUp => Poll::Ready(None),
        }
    }

    /// Whether a lookup still waits.
    fn begin(&self) -> bool {
        let mut state = lock(&self.0);
        let State::Queued(waker) = &mut *state else {
            return false;
        };
        *state = State::Begun(waker.take());
        true
    }

    fn is_settled(&self) -> bool {
        matches!(*lock(&self.0), State::Done(_) | State::GivenUp)
    }
}

impl Readers {
    /// Queues a read. `None` if waiting for it is useless.
    fn begin(&self, what: Box<dyn FnOnce() -> Option<Entry> + Send>) -> Option<Arc<Waiting>> {
        let mut desk = lock(&self.0.desk);
        desk.forget_settled();
        let is_full = desk.waiting.len().max(desk.reads.len()) >= WAITING_MAX;
        if desk.hanging > 0 || is_full || !self.has_hands(&mut desk) {
            desk.given_up += 1;
            return None;
        }
        let waiting = Arc::<Waiting>::default();
        let until = Instant::now() + desk.wait_max.unwrap_or(WAIT_MAX);
        desk.waiting.push_back((until, Arc::clone(&waiting)));
        desk.reads.push_back(Read {
            what,
            waiting: Arc::clone(&waiting),
        });
        drop(desk);
        self.0.called.notify_one();
        Some(waiting)
    }

    /// Starts a thread for one more read, and one for the clock, within the bounds. Whether the
    /// threads can do any read at all.
    fn has_hands(&self, desk: &mut Desk) -> bool {
        let wanted = (desk.busy + desk.reads.len() + 2).min(THREADS_MAX);
        while desk.threads < wanted && self.start_thread().is_ok() {
            desk.threads += 1;
        }
        desk.threads >= 2
    }

    fn start_thread(&self) -> io::Result<()> {
        let room = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("reflex-reader".into());
        thread.spawn(move || room.work()).map(drop)
    }

    /// Sets the longest wait of lookups, and shortens the waits under way to it.
    #[cfg(test)]
    pub(super) fn wait_at_most(&self, most: Duration) {
        let mut desk = lock(&self.0.desk);
        desk.wait_max = Some(most);
        let latest = Instant::now() + most;
        for (until, _) in &mut desk.waiting {
            *until = latest.min(*until);
        }
        drop(desk);
        self.0.called.notify_all();
    }

    /// Lookups that were misses because the disk took too long.
    pub(super) fn given_up(&self) -> u64 {
        lock(&self.0.desk).given_up
    }

    /// The disk's trouble, if any.
    pub(super) fn trouble(&self) -> Option<String> {
        let hanging = lock(&self.0.desk).hanging;
        (hanging > 0).then(|| "the disk hangs: a read does not come back".into())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        lock(&self.0.desk).is_over = true;
        self.0.called.notify_all();
    }
}

impl Room {
    /// The loop of each thread.
    fn work(&self) {
        let mut desk = lock(&self.desk);
        while !desk.is_over {
            desk = self.give_up_overdue(desk);
            if desk.threads - desk.busy > 1
                && let Some(read) = desk.reads.pop_front()
            {
                desk.busy += 1;
                drop(desk);
                let hung = read.run();
                desk = lock(&self.desk);
                desk.busy -= 1;
                desk.hanging -= usize::from(hung);
                continue;
            }
            let until = desk.waiting.front().map(|(until, _)| *until);
            let wait = until.map_or(IDLE_MAX, |it| it.saturating_duration_since(Instant::now()));
            let woken = self.called.wait_timeout(desk, wait);
            let (woken, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
            desk = woken;
            if timeout.timed_out() && until.is_none() && desk.waiting.is_empty() {
                break;
            }
        }
        desk.threads -= 1;
    }

    /// Ends the overdue waits.
    fn give_up_overdue<'a>(&'a self, mut desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        let now = Instant::now();
        loop {
            desk.forget_settled();
            let overdue = desk.waiting.pop_front_if(|(until, _)| *until <= now);
            let Some((_, waiting)) = overdue else {
                return desk;
            };
            let waker = {
                let mut state = lock(&waiting.0);
                match mem::replace(&mut *state, State::GivenUp) {
                    State::Queued(waker) => waker,
                    State::Begun(waker) => {
                        desk.hanging += 1;
                        waker
                    }
                    // The read returned just before its deadline.
                    settled => {
                        *state = settled;
                        continue;
                    }
                }
            };
            desk.given_up += 1;
            // It may do anything.
            drop(desk);
            wake(waker);
            desk = lock(&self.desk);
        }
    }
}

impl Desk {
    fn forget_settled(&mut self) {
        while self
            .waiting
            .pop_front_if(|(_, waiting)| waiting.is_settled())
            .is_some()
        {}
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("threads", &self.threads)
            .field("busy", &self.busy)
            .field("hanging", &self.hanging)
            .finish_non_exhaustive()
    }
}

impl Read {
    /// Reads, if a lookup still waits; whether the read was overdue.
    fn run(self) -> bool {
        let Self { what, waiting } = self;
        if !waiting.begin() {
            return false;
        }
        // Drop the references to the cache before the lookup learns the outcome.
        let entry = what();
        let mut state = lock(&waiting.0);
        let State::Begun(waker) = &mut *state else {
            return true;
        };
        let waker = waker.take();
        *state = State::Done(entry);
        drop(state);
        wake(waker);
        false
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
