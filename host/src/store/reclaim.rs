//! Making room: a segment is reclaimed, and its entries worth keeping are written again.
//!
//! ```text
//! a segment was begun ─► no room for another one? ─► mostly dead: the deadest, live records move
//!                                                └► else: the oldest, entries with hits move
//! ```
//!
//! So one more segment always has room, except when readers hold reclaimed segments: then the
//! oldest goes as it is. The disk never holds more than the quota.
//!
//! The oldest may always go: its records supersede nothing older. Another segment goes only when
//! all else is durable, and leaves a tombstone for each key that it superseded.

use super::format::{Contents, Header, Listed, SEGMENT_BYTES_LIMIT};
use super::place::{Place, Read};
use super::record::NewRecord;
use super::recover::{Records, records_of};
use super::segment::Segment;
use super::{Store, StoreError};
use std::collections::HashSet;
use std::sync::Arc;

/// Up to one part in this many of the quota may be held by readers of segments that are
/// reclaimed already. Beyond that no further segment is reclaimed for the sake of a new one:
/// slow readers would otherwise empty the cache.
const PINNED_SHARE: u64 = 4;

/// A segment with one part in this many dead is reclaimed before its turn: then no more has to be
/// written again than becomes free.
const DEAD_SHARE: u64 = 2;

/// Moved records fill at most one part in this many of a segment, so that each incoming byte is
/// written at most twice.
const MOVED_SHARE: u64 = 2;

/// The contents of a segment take at most one part in this many of it, when room is kept for
/// another segment: usual contents take less.
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

    /// Reclaims the oldest segments as they are until `more` entries may be added. If one cannot be
    /// removed now, the entries exceed their bound for a while, but not the disk.
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

    /// After a segment was begun, reclaims until the next one has room. If that fails, the next one
    /// gets less room.
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

    /// Seals the active segment and returns all segments, oldest first, for a whole rewriting.
    pub(crate) fn seal_all(&mut self) -> Result<Vec<u64>, StoreError> {
        let active = self.active.take();
        active.map_or(Ok(()), |active| self.seal(active))?;
        Ok(self.segments.iter().map(|segment| segment.id).collect())
    }

    /// Writes the live records of a segment again, if it is the oldest, makes them durable, and
    /// removes the segment. Without room to write to, this does nothing, or, if the segment must
    /// go, loses the records without room. False if the room was missing.
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
        let records = self.records(&victim);
        for (offset, header, _) in &records.found {
            let key = &header.key;
            let place = self.index.find(key, Place::clone);
            let is_alive = self.is_alive(header, now_ms);
            let Some(place) = place.filter(|place| place.is_at(&victim, *offset) && is_alive)
            else {
                continue;
            };
            let bytes = header.shape().record_bytes();
            let fits = self.has_room_for(bytes)
                || self.disk_use.bytes() + self.segment_bytes <= self.quota;
            if !fits && !by_all_means {
                return Ok(false);
            }
            if fits && let Read::Sound(record) = place.read(key) {
                self.write_again(header, &record, place.hits())?;
            }
        }
        self.sync_all()?;
        self.remove(0, &records)?;
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
        // A segment younger than all records of the oldest has not had its time yet.
        let deadest = deadest.filter(|_| can_be_early);
        let (mut at, mut is_early) = deadest.map_or((0, false), |(at, _)| (at, at > 0));
        let mut records = self.records(&self.segments[at]);
        if is_early && !records.are_all {
            // An unreadable record may supersede an older one, except in the oldest segment.
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
        // All places that these are about are gone already.
        records.found.clear();
        self.remove(at, &records)
    }

    /// Writes a record of a reclaimed segment again, if it must or should be kept.
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
            && let Read::Sound(record) = place.read(key)
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

    /// Whether an entry may still be served.
    fn is_alive(&self, header: &Header, now_ms: u64) -> bool {
        header.expires_at_ms.saturating_add(self.stale_ms_max) > now_ms
    }

    /// Writes a tombstone for a key if an older segment may hold a record of it.
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

    /// Makes all written records durable, before a segment is reclaimed early. Its records may
    /// supersede older ones, and records that are not durable yet may supersede them. If a loss of
    /// power took those, the older ones would count again.
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

    /// The records of a segment, from memory or from disk.
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

    /// False if only the active segment is left.
    fn reclaim_oldest(&mut self) -> Result<bool, StoreError> {
        let Some(oldest) = self.segments.front() else {
            return Ok(false);
        };
        let records = self.records(oldest);
        self.remove(0, &records)?;
        Ok(true)
    }

    /// `records` are those of the segment that may have a place yet. Only where they are not all known,
    /// each place of the index is looked at.
    fn remove(&mut self, at: usize, records: &Records) -> Result<(), StoreError> {
        let Some(segment) = self.segments.get(at).cloned() else {
            return Ok(());
        };
        self.folder
            .remove_segment(&*self.disk, segment.id)
            .map_err(StoreError::io("remove", &self.folder.segment(segment.id)))?;
        // An open file keeps its space, unlinked or not.
        self.unsynced.retain(|unsynced| unsynced.id != segment.id);
        self.evicted += match records.are_all {
            true => self.index.remove_listed(&segment, &records.found),
            false => self.index.remove_where(|place| place.is_in(&segment)),
        };
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

/// The records written again since a segment was begun.
struct Moved {
    bytes: u64,
    bytes_max: u64,
    now_ms: u64,
    /// Keys that have their tombstone, if they need one. At most one for each record.
    buried: HashSet<[u8; 32]>,
}
