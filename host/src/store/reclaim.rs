//! Making room: a segment goes, and what is worth keeping of it is written again.
//!
//! ```text
//! a segment was begun ─► no room for another one? ─► mostly dead: the deadest, all that lives moves
//!                                                └► else: the oldest, what was hit moves
//! ```
//!
//! So there always is room for one more segment, except when readers hold what is reclaimed:
//! then the oldest goes as it is. The disk never holds more than was allowed.
//!
//! The oldest may always go: nothing older is left for its records to supersede. Another one
//! goes only when all else is durable, and leaves a tombstone for what it superseded.

use super::format::{Contents, Header, Listed, SEGMENT_BYTES_LIMIT};
use super::record::NewRecord;
use super::recover::{Records, records_of};
use super::segment::{Place, Read, Segment};
use super::{Store, StoreError};
use std::collections::HashSet;
use std::sync::Arc;

/// Up to one part in this many of the quota may be held by readers of segments that are
/// reclaimed already. Beyond that no further segment is reclaimed for the sake of a new one:
/// slow readers would otherwise empty the cache.
const PINNED_SHARE: u64 = 4;

/// A segment of which one part in so many is dead is reclaimed before its turn: what lives in
/// it is then no more to be written again than what becomes free.
const DEAD_SHARE: u64 = 2;

/// At most one part in so many of a segment is filled with what is moved, so that each byte
/// that comes in is written twice at most.
const MOVED_SHARE: u64 = 2;

/// What the contents of a segment may take, as a part of it, when room is kept for another
/// one: nothing usual takes more.
const CONTENTS_SHARE: u64 = 4;

const _: () = assert!(SEGMENT_BYTES_LIMIT <= u32::MAX as u64);

impl Store {
    /// Reclaims the oldest as they are until another `bytes` fit into the quota.
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

    /// Reclaims the oldest as they are until another `more` entries may be added. What cannot be
    /// removed now is too many entries for a while, but no more disk.
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

    /// Reclaims, after a segment was begun, until there is room for the next one. When that
    /// fails, the next one will have to do with less.
    pub(super) fn keep_spare(&mut self, now_ms: u64) {
        let bytes = self.segment_bytes + self.segment_bytes / CONTENTS_SHARE;
        let entries = 2 * self.segment_records_max();
        let mut moved = Moved {
            bytes: 0,
            bytes_max: self.segment_bytes / MOVED_SHARE,
            now_ms,
            buried: HashSet::new(),
        };
        while self.disk_use.bytes() + bytes > self.quota
            || self.index.len() + entries > self.entries_max
        {
            if self.segments.is_empty() || self.pinned_bytes() > self.quota / PINNED_SHARE {
                return;
            }
            if let Err(error) = self.reclaim_best(&mut moved) {
                tracing::debug!(%error, "nothing reclaimed ahead");
                return;
            }
        }
    }

    /// The segments there are now, oldest first, the active one sealed: what a whole rewriting
    /// has to go through.
    pub(crate) fn seal_all(&mut self) -> Result<Vec<u64>, StoreError> {
        let active = self.active.take();
        active.map_or(Ok(()), |active| self.seal(active))?;
        Ok(self.segments.iter().map(|segment| segment.id).collect())
    }

    /// Writes again what lives in a segment, if it is the oldest, makes it durable, and removes
    /// the segment. Where there is no room to write to, nothing is done, or, when it is to go by
    /// all means, as much is lost. False when there is no room.
    pub(crate) fn rewrite(
        &mut self,
        id: u64,
        now_ms: u64,
        by_all_means: bool,
    ) -> Result<bool, StoreError> {
        let Some(victim) = self.segments.front().filter(|oldest| oldest.id == id) else {
            return Ok(true);
        };
        let victim = Arc::clone(victim);
        for (offset, header, _) in self.records(&victim).found {
            let key = &header.key;
            let place = self.index.find(key, Place::clone);
            let is_alive = self.is_alive(&header, now_ms);
            let Some(place) = place.filter(|place| place.is_at(&victim, offset) && is_alive) else {
                continue;
            };
            let bytes = header.shape().record_bytes();
            let fits = self.has_room_for(bytes)
                || self.disk_use.bytes() + self.segment_bytes <= self.quota;
            if !fits && !by_all_means {
                return Ok(false);
            }
            if fits && let Read::Sound(record) = place.read(key, &self.epochs) {
                self.write_again(&header, &record, place.hits())?;
            }
        }
        self.sync_all()?;
        self.remove(0)?;
        Ok(true)
    }

    fn write_again(&mut self, header: &Header, record: &[u8], hits: u8) -> Result<(), StoreError> {
        let shape = header.shape();
        let again = NewRecord::entry(
            &header.key,
            &header.tenant,
            &record[shape.metadata()],
            &record[shape.payload()],
            header.stored_at_ms,
            header.expires_at_ms,
        );
        self.append_as_it_is(&again)?;
        self.index.find(&header.key, |new| new.set_hits(hits));
        Ok(())
    }

    /// Reclaims the segment that is best reclaimed.
    fn reclaim_best(&mut self, moved: &mut Moved) -> Result<(), StoreError> {
        let can_be_early = !self.is_syncing && !self.segments.iter().any(|s| s.is_poisoned());
        let deadest = self
            .segments
            .iter()
            .enumerate()
            .max_by_key(|(_, segment)| segment.dead_bytes())
            .filter(|(_, segment)| segment.dead_bytes() >= segment.bytes / DEAD_SHARE);
        // What is younger than all that is in the oldest has not had its time yet.
        let deadest = deadest.filter(|_| can_be_early);
        let (mut at, mut is_early) = deadest.map_or((0, false), |(at, _)| (at, at > 0));
        let mut records = self.records(&self.segments[at]);
        if is_early && !records.are_all {
            // What cannot be read may supersede something older, which only the oldest cannot.
            (at, is_early) = (0, false);
            records = self.records(&self.segments[at]);
        }
        let victim = Arc::clone(&self.segments[at]);
        for record in &records.found {
            self.keep(&victim, at, record, is_early, moved)?;
        }
        if is_early {
            self.sync_all()?;
        }
        self.remove(at)
    }

    /// Writes a record of a segment that goes again, if it must not or should not be lost.
    fn keep(
        &mut self,
        victim: &Arc<Segment>,
        at: usize,
        (offset, header, _): &Listed,
        is_early: bool,
        moved: &mut Moved,
    ) -> Result<(), StoreError> {
        let key = &header.key;
        let supersedes = |store: &Self| store.segments.iter().take(at).any(|s| s.may_hold(key));
        let place = self.index.find(key, Place::clone);
        let Some(place) = place else {
            // Nothing is to be found: it was removed, damaged, or superseded in memory, and the
            // tombstone may be this record, another one, or not be written yet. So one is, when
            // something older would be found without this record.
            if supersedes(self) && moved.buried.insert(*key) {
                self.bury(key)?;
            }
            return Ok(());
        };
        if !place.is_at(victim, *offset) {
            return Ok(());
        }
        if self.is_worth_moving(header, &place, is_early, moved)
            && let Read::Sound(record) = place.read(key, &self.epochs)
        {
            let shape = header.shape();
            let again = NewRecord::entry(
                key,
                &header.tenant,
                &record[shape.metadata()],
                &record[shape.payload()],
                header.stored_at_ms,
                header.expires_at_ms,
            );
            let new = self.write(&again)?;
            let hits = place.hits();
            let hits = if is_early {
                hits
            } else {
                hits.saturating_sub(1)
            };
            self.index.find(key, |new| new.set_hits(hits));
            moved.bytes += new.shape().record_bytes();
            return Ok(());
        }
        self.evicted += u64::from(self.index.remove_place(key, &place));
        if supersedes(self) {
            self.bury(key)?;
        }
        Ok(())
    }

    fn is_worth_moving(
        &self,
        header: &Header,
        place: &Place,
        is_early: bool,
        moved: &Moved,
    ) -> bool {
        let bytes = header.shape().record_bytes();
        (is_early || place.hits() > 0)
            && self.is_alive(header, moved.now_ms)
            && moved.bytes + bytes <= moved.bytes_max
            && self.has_room_for(bytes)
    }

    /// Whether someone may still have a use for an entry.
    fn is_alive(&self, header: &Header, now_ms: u64) -> bool {
        header.expires_at_ms.saturating_add(self.stale_ms_max) > now_ms
    }

    /// Writes a tombstone for what an older segment may hold.
    fn bury(&mut self, key: &[u8; 32]) -> Result<(), StoreError> {
        let tombstone = NewRecord::tombstone(key);
        if !self.has_room_for(tombstone.shape().record_bytes()) {
            return Err(StoreError::Pinned(0));
        }
        self.write(&tombstone)?;
        Ok(())
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| {
            active.room() >= bytes && active.contents.records() < self.segment_records_max()
        })
    }

    /// Makes all that was written durable. Before a segment goes early: what is in it may
    /// supersede something older, and be superseded itself by what is not durable yet. If that
    /// was lost with the power, the older one would count again.
    fn sync_all(&mut self) -> Result<(), StoreError> {
        let waiting = self.unsynced.iter();
        let mut files: Vec<_> = waiting.map(|f| (f.id, Arc::clone(&f.file))).collect();
        let active = self.active.iter();
        files.extend(active.map(|active| (active.segment.id, Arc::clone(&active.file))));
        for (id, file) in files {
            if let Err(error) = file.sync_data() {
                self.is_lost = true;
                self.abandon_segment(id, None);
                return Err(StoreError::io("sync", &self.folder.segment(id))(error));
            }
        }
        Ok(())
    }

    /// What a segment holds, from memory or from disk.
    fn records(&self, segment: &Segment) -> Records {
        let mut waiting = self
            .unsynced
            .iter()
            .filter(|waiting| waiting.id == segment.id);
        let contents = waiting.find_map(|waiting| waiting.contents.as_ref());
        let listed = contents.and_then(|contents| {
            let store = &self.folder.store;
            Contents::decode(contents.bytes(), store, segment.id, segment.bytes).ok()
        });
        match listed {
            Some(listed) => Records::all(listed),
            None => records_of(&*self.disk, &self.folder, segment),
        }
    }

    /// False when there is none but the active one.
    fn reclaim_oldest(&mut self) -> Result<bool, StoreError> {
        if self.segments.is_empty() {
            return Ok(false);
        }
        self.remove(0)?;
        Ok(true)
    }

    fn remove(&mut self, at: usize) -> Result<(), StoreError> {
        let Some(segment) = self.segments.get(at).cloned() else {
            return Ok(());
        };
        self.folder
            .remove_segment(&*self.disk, segment.id)
            .map_err(StoreError::io("remove", &self.folder.segment(segment.id)))?;
        // An open file keeps its space, unlinked or not.
        self.unsynced.retain(|unsynced| unsynced.id != segment.id);
        if segment.dead_bytes() < segment.bytes {
            self.evicted += self.index.remove_where(|place| place.is_in(&segment));
        }
        self.segments.remove(at);
        self.reclaimed += 1;
        Ok(())
    }

    /// Bytes of segments that are reclaimed but still read.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let listed: u64 = self.listed().map(|segment| segment.disk_bytes()).sum();
        self.disk_use.bytes().saturating_sub(listed)
    }
}

/// What was written again since a segment was begun.
struct Moved {
    bytes: u64,
    bytes_max: u64,
    now_ms: u64,
    /// Keys that have their tombstone, if they need one. No more than there are records.
    buried: HashSet<[u8; 32]>,
}
