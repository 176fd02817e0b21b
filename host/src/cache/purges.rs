//! The purges so far, so that no fill from before a purge is stored after it.
//!
//! ```text
//! begin to fetch ─► now: a Mark        …        hold ─► is anything purged since? ─► insert
//!                              purge: count + 1, noted ─► entries go ─► count + 1 ─► listeners
//! ```
//!
//! An entry that replaces a live one is noted, too: edges drop their copies of the older one. A
//! replacement keeps nothing else from being stored.
//!
//! A removal of one entry is a purge of that entry. A purge waits for every hold. So an insert
//! under a hold either sees the purge, or ends before it, and the purge then removes what was
//! stored.

use super::key::CacheKey;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, lock};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

/// Bound of the remembered purges, at some 80 bytes each. A fill from before the oldest of them
/// counts as purged: that costs a miss.
const PURGES_MAX: usize = 4096;

/// Replacements that are remembered, at some 40 bytes each. An edge that has missed more drops all
/// its copies.
const REPLACED_MAX: usize = 4096;

/// The subject of a purge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// Everything.
    All,
    /// All entries of this tenant.
    Tenant([u8; 32]),
    /// One entry, whether it was there or not.
    Entry(CacheKey),
    /// Entries by what they say of themselves, such as their model. It is not known which those are, so
    /// each may be one of them.
    Matching,
}

impl Purged {
    /// Whether it covers an entry of that key and tenant.
    pub fn covers(&self, key: &CacheKey, tenant: &[u8; 32]) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(purged) => purged == tenant,
            Self::Entry(purged) => purged == key,
            Self::Matching => true,
        }
    }
}

impl fmt::Debug for Purged {
    /// Without key and tenant: they do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Tenant(_) => "Tenant",
            Self::Entry(_) => "Entry",
            Self::Matching => "Matching",
        })
    }
}

/// A moment among purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl Mark {
    /// The moment at this [`Purges::count`] of beginnings and ends.
    #[cfg(any(feature = "serve", test))]
    pub(crate) fn at(count: u64) -> Self {
        Self(count)
    }

    /// So many beginnings, ends and replacements there had been.
    #[cfg(feature = "serve")]
    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

/// An entry that edges have to drop; they know entries by tenant and digest.
#[cfg(any(feature = "serve", test))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    Tenant([u8; 32]),
    /// The digest of a key.
    Digest([u8; 32]),
}

/// What is gone since a mark, and the mark up to which that is complete; `None` is up to now.
#[cfg(any(feature = "serve", test))]
pub(crate) struct GoneSince {
    pub(crate) gone: Vec<Gone>,
    pub(crate) up_to: Option<Mark>,
}

/// Called before and after each purge.
pub trait PurgeListener: Send + Sync {
    /// Called before the purge begins, on the thread that purges, for those who listen by then.
    fn purging(&self, _what: &Purged) {}

    /// Called once no lookup finds the purged entries any more.
    fn purged(&self, what: &Purged);
}

/// The purges of one cache.
#[derive(Default)]
pub struct Purges {
    log: RwLock<Log>,
    listeners: Mutex<Vec<Weak<dyn PurgeListener>>>,
    has_left: AtomicBool,
}

#[derive(Default)]
struct Log {
    /// Of beginnings and ends.
    count: u64,
    /// In the order of their beginnings.
    begun: VecDeque<Begun>,
    /// The count at the beginning of the newest one that is not remembered any more.
    forgotten: u64,
    /// The count at the last end of one that is not remembered any more.
    forgotten_end: u64,
    /// How many of those have not ended.
    forgotten_open: usize,
    /// Digests of entries that were replaced, each with the count after that, in order.
    replaced: VecDeque<(u64, [u8; 32])>,
    /// The count at the newest one that is not remembered any more.
    forgotten_replaced: u64,
}

/// A purge, and the counts at its beginning and at its end.
struct Begun {
    at: u64,
    ended_at: Option<u64>,
    what: Purged,
    /// Of the key of an entry, where it is known.
    #[cfg_attr(
        not(any(feature = "serve", test)),
        expect(dead_code, reason = "only edges are told of it")
    )]
    digest: Option<[u8; 32]>,
}

impl Log {
    fn has_met(&self, key: &CacheKey, tenant: &[u8; 32], since: Mark) -> bool {
        let newer = self.begun.iter().rev();
        let mut newer = newer.take_while(|begun| begun.at > since.0);
        self.forgotten > since.0 || newer.any(|begun| begun.what.covers(key, tenant))
    }

    fn begin(&mut self, what: Purged, digest: Option<[u8; 32]>) -> u64 {
        self.count += 1;
        let begun = Begun {
            at: self.count,
            ended_at: None,
            what,
            digest,
        };
        self.begun.push_back(begun);
        if self.begun.len() > PURGES_MAX
            && let Some(oldest) = self.begun.pop_front()
        {
            self.forgotten = oldest.at;
            match oldest.ended_at {
                Some(end) => self.forgotten_end = self.forgotten_end.max(end),
                None => self.forgotten_open += 1,
            }
        }
        self.count
    }

    fn replace(&mut self, digest: [u8; 32]) {
        self.count += 1;
        self.replaced.push_back((self.count, digest));
        if self.replaced.len() > REPLACED_MAX
            && let Some((at, _)) = self.replaced.pop_front()
        {
            self.forgotten_replaced = at;
        }
    }

    fn end(&mut self, at: u64) {
        self.count += 1;
        match self.begun.binary_search_by_key(&at, |begun| begun.at) {
            Ok(index) => self.begun[index].ended_at = Some(self.count),
            Err(_) => {
                self.forgotten_open -= 1;
                self.forgotten_end = self.count;
            }
        }
    }
}

impl Purges {
    /// The current mark, to compare with later.
    pub fn now(&self) -> Mark {
        Mark(self.read().count)
    }

    /// The number of beginnings and ends of purges so far, and of replacements.
    pub fn count(&self) -> u64 {
        self.read().count
    }

    /// Whether an entry of that key and tenant may have been purged since that mark.
    pub fn has_met(&self, key: &CacheKey, tenant: &[u8; 32], since: Mark) -> bool {
        self.read().has_met(key, tenant, since)
    }

    /// Keeps purges from beginning between the check and the insert. Meanwhile the caller must not
    /// purge, and must not take a lock that other threads hold while they call this: either would
    /// deadlock.
    pub fn hold(&self) -> Held<'_> {
        Held(self.read())
    }

    /// The subjects of the purges that had not ended at that mark, since copies read then may be from
    /// before them, and what was replaced since. Each subject once, at most `most`: of more
    /// replacements the first ones. `None` if there are more purges, if one is unknown, or if
    /// everything was purged.
    #[cfg(any(feature = "serve", test))]
    pub(crate) fn gone_since(&self, mark: Mark, most: usize) -> Option<GoneSince> {
        let log = self.read();
        let forgotten = log.forgotten_end.max(log.forgotten_replaced);
        if mark.0 > log.count || log.forgotten_open > 0 || forgotten > mark.0 {
            return None;
        }
        let mut told = Vec::new();
        let is_meant = |begun: &&Begun| match (&begun.what, begun.ended_at) {
            // It may take minutes, so edges drop their copies at its beginning and at its end, and not
            // each time that they ask in between.
            (Purged::Matching, None) => begun.at > mark.0,
            (_, end) => end.is_none_or(|end| end > mark.0),
        };
        for begun in log.begun.iter().filter(is_meant) {
            let what = match (&begun.what, begun.digest) {
                (Purged::Tenant(tenant), _) => Gone::Tenant(*tenant),
                (Purged::Entry(_), Some(digest)) => Gone::Digest(digest),
                (Purged::All | Purged::Matching, _) | (Purged::Entry(_), None) => return None,
            };
            if told.contains(&what) {
                continue;
            }
            if told.len() == most {
                return None;
            }
            told.push(what);
        }
        let first = log.replaced.partition_point(|(at, _)| *at <= mark.0);
        let mut known = mark;
        for (at, digest) in log.replaced.range(first..) {
            let what = Gone::Digest(*digest);
            if !told.contains(&what) {
                if told.len() == most {
                    // Purges alone may fill it: then nothing is known of any further moment.
                    return (known > mark).then_some(GoneSince {
                        gone: told,
                        up_to: Some(known),
                    });
                }
                told.push(what);
            }
            known = Mark(*at);
        }
        Some(GoneSince {
            gone: told,
            up_to: None,
        })
    }

    /// An entry whose key was made of this digest was stored in place of one that was still an
    /// answer.
    pub(super) fn note_replaced(&self, digest: [u8; 32]) {
        self.write().replace(digest);
    }

    /// From now on, another process may take purges. A fill from before may be stored there, because that
    /// process compares it with its purges; no later request may join it.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Relaxed);
    }

    /// Whether another process may have taken purges that are not known here.
    #[cfg_attr(
        not(any(feature = "exchange", test)),
        expect(dead_code, reason = "only fills are joined")
    )]
    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Relaxed)
    }

    /// Calls the listener for each purge from now on, as long as it lives.
    pub fn listen(&self, listener: &Arc<impl PurgeListener + 'static>) {
        let listener: Weak<dyn PurgeListener> = Arc::downgrade(listener) as _;
        let mut listeners = lock(&self.listeners);
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(listener);
    }

    /// Purges. Listeners may purge something themselves.
    pub(super) fn note<T>(&self, what: Purged, purge: impl FnOnce() -> T) -> T {
        self.note_named(what, None, purge)
    }

    /// As [`note`](Self::note), of an entry whose key was made of this digest.
    pub(super) fn note_named<T>(
        &self,
        what: Purged,
        digest: Option<[u8; 32]>,
        purge: impl FnOnce() -> T,
    ) -> T {
        for listener in self.listeners() {
            listener.purging(&what);
        }
        let at = self.write().begin(what, digest);
        let purged = purge();
        self.write().end(at);
        for listener in self.listeners() {
            listener.purged(&what);
        }
        purged
    }

    /// Those that live. They are called without the lock: one may purge something itself.
    fn listeners(&self) -> Vec<Arc<dyn PurgeListener>> {
        let listeners = lock(&self.listeners);
        listeners.iter().filter_map(Weak::upgrade).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Log> {
        // A panic under this lock leaves the log consistent: each statement does.
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
        check(Purged::Matching, true);
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
    fn edges_are_told_what_had_not_ended_and_nothing_else() {
        const DIGEST: [u8; 32] = [5; 32];
        let purges = Purges::default();
        let told = |mark| {
            let told = purges.gone_since(mark, 2);
            told.map(|told| {
                let told = told.gone;
                let what = |told: &Gone| match told {
                    Gone::Tenant(tenant) => format!("t{}", tenant[0]),
                    Gone::Digest(digest) => format!("d{}", digest[0]),
                };
                told.iter().map(what).collect::<Vec<_>>().join(" ")
            })
        };
        let check = |mark, expected: Option<&str>| {
            assert_eq!(told(mark).as_deref(), expected);
        };
        let start = purges.now();
        check(start, Some(""));
        let mut during = start;
        purges.note_named(Purged::Entry(KEY), Some(DIGEST), || {
            during = purges.now();
            check(start, Some("d5"));
            check(during, Some("d5"));
        });
        // A copy read during the purge may be from before it.
        check(during, Some("d5"));
        check(purges.now(), Some(""));
        purges.note_named(Purged::Entry(KEY), Some(DIGEST), || ());
        let middle = purges.now();
        purges.note(Purged::Tenant(TENANT), || ());
        check(start, Some("d5 t3"));
        check(middle, Some("t3"));
        purges.note(Purged::Tenant([4; 32]), || ());
        check(start, None);
        check(middle, Some("t3 t4"));
        // Its digest is unknown.
        purges.note(Purged::Entry(OTHER), || ());
        check(middle, None);
        let late = purges.now();
        purges.note(Purged::All, || ());
        check(late, None);
        // One that takes long is told at its beginning and at its end.
        let before = purges.now();
        let mut meanwhile = before;
        purges.note(Purged::Matching, || {
            meanwhile = purges.now();
            check(before, None);
            check(meanwhile, Some(""));
        });
        check(meanwhile, None);
        check(purges.now(), Some(""));
        check(Mark::at(purges.count() + 1), None);
        // More purges than are remembered, one of which never ends meanwhile.
        let open = purges.now();
        purges.note_named(Purged::Entry(KEY), Some(DIGEST), || {
            for _ in 0..PURGES_MAX {
                purges.note_named(Purged::Entry(OTHER), Some([6; 32]), || ());
            }
            check(open, None);
            check(purges.now(), None);
        });
        check(open, None);
        check(purges.now(), Some(""));
    }

    #[test]
    fn what_was_replaced_is_told_bit_by_bit_and_purges_nothing() {
        let purges = Purges::default();
        let start = purges.now();
        for number in 1..=5 {
            purges.note_replaced([number; 32]);
            purges.note_replaced([1; 32]);
        }
        assert!(!purges.has_met(&KEY, &TENANT, start));
        let told = |since: Mark| {
            let since = purges.gone_since(since, 2).expect("known");
            let digest = |gone: &Gone| match gone {
                Gone::Digest(digest) => digest[0],
                Gone::Tenant(_) => panic!("a tenant"),
            };
            let gone: Vec<u8> = since.gone.iter().map(digest).collect();
            (gone, since.up_to)
        };
        let mut known = start;
        let mut heard = Vec::new();
        while let (gone, Some(up_to)) = told(known) {
            assert!(known < up_to && up_to < purges.now());
            heard.extend(gone);
            known = up_to;
        }
        heard.extend(told(known).0);
        for number in 1..=5 {
            assert!(heard.contains(&number), "{heard:?}");
        }
        assert_eq!(told(purges.now()), (vec![], None));
        // A purge that is told along with it leaves room for one.
        let mark = purges.now();
        purges.note(Purged::Tenant(TENANT), || purges.note_replaced([7; 32]));
        purges.note_replaced([8; 32]);
        let since = purges.gone_since(mark, 2).expect("known");
        assert!(since.gone.contains(&Gone::Tenant(TENANT)));
        assert!(since.gone.contains(&Gone::Digest([7; 32])));
        let since = purges.gone_since(since.up_to.expect("more"), 2);
        assert!(since.expect("known").gone.contains(&Gone::Digest([8; 32])));
    }

    #[test]
    fn replacements_that_are_not_remembered_any_more_are_anything() {
        let purges = Purges::default();
        let start = purges.now();
        for _ in 0..REPLACED_MAX {
            purges.note_replaced([1; 32]);
        }
        assert!(purges.gone_since(start, 2).is_some());
        purges.note_replaced([1; 32]);
        assert!(purges.gone_since(start, 2).is_none());
        assert!(!purges.has_met(&KEY, &TENANT, start));
        assert_eq!(purges.read().replaced.len(), REPLACED_MAX);
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
