//! Edges as leaders and followers.
//!
//! An edge that leads and does not come back is forgotten. A cancelled lookup never leads, even if
//! it arrives after its cancellation.

use crate::cache::CacheKey;
use crate::exchange::fills::{By, Fills};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Lookups that wait, of all fills. Past it lookups do not wait.
const WAITERS_MAX: usize = 16_384;

/// After this time a leader is forgotten: a long answer takes a minute.
const FILL_TIME_MAX: Duration = Duration::from_secs(120);

/// Remembered fills that were given back before they were asked for.
const RELEASED_MAX: usize = 4096;

/// How long a cancellation that overtook its lookup is remembered. On one machine, milliseconds
/// would do.
const RELEASED_TIME_MAX: Duration = Duration::from_secs(30);

/// A fill that an edge leads.
#[derive(Debug)]
pub(crate) struct EdgeFill {
    /// A name that only the leader knows.
    id: String,
    began: Instant,
}

impl EdgeFill {
    /// How long its leader may yet come back.
    pub(crate) fn left(&self) -> Duration {
        FILL_TIME_MAX.saturating_sub(self.began.elapsed())
    }

    /// Whether its leader will not come back any more.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.left().is_zero()
    }
}

/// Fills that were given back before they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Released {
    at: HashMap<(CacheKey, String), Instant>,
    /// In the order in which they are forgotten; with some that are gone already.
    order: VecDeque<(Instant, (CacheKey, String))>,
}

impl Released {
    fn remember(&mut self, key: &CacheKey, id: &str) {
        while let Some((at, _)) = self.order.front()
            && at.elapsed() >= RELEASED_TIME_MAX
            && let Some((at, name)) = self.order.pop_front()
        {
            if self.at.get(&name) == Some(&at) {
                self.at.remove(&name);
            }
        }
        if self.order.len() < RELEASED_MAX {
            let (at, name) = (Instant::now(), (*key, id.to_owned()));
            self.order.push_back((at, name.clone()));
            self.at.insert(name, at);
        }
    }

    /// Whether that fill was given back. Answers so once.
    fn take(&mut self, key: &CacheKey, id: &str) -> bool {
        if self.at.is_empty() {
            return false;
        }
        let at = self.at.remove(&(*key, id.to_owned()));
        at.is_some_and(|at| at.elapsed() < RELEASED_TIME_MAX)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.order.len()
    }
}

/// The leader of a fill.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The edge that asked.
    Yours,
    /// Another request.
    Taken,
    /// No request: too many fills are under way, of all or of the tenant, or the edge has cancelled its
    /// lookup.
    NotLed,
}

/// The outcome of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// No fill was under way.
    NoFill,
    /// The fill has ended, with or without an answer, or the answer came before its end.
    Ended,
    /// It takes longer.
    StillRuns,
}

impl Fills {
    /// Asks to lead the fill of a key, under a name that only the leader knows.
    pub(crate) fn claim(&self, key: &CacheKey, tenant: &[u8; 32], id: &str) -> Claim {
        let since = self.purges.now();
        let mut slots = self.lock();
        let is_released = slots.released.take(key, id);
        if let Some(slot) = self.current(&mut slots, key) {
            return match &slot.by {
                // A leader that asks again still leads.
                By::Edge(edge) if edge.id == id => Claim::Yours,
                _ => Claim::Taken,
            };
        }
        if is_released || !slots.has_room() {
            return Claim::NotLed;
        }
        let Some(place) = self.limits.begin(tenant) else {
            return Claim::NotLed;
        };
        let fill = EdgeFill {
            id: id.to_owned(),
            began: Instant::now(),
        };
        slots.begin_edge(*key, place, since, fill);
        Claim::Yours
    }

    /// Ends an edge's fill, if it has that name; its followers go on.
    pub(crate) fn end_claim(&self, key: &CacheKey, id: &str) -> bool {
        self.lock().end_claim(key, id)
    }

    /// The same without an answer. If no such fill exists yet, none will: its lookup was cancelled,
    /// and arrives late.
    pub(crate) fn give_back(&self, key: &CacheKey, id: &str) -> bool {
        let mut slots = self.lock();
        let has_ended = slots.end_claim(key, id);
        if !has_ended {
            slots.released.remember(key, id);
        }
        has_ended
    }

    /// Waits at most `most` for the end of a key's fill, led by an edge or by a request.
    pub(crate) async fn wait(&self, key: &CacheKey, most: Duration) -> Waited {
        let mut over = match self.current(&mut self.lock(), key) {
            Some(slot) => slot.over.subscribe(),
            None => return Waited::NoFill,
        };
        let _waiter = match EdgeWaiter::new(&self.edges_waiting) {
            Some(waiter) => waiter,
            None => return Waited::StillRuns,
        };
        // An error means that the sender is gone: the fill has ended.
        match tokio::time::timeout(most, over.changed()).await {
            Ok(_) => Waited::Ended,
            Err(_) => Waited::StillRuns,
        }
    }

    /// Whether a key's fill is under way.
    pub(crate) fn runs(&self, key: &CacheKey) -> bool {
        self.current(&mut self.lock(), key).is_some()
    }

    /// Lookups of edges that wait.
    pub(crate) fn edges_waiting(&self) -> usize {
        self.edges_waiting.load(Ordering::Relaxed)
    }
}

impl crate::exchange::fills::Slots {
    fn end_claim(&mut self, key: &CacheKey, id: &str) -> bool {
        let Entry::Occupied(slot) = self.fills.entry(*key) else {
            return false;
        };
        let is_its = matches!(&slot.get().by, By::Edge(edge) if edge.id == id);
        if is_its {
            slot.remove();
        }
        is_its
    }
}

/// A lookup that waits, as long as it is counted.
struct EdgeWaiter<'f>(&'f AtomicUsize);

impl<'f> EdgeWaiter<'f> {
    /// None past the bound.
    fn new(count: &'f AtomicUsize) -> Option<Self> {
        let waiter = Self(count);
        let before = count.fetch_add(1, Ordering::Relaxed);
        (before < WAITERS_MAX).then_some(waiter)
    }
}

impl Drop for EdgeWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, CacheOptions};
    use crate::exchange::fills::{Lead, Turn};
    use crate::exchange::limits::{Most, Rules};
    use reflex_llm::Tenant;
    use std::sync::Arc;
    use tokio::task::{JoinHandle, yield_now};

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);
    const TENANT: [u8; 32] = [2; 32];
    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    fn fills() -> (Cache, Arc<Fills>) {
        let cache = Cache::in_memory(&CacheOptions::default());
        let fills = Fills::new(&cache);
        (cache, fills)
    }

    fn claim(fills: &Fills, id: &str) -> Claim {
        fills.claim(&KEY, &TENANT, id)
    }

    async fn join(fills: &Arc<Fills>, wait_max: Duration) -> Turn {
        fills.join(KEY, Tenant(TENANT), wait_max).await
    }

    async fn lead(fills: &Arc<Fills>) -> Lead {
        match join(fills, LONG).await {
            Turn::Lead(lead) => lead,
            turn => panic!("{turn:?} in place of the lead"),
        }
    }

    /// An edge that waits already when this returns.
    async fn waiting(fills: &Arc<Fills>) -> JoinHandle<Waited> {
        let before = fills.edges_waiting();
        let waiting = tokio::spawn({
            let fills = Arc::clone(fills);
            async move { fills.wait(&KEY, LONG).await }
        });
        while fills.edges_waiting() == before {
            yield_now().await;
        }
        waiting
    }

    #[test]
    fn one_leads_until_the_end_that_only_the_leader_brings() {
        let (_, fills) = fills();
        assert_eq!(claim(&fills, "a"), Claim::Yours);
        assert_eq!(claim(&fills, "b"), Claim::Taken);
        assert_eq!(claim(&fills, "a"), Claim::Yours);
        assert!(!fills.end_claim(&KEY, "b"));
        assert!(fills.runs(&KEY));
        assert!(fills.end_claim(&KEY, "a"));
        assert!(!fills.end_claim(&KEY, "a"));
        assert_eq!(claim(&fills, "b"), Claim::Yours);
    }

    /// An edge cancels a lookup, and says so. When that arrived first, the lookup became a leader
    /// that never came back, and all followers waited for it for two minutes.
    #[test]
    fn a_lookup_that_was_taken_back_before_it_came_does_not_lead() {
        let (_, fills) = fills();
        assert!(!fills.give_back(&KEY, "a"));
        assert_eq!(claim(&fills, "a"), Claim::NotLed);
        assert!(!fills.runs(&KEY));
        assert_eq!(claim(&fills, "b"), Claim::Yours);
        assert!(fills.give_back(&KEY, "b"));
        assert_eq!(
            claim(&fills, "b"),
            Claim::Yours,
            "it was there to be given back"
        );
        for number in 0..2 * RELEASED_MAX {
            fills.give_back(&KEY, &format!("many {number}"));
        }
        assert_eq!(fills.lock().released.len(), RELEASED_MAX);
    }

    #[tokio::test]
    async fn a_tenant_with_as_many_fills_as_it_may_have_leads_no_more_until_one_ends() {
        let (cache, fills) = fills();
        fills.limits().set(Rules {
            each: Most {
                fills: Some(2),
                rate: None,
            },
            ..Rules::default()
        });
        let key = |number: u8| CacheKey::from_bytes([number; 32]);
        let claim = |number, tenant| fills.claim(&key(number), &tenant, "a");
        assert_eq!(claim(1, TENANT), Claim::Yours);
        let lead = |number| fills.join(key(number), Tenant(TENANT), SHORT);
        let led = lead(2).await;
        assert!(matches!(led, Turn::Lead(_)));
        assert_eq!(claim(3, TENANT), Claim::NotLed);
        assert!(matches!(lead(3).await, Turn::Over));
        // Its own fill, and another tenant's, go on.
        assert_eq!(claim(1, TENANT), Claim::Yours);
        assert_eq!(claim(3, [9; 32]), Claim::Yours);
        drop(led);
        assert_eq!(claim(4, TENANT), Claim::Yours);
        // However a fill ends.
        assert!(cache.purge_tenant(&TENANT).is_ok());
        assert_eq!(claim(5, TENANT), Claim::Yours);
        assert!(fills.end_claim(&key(5), "a"));
        assert_eq!(claim(6, TENANT), Claim::Yours);
        assert_eq!(claim(7, TENANT), Claim::Yours);
        assert_eq!(claim(8, TENANT), Claim::NotLed);
    }

    #[test]
    fn after_a_purge_another_edge_leads() {
        let (cache, fills) = fills();
        type Purge = fn(&Cache) -> bool;
        let purges: [Purge; 3] = [
            |cache| cache.remove(&KEY),
            |cache| cache.purge_tenant(&TENANT).is_ok(),
            |cache| cache.purge_all().is_ok(),
        ];
        for purge in purges {
            assert_eq!(claim(&fills, "a"), Claim::Yours);
            cache.remove(&CacheKey::from_bytes([9; 32]));
            assert!(cache.purge_tenant(&[9; 32]).is_ok());
            assert!(fills.runs(&KEY));
            purge(&cache);
            assert!(!fills.runs(&KEY));
            assert_eq!(claim(&fills, "b"), Claim::Yours);
            assert!(!fills.end_claim(&KEY, "a"));
            assert!(fills.end_claim(&KEY, "b"));
        }
    }

    /// With the most fills allowed, each miss looked at all of them.
    #[test]
    fn a_miss_looks_at_no_other_fill_however_many_there_are() {
        let (_, fills) = fills();
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            CacheKey::from_bytes(bytes)
        };
        let began = |number: u32| fills.claim(&key(number), &TENANT, "a") == Claim::Yours;
        let full = crate::exchange::fills::FILLS_MAX as u32;
        assert!((0..full).all(began));
        assert!(!began(full));
        assert_eq!(fills.lock().fills.len(), full as usize);
        // A fill that ends leaves its room, however it ends, also many times over.
        for number in 0..3 * full {
            assert!(fills.end_claim(&key(number), "a"));
            assert!(began(full + number));
        }
        assert!(!began(5 * full));
        let slots = fills.lock();
        assert!(slots.edge_order.len() <= crate::exchange::fills::EDGE_ORDER_MAX);
        assert_eq!(slots.fills.len(), full as usize);
        drop(slots);
        // Fills whose leaders may come back are not forgotten for room. Overdue ones are, one after
        // the other, as room is needed.
        let mut slots = fills.lock();
        assert!(!slots.has_room());
        let Some(long_ago) = Instant::now().checked_sub(FILL_TIME_MAX) else {
            return;
        };
        let is_there = |slots: &crate::exchange::fills::Slots, (number, key): &(u64, CacheKey)| {
            let slot = slots.fills.get(key);
            slot.is_some_and(|slot| slot.number == *number)
        };
        let order: Vec<_> = slots.edge_order.iter().copied().collect();
        let mut oldest = order.into_iter().filter(|it| is_there(&slots, it));
        let oldest = [oldest.next().expect("one"), oldest.next().expect("two")];
        for (_, key) in &oldest {
            let slot = slots.fills.get_mut(key).expect("it is there");
            match &mut slot.by {
                By::Edge(edge) => edge.began = long_ago,
                by => panic!("{by:?}"),
            }
        }
        assert!(slots.has_room());
        assert_eq!(slots.fills.len(), full as usize - 1);
        assert!(!is_there(&slots, &oldest[0]) && is_there(&slots, &oldest[1]));
    }

    #[tokio::test]
    async fn a_follower_goes_on_at_the_end_or_when_it_has_waited_enough() {
        let (_, fills) = fills();
        assert_eq!(fills.wait(&KEY, LONG).await, Waited::NoFill);
        claim(&fills, "a");
        assert_eq!(fills.wait(&KEY, SHORT).await, Waited::StillRuns);
        let waiter = waiting(&fills).await;
        fills.end_claim(&KEY, "a");
        assert_eq!(waiter.await.expect("no panic"), Waited::Ended);
        assert_eq!(fills.edges_waiting(), 0);
    }

    #[tokio::test]
    async fn an_edge_waits_for_a_leader_here() {
        let (_, fills) = fills();
        let leader = lead(&fills).await;
        assert_eq!(claim(&fills, "a"), Claim::Taken);
        assert_eq!(fills.wait(&KEY, SHORT).await, Waited::StillRuns);
        let first = waiting(&fills).await;
        // At its terminal event, before its end.
        fills.answered(&KEY);
        assert_eq!(first.await.expect("no panic"), Waited::Ended);
        assert!(fills.runs(&KEY));
        let second = waiting(&fills).await;
        leader.keep();
        assert_eq!(second.await.expect("no panic"), Waited::Ended);
        assert_eq!(claim(&fills, "a"), Claim::Yours);
    }

    #[tokio::test]
    async fn a_request_waits_for_an_edge_within_a_bound() {
        let (_, fills) = fills();
        claim(&fills, "a");
        assert!(matches!(join(&fills, SHORT).await, Turn::Alone));
        for is_answered in [true, false] {
            claim(&fills, "a");
            let joined = tokio::spawn({
                let fills = Arc::clone(&fills);
                async move { join(&fills, LONG).await }
            });
            while fills.waiting() == 0 {
                yield_now().await;
            }
            match is_answered {
                true => fills.answered(&KEY),
                false => drop(fills.give_back(&KEY, "a")),
            }
            assert!(matches!(joined.await.expect("no panic"), Turn::Again));
            drop(lead(&fills).await);
        }
    }
}
