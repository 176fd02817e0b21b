//! The one who writes: the store, the trouble it is in, and what it owes the disk since then.

use super::CacheKey;
use crate::store::{NewRecord, Store, StoreError, Whose};
use std::collections::HashSet;

/// So many keys are remembered to be removed from a disk that is in trouble just now: some
/// 4 MiB. When there are more, everything on disk is given up: none of it may come back.
const OWED_TOMBSTONES_MAX: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) trouble: Option<Trouble>,
    /// Keys that were removed, or went to memory, while the disk was in trouble. A record of
    /// theirs that is on disk must not come back with a restart.
    pub(super) owed_tombstones: HashSet<CacheKey>,
}

impl Writer {
    pub(super) fn owe_tombstone(&mut self, key: &CacheKey) {
        if self.owed_tombstones.len() >= OWED_TOMBSTONES_MAX {
            tracing::warn!("too much was removed while the disk is in trouble; it is given up");
            self.owed_tombstones.clear();
            self.store.purge(Whose::Everybody);
        }
        self.owed_tombstones.insert(*key);
    }

    /// Whether the disk failed a short time ago, as far as anybody knows who has no clock.
    pub(super) fn is_failing(&self) -> bool {
        let failed_at = self.trouble.as_ref().and_then(|t| t.failed_at_ms);
        failed_at.is_some()
    }

    /// Writes what is owed, at the first opportunity.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        self.store.settle_epochs()?;
        self.store.settle_unburied()?;
        while let Some(key) = self.owed_tombstones.iter().next().copied() {
            self.store.append(&NewRecord::tombstone(key.as_bytes()))?;
            self.owed_tombstones.remove(&key);
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    /// Inserts near this time go to memory at once; `None` when trying again is cheap.
    pub(super) failed_at_ms: Option<u64>,
}
