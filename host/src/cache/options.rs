//! Where the cache lies and how large it may be; each default with its reason.

use super::METADATA_BYTES_MAX;
use crate::store::{
    ALIGN, BLOCK_BYTES, ENVELOPE_BYTES, EncryptionKeys, HEADER_BYTES, OpenError,
    SEGMENT_BYTES_LIMIT, SEGMENTS_MIN, Shares, StoreOptions, TenantBounds,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Each segment keeps a file open, and a process usually may open 1024. Segments grow longer to
/// stay below this number; beyond half a terabyte it is exceeded, and the limit has to be raised.
const SEGMENTS_MAX: u64 = 512;

/// Bytes of the quota for each entry, by default. Most answers are longer; with shorter ones the index
/// would take more than a twentieth of the disk's size in memory.
const BYTES_PER_ENTRY: u64 = 2048;

/// The least that [`CacheOptions::entries_max`] is by default: 100 MB of memory.
const ENTRIES_MAX_LEAST: u64 = 1 << 20;

/// When an entry is durable: survives a loss of power. It survives the end of the process as soon
/// as it is written, a moment after it is stored; a process that ends normally first writes all
/// waiting entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the operating system gets to it, as a rule within half a minute, or when
    /// [`Cache::sync`](super::Cache::sync) was called.
    Os,
    /// After this time, or when this many bytes wait.
    Interval {
        /// In milliseconds; at least 1.
        ms: u64,
        /// In bytes.
        bytes: u64,
    },
    /// Before the insert or the removal returns. Concurrent calls wait for the medium together, at
    /// most a second. If it fails or takes longer, the entry is still stored, and
    /// [`Stats`](super::Stats) shows the failure.
    EveryInsert,
}

impl Default for Durability {
    /// A second or 8 MiB: a provider can be asked again for this much.
    fn default() -> Self {
        Self::Interval {
            ms: 1000,
            bytes: 8 << 20,
        }
    }
}

/// Where the cache lies and how large it may be.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// The data folder, made when absent. One process uses it at a time.
    pub data_dir: PathBuf,
    /// Upper bound of all segments on disk.
    pub disk_bytes_max: u64,
    /// Upper bound of entries in memory: all entries of
    /// [`Cache::in_memory`](super::Cache::in_memory), and those of a cache whose disk is in
    /// trouble.
    pub memory_bytes_max: u64,
    /// The longest payload that is stored.
    pub entry_bytes_max: u64,
    /// Length of a segment file. Less is used when the quota is small, more when it is large.
    pub segment_bytes: u64,
    /// The most entries that are kept, whatever their size: each takes some 100 bytes of memory
    /// beside its payload. `None`: one for each 2 KiB of `disk_bytes_max`, and at least a million, so
    /// that memory is at most a twentieth of the disk, or 100 MB.
    pub entries_max: Option<u64>,
    /// For how many seconds after its expiry an entry is kept like any other, for
    /// [`Lookup::Stale`](super::Lookup::Stale). After that, making room removes it.
    pub stale_seconds_max: u64,
    /// When an entry survives a loss of power.
    pub durability: Durability,
    /// With keys, what is on disk is encrypted: metadata and payloads, not keys, tenants, times and
    /// lengths. A folder is encrypted, or it is not; see [`EncryptionKeys::converting`].
    pub encryption_keys: Option<EncryptionKeys>,
    /// What each tenant may store on disk.
    pub tenant_bounds: TenantBounds,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            data_dir: "reflex-data".into(),
            // A million answers of 4 KiB, and small enough for the system disk of an edge node.
            disk_bytes_max: 4 << 30,
            // A daemon grows by this much when its disk fails.
            memory_bytes_max: 256 << 20,
            // Longer than any text that a model writes; generated images fit too.
            entry_bytes_max: 16 << 20,
            // Few enough mappings, and reclaiming one segment delays the writer only briefly.
            segment_bytes: 16 << 20,
            entries_max: None,
            stale_seconds_max: 0,
            durability: Durability::default(),
            encryption_keys: None,
            // Without bounds, tenants with little are still sheltered from those with much.
            tenant_bounds: TenantBounds::default(),
        }
    }
}

impl CacheOptions {
    /// The bound that holds, at least 1.
    pub(super) fn entries_max(&self) -> u64 {
        let by_quota = (self.disk_bytes_max / BYTES_PER_ENTRY).max(ENTRIES_MAX_LEAST);
        self.entries_max.unwrap_or(by_quota).max(1)
    }

    /// The store's options: segments no larger than the quota suggests, but large enough for the
    /// largest entry.
    pub(super) fn store(&self) -> Result<StoreOptions, OpenError> {
        let envelope = self.encryption_keys.as_ref().map_or(0, |_| ENVELOPE_BYTES);
        let record_max = (HEADER_BYTES + METADATA_BYTES_MAX + envelope) as u64
            + self.entry_bytes_max.min(SEGMENT_BYTES_LIMIT);
        let needed = BLOCK_BYTES as u64 + record_max.next_multiple_of(ALIGN);
        let segment_bytes = self
            .segment_bytes
            .min(self.disk_bytes_max / SEGMENTS_MIN)
            .max((self.disk_bytes_max / SEGMENTS_MAX).min(SEGMENT_BYTES_LIMIT))
            .max(needed)
            .next_multiple_of(BLOCK_BYTES as u64);
        if segment_bytes > SEGMENT_BYTES_LIMIT {
            return Err(OpenError::Sizes(format!(
                "segment_bytes and entry_bytes_max must stay below {SEGMENT_BYTES_LIMIT}"
            )));
        }
        if segment_bytes * 2 > self.disk_bytes_max {
            return Err(OpenError::Quota(format!(
                "disk_bytes_max = {} is too small for entry_bytes_max = {}; it takes at least {}",
                self.disk_bytes_max,
                self.entry_bytes_max,
                segment_bytes * 2
            )));
        }
        Ok(StoreOptions {
            dir: self.data_dir.clone(),
            quota: self.disk_bytes_max,
            segment_bytes,
            entries_max: self.entries_max(),
            stale_ms_max: self.stale_seconds_max.saturating_mul(1000),
            keys: self.encryption_keys.clone(),
            shares: Shares::new(self.tenant_bounds.clone()),
            progress: Arc::default(),
        })
    }
}
