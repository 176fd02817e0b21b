//! Since when a guest fetches what it did not find: an answer is not stored when it was purged since.
//!
//! A guest that looks up, asks its model and inserts tells nobody when it has asked. It has so after
//! the lookup, so that the lookup's moment stands for it.

use crate::cache::{CacheKey, Mark};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Misses of one component that are remembered until it inserts, at some 150 bytes each. Past it
/// the oldest is forgotten, and what is inserted without a miss that is known counts as begun then.
const MISSES_MAX: usize = 16_384;

/// What a component has not found, and when.
#[derive(Default)]
pub(super) struct Begun(Mutex<Misses>);

#[derive(Default)]
struct Misses {
    since: HashMap<CacheKey, Mark>,
    /// In the order in which they were noted; with some that are gone already.
    order: VecDeque<(CacheKey, Mark)>,
    /// Of the newest that is forgotten.
    forgotten: Option<Mark>,
}

impl Begun {
    /// A lookup that began at that mark has found nothing. Of several without an insert the first
    /// counts: nobody knows which of them an answer belongs to.
    pub(super) fn missed(&self, key: &CacheKey, since: Mark) {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if misses.since.contains_key(key) {
            return;
        }
        misses.since.insert(*key, since);
        misses.order.push_back((*key, since));
        while misses.order.len() > MISSES_MAX
            && let Some((key, since)) = misses.order.pop_front()
        {
            if misses.since.get(&key) == Some(&since) {
                misses.since.remove(&key);
                misses.forgotten = misses.forgotten.max(Some(since));
            }
        }
    }

    /// An answer is inserted: since when it was fetched, or `now` if it was not looked for.
    pub(super) fn take(&self, key: &CacheKey, now: Mark) -> Mark {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = misses.since.remove(key).or(misses.forgotten);
        since.map_or(now, |since| since.min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, CacheOptions};

    fn key(number: u32) -> CacheKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        CacheKey::from_bytes(bytes)
    }

    #[test]
    fn the_first_miss_counts_until_there_is_an_insert_and_what_is_forgotten_counts_as_old() {
        let cache = Cache::in_memory(&CacheOptions::default());
        let mark = || {
            cache.remove(&key(0));
            cache.purges().now()
        };
        let begun = Begun::default();
        let [first, second, third] = [(); 3].map(|()| mark());
        assert_eq!(begun.take(&key(1), third), third);
        begun.missed(&key(1), first);
        begun.missed(&key(1), second);
        assert_eq!(begun.take(&key(1), third), first);
        assert_eq!(begun.take(&key(1), third), third);
        begun.missed(&key(1), first);
        for number in 2..2 + MISSES_MAX as u32 {
            begun.missed(&key(number), second);
        }
        let last = mark();
        assert_eq!(begun.take(&key(1), last), first);
        assert_eq!(begun.take(&key(2), last), second);
        assert!(begun.0.lock().is_ok_and(|it| it.order.len() <= MISSES_MAX));
        // Nobody knows any more that it was never looked for.
        assert_eq!(begun.take(&key(0), last), first);
    }
}
