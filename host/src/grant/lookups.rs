//! When an instance began to fetch an answer: an answer that was purged since is not stored.
//!
//! A guest that looks up, asks its model and inserts does not say when it asked. It asked after the
//! lookup, so the lookup's moment stands for it.

use crate::cache::{CacheKey, Mark};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Misses of one instance that are remembered until it inserts, at some 150 bytes each. Past it the
/// oldest is forgotten; an insert without a known miss counts as begun at that miss.
const MISSES_MAX: usize = 4096;

/// The misses of one instance, and when they were. A clone belongs to another instance, and is
/// empty.
#[derive(Default)]
pub struct Lookups(Mutex<Misses>);

#[derive(Default)]
struct Misses {
    since: HashMap<CacheKey, Mark>,
    /// In the order in which they were noted, including some that are gone already.
    order: VecDeque<(CacheKey, Mark)>,
    /// Of the newest that is forgotten.
    forgotten: Option<Mark>,
}

impl Lookups {
    /// A lookup that began at that mark was a miss. The last one counts: an instance does one thing
    /// after the other.
    pub(crate) fn missed(&self, key: &CacheKey, since: Mark) {
        let mut misses = self.lock();
        if misses.since.insert(*key, since) == Some(since) {
            return;
        }
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

    /// For an insert: when its fetch began, or `now` without an earlier lookup.
    pub(crate) fn take(&self, key: &CacheKey, now: Mark) -> Mark {
        let mut misses = self.lock();
        let since = misses.since.remove(key).or(misses.forgotten);
        since.map_or(now, |since| since.min(now))
    }

    /// The instance removes the entry itself: its later insert is from after that.
    pub(crate) fn forget(&self, key: &CacheKey) {
        self.lock().since.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Misses> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Lookups {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Lookups {
    /// Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookups({})", self.lock().since.len())
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
    fn the_last_miss_counts_until_there_is_an_insert_and_what_is_forgotten_counts_as_old() {
        let cache = Cache::in_memory(&CacheOptions::default());
        let mark = || {
            cache.remove(&key(0));
            cache.purges().now()
        };
        let lookups = Lookups::default();
        let [first, second, third] = [(); 3].map(|()| mark());
        assert_eq!(lookups.take(&key(1), third), third);
        lookups.missed(&key(1), first);
        assert_eq!(lookups.clone().take(&key(1), third), third);
        assert_eq!(lookups.take(&key(1), third), first);
        assert_eq!(lookups.take(&key(1), third), third);
        lookups.missed(&key(1), first);
        lookups.missed(&key(1), second);
        assert_eq!(lookups.take(&key(1), third), second);
        lookups.missed(&key(1), first);
        lookups.forget(&key(1));
        assert_eq!(lookups.take(&key(1), third), third);
        lookups.missed(&key(1), first);
        for number in 2..2 + MISSES_MAX as u32 {
            lookups.missed(&key(number), second);
        }
        let last = mark();
        // Whether it was looked up is forgotten.
        assert!(lookups.take(&key(1), last) <= second);
        assert!(lookups.take(&key(0), last) <= second);
        assert_eq!(lookups.take(&key(1000), last), second);
        assert!(lookups.lock().order.len() <= MISSES_MAX);
    }
}
