//! Entries in memory: all of a cache without a disk, and those that a disk in trouble did not
//! take.
//!
//! ```text
//! find   ─► entries (papaya: key ─► Entry, no lock)
//!              └ some reads ([`is_sampled`]) ─► policy (moka: key ─► weight), which evicts
//! insert ─► entries, policy
//! ```

use super::entry::Entry;
use super::sampled::is_sampled;
use crate::store::{ALIGN, KeyState};
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Entries in memory, within a bound of bytes plus the newest entry.
pub(super) struct Memory {
    bytes_max: u64,
    entries: Arc<Entries>,
    policy: moka::sync::Cache<[u8; 32], u32, KeyState>,
    /// Whether it ever had an entry, so that lookups of a healthy cache skip it.
    is_used: AtomicBool,
}

struct Entries {
    entries: papaya::HashMap<[u8; 32], Entry, KeyState>,
    payload_bytes: AtomicU64,
    /// The memory of all entries, in bytes.
    record_bytes: AtomicU64,
    evictions: AtomicU64,
}

impl Memory {
    /// At most `entries_max`, that together take `bytes_max`.
    pub(super) fn new(bytes_max: u64, entries_max: u64) -> Self {
        let entries = Arc::new(Entries {
            entries: papaya::HashMap::with_hasher(KeyState::new()),
            payload_bytes: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        });
        // Weighed in units of ALIGN, so that the largest record fits moka's u32. Each entry weighs
        // at least its share of entries_max, which bounds the number of entries.
        let max = bytes_max / ALIGN;
        let least = u32::try_from(max / entries_max.max(1)).unwrap_or(u32::MAX);
        let policy = moka::sync::Cache::builder()
            // LRU: a new answer is always kept, as its caller expects.
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(max)
            .weigher(move |_: &[u8; 32], weight: &u32| least.max(*weight))
            .eviction_listener({
                let entries = Arc::clone(&entries);
                move |key: Arc<[u8; 32]>, _, cause| {
                    if cause == RemovalCause::Size && entries.remove(&key) {
                        entries.evictions.fetch_add(1, Relaxed);
                    }
                }
            })
            .build_with_hasher(KeyState::new());
        Self {
            bytes_max,
            entries,
            policy,
            is_used: AtomicBool::new(false),
        }
    }

    /// The entry of a key, counted as a use of it.
    pub(super) fn find(&self, key: &[u8; 32]) -> Option<Entry> {
        let entry = self.peek(key)?;
        if is_sampled() {
            self.policy.get(key);
        }
        Some(entry)
    }

    /// The entry of a key, without telling the policy.
    pub(super) fn peek(&self, key: &[u8; 32]) -> Option<Entry> {
        if !self.is_used.load(Relaxed) {
            return None;
        }
        self.entries.entries.pin().get(key).cloned()
    }

    pub(super) fn insert(&self, key: &[u8; 32], entry: Entry) {
        self.is_used.store(true, Relaxed);
        let weight = u32::try_from(entry.record_bytes() / ALIGN).unwrap_or(u32::MAX);
        let entries = &self.entries;
        entries
            .payload_bytes
            .fetch_add(entry.payload_bytes(), Relaxed);
        let bytes = entry.record_bytes();
        let bytes = entries.record_bytes.fetch_add(bytes, Relaxed) + bytes;
        if let Some(old) = entries.entries.pin().insert(*key, entry) {
            entries.leaves(old);
        }
        // In this order, and in the reverse when removing: so no concurrent call leaves an entry
        // that the policy does not know and would never evict.
        self.policy.insert(*key, weight);
        // The policy would evict others only with its next batch, up to 64 entries later.
        if bytes > self.bytes_max {
            self.settle();
        }
    }

    /// Removes the entry of a key; whether it existed.
    pub(super) fn remove(&self, key: &[u8; 32]) -> bool {
        if !self.is_used.load(Relaxed) {
            return false;
        }
        self.policy.invalidate(key);
        self.entries.remove(key)
    }

    /// Removes the entries that are `which`. Takes a look at each.
    pub(super) fn remove_where(&self, which: impl Fn(&Entry) -> bool) {
        let entries = self.entries.entries.pin();
        for (key, _) in entries.iter().filter(|(_, entry)| which(entry)) {
            self.remove(key);
        }
    }

    /// The keys that are `which`.
    pub(super) fn keys(&self, which: impl Fn(&[u8; 32]) -> bool) -> Vec<[u8; 32]> {
        let entries = self.entries.entries.pin();
        entries.keys().filter(|key| which(key)).copied().collect()
    }

    /// Entries that are `which`, and their memory in bytes. Looks at each.
    pub(super) fn count(&self, which: impl Fn(&[u8; 32], &Entry) -> bool) -> (u64, u64) {
        let entries = self.entries.entries.pin();
        let meant = entries.iter().filter(|(key, entry)| which(key, entry));
        meant.fold((0, 0), |(count, bytes), (_, entry)| {
            (count + 1, bytes + entry.record_bytes())
        })
    }

    /// Evicts the entries past the bounds now, instead of along with later calls.
    pub(super) fn settle(&self) {
        self.policy.run_pending_tasks();
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.entries.len() as u64
    }

    /// Of all entries together.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.entries.payload_bytes.load(Relaxed)
    }

    /// The memory of all entries, in bytes.
    #[cfg(test)]
    pub(super) fn record_bytes(&self) -> u64 {
        self.entries.record_bytes.load(Relaxed)
    }

    /// How many had to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.entries.evictions.load(Relaxed)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Entries {
    fn remove(&self, key: &[u8; 32]) -> bool {
        let entries = self.entries.pin();
        let old = entries.remove(key);
        old.inspect(|old| self.leaves(old)).is_some()
    }

    fn leaves(&self, entry: &Entry) {
        self.payload_bytes.fetch_sub(entry.payload_bytes(), Relaxed);
        self.record_bytes.fetch_sub(entry.record_bytes(), Relaxed);
    }
}
