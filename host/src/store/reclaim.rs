//! Making room: a segment is reclaimed, and its entries worth keeping are written again.
//!
//! ```text
//! a segment was given space ─► no room for another one? ─► mostly dead: the deadest, live records move
//!                                                       └► else: the oldest of the log that
//!                                                          `policy.rs` names
//! ```
//!
//! So there always is room for what is written again of a segment, except when readers hold reclaimed
//! segments: then segments go as they are. The disk never holds more than the quota.
//!
//! A record may supersede older ones of its key, in any segment. A segment with such a record goes only
//! when a newer record of the key, or a tombstone, is durable: see `find_uncovered`. A segment
//! that cannot be read in full goes when all others are newer, after a durable purge of all that is as
//! old.

use super::active::{Active, allocated_for};
use super::format::{BLOCK_BYTES, Contents, HEADER_BYTES, Header, Listed, SEGMENT_BYTES_LIMIT};
use super::log::Log;
use super::place::{Place, Read};
use super::policy::{Policy, Verdict};
use super::purge_marks::Whose;
use super::record::NewRecord;
use super::recover::{Records, records_of};
use super::segment::Segment;
use super::{Store, StoreError, room_for};
use std::collections::HashSet;
use std::sync::Arc;

/// Up to one part in this many of the quota may be held by readers of segments that are
/// reclaimed already. Beyond that no further segment is reclaimed to make room for a new one:
/// slow readers would otherwise empty the cache.
const PINNED_SHARE: u64 = 4;

/// A segment with one part in this many dead is reclaimed before its turn: then no more has to be
/// written again than becomes free.
const DEAD_SHARE: u64 = 2;

/// At most as many segments' worth of records are written again in a row. Each has fewer hits then, so
/// that more of them rarely are worth it.
const MOVED_SEGMENTS: u64 = 2;

/// One part in this many of a segment is kept free for the tombstones that reclaiming one may need.
const TOMBSTONES_SHARE: u64 = 4;

/// So many segments are tried in their turn, and then of the oldest. One is refused where its records
/// supersede older ones while a sync goes on, or where there is no room for the tombstones.
const CANDIDATES_MAX: usize = 4;

const _: () = assert!(SEGMENT_BYTES_LIMIT <= u32::MAX as u64);

/// What of a segment is written again, and where.
struct Moving {
    which: Which,
    /// Of records that are written again from now on.
    bytes_left: u64,
    /// It has to be durable before the segment goes.
    is_durable: bool,
    now_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Nothing.
    None,
    /// What the policy keeps, or, of a segment that is mostly dead, all that is alive.
    Worthy,
    /// All that is alive.
    Alive,
    /// All that is alive; it has to fit.
    Whole,
}

impl Moving {
    fn nothing() -> Self {
        Self {
            which: Which::None,
            bytes_left: 0,
            is_durable: false,
            now_ms: 0,
        }
    }
}

/// What happened to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Reclaimed,
    /// It cannot be reclaimed now.
    Refused,
    /// Records that have to be written again find no room.
    NoRoom,
}

impl Store {
    /// Reclaims segments as they are until another `bytes` fit into the quota, for the log that is
    /// written to.
    pub(super) fn make_room(&mut self, log: Log, bytes: u64) -> Result<(), StoreError> {
        let tombstones = match self.is_reclaiming {
            true => 0,
            false => self.segment_bytes / TOMBSTONES_SHARE,
        };
        while !self.fits(bytes + tombstones) {
            let pinned = self.pinned_bytes();
            if pinned > self.quota / PINNED_SHARE {
                return Err(StoreError::Pinned(pinned));
            }
            let is_less = !self.is_reclaiming
                && (self.reclaim(&mut Moving::nothing())?
                    || self.reclaim_by_purge()?
                    || self.seal_for_room(log.other())?);
            if !is_less {
                return Err(StoreError::Pinned(pinned));
            }
        }
        Ok(())
    }

    /// After opening: the quota may be smaller now.
    pub(super) fn keep_quota(&mut self) -> Result<(), StoreError> {
        while self.disk_use.bytes() > self.quota {
            let is_less = self.reclaim(&mut Moving::nothing())?
                || self.reclaim_by_purge()?
                || self.seal_for_room(Log::Small)?
                || self.seal_for_room(Log::Main)?;
            if !is_less {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reclaims segments as they are until `more` entries may be added. If one cannot be removed now,
    /// the entries exceed their bound for a while, but not the disk.
    pub(super) fn keep_entries_max(&mut self, more: u64) {
        while self.index.len() + more > self.entries_max {
            let reclaimed = self.reclaim(&mut Moving::nothing()).and_then(|is_less| {
                Ok(is_less || self.seal_for_room(Log::Small)? || self.seal_for_room(Log::Main)?)
            });
            match reclaimed {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "too many entries");
                    return;
                }
            }
        }
    }

    /// Seals the active segment of a log, so that it can be reclaimed; false without one.
    fn seal_for_room(&mut self, log: Log) -> Result<bool, StoreError> {
        let Some(active) = self.actives[log as usize].take() else {
            return Ok(false);
        };
        self.seal(active)?;
        Ok(true)
    }

    /// After a segment was given space, reclaims until there is room for what is written again of a
    /// whole one. If that fails, the next ones have less room.
    pub(super) fn keep_spare(&mut self, now_ms: u64) {
        let mut moving = Moving {
            which: Which::Worthy,
            bytes_left: self.segment_bytes * MOVED_SEGMENTS,
            is_durable: false,
            now_ms,
        };
        let entries = 2 * self.segment_records_max();
        let mut span = None;
        while !self.fits(self.segment_bytes) || self.index.len() + entries > self.entries_max {
            span.get_or_insert_with(|| tracing::debug_span!("make_room").entered());
            if self.pinned_bytes() > self.quota / PINNED_SHARE {
                return;
            }
            match self.reclaim(&mut moving) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "nothing reclaimed ahead");
                    return;
                }
            }
        }
    }

    /// Whether so many bytes have room, beside the contents of the active segments.
    fn fits(&self, bytes: u64) -> bool {
        let actives = self.actives.iter().flatten();
        let contents: u64 = actives.map(Active::contents_bytes_max).sum();
        self.disk_use.bytes() + contents + bytes <= self.quota
    }

    /// Seals the active segments and returns all segments, oldest first, for a whole rewriting.
    pub(crate) fn seal_all(&mut self) -> Result<Vec<u64>, StoreError> {
        for log in Log::BOTH {
            self.seal_for_room(log)?;
        }
        Ok(self.segments.iter().map(|segment| segment.id).collect())
    }

    /// Writes the live records of a segment again, makes them durable, and removes the segment. No
    /// sync goes on meanwhile. Without room to write to, this does nothing, or, if the segment must
    /// go, loses the records without room. False if the room was missing.
    pub(crate) fn rewrite(
        &mut self,
        id: u64,
        now_ms: u64,
        by_all_means: bool,
    ) -> Result<bool, StoreError> {
        let Some(victim) = self.segments.iter().find(|it| it.id == id).cloned() else {
            return Ok(true);
        };
        let mut moving = Moving {
            which: match by_all_means {
                true => Which::Alive,
                false => Which::Whole,
            },
            bytes_left: u64::MAX,
            is_durable: true,
            now_ms,
        };
        Ok(self.reclaim_one(&victim, &mut moving)? != Outcome::NoRoom || by_all_means)
    }

    /// Reclaims the segment that is best reclaimed; false without one.
    fn reclaim(&mut self, moving: &mut Moving) -> Result<bool, StoreError> {
        let readable = |it: &&Arc<Segment>| !it.has_hidden();
        let deadest = self.segments.iter().filter(readable);
        let deadest = deadest
            .max_by_key(|it| it.dead_bytes())
            .filter(|it| it.dead_bytes() >= it.bytes / DEAD_SHARE);
        if let Some(victim) = deadest.cloned() {
            let which = match moving.which {
                Which::Worthy => Which::Alive,
                which => which,
            };
            let given = std::mem::replace(&mut moving.which, which);
            let outcome = self.reclaim_one(&victim, moving);
            moving.which = given;
            if outcome? == Outcome::Reclaimed {
                return Ok(true);
            }
        }
        let small = self.listed().filter(|it| it.log == Log::Small);
        let small_bytes = small.map(|it| it.disk_bytes()).sum();
        let first = self.policy.makes_room(small_bytes, self.quota);
        let mut in_turn: Vec<_> = self.segments.iter().filter(readable).cloned().collect();
        // Few segments are older than these, so they rarely have to wait for another.
        let mut oldest = in_turn.clone();
        in_turn.sort_by_key(|it| it.log != first);
        oldest.sort_by_key(|it| it.first_sequence());
        let candidates = in_turn.iter().take(CANDIDATES_MAX);
        for victim in candidates.chain(oldest.iter().take(CANDIDATES_MAX)) {
            if self.reclaim_one(victim, moving)? == Outcome::Reclaimed {
                return Ok(true);
            }
        }
        self.reclaim_hidden()
    }

    /// The call that makes room does not begin another one.
    fn reclaim_one(
        &mut self,
        victim: &Arc<Segment>,
        moving: &mut Moving,
    ) -> Result<Outcome, StoreError> {
        self.is_reclaiming = true;
        let outcome = self.reclaim_at(victim, moving);
        self.is_reclaiming = false;
        outcome
    }

    /// Removes the segments that cannot be read in full, if all others are newer; whether there were
    /// any. Their unreadable records may supersede each other: so all that is as old is purged first,
    /// which are only they.
    pub(crate) fn reclaim_hidden(&mut self) -> Result<bool, StoreError> {
        let hidden = || self.segments.iter().filter(|it| it.has_hidden());
        let Some(last) = hidden().map(|it| it.last_sequence()).max() else {
            return Ok(false);
        };
        let is_as_old = |it: &Arc<Segment>| !it.has_hidden() && it.first_sequence() <= last;
        if self.listed().any(is_as_old) {
            return Ok(false);
        }
        let hidden: Vec<_> = hidden().cloned().collect();
        self.purge_marks.purge_up_to(last);
        for segment in &hidden {
            segment.purge(Whose::All);
        }
        self.settle_purge_marks()?;
        for segment in &hidden {
            self.remove(segment, &Records::default())?;
        }
        Ok(true)
    }

    /// Removes the oldest segment when nothing else helps, after a durable purge of all that is as old.
    /// What of that lies elsewhere is still found, until the next start. False without a segment.
    fn reclaim_by_purge(&mut self) -> Result<bool, StoreError> {
        let oldest = self.segments.iter().min_by_key(|it| it.first_sequence());
        let Some(oldest) = oldest.cloned() else {
            return Ok(false);
        };
        self.purge_marks.purge_up_to(oldest.last_sequence());
        self.settle_purge_marks()?;
        self.remove(&oldest, &Records::default())?;
        Ok(true)
    }

    /// Reclaims a segment, if that can be done now. Until it is removed, a failure leaves all as
    /// durable as it was.
    fn reclaim_at(
        &mut self,
        victim: &Arc<Segment>,
        moving: &mut Moving,
    ) -> Result<Outcome, StoreError> {
        let records = self.records(victim);
        if !records.are_all && !victim.has_hidden() {
            victim.note_hidden(victim.first_sequence()..=victim.last_sequence());
        }
        let uncovered = self.find_uncovered(victim, &records.found);
        let is_whole = matches!(moving.which, Which::Alive | Which::Whole);
        let needs_sync =
            moving.is_durable || uncovered.iter().any(|key| !self.is_durable(key, victim));
        if needs_sync && self.is_syncing || victim.has_hidden() && !is_whole {
            return Ok(Outcome::Refused);
        }
        let tombstone_bytes = uncovered.len() as u64 * HEADER_BYTES as u64;
        if tombstone_bytes > 0 && !self.has_room_for(Log::Main, tombstone_bytes) {
            return Ok(Outcome::NoRoom);
        }
        let mut moved = Vec::new();
        let mut left = Vec::new();
        let mut buried = HashSet::new();
        for (offset, header, _) in &records.found {
            let key = &header.key;
            let is_uncovered = uncovered.contains(key);
            let has_to_be_buried = match self.index.find(key, Place::clone) {
                Some(place) if place.is_at(victim, *offset) => {
                    if self.keep(victim, header, &place, moving)? {
                        moved.push(*key);
                        continue;
                    }
                    if moving.which == Which::Whole && self.is_alive(header, moving.now_ms) {
                        return Ok(Outcome::NoRoom);
                    }
                    left.push(*key);
                    is_uncovered
                }
                Some(place) if is_uncovered => {
                    self.index.find(key, |place| place.set_covers(true));
                    // It supersedes the older ones only as long as it lasts.
                    let mut listed = self.listed();
                    listed.any(|it| it.is_poisoned() && place.is_in(it))
                }
                // It was removed, damaged, or superseded in memory, and the tombstone may be this
                // record, another one, or not be written yet.
                None => is_uncovered,
                Some(_) => false,
            };
            if has_to_be_buried && buried.insert(*key) && !self.bury(key)? {
                return Ok(Outcome::NoRoom);
            }
        }
        if needs_sync {
            self.sync_all()?;
        }
        if victim.has_hidden() {
            // All readable records are elsewhere now. The rest is purged with all that is as old.
            return Ok(Outcome::Refused);
        }
        self.remove(victim, &records)?;
        for key in moved {
            let covers = uncovered.contains(&key);
            self.index.find(&key, |place| place.set_covers(covers));
        }
        let entries = self.index.len();
        for key in left {
            self.policy.note_left(&key, victim.log, entries);
        }
        Ok(Outcome::Reclaimed)
    }

    /// Whether the newest record of a key is durable, and elsewhere.
    fn is_durable(&self, key: &[u8; 32], victim: &Segment) -> bool {
        let place = self.index.find(key, Place::clone);
        place.is_some_and(|place| {
            let found = self.listed().find(|it| place.is_in(it));
            found.is_some_and(|it| {
                it.id != victim.id && it.last_sequence() <= self.durable && !it.is_poisoned()
            })
        })
    }

    /// Keys of a segment of which other segments may hold older records. Without the records in this
    /// segment those would count again after the next start, unless something else that is durable
    /// supersedes them.
    fn find_uncovered(&self, victim: &Arc<Segment>, records: &[Listed]) -> HashSet<[u8; 32]> {
        let is_in_doubt = self.index.is_in_doubt();
        let is_uncovered = |(offset, header, _): &&Listed| {
            // As a rule a stored entry supersedes nothing: it is the only record of its key.
            let alone = |place: &Place| place.is_at(victim, *offset) && !place.covers();
            if !is_in_doubt && self.index.find(&header.key, alone) == Some(true) {
                return false;
            }
            let is_older =
                |it: &Segment| it.id != victim.id && it.first_sequence() < header.sequence;
            let sealed = self.segments.iter();
            let actives = self.actives.iter().flatten();
            sealed
                .filter(|it| is_older(it))
                .any(|it| it.may_hold(&header.key))
                || actives
                    .filter(|it| is_older(&it.segment))
                    .any(|it| it.keys.may_hold(&header.key))
        };
        let uncovered = records.iter().filter(is_uncovered);
        uncovered.map(|(_, header, _)| header.key).collect()
    }

    /// Writes a live record of a reclaimed segment again, if it should be kept; whether it was.
    fn keep(
        &mut self,
        victim: &Segment,
        header: &Header,
        place: &Place,
        moving: &mut Moving,
    ) -> Result<bool, StoreError> {
        let bytes = header.shape().record_bytes();
        let (log, hits) = match (moving.which, Policy::verdict(place.hits())) {
            (Which::Alive | Which::Whole, _) => (victim.log, place.hits()),
            (Which::Worthy, Verdict::Stays { hits }) => (Log::Main, hits),
            (Which::None, _) | (Which::Worthy, Verdict::Leaves) => return Ok(false),
        };
        if !self.is_alive(header, moving.now_ms)
            || bytes > moving.bytes_left
            || !self.has_room_for(log, bytes)
        {
            return Ok(false);
        }
        let Read::Sound(record) = place.read(&header.key) else {
            return Ok(false);
        };
        let shape = header.shape();
        let again = NewRecord::entry(
            &header.key,
            &header.tenant,
            &record[shape.metadata()],
            &record[shape.payload()],
            header.stored_at_ms,
            header.expires_at_ms,
        );
        match self.append_to(log, &again) {
            Ok(_) => {}
            Err(StoreError::Pinned(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.index.find(&header.key, |new| new.set_hits(hits));
        moving.bytes_left -= bytes;
        self.moved_bytes += bytes;
        Ok(true)
    }

    /// Whether an entry may still be served.
    fn is_alive(&self, header: &Header, now_ms: u64) -> bool {
        header.expires_at_ms.saturating_add(self.stale_ms_max) > now_ms
    }

    /// Writes a tombstone for a key of which an older record would be found without it; false without
    /// room for it.
    fn bury(&mut self, key: &[u8; 32]) -> Result<bool, StoreError> {
        let tombstone = NewRecord::tombstone(key);
        if !self.has_room_for(Log::Main, tombstone.shape().record_bytes()) {
            return Ok(false);
        }
        match self.append_to(Log::Main, &tombstone) {
            Ok(_) => Ok(true),
            Err(StoreError::Pinned(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a record has room without anything being reclaimed for it.
    fn has_room_for(&self, log: Log, bytes: u64) -> bool {
        match &self.actives[log as usize] {
            Some(active) if self.has_room(active, bytes) => match active.growth(bytes) {
                0 => true,
                growth => self.fits(room_for(growth, bytes)),
            },
            _ => {
                let allocated = allocated_for(BLOCK_BYTES as u64 + bytes, self.segment_bytes);
                self.fits(room_for(allocated, bytes))
            }
        }
    }

    /// Makes all written records durable, before a segment goes whose records supersede older ones.
    /// Records that are not durable yet may supersede them in its place. If a loss of power took
    /// those, the older ones would count again.
    fn sync_all(&mut self) -> Result<(), StoreError> {
        let waiting = self.unsynced.iter();
        let mut files: Vec<_> = waiting.map(|f| (f.id, Arc::clone(&f.file))).collect();
        let actives = self.actives.iter().flatten();
        files.extend(actives.map(|active| (active.segment.id, Arc::clone(&active.file))));
        for (id, file) in files {
            if let Err(error) = file.sync_data() {
                self.is_lost = true;
                self.abandon_segment(id, None);
                return Err(StoreError::io("sync", &self.folder.segment(id))(error));
            }
        }
        self.durable = self.last;
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

    /// `records` are those of the segment that may have a place yet. Only where they are not all known,
    /// each place of the index is looked at.
    fn remove(&mut self, segment: &Arc<Segment>, records: &Records) -> Result<(), StoreError> {
        self.folder
            .remove_segment(&*self.disk, segment.id)
            .map_err(StoreError::io("remove", &self.folder.segment(segment.id)))?;
        // An open file keeps its space, unlinked or not.
        self.unsynced.retain(|unsynced| unsynced.id != segment.id);
        self.evicted += match records.are_all {
            true => self.index.remove_listed(segment, &records.found),
            false => self.index.remove_where(|place| place.is_in(segment)),
        };
        self.segments.retain(|it| it.id != segment.id);
        self.reclaimed += 1;
        Ok(())
    }

    /// Bytes of segments that are reclaimed but still read.
    pub(super) fn pinned_bytes(&self) -> u64 {
        let listed: u64 = self.listed().map(|segment| segment.disk_bytes()).sum();
        self.disk_use.bytes().saturating_sub(listed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
