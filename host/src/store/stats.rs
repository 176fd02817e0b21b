//! What a store says of itself.

use super::Store;

/// Counts for the operator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreStats {
    pub(crate) segments: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) dead_bytes: u64,
    pub(crate) reclaimed: u64,
    /// Bytes of records that were written again for that.
    pub(crate) moved_bytes: u64,
    /// Entries that went with segments that were reclaimed.
    pub(crate) evicted: u64,
    /// Segments that are not encrypted with the first key.
    pub(crate) segments_of_old_keys: u64,
    /// Entries that were evicted because their tenant was over its bound.
    pub(crate) over_bounds: u64,
}

impl Store {
    pub(crate) fn stats(&self) -> StoreStats {
        StoreStats {
            segments: self.listed().count() as u64,
            disk_bytes: self.disk_use.bytes(),
            pinned_bytes: self.pinned_bytes(),
            dead_bytes: self.listed().map(|segment| segment.dead_bytes()).sum(),
            reclaimed: self.reclaimed,
            moved_bytes: self.moved_bytes,
            evicted: self.evicted,
            segments_of_old_keys: self.segments_of_old_keys().len() as u64,
            over_bounds: self.over_bounds,
        }
    }
}
