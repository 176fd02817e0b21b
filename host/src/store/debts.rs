//! Purge marks and tombstones that the disk does not have yet.

use super::purge_marks::Whose;
use super::record::NewRecord;
use super::tombstones::{OfLost, Owed};
use super::{Store, StoreError};

impl Store {
    /// Purges the records appended so far: for readers at once, and for readers after a restart
    /// once [`settle_purge_marks`](Self::settle_purge_marks) has succeeded.
    pub(crate) fn purge(&mut self, whose: Whose<'_>) {
        // Skip a sequence: a failed write may have left a record with it.
        self.last += 1;
        let oldest = self.oldest_sequence();
        self.purge_marks.purge(whose, self.last, oldest);
        for segment in self.listed() {
            segment.purge(whose);
        }
    }

    /// How many live records would be purged, and their bytes. Looks at segments, not at records.
    pub(crate) fn count(&self, whose: Whose<'_>) -> (u64, u64) {
        let each = self.listed().map(|segment| segment.live(whose));
        each.fold((0, 0), |sum, live| (sum.0 + live.0, sum.1 + live.1))
    }

    /// Makes the purge marks durable, if they are not.
    pub(crate) fn settle_purge_marks(&mut self) -> Result<(), StoreError> {
        let settled = self.purge_marks.settle(&*self.disk, &mut self.folder);
        settled.map_err(StoreError::io("write purge marks in", self.folder.root()))
    }

    /// Forgets, durably, the tenants whose purges cover no record any more: then no byte of theirs
    /// is on disk. Segments were removed durably before.
    pub(crate) fn forget_purges(&mut self) -> Result<(), StoreError> {
        self.reclaim_hidden()?;
        self.purge_marks.forget(self.oldest_sequence());
        self.settle_purge_marks()
    }

    /// The lowest that is on disk.
    pub(super) fn oldest_sequence(&self) -> u64 {
        let first = self.listed().map(|segment| segment.first_sequence());
        first.min().unwrap_or(u64::MAX)
    }

    /// Remembers to write a tombstone for a key that is out of the index. `was_there`: the index knew
    /// a record of it. Returns how many are owed.
    pub(crate) fn owe_tombstone(&mut self, key: &[u8; 32], was_there: bool) -> Owed {
        self.tombstones.owe(key, was_there);
        self.tombstones.owed()
    }

    /// Forgets the owed tombstones: everything on disk was purged.
    pub(crate) fn owes_no_tombstones(&mut self) {
        self.tombstones.clear();
    }

    /// Writes the owed tombstones, as far as the disk takes them.
    pub(crate) fn settle_tombstones(&mut self) -> Result<(), StoreError> {
        if self.tombstones.is_empty() {
            return Ok(());
        }
        let mut owed = self.tombstones.take();
        let paid = owed.pay(|key| {
            // An entry stored since then supersedes as well as a tombstone does, until it goes.
            match self.stands_in(key) {
                true => Ok(()),
                false => self.append(&NewRecord::tombstone(key)).map(drop),
            }
        });
        self.tombstones.put_back(owed);
        paid
    }

    /// Makes the tombstones of keys durable whose newest record was lost, before any segment goes: it may be the
    /// one that shows the loss. False if they are being written, and this is the reclaiming of room for them.
    pub(super) fn bury_lost(&mut self) -> Result<bool, StoreError> {
        match self.tombstones.of_lost() {
            OfLost::None => return Ok(true),
            OfLost::Underway => return Ok(false),
            of_lost @ OfLost::Owed => *of_lost = OfLost::Underway,
        }
        let buried = self.settle_tombstones().and_then(|()| self.sync_all());
        *self.tombstones.of_lost() = match buried {
            Ok(()) => OfLost::None,
            Err(_) => OfLost::Owed,
        };
        buried.map(|()| true)
    }
}
