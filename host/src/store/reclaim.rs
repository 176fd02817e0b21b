//! Making room: the oldest segment goes, with all that is in it.
//!
//! Its places are gone at once, its payloads when their last reader is. Until then it counts
//! against the quota: the disk never holds more than was allowed.

use super::{Store, StoreError};

/// Up to one part in this many of the quota may be held by readers of segments that are
/// reclaimed already. Beyond that no further segment is reclaimed for the sake of a new one:
/// slow readers would otherwise empty the cache.
const PINNED_SHARE: u64 = 4;

impl Store {
    /// Reclaims until another `bytes` fit into the quota.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        while self.disk_use.bytes() + bytes > self.quota {
            let pinned = self.pinned_bytes();
            if pinned > self.quota / PINNED_SHARE {
                return Err(StoreError::Pinned(pinned));
            }
            if !self.reclaim_oldest()? {
                return Err(StoreError::Pinned(pinned));
            }
        }
        Ok(())
    }

    /// Reclaims until another `more` entries may be added. What cannot be removed now is too
    /// many entries for a while, but no more disk.
    pub(super) fn keep_entries_max(&mut self, more: u64) {
        while self.index.len() + more > self.entries_max {
            match self.reclaim_oldest() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "too many entries");
                    return;
                }
            }
        }
    }

    /// False when there is none but the active one.
    fn reclaim_oldest(&mut self) -> Result<bool, StoreError> {
        let Some(oldest) = self.segments.front() else {
            return Ok(false);
        };
        self.folder
            .remove_segment(&*self.disk, oldest.id)
            .map_err(StoreError::io("remove", &self.folder.segment(oldest.id)))?;
        // An open file keeps its space, unlinked or not.
        self.unsynced.retain(|unsynced| unsynced.id != oldest.id);
        self.evicted += self.index.remove_where(|place| place.is_in(oldest));
        self.segments.pop_front();
        self.reclaimed += 1;
        Ok(true)
    }

    /// Bytes of segments that are reclaimed but still read.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let listed: u64 = self.listed().map(|segment| segment.disk_bytes()).sum();
        self.disk_use.bytes().saturating_sub(listed)
    }
}
