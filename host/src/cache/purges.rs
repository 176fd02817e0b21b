//! Which purges there were, so that nothing that was begun before one is stored after it.
//!
//! ```text
//! begin to fetch ─► now: a Mark        …        hold ─► is anything purged since? ─► insert
//!                              purge: count + 1, noted ─► entries go ─► count + 1 ─► listeners
//! ```
//!
//! A removal of one entry is a purge of that entry. A purge waits for those who hold; so whoever
//! stores while it holds is either overtaken by the purge, which then removes what was stored, or
//! sees it.

use super::key::CacheKey;
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

/// So many purges are remembered, at some 80 bytes each. Whoever began before the oldest of them
/// counts as purged: that costs a miss.
const PURGES_MAX: usize = 4096;

/// What a purge is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// Everything.
    All,
    /// What this tenant has stored.
    Tenant([u8; 32]),
    /// One entry, whether it was there or not.
    Entry(CacheKey),
}

impl Purged {
    /// Whether an entry of that key and tenant is among what is purged.
    pub fn covers(&self, key: &CacheKey, tenant: &[u8; 32]) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(purged) => purged == tenant,
            Self::Entry(purged) => purged == key,
        }
    }
}

impl fmt::Debug for Purged {
    /// Without key and tenant: they are nothing for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Tenant(_) => "Tenant",
            Self::Entry(_) => "Entry",
        })
    }
}

/// A moment among purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// Told of each purge when it is done.
pub trait PurgeListener: Send + Sync {
    /// Nobody finds any more what was there before.
    fn purged(&self, what: &Purged);
}

/// The purges of one cache.
#[derive(Default)]
pub struct Purges {
    log: RwLock<Log>,
    listeners: Mutex<Vec<Weak<dyn PurgeListener>>>,
}

#[derive(Default)]
struct Log {
    /// Of beginnings and ends.
    count: u64,
    /// The count at the beginning of each, oldest first.
    begun: VecDeque<(u64, Purged)>,
    /// The count at the beginning of the newest one that is not remembered any more.
    forgotten: u64,
}

impl Log {
    fn has_met(&self, key: &CacheKey, tenant: &[u8; 32], since: Mark) -> bool {
        let newer = self.begun.iter().rev();
        let mut newer = newer.take_while(|(count, _)| *count > since.0);
        self.forgotten > since.0 || newer.any(|(_, what)| what.covers(key, tenant))
    }
}

impl Purges {
    /// To be compared with later. What is begun now has met no purge yet.
    pub fn now(&self) -> Mark {
        Mark(self.read().count)
    }

    /// The number of beginnings and ends of purges so far.
    pub fn count(&self) -> u64 {
        self.read().count
    }

    /// Whether an entry of that key and tenant may have been purged since that mark.
    pub fn has_met(&self, key: &CacheKey, tenant: &[u8; 32], since: Mark) -> bool {
        self.read().has_met(key, tenant, since)
    }

    /// Keeps purges from beginning, for as long as it takes to look and then to store. Meanwhile
    /// purge nothing, and take no lock that others hold while they look here: either would wait
    /// for itself.
    pub fn hold(&self) -> Held<'_> {
        Held(self.read())
    }

    /// From now on the listener is told of each purge, as long as it lives.
    pub fn listen(&self, listener: &Arc<impl PurgeListener + 'static>) {
        let listener: Weak<dyn PurgeListener> = Arc::downgrade(listener) as _;
        let mut listeners = lock(&self.listeners);
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(listener);
    }

    /// Purges. Listeners may purge something themselves.
    pub(super) fn note<T>(&self, what: Purged, purge: impl FnOnce() -> T) -> T {
        {
            let mut log = self.write();
            log.count += 1;
            let count = log.count;
            log.begun.push_back((count, what));
            if log.begun.len() > PURGES_MAX
                && let Some((oldest, _)) = log.begun.pop_front()
            {
                log.forgotten = oldest;
            }
        }
        let purged = purge();
        self.write().count += 1;
        let listeners: Vec<_> = lock(&self.listeners).clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.purged(&what);
        }
        purged
    }

    fn read(&self) -> RwLockReadGuard<'_, Log> {
        // What is changed under this lock is whole between any two statements.
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Purges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purges")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// No purge begins while this is held.
pub struct Held<'a>(RwLockReadGuard<'a, Log>);

impl Held<'_> {
    /// As [`Purges::count`].
    pub fn count(&self) -> u64 {
        self.0.count
    }

    /// As [`Purges::has_met`].
    pub fn has_met(&self, key: &CacheKey, tenant: &[u8; 32], since: Mark) -> bool {
        self.0.has_met(key, tenant, since)
    }
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.count).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);
    const OTHER: CacheKey = CacheKey::from_bytes([2; 32]);
    const TENANT: [u8; 32] = [3; 32];

    #[test]
    fn only_what_is_purged_since_the_mark_is_met() {
        let purges = Purges::default();
        let check = |what: Purged, met: bool| {
            let before = purges.now();
            let during = purges.note(what, || {
                assert_eq!(purges.has_met(&KEY, &TENANT, before), met, "{what:?}");
                purges.now()
            });
            assert!(before < during && during < purges.now());
            assert_eq!(purges.has_met(&KEY, &TENANT, before), met, "{what:?}");
            assert_eq!(purges.hold().has_met(&KEY, &TENANT, before), met);
            for later in [during, purges.now()] {
                assert!(!purges.has_met(&KEY, &TENANT, later), "{what:?}");
            }
        };
        check(Purged::All, true);
        check(Purged::Tenant(TENANT), true);
        check(Purged::Tenant([4; 32]), false);
        check(Purged::Entry(KEY), true);
        check(Purged::Entry(OTHER), false);
    }

    #[test]
    fn what_is_not_remembered_any_more_counts_as_met() {
        let purges = Purges::default();
        let before = purges.now();
        for _ in 0..PURGES_MAX {
            purges.note(Purged::Entry(OTHER), || ());
        }
        assert!(!purges.has_met(&KEY, &TENANT, before));
        let after = purges.now();
        purges.note(Purged::Entry(OTHER), || ());
        assert!(purges.has_met(&KEY, &TENANT, before));
        assert!(!purges.has_met(&KEY, &TENANT, after));
        assert_eq!(purges.read().begun.len(), PURGES_MAX);
    }

    #[test]
    fn listeners_hear_of_it_when_it_is_done_for_as_long_as_they_live() {
        struct Ear(AtomicUsize);
        impl PurgeListener for Ear {
            fn purged(&self, _: &Purged) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let purges = Purges::default();
        let ear = Arc::new(Ear(AtomicUsize::new(0)));
        purges.listen(&ear);
        purges.note(Purged::All, || {
            assert_eq!(ear.0.load(Ordering::Relaxed), 0);
        });
        assert_eq!(ear.0.load(Ordering::Relaxed), 1);
        drop(ear);
        purges.note(Purged::All, || ());
        purges.listen(&Arc::new(Ear(AtomicUsize::new(0))));
        assert_eq!(lock(&purges.listeners).len(), 1);
    }
}
