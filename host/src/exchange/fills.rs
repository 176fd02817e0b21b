//! The fills under way, so that requests for the same answer call the provider once.
//!
//! ```text
//! join ─► Lead: asks the provider ─► share ─► its client and its followers read one body
//!    │                           └► fail, or dropped without an answer
//!    └──► waits for a leader's head ─► follows, gets the same error, or looks again
//! ```
//!
//! Edges take part (`fills/edges.rs`). An edge's answer reaches its followers through the cache
//! only, so they look there. So does an edge that waits for a leader here.
//!
//! A fill is a promise, not a lock: a follower that has waited long enough asks the provider
//! itself, and a leader that is gone without an answer is forgotten at once. No request joins a
//! fill from before a purge.

mod audience;
#[cfg_attr(
    not(any(feature = "serve", test)),
    expect(dead_code, reason = "only the daemon has edges")
)]
mod edges;

pub(crate) use audience::Audience;
use audience::Waiter;
#[cfg(feature = "serve")]
pub(crate) use edges::{Claim, Waited};

use crate::cache::{Cache, CacheKey, Mark, PurgeListener, Purged, Purges};
use crate::exchange::error::Error;
use crate::exchange::limits::{FillPlace, TenantLimits};
use crate::exchange::shared_body::{Follower, Shared};
use edges::{EdgeFill, Released};
use reflex_llm::Tenant;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// Fills at once. Past it no request leads, and each asks for itself.
const FILLS_MAX: usize = 65_536;

/// Length of the queue of edges' fills, ended ones included, before it is swept: twice the bound,
/// so that each sweep serves that many new fills.
const EDGE_ORDER_MAX: usize = 2 * FILLS_MAX;

/// All fills under way into one cache, led by requests or by edges.
#[derive(Debug)]
pub struct Fills {
    purges: Arc<Purges>,
    slots: Mutex<Slots>,
    /// The followers that wait, of all leaders.
    waiting: AtomicUsize,
    /// Lookups of edges that wait.
    edges_waiting: AtomicUsize,
    limits: Arc<TenantLimits>,
}

#[derive(Debug, Default)]
struct Slots {
    fills: HashMap<CacheKey, Slot>,
    /// Of the last fill that began.
    number: u64,
    /// The fills of edges by number, oldest first, which are forgotten in this order; including
    /// some that have ended. At most [`EDGE_ORDER_MAX`].
    edge_order: VecDeque<(u64, CacheKey)>,
    released: Released,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    place: FillPlace,
    since: Mark,
    by: By,
    /// Signals that an answer is in the cache. Dropped at the fill's end: waiting is useless then.
    over: watch::Sender<()>,
}

/// The leader, and how far it is.
#[derive(Debug)]
enum By {
    /// The leader has asked; the head has not come yet.
    Asking(watch::Receiver<Stage>, Arc<Audience>),
    /// The body is under way.
    Sharing(Weak<Shared>),
    /// Not here.
    Edge(EdgeFill),
}

/// How far a leader has come.
#[derive(Clone, Debug)]
enum Stage {
    Asking,
    Sharing(Arc<Shared>),
    /// The provider failed; the followers get the same error.
    Failed(Error),
    /// The answer may not be shared.
    Unshared,
    /// The leader is gone, or has found an answer in the cache.
    Gone,
}

/// What to do with a request whose answer is not in the cache.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Ask the provider, for the followers too.
    Lead(Lead),
    /// Read the leader's answer.
    Follow(Follower),
    /// The provider has just failed.
    Failed(Error),
    /// The leader is gone: look into the cache, and join again.
    Again,
    /// Ask the provider, without followers.
    Alone,
    /// The same, past the cache: the tenant has as many fills as it may have.
    Over,
}

/// A fill for no client.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Ask the provider.
    Lead(Lead),
    /// It is under way already.
    ByAnother,
    /// There are too many, of all or of its tenant.
    NoRoom,
}

/// The leader's duty to fetch an answer. Dropped without an outcome, it makes the followers look
/// again.
#[cfg_attr(
    not(feature = "http"),
    expect(unreachable_pub, reason = "only guests have a name for it")
)]
#[derive(Debug)]
pub struct Lead {
    fill: Arc<Fill>,
    since: Mark,
    stage: watch::Sender<Stage>,
    audience: Arc<Audience>,
}

/// A fill that is led here. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Fill {
    fills: Arc<Fills>,
    key: CacheKey,
    number: u64,
}

impl Fills {
    /// No fills yet. All users of this cache must share it.
    pub fn new(cache: &Cache) -> Arc<Self> {
        let fills = Arc::new(Self {
            purges: Arc::clone(cache.purges()),
            slots: Mutex::default(),
            waiting: AtomicUsize::new(0),
            edges_waiting: AtomicUsize::new(0),
            limits: Arc::default(),
        });
        cache.purges().listen(&fills);
        fills
    }

    /// Requests that wait for another one's answer to begin.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What each tenant may ask.
    pub(crate) fn limits(&self) -> &Arc<TenantLimits> {
        &self.limits
    }

    /// Joins the fill of a key, or begins it. A follower waits for the leader's head, at most
    /// `wait_max`.
    pub(crate) async fn join(
        self: &Arc<Self>,
        key: CacheKey,
        tenant: Tenant,
        wait_max: Duration,
    ) -> Turn {
        let (mut stage, _waiter) = match self.begin_or_wait(key, tenant) {
            Joined::Turn(turn) => return turn,
            Joined::Asking(stage, waiter) => (stage, waiter),
            Joined::Else(mut over, most, _waiter) => {
                // An error means that the sender is gone: the fill has ended.
                let most = most.map_or(wait_max, |most| most.min(wait_max));
                return match tokio::time::timeout(most, over.changed()).await {
                    Ok(_) => Turn::Again,
                    Err(_) => Turn::Alone,
                };
            }
        };
        let decided = stage.wait_for(|stage| !matches!(stage, Stage::Asking));
        match tokio::time::timeout(wait_max, decided).await {
            Err(_) => Turn::Alone,
            // The leader is gone without an outcome.
            Ok(Err(_)) => Turn::Again,
            Ok(Ok(stage)) => match &*stage {
                // It may have grown too long to be read from its first byte.
                Stage::Sharing(shared) => shared.follower().map_or(Turn::Alone, Turn::Follow),
                Stage::Failed(error) => Turn::Failed(error.clone()),
                Stage::Unshared => Turn::Alone,
                Stage::Gone | Stage::Asking => Turn::Again,
            },
        }
    }

    /// Begins the fill of a key, unless it is under way or may not begin.
    pub(crate) fn begin(self: &Arc<Self>, key: CacheKey, tenant: Tenant) -> Begun {
        match self.begin_or_wait(key, tenant) {
            Joined::Turn(Turn::Lead(lead)) => Begun::Lead(lead),
            Joined::Turn(Turn::Alone | Turn::Over) => Begun::NoRoom,
            Joined::Turn(_) | Joined::Asking(..) | Joined::Else(..) => Begun::ByAnother,
        }
    }

    fn begin_or_wait(self: &Arc<Self>, key: CacheKey, tenant: Tenant) -> Joined {
        let since = self.purges.now();
        let (shared, over) = {
            let mut slots = self.lock();
            let Some(slot) = self.current(&mut slots, &key) else {
                let has_room = slots.has_room();
                return Joined::Turn(match has_room.then(|| self.limits.begin(&tenant.0)) {
                    None => Turn::Alone,
                    Some(None) => Turn::Over,
                    Some(Some(place)) => Turn::Lead(slots.lead(self, key, place, since)),
                });
            };
            let over = slot.over.subscribe();
            match &slot.by {
                By::Asking(stage, audience) => {
                    let waiter = Waiter::new(self, Some(audience));
                    return Joined::Asking(stage.clone(), waiter);
                }
                By::Edge(edge) => {
                    let waiter = Waiter::new(self, None);
                    return Joined::Else(over, Some(edge.left()), waiter);
                }
                By::Sharing(shared) => (shared.upgrade(), over),
            }
        };
        let open = shared.filter(|shared| shared.is_open());
        match open.and_then(|shared| shared.follower()) {
            Some(follower) => Joined::Turn(Turn::Follow(follower)),
            // It has been read, and is being stored.
            None => Joined::Else(over, None, Waiter::new(self, None)),
        }
    }

    /// The fill of a key that can be waited for. Drops a fill that is over or purged.
    fn current<'s>(&self, slots: &'s mut Slots, key: &CacheKey) -> Option<&'s Slot> {
        let Entry::Occupied(slot) = slots.fills.entry(*key) else {
            return None;
        };
        let Slot {
            place, since, by, ..
        } = slot.get();
        let is_over = match by {
            By::Edge(edge) => edge.is_forgotten(),
            By::Asking(..) | By::Sharing(_) => false,
        };
        // A request after a purge must not join a fill from before it. Purges of a process that has the folder
        // by now are not known here.
        let purges = &self.purges;
        if is_over || purges.has_left() || purges.has_met(key, &place.tenant, *since) {
            slot.remove();
            return None;
        }
        Some(slot.into_mut())
    }

    /// An answer is in the cache: its followers look there. An edge's fill is over.
    pub(crate) fn answered(&self, key: &CacheKey) {
        let mut slots = self.lock();
        if let Entry::Occupied(slot) = slots.fills.entry(*key) {
            match slot.get().by {
                By::Edge(_) => drop(slot.remove()),
                By::Asking(..) | By::Sharing(_) => drop(slot.get().over.send(())),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way on for a request that joins.
enum Joined {
    Turn(Turn),
    /// A leader here decides.
    Asking(watch::Receiver<Stage>, Waiter),
    /// Wait for the fill's end, at most this long.
    Else(watch::Receiver<()>, Option<Duration>, Waiter),
}

impl Slots {
    /// Makes room: drops forgotten fills at the head of the queue. Each fill is queued and dropped
    /// once.
    fn has_room(&mut self) -> bool {
        while self.fills.len() >= FILLS_MAX
            && let Some((number, key)) = self.edge_order.front().copied()
        {
            match self.fills.get(&key) {
                Some(slot) if slot.number == number => match &slot.by {
                    By::Edge(edge) if !edge.is_forgotten() => return false,
                    _ => drop(self.fills.remove(&key)),
                },
                _ => {}
            }
            self.edge_order.pop_front();
        }
        self.fills.len() < FILLS_MAX
    }

    /// An edge leads from now on.
    fn begin_edge(&mut self, key: CacheKey, place: FillPlace, since: Mark, fill: EdgeFill) {
        let number = self.begin(key, place, since, By::Edge(fill));
        if self.edge_order.len() >= EDGE_ORDER_MAX {
            let fills = &self.fills;
            let is_there = |(number, key): &(u64, CacheKey)| {
                fills.get(key).is_some_and(|slot| slot.number == *number)
            };
            self.edge_order.retain(is_there);
        }
        self.edge_order.push_back((number, key));
    }

    fn lead(&mut self, fills: &Arc<Fills>, key: CacheKey, place: FillPlace, since: Mark) -> Lead {
        let stage = watch::Sender::new(Stage::Asking);
        let audience = Arc::default();
        let by = By::Asking(stage.subscribe(), Arc::clone(&audience));
        Lead {
            fill: Arc::new(Fill {
                fills: Arc::clone(fills),
                key,
                number: self.begin(key, place, since, by),
            }),
            since,
            stage,
            audience,
        }
    }

    fn begin(&mut self, key: CacheKey, place: FillPlace, since: Mark, by: By) -> u64 {
        self.number += 1;
        let slot = Slot {
            number: self.number,
            place,
            since,
            by,
            over: watch::Sender::new(()),
        };
        self.fills.insert(key, slot);
        self.number
    }
}

impl PurgeListener for Fills {
    /// An answer from before the purge is not stored, so waiting for it is useless.
    fn purged(&self, what: &Purged) {
        let mut slots = self.lock();
        match what {
            Purged::Entry(key) => drop(slots.fills.remove(key)),
            Purged::All | Purged::Tenant(_) | Purged::Matching => {
                slots
                    .fills
                    .retain(|key, slot| !what.covers(key, &slot.place.tenant));
            }
        }
    }
}

impl Fill {
    /// The provider has answered, and followers may read the answer.
    fn share(&self, shared: &Arc<Shared>) {
        let mut slots = self.fills.lock();
        let slot = slots.fills.get_mut(&self.key);
        if let Some(slot) = slot.filter(|slot| slot.number == self.number) {
            slot.by = By::Sharing(Arc::downgrade(shared));
        }
    }

    fn end(&self) {
        let mut slots = self.fills.lock();
        let slot = slots.fills.get(&self.key);
        if slot.is_some_and(|slot| slot.number == self.number) {
            slots.fills.remove(&self.key);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lead {
    /// The followers of this fill.
    pub(crate) fn audience(&self) -> Arc<Audience> {
        Arc::clone(&self.audience)
    }

    /// When it began.
    pub(crate) fn since(&self) -> Mark {
        self.since
    }

    /// The fill itself, which goes on for as long as the result is held.
    pub(crate) fn fill(&self) -> Arc<Fill> {
        Arc::clone(&self.fill)
    }

    /// The provider has answered: the followers may read it, and, if `open`, later requests as
    /// well.
    pub(crate) fn share(self, shared: &Arc<Shared>, open: bool) {
        if open {
            self.fill.share(shared);
            self.stage.send_replace(Stage::Sharing(Arc::clone(shared)));
        } else {
            self.end(Stage::Sharing(Arc::clone(shared)));
        }
    }

    /// The provider has answered, for the leader's client only.
    pub(crate) fn keep(self) {
        self.end(Stage::Unshared);
    }

    /// The provider has not answered.
    pub(crate) fn fail(self, error: Error) {
        self.end(Stage::Failed(error));
    }

    fn end(&self, stage: Stage) {
        // In this order: a woken follower must not find the old fill.
        self.fill.end();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheOptions;

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);
    const TENANT: Tenant = Tenant([2; 32]);
    const LONG: Duration = Duration::from_secs(60);

    fn cache() -> Cache {
        Cache::in_memory(&CacheOptions::default())
    }

    fn fills() -> Arc<Fills> {
        Fills::new(&cache())
    }

    async fn lead(fills: &Arc<Fills>) -> Lead {
        match fills.join(KEY, TENANT, LONG).await {
            Turn::Lead(lead) => lead,
            turn => panic!("{turn:?} in place of the lead"),
        }
    }

    /// A follower that waits already when this returns.
    async fn waiter(fills: &Arc<Fills>, wait_max: Duration) -> tokio::task::JoinHandle<Turn> {
        let before = fills.waiting();
        let waiter = tokio::spawn({
            let fills = Arc::clone(fills);
            async move { fills.join(KEY, TENANT, wait_max).await }
        });
        while fills.waiting() == before && !waiter.is_finished() {
            tokio::task::yield_now().await;
        }
        waiter
    }

    #[tokio::test]
    async fn a_follower_gets_the_leaders_error_once_and_the_next_request_leads() {
        let fills = fills();
        let first = lead(&fills).await;
        let waiting = waiter(&fills, LONG).await;
        assert!(first.audience().is_there());
        first.fail(Error::ConnectionRefused);
        let turn = waiting.await.expect("no panic");
        assert!(matches!(turn, Turn::Failed(Error::ConnectionRefused)));
        drop(lead(&fills).await);
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_makes_others_look_again() {
        let fills = fills();
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
    async fn no_follower_waits_longer_than_it_may() {
        let fills = fills();
        let first = lead(&fills).await;
        let waiting = waiter(&fills, Duration::from_millis(1)).await;
        assert!(matches!(waiting.await.expect("no panic"), Turn::Alone));
        first.audience().gone().await;
        assert_eq!(fills.waiting(), 0);
    }

    #[tokio::test]
    async fn no_request_joins_a_fill_from_before_a_purge() {
        let cache = cache();
        let fills = Fills::new(&cache);
        type Purge = fn(&Cache) -> bool;
        let purges: [(Purge, bool); 5] = [
            (|cache| cache.remove(&KEY), true),
            (|cache| cache.remove(&CacheKey::from_bytes([9; 32])), false),
            (|cache| cache.purge_tenant(&TENANT.0).is_ok(), true),
            (|cache| cache.purge_tenant(&[9; 32]).is_ok(), false),
            (|cache| cache.purge_all().is_ok(), true),
        ];
        for (purge, is_meant) in purges {
            let first = lead(&fills).await;
            let before = waiter(&fills, LONG).await;
            purge(&cache);
            let after = waiter(&fills, LONG).await;
            assert_eq!(after.is_finished(), is_meant);
            let second = is_meant.then_some(after);
            if let Some(second) = second {
                let turn = second.await.expect("no panic");
                assert!(matches!(turn, Turn::Lead(_)), "{turn:?}");
                // The end of the first fill does not end the second.
                first.fail(Error::ConnectionRefused);
                assert!(waiter(&fills, Duration::ZERO).await.await.is_ok());
                let still = fills.join(KEY, TENANT, Duration::ZERO).await;
                assert!(matches!(still, Turn::Alone), "{still:?}");
                drop(turn);
            } else {
                first.fail(Error::ConnectionRefused);
            }
            // A request from before the purge still gets the leader's outcome.
            let turn = before.await.expect("no panic");
            assert!(matches!(turn, Turn::Failed(_)), "{turn:?}");
            assert!(fills.lock().fills.is_empty());
        }
    }
}
