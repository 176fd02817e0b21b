//! Making room: the oldest segment goes, with all that is in it.
//!
//! Its places are gone at once, its payloads when their last reader is. Until then it counts
//! against the quota: the disk never holds more than was allowed.

use super::{Store, StoreError};
use std::io;

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
            let Some(oldest) = self.segments.front() else {
                return Err(StoreError::Pinned(pinned));
            };
            let path = self.folder.segment(oldest.id);
            match self.disk.unlink(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &path)(error));
                }
                _ => {}
            }
            // An open file keeps its space, unlinked or not.
            self.unsynced.retain(|unsynced| unsynced.id != oldest.id);
            self.segments.pop_front();
            self.reclaimed += 1;
        }
        Ok(())
    }

    /// Bytes of segments that are reclaimed but still read.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let listed: u64 = self.listed().map(|segment| segment.bytes).sum();
        self.disk_use.bytes().saturating_sub(listed)
    }
}
