//! The cache's counters, for the operator.

use super::{Cache, Shared, lock};
use crate::store::{Place, StoreStats};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::thread;
use std::sync::TryLockError;
use std::time::Duration;

/// The cache's counters. Counts of events begin at 0 when the process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries held. A purged tenant's entries count until they are asked for or evicted, and entries of
    /// a tenant that had too much until their segment is reclaimed.
    pub entries: u64,
    /// Their payloads together.
    pub payload_bytes: u64,
    /// Memory of the entries that wait to be written, in bytes.
    pub queued_bytes: u64,
    /// Disk space of the segments, including unlinked ones that still have readers.
    pub disk_bytes: u64,
    /// The part of it that is unlinked but still read.
    pub pinned_bytes: u64,
    /// The part of it that no lookup finds any more.
    pub dead_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Segments removed to make room.
    pub segments_reclaimed: u64,
    /// Segments that are not encrypted with the first of several keys. At 0, the others are of no use any
    /// more.
    pub segments_of_old_keys: u64,
    /// Bytes of entries that were written again for that.
    pub moved_bytes: u64,
    /// Entries stored, on disk or in memory.
    pub inserts: u64,
    /// Entries stored in memory because the disk was in trouble.
    pub inserts_in_memory: u64,
    /// Entries that were not stored because the disk did not keep up.
    pub inserts_refused: u64,
    /// Entries that had to make room.
    pub evictions: u64,
    /// Entries that were evicted because their tenant had more than it may store.
    pub evictions_over_bounds: u64,
    /// Lookups that were misses because the disk was too slow to read, or hung.
    pub lookups_given_up: u64,
    /// Failed writes and syncs.
    pub store_errors: u64,
    /// Records that were not as they were written, when opening or reading.
    pub corrupt: u64,
    /// Whether entries go to disk. Always true for [`Cache::in_memory`](super::Cache::in_memory).
    pub healthy: bool,
    /// If not, why.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) inserts: AtomicU64,
    pub(super) inserts_in_memory: AtomicU64,
    pub(super) inserts_refused: AtomicU64,
    pub(super) store_errors: AtomicU64,
    pub(super) corrupt: AtomicU64,
}

/// How often reading counts waits for a busy disk.
const STATS_WAITS_MAX: u32 = 10;
const STATS_WAIT: Duration = Duration::from_millis(1);

/// Bound of recounts when the writer wrote meanwhile. After that the count is not exact.
const COUNTS_MAX: usize = 4;

impl Cache {
    /// Counts for the operator.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let counters = &shared.counters;
        // moka evicts late otherwise, and the count would miss the latest inserts.
        shared.memory.settle();
        let (entries, payload_bytes) = shared.contents();
        let queue = shared.queue.stats();
        let store = shared.store_stats();
        let trouble = lock(&shared.trouble).as_ref().map(|t| t.reason.clone());
        let trouble = trouble
            .or(queue.trouble)
            .or_else(|| shared.readers.trouble());
        Stats {
            entries,
            payload_bytes,
            queued_bytes: queue.bytes,
            disk_bytes: store.disk_bytes,
            pinned_bytes: store.pinned_bytes,
            dead_bytes: store.dead_bytes,
            segments: store.segments,
            segments_reclaimed: store.reclaimed,
            segments_of_old_keys: store.segments_of_old_keys,
            moved_bytes: store.moved_bytes,
            inserts: counters.inserts.load(Relaxed),
            inserts_in_memory: counters.inserts_in_memory.load(Relaxed),
            inserts_refused: counters.inserts_refused.load(Relaxed),
            evictions: shared.memory.evictions() + store.evicted,
            evictions_over_bounds: store.over_bounds,
            lookups_given_up: shared.readers.given_up(),
            store_errors: counters.store_errors.load(Relaxed),
            corrupt: counters.corrupt.load(Relaxed),
            healthy: trouble.is_none(),
            trouble,
        }
    }
}

impl Shared {
    /// The number of entries, and their payload bytes.
    fn contents(&self) -> (u64, u64) {
        let (index, memory) = (&self.index, &self.memory);
        let written = || {
            (
                index.len() + memory.len(),
                index.payload_bytes() + memory.payload_bytes(),
            )
        };
        let is_written = |key: &[u8; 32]| {
            let place = index.find(key, Place::payload_bytes);
            place.or_else(|| memory.peek(key).map(|entry| entry.payload_bytes()))
        };
        let mut before = written();
        let mut contents = self.queue.on_top_of(before, is_written);
        for _ in 1..COUNTS_MAX {
            let after = written();
            if after == before {
                break;
            }
            before = after;
            contents = self.queue.on_top_of(before, is_written);
        }
        contents
    }

    /// The store's counts, or the last known ones while it waits for the disk.
    pub(super) fn store_stats(&self) -> StoreStats {
        let Some(writer) = self.writer.get() else {
            return StoreStats::default();
        };
        for _ in 0..STATS_WAITS_MAX {
            let writer = match writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(STATS_WAIT);
                    continue;
                }
            };
            let stats = writer.store.stats();
            drop(writer);
            *lock(&self.store_stats) = stats;
            return stats;
        }
        *lock(&self.store_stats)
    }
}
