//! Which answers are being fetched, so that others who ask the same need not ask the provider.
//!
//! ```text
//! join ─► Lead: asks the provider ─► share ─► its client and all who joined read one body
//!    │                           └► fail, or dropped without an answer
//!    └──► waits for a leader's head ─► follows, gets the same error, or looks again
//! ```
//!
//! A fill is a promise, not a lock: whoever has waited long enough asks the provider itself, and
//! a leader that is gone without an answer is forgotten at once.

use super::sharing::Shared;
use crate::cache::CacheKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;

/// Fills at once. Past it nobody leads, and everybody asks for themselves.
const FILLS_MAX: usize = 65_536;

/// All fills under way.
#[derive(Debug, Default)]
pub struct Fills {
    slots: Mutex<HashMap<CacheKey, Slot>>,
    /// Who waits, for whichever leader.
    waiting: AtomicUsize,
}

#[derive(Debug)]
enum Slot {
    /// The leader has asked, and there is no head yet.
    Asking(watch::Receiver<Stage>, Arc<Audience>),
    /// The body is under way; gone when nobody reads it any more.
    Sharing(Weak<Shared>),
}

/// How far a leader has come.
#[derive(Clone, Debug)]
enum Stage {
    Asking,
    Sharing(Arc<Shared>),
    /// The provider failed, and those who waited with the leader fail with it.
    Failed(ErrorCode),
    /// There is an answer, but not one that may be shared.
    Unshared,
    /// The leader is gone, or has found an answer in the cache.
    Gone,
}

/// What is to be done with a request whose answer is not in the cache.
#[derive(Debug)]
pub(super) enum Turn {
    /// Ask the provider, for all who want to know.
    Lead(Lead),
    /// Read what the leader reads.
    Follow(Arc<Shared>),
    /// The provider has just failed.
    Failed(ErrorCode),
    /// Nobody leads any more: look into the cache, and join again.
    Again,
    /// Ask the provider, for nobody else.
    Alone,
}

/// The duty to fetch an answer. Dropped without an outcome, it makes those who wait look again.
#[derive(Debug)]
pub struct Lead {
    fills: Arc<Fills>,
    key: CacheKey,
    stage: watch::Sender<Stage>,
    audience: Arc<Audience>,
}

impl Fills {
    /// Requests that wait for another one's answer to begin.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Joins the fill of a key, or begins one, and waits for the leader's head for at most so
    /// long.
    pub(super) async fn join(self: &Arc<Self>, key: CacheKey, wait_max: Duration) -> Turn {
        let (mut stage, _waiter) = {
            let mut slots = self.lock();
            let has_room = slots.len() < FILLS_MAX;
            match slots.entry(key) {
                Entry::Vacant(_) if !has_room => return Turn::Alone,
                Entry::Vacant(vacant) => {
                    let lead = Lead::new(self, key);
                    vacant.insert(lead.slot());
                    return Turn::Lead(lead);
                }
                Entry::Occupied(mut slot) => match slot.get() {
                    Slot::Asking(stage, audience) => (stage.clone(), Waiter::new(self, audience)),
                    Slot::Sharing(shared) => match shared.upgrade() {
                        Some(shared) => return Turn::Follow(shared),
                        None => {
                            let lead = Lead::new(self, key);
                            slot.insert(lead.slot());
                            return Turn::Lead(lead);
                        }
                    },
                },
            }
        };
        let decided = stage.wait_for(|stage| !matches!(stage, Stage::Asking));
        match tokio::time::timeout(wait_max, decided).await {
            Err(_) => Turn::Alone,
            // A leader tells an outcome before it goes.
            Ok(Err(_)) => Turn::Again,
            Ok(Ok(stage)) => match &*stage {
                Stage::Sharing(shared) => Turn::Follow(Arc::clone(shared)),
                Stage::Failed(error) => Turn::Failed(error.clone()),
                Stage::Unshared => Turn::Alone,
                Stage::Gone | Stage::Asking => Turn::Again,
            },
        }
    }

    /// Lets nobody join any more. What was joined goes on.
    pub(super) fn close(&self, key: &CacheKey, shared: *const Shared) {
        let mut slots = self.lock();
        let is_its = matches!(slots.get(key),
            Some(Slot::Sharing(other)) if std::ptr::eq(other.as_ptr(), shared));
        if is_its {
            slots.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Slot>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    fn new(fills: &Arc<Fills>, key: CacheKey) -> Self {
        Self {
            fills: Arc::clone(fills),
            key,
            stage: watch::Sender::new(Stage::Asking),
            audience: Arc::default(),
        }
    }

    fn slot(&self) -> Slot {
        Slot::Asking(self.stage.subscribe(), Arc::clone(&self.audience))
    }

    /// Those who wait for this.
    pub(super) fn audience(&self) -> Arc<Audience> {
        Arc::clone(&self.audience)
    }

    /// The provider has answered, and whoever waits may read it; whoever comes later as well, if
    /// it is open to them.
    pub(super) fn share(self, shared: &Arc<Shared>, open: bool) {
        if open {
            let slot = Slot::Sharing(Arc::downgrade(shared));
            self.fills.lock().insert(self.key, slot);
            self.stage.send_replace(Stage::Sharing(Arc::clone(shared)));
        } else {
            self.end(Stage::Sharing(Arc::clone(shared)));
        }
    }

    /// The provider has answered with something for the one who asked only.
    pub(super) fn keep(self) {
        self.end(Stage::Unshared);
    }

    /// The provider has not answered.
    pub(super) fn fail(self, error: ErrorCode) {
        self.end(Stage::Failed(error));
    }

    fn end(&self, stage: Stage) {
        let mut slots = self.fills.lock();
        let is_ours = matches!(slots.get(&self.key),
            Some(Slot::Asking(_, audience)) if Arc::ptr_eq(audience, &self.audience));
        if is_ours {
            slots.remove(&self.key);
        }
        drop(slots);
        self.stage.send_replace(stage);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let is_undecided = matches!(*self.stage.borrow(), Stage::Asking);
        if is_undecided {
            self.end(Stage::Gone);
        }
    }
}

/// Those who wait for one leader.
#[derive(Debug, Default)]
pub(super) struct Audience {
    count: AtomicUsize,
    left: Notify,
}

impl Audience {
    /// Whether anybody waits.
    pub(super) fn is_there(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Resolves when nobody waits any more.
    pub(super) async fn gone(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on no leaving goes unnoticed.
            left.as_mut().enable();
            if !self.is_there() {
                return;
            }
            left.await;
        }
    }
}

/// One of an audience, until dropped.
struct Waiter {
    fills: Arc<Fills>,
    audience: Arc<Audience>,
}

impl Waiter {
    fn new(fills: &Arc<Fills>, audience: &Arc<Audience>) -> Self {
        fills.waiting.fetch_add(1, Ordering::Relaxed);
        audience.count.fetch_add(1, Ordering::SeqCst);
        Self {
            fills: Arc::clone(fills),
            audience: Arc::clone(audience),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.fills.waiting.fetch_sub(1, Ordering::Relaxed);
        self.audience.count.fetch_sub(1, Ordering::SeqCst);
        self.audience.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);
    const LONG: Duration = Duration::from_secs(60);

    async fn lead(fills: &Arc<Fills>) -> Lead {
        match fills.join(KEY, LONG).await {
            Turn::Lead(lead) => lead,
            turn => panic!("{turn:?} in place of the lead"),
        }
    }

    /// Somebody who waits already when this returns.
    async fn waiter(fills: &Arc<Fills>, wait_max: Duration) -> tokio::task::JoinHandle<Turn> {
        let before = fills.waiting();
        let waiter = tokio::spawn({
            let fills = Arc::clone(fills);
            async move { fills.join(KEY, wait_max).await }
        });
        while fills.waiting() == before && !waiter.is_finished() {
            tokio::task::yield_now().await;
        }
        waiter
    }

    #[tokio::test]
    async fn who_waits_gets_the_leaders_error_once_and_the_next_leads_anew() {
        let fills = Arc::<Fills>::default();
        let first = lead(&fills).await;
        let waiting = waiter(&fills, LONG).await;
        assert!(first.audience().is_there());
        first.fail(ErrorCode::ConnectionRefused);
        let turn = waiting.await.expect("no panic");
        assert!(matches!(turn, Turn::Failed(ErrorCode::ConnectionRefused)));
        drop(lead(&fills).await);
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_makes_others_look_again() {
        let fills = Arc::<Fills>::default();
        let first = lead(&fills).await;
        let waiting = waiter(&fills, LONG).await;
        drop(first);
        assert!(matches!(waiting.await.expect("no panic"), Turn::Again));
        let second = lead(&fills).await;
        let waiting = waiter(&fills, LONG).await;
        second.keep();
        assert!(matches!(waiting.await.expect("no panic"), Turn::Alone));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_he_is_told() {
        let fills = Arc::<Fills>::default();
        let first = lead(&fills).await;
        let waiting = waiter(&fills, Duration::from_millis(1)).await;
        assert!(matches!(waiting.await.expect("no panic"), Turn::Alone));
        first.audience().gone().await;
        assert_eq!(fills.waiting(), 0);
    }
}
