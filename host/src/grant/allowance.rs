//! How much a component may store, and how fast.

use crate::cache::CacheKey;
use crate::grant::refusal::Refusal;
use crate::sync::lock;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes that an entry counts beyond its metadata and payload: its header on disk. So very
/// small entries are not free.
const OVERHEAD_BYTES: u64 = 128;

/// Entries counted for one component: some 30 MiB of memory. Past it, a component with a quota
/// cannot insert further entries until some are gone.
const ENTRIES_MAX: usize = 1 << 18;

/// Entries checked for expiry or eviction when a component has no room left. The next insert checks
/// others.
const LOOKS_MAX: usize = 64;

const SECOND_US: u64 = 1_000_000;

/// How much a component may store, and how fast; and its refusals.
///
/// The bytes counted are those of live entries that this grant has stored since the process began:
/// metadata, payload and 128 bytes for each. Entries of other grants in the same namespace count
/// for those grants. Inserts come from a bucket that holds as many as are allowed in a second.
#[derive(Default)]
pub struct Allowance {
    bytes_max: Option<u64>,
    inserts_per_second_max: Option<NonZeroU32>,
    ledger: Mutex<Ledger>,
    /// When the next insert would be on time, in microseconds since 1970.
    next_insert_us: Mutex<u64>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// The stored entries. Each key is in both, once.
#[derive(Default)]
struct Ledger {
    bytes: HashMap<CacheKey, u64>,
    /// In the order in which they are looked at again.
    order: VecDeque<CacheKey>,
    sum: u64,
}

impl Allowance {
    /// Bounds on the bytes of live entries, and on inserts a second; `None` is no bound.
    pub fn new(bytes_max: Option<u64>, inserts_per_second_max: Option<NonZeroU32>) -> Self {
        Self {
            bytes_max,
            inserts_per_second_max,
            ..Self::default()
        }
    }

    /// The most bytes of live entries.
    pub fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    /// The most inserts a second.
    pub fn inserts_per_second_max(&self) -> Option<NonZeroU32> {
        self.inserts_per_second_max
    }

    /// The bytes that count now. Expired or evicted entries may count until no room is left.
    pub fn bytes(&self) -> u64 {
        lock(&self.ledger).sum
    }

    /// The number of refusals for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes an insert out of the bucket.
    pub(crate) fn take_insert(&self, now_ms: u64) -> Result<(), Refusal> {
        let Some(per_second) = self.inserts_per_second_max else {
            return Ok(());
        };
        let interval = SECOND_US / u64::from(per_second.get());
        let now = now_ms.saturating_mul(1000);
        let mut next = lock(&self.next_insert_us);
        // Never further ahead than a second: the clock may have been set back.
        let due = (*next).clamp(now, now.saturating_add(SECOND_US));
        if due - now > SECOND_US - interval {
            *next = due;
            return Err(Refusal::Inserts);
        }
        *next = due + interval;
        Ok(())
    }

    /// Reserves room for an entry, if the bounds allow it. `is_live` says whether an entry is still
    /// an answer. Returns the key's bytes before, for [`set`](Self::set) if the entry is not
    /// stored.
    pub(crate) fn reserve(
        &self,
        key: &CacheKey,
        content_bytes: u64,
        is_live: impl Fn(&CacheKey) -> bool,
    ) -> Result<u64, Refusal> {
        let Some(most) = self.bytes_max else {
            return Ok(0);
        };
        let bytes = content_bytes.saturating_add(OVERHEAD_BYTES);
        let mut ledger = lock(&self.ledger);
        let before = ledger.bytes.get(key).copied();
        let fits = |ledger: &Ledger| {
            let others = ledger.sum - ledger.bytes.get(key).copied().unwrap_or(0);
            match others.saturating_add(bytes) <= most {
                false => Err(Refusal::Bytes),
                true if ledger.order.len() >= ENTRIES_MAX && !ledger.bytes.contains_key(key) => {
                    Err(Refusal::Entries)
                }
                true => Ok(()),
            }
        };
        if fits(&ledger).is_err() && bytes <= most {
            ledger.settle(|other| other == key || is_live(other));
        }
        fits(&ledger)?;
        ledger.set(key, bytes);
        Ok(before.unwrap_or(0))
    }

    /// Sets the bytes of the key's entry.
    pub(crate) fn set(&self, key: &CacheKey, bytes: u64) {
        if self.bytes_max.is_some() {
            lock(&self.ledger).set(key, bytes);
        }
    }
}

impl Ledger {
    fn set(&mut self, key: &CacheKey, bytes: u64) {
        let before = match self.bytes.get_mut(key) {
            Some(before) => std::mem::replace(before, bytes),
            None if bytes == 0 => return,
            None => {
                self.bytes.insert(*key, bytes);
                self.order.push_back(*key);
                0
            }
        };
        self.sum = self.sum - before + bytes;
    }

    /// Forgets the entries that are gone, among those it looks at.
    fn settle(&mut self, is_live: impl Fn(&CacheKey) -> bool) {
        for _ in 0..LOOKS_MAX.min(self.order.len()) {
            let Some(key) = self.order.pop_front() else {
                return;
            };
            let bytes = self.bytes.get(&key).copied().unwrap_or(0);
            if bytes > 0 && is_live(&key) {
                self.order.push_back(key);
            } else {
                self.bytes.remove(&key);
                self.sum -= bytes;
            }
        }
    }
}

/// Without the ledger: it is made of keys.
impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance")
            .field("bytes_max", &self.bytes_max)
            .field("inserts_per_second_max", &self.inserts_per_second_max)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(number: u8) -> CacheKey {
        CacheKey::from_bytes([number; 32])
    }

    #[test]
    fn live_entries_count_and_others_make_room() {
        let allowance = Allowance::new(Some(3 * (OVERHEAD_BYTES + 10)), None);
        let check = |number, bytes, live: &[u8], expected| {
            let is_live = |other: &CacheKey| live.iter().any(|&number| key(number) == *other);
            assert_eq!(allowance.reserve(&key(number), bytes, is_live), expected);
        };
        let each = OVERHEAD_BYTES + 10;
        for number in 1..=3 {
            check(number, 10, &[], Ok(0));
        }
        check(4, 10, &[1, 2, 3], Err(Refusal::Bytes));
        // A replacement of the same size needs no more room.
        check(1, 10, &[1, 2, 3], Ok(each));
        check(1, 11, &[1, 2, 3], Err(Refusal::Bytes));
        // An evicted entry leaves its room, and so does a removed one.
        check(4, 10, &[1, 3], Ok(0));
        allowance.set(&key(3), 0);
        check(5, 10, &[1, 4], Ok(0));
        assert_eq!(allowance.bytes(), 3 * each);
        check(6, 1 << 20, &[], Err(Refusal::Bytes));
        assert_eq!(allowance.bytes(), 3 * each);
    }

    #[test]
    fn a_bucket_holds_the_inserts_of_a_second() {
        let allowance = Allowance::new(None, NonZeroU32::new(4));
        let taken = |now_ms| {
            let inserts = (0..10).take_while(|_| allowance.take_insert(now_ms).is_ok());
            inserts.count()
        };
        assert_eq!(taken(1_000_000), 4);
        assert_eq!(taken(1_000_249), 0);
        assert_eq!(taken(1_000_500), 2);
        assert_eq!(taken(1_009_000), 4);
        // The clock is set back: a second later inserts work again.
        assert_eq!(taken(2_000), 0);
        assert_eq!(taken(3_000), 4);
    }

    #[test]
    fn without_bounds_nothing_is_refused_or_remembered() {
        let allowance = Allowance::default();
        for number in 0..=255 {
            assert_eq!(allowance.reserve(&key(number), u64::MAX, |_| true), Ok(0));
            assert_eq!(allowance.take_insert(0), Ok(()));
        }
        assert_eq!(allowance.bytes(), 0);
    }
}
