//! The module's one thread of its own that is always there: it wakes requests when their time is
//! over, and has Envoy take the counts.
//!
//! Envoy offers modules no timers, and no worker may wait for one.

use crate::panics::{Hook, caught};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Counts that have changed wait for this long for others, so that busy workers wake nobody for each
/// request.
const GATHERED_FOR: Duration = Duration::from_millis(100);

/// How often Envoy takes figures that change by themselves, such as the health of the disk.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

static CLOCK: Clock = Clock {
    state: Mutex::new(State {
        sleeps: BTreeMap::new(),
        told: Vec::new(),
        runs: false,
    }),
    rings: Condvar::new(),
};

/// Whether counts have changed since Envoy was told.
static HAS_COUNTED: AtomicBool = AtomicBool::new(false);

/// Tells sleeps with the same end apart.
static SLEEPS: AtomicU64 = AtomicU64::new(0);

/// What is told of changed counts, and of the time.
pub(crate) trait Told: Send + Sync {
    /// Now.
    fn tell(&self);
}

struct Clock {
    state: Mutex<State>,
    rings: Condvar,
}

struct State {
    /// Requests that wait, by the end of their wait: a follower each, or a leader, of which there are
    /// at most `WAITERS_MAX` and as many fills as the cache allows.
    sleeps: BTreeMap<(Instant, u64), Waker>,
    told: Vec<Weak<dyn Told>>,
    runs: bool,
}

/// From now on, this is told.
///
/// # Errors
///
/// The system has no more threads.
pub(crate) fn begin(told: Weak<dyn Told>) -> io::Result<()> {
    let mut state = lock();
    state.told.retain(|other| other.strong_count() > 0);
    state.told.push(told);
    if !state.runs {
        let thread = thread::Builder::new().name("reflex-clock".into());
        thread.spawn(|| {
            loop {
                // A waker of ours does not panic; should one, the others still have to be woken.
                caught(Hook::Thread, run);
            }
        })?;
        state.runs = true;
    }
    Ok(())
}

/// A count has changed.
pub(crate) fn note_counts() {
    if !HAS_COUNTED.swap(true, SeqCst) {
        // Under the lock, or the thread might just be about to wait.
        let _state = lock();
        CLOCK.rings.notify_one();
    }
}

fn run() {
    let mut told_at = Instant::now();
    let mut state = lock();
    loop {
        let now = Instant::now();
        let over = state.sleeps.split_off(&(now, u64::MAX));
        let over = std::mem::replace(&mut state.sleeps, over);
        let has_counted = HAS_COUNTED.load(SeqCst);
        let tell_at = told_at
            + if has_counted {
                GATHERED_FOR
            } else {
                LOOKED_AT_EVERY
            };
        let told: Vec<_> = match now >= tell_at {
            true => state.told.iter().filter_map(Weak::upgrade).collect(),
            false => Vec::new(),
        };
        if !over.is_empty() || now >= tell_at {
            drop(state);
            over.into_values().for_each(Waker::wake);
            if now >= tell_at {
                told_at = now;
                HAS_COUNTED.store(false, SeqCst);
                told.iter().for_each(|it| it.tell());
            }
            // The last reference to a configuration may be this one: it closes its cache here.
            drop(told);
            state = lock();
            continue;
        }
        let next = state.sleeps.keys().next().map(|(at, _)| *at);
        let until = next.map_or(tell_at, |at| at.min(tell_at));
        let waited = CLOCK.rings.wait_timeout(state, until - now);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn lock() -> MutexGuard<'static, State> {
    // A panic under this lock leaves nothing half-changed.
    CLOCK.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ready at a moment. Dropped, it wakes nobody.
#[derive(Debug)]
pub(crate) struct Sleep {
    at: (Instant, u64),
}

impl Sleep {
    /// Until then.
    pub(crate) fn until(at: Instant) -> Self {
        Self {
            at: (at, SLEEPS.fetch_add(1, Relaxed)),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at.0 {
            return Poll::Ready(());
        }
        let mut state = lock();
        let first = state.sleeps.keys().next().copied();
        state.sleeps.insert(self.at, context.waker().clone());
        if first.is_none_or(|first| self.at < first) {
            CLOCK.rings.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The waker is dropped after the lock: with it, the last reference to a scheduler may go.
        let _waker = lock().sleeps.remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::task::Wake;

    struct Bell(Mutex<mpsc::Sender<()>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let bell = self.0.lock().expect("no panic");
            bell.send(()).expect("the test waits");
        }
    }

    #[test]
    fn a_sleep_wakes_once_at_its_end_and_not_after_it_was_dropped() {
        thread::spawn(run);
        let (sender, rings) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(Mutex::new(sender))));
        let mut context = Context::from_waker(&waker);
        let soon = Instant::now() + Duration::from_millis(20);
        let mut long = Sleep::until(soon + Duration::from_secs(3600));
        let mut dropped = Sleep::until(soon);
        let mut kept = Sleep::until(soon);
        for sleep in [&mut long, &mut dropped, &mut kept] {
            assert!(Pin::new(sleep).poll(&mut context).is_pending());
        }
        drop(dropped);
        rings.recv().expect("a ring");
        assert!(Instant::now() >= soon);
        assert!(Pin::new(&mut kept).poll(&mut context).is_ready());
        assert!(rings.try_recv().is_err());
        assert_eq!(lock().sleeps.len(), 1);
        drop(long);
        assert!(lock().sleeps.is_empty());
    }
}
