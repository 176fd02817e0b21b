//! What the cache counts, for the operator.

use std::sync::atomic::AtomicU64;

/// What the cache counts. Counts of events begin at 0 when the process starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Entries held. Those of a purged tenant count until they are asked for or evicted.
    pub entries: u64,
    /// Their payloads together.
    pub payload_bytes: u64,
    /// What waits to be written, in bytes of memory.
    pub queued_bytes: u64,
    /// What segments occupy, those included that are unlinked but still read.
    pub disk_bytes: u64,
    /// The part of it that is unlinked but still read.
    pub pinned_bytes: u64,
    /// The part of it that no lookup finds any more.
    pub dead_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Segments removed to make room.
    pub segments_reclaimed: u64,
    /// Entries stored, on disk or in memory.
    pub inserts: u64,
    /// Entries stored in memory because the disk was in trouble.
    pub inserts_in_memory: u64,
    /// Entries that were not stored because the disk did not keep up.
    pub inserts_refused: u64,
    /// Entries that had to make room.
    pub evictions: u64,
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
