//! The progress of one request in a guest.

use crate::cache::{Cache, CacheKey, Mark};
use crate::component::engine::thread_time;
use crate::component::errand::Errand;
use crate::exchange::fills::{Audience, Turn};
use crate::sync::lock;
use reflex_llm::Key;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// What the host has done for a request before its guest had it. The guest gets it when it asks for
/// the same.
#[derive(Debug)]
pub(crate) struct Done {
    /// The request's key, and that of the answer whose turn it is.
    pub(crate) sample: Option<(Key, Key)>,
    /// The fill that the request has joined, and how.
    pub(crate) turn: Option<(CacheKey, Turn)>,
}

/// The progress of one request. Shared by the guest's store and the task that waits for the
/// response.
#[derive(Debug, Default)]
pub struct Progress {
    /// Calls in flight in which the guest waits for the client, the provider or the disk.
    waiting: AtomicU32,
    /// The host's CPU time within the guest's polls, in nanoseconds.
    host_ns: AtomicU64,
    upstream_called: AtomicBool,
    /// When it began, among purges.
    since: OnceLock<Mark>,
    /// The followers of this request's fill.
    audience: Mutex<Option<Arc<Audience>>>,
    /// The client's request, where the host has one to answer.
    errand: OnceLock<Arc<Errand>>,
    done: Mutex<Option<Done>>,
    /// Set when the host's body is asked for its size: see [`HostBody`].
    pub(crate) host_body_asked: AtomicBool,
}

impl Progress {
    /// While the result is held, the guest waits for the host, which is not its own time
    /// (`guest_time.rs`).
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }

    /// When this request began, among purges: at the first call of this.
    pub(crate) fn since(&self, cache: &Cache) -> Mark {
        *self.since.get_or_init(|| cache.purges().now())
    }

    /// This request leads: it may have followers.
    pub(crate) fn lead(&self, audience: Arc<Audience>) {
        *lock(&self.audience) = Some(audience);
    }

    /// The followers of this request's fill, if it leads one.
    pub(crate) fn audience(&self) -> Option<Arc<Audience>> {
        let audience = lock(&self.audience).clone();
        audience.filter(|audience| audience.is_there())
    }

    /// The request that is to be answered, watched from now on.
    pub(crate) fn watch(&self, errand: Errand) {
        // Set once: each request begins with a progress of its own.
        let _ = self.errand.set(Arc::new(errand));
    }

    /// The request that is to be answered, if it is watched.
    pub(crate) fn errand(&self) -> Option<&Arc<Errand>> {
        self.errand.get()
    }

    /// The host has begun with this request already.
    pub(crate) fn begin_with(&self, done: Done) {
        *lock(&self.done) = Some(done);
    }

    /// The answer whose turn it is, if the host has chosen it. Once: a guest that asks again wants
    /// another one.
    pub(crate) fn take_sample(&self, request: &Key) -> Option<Key> {
        let mut done = lock(&self.done);
        let sample = &mut done.as_mut()?.sample;
        let taken = sample.take_if(|(of, _)| of == request)?;
        Some(taken.1)
    }

    /// Whether the host has not found that answer, and has joined its fill, which the guest has
    /// not asked for yet.
    pub(crate) fn has_turn(&self, key: &CacheKey) -> bool {
        let done = lock(&self.done);
        let turn = done.as_ref().and_then(|done| done.turn.as_ref());
        turn.is_some_and(|(of, _)| of == key)
    }

    /// How the request has joined that fill, if it has.
    pub(crate) fn take_turn(&self, key: &CacheKey) -> Option<Turn> {
        let mut done = lock(&self.done);
        let turn = &mut done.as_mut()?.turn;
        let taken = turn.take_if(|(of, _)| of == key)?;
        Some(taken.1)
    }

    /// What the guest did not ask for.
    pub(crate) fn take_done(&self) -> Option<Done> {
        lock(&self.done).take()
    }

    /// The provider was called, for this request or its leader.
    pub(crate) fn call_upstream(&self) {
        self.upstream_called.store(true, Ordering::Relaxed);
    }

    /// Whether the provider was called for this request, successfully or not.
    pub(crate) fn upstream_called(&self) -> bool {
        self.upstream_called.load(Ordering::Relaxed)
    }

    /// Does work of the host for the guest. Neither the work nor its waits count as the guest's
    /// time.
    pub(crate) async fn host<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        let _waiting = self.wait();
        let mut work = pin!(work);
        poll_fn(|cx| {
            let began = thread_time();
            let polled = work.as_mut().poll(cx);
            let used = thread_time().saturating_sub(began).as_nanos();
            let used = u64::try_from(used).unwrap_or(u64::MAX);
            self.host_ns.fetch_add(used, Ordering::Relaxed);
            polled
        })
        .await
    }

    /// The host's CPU time for the guest so far.
    pub(crate) fn host_time(&self) -> Duration {
        Duration::from_nanos(self.host_ns.load(Ordering::Relaxed))
    }

    /// Whether the guest waits for the host.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A wait of the guest that is not its fault. Ends when dropped.
pub(crate) struct Waiting(Arc<Progress>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
