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
//! when a newer record of the key, or a tombstone, is durable: see `leaving.rs`. A segment
//! that cannot be read in full goes when all others are newer, after a durable purge of all that is as
//! old.

use super::active::Active;
use super::format::SEGMENT_BYTES_LIMIT;
use super::leaving::{Budget, Gone, Leaving, Moving, Outcome, Patience, Progress, Which};
use super::log::Log;
use super::purge_marks::Whose;
use super::segment::Segment;
use super::{Store, StoreError};
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

/// A segment is gone before one part in this many of another one is appended.
const SLACK_SHARE: u64 = 4;

/// For each byte that is appended, records of so many are looked at, so that a segment, whose records are
/// looked at three times, is gone before the slack is used up.
const PACE: u64 = 16;

/// Records of so many bytes are looked at in a row: a millisecond, and the queue is full of 32 times as
/// many. Of a small segment it is one part in [`PIECES_MIN`].
const PIECE_BYTES: u64 = 256 << 10;
const PIECES_MIN: u64 = 8;

const _: () = assert!(PACE >= 3 * SLACK_SHARE);

/// A segment that makes room ahead, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// For all segments that go in a row.
    moving: Option<Moving>,
    leaving: Option<Leaving>,
    gone: Option<Gone>,
    /// Records of so many bytes may be looked at.
    credit: u64,
    /// Bytes that were appended since the last segment went, without those that were written again.
    appended: u64,
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
            if self.clear_gone() {
                continue;
            }
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
    pub(super) fn seal_for_room(&mut self, log: Log) -> Result<bool, StoreError> {
        let Some(active) = self.actives[log as usize].take() else {
            return Ok(false);
        };
        self.seal(active)?;
        Ok(true)
    }

    /// Whether room is being made ahead.
    pub(super) fn is_making_room(&self) -> bool {
        let Ahead {
            moving,
            leaving,
            gone,
            ..
        } = &self.ahead;
        moving.is_some() || leaving.is_some() || gone.is_some()
    }

    /// After `bytes` were appended: makes room for what is written again of a whole segment, a piece at a
    /// time. If that fails, the next segments have less room.
    pub(super) fn make_room_ahead(&mut self, bytes: u64) {
        let credit = self.ahead.credit;
        self.ahead.credit = credit.saturating_add(bytes.saturating_mul(PACE));
        self.ahead.appended = self.ahead.appended.saturating_add(bytes);
        let has_begun = self.is_making_room();
        if !has_begun || self.ahead.credit >= self.piece_bytes() || self.is_short() {
            self.make_pieces();
        }
    }

    /// Makes room while the writer has no other work; false when there is enough.
    pub(crate) fn make_some_room(&mut self) -> bool {
        if !self.is_making_room() {
            return false;
        }
        self.ahead.credit = self.piece_bytes();
        self.make_pieces();
        self.is_making_room() && self.ahead.credit == 0
    }

    /// Takes all places out of the index whose segment is gone; whether there were any.
    pub(crate) fn clear_gone(&mut self) -> bool {
        let gone = self.ahead.gone.take();
        gone.is_some_and(|mut gone| self.clear(&mut gone, &mut Budget::all()))
    }

    /// Lets the newest record of a key stand in for a tombstone that is owed; false without one.
    pub(super) fn stands_in(&mut self, key: &[u8; 32]) -> bool {
        let Ahead { leaving, gone, .. } = &mut self.ahead;
        let stands_in = self.index.find(key, |place| {
            // Of a segment whose file is gone, the place is all that is left.
            let is_there = !gone.as_ref().is_some_and(|gone| gone.has(place));
            if is_there {
                place.set_covers(true);
            }
            is_there
        });
        if stands_in != Some(true) {
            return false;
        }
        // The record may be on its way out, or may just have been written again.
        if let Some(leaving) = leaving {
            leaving.supersedes(key);
        }
        if let Some(gone) = gone {
            gone.uncovered.insert(*key);
        }
        true
    }

    fn piece_bytes(&self) -> u64 {
        PIECE_BYTES.min(self.segment_bytes / PIECES_MIN)
    }

    fn lacks_spare(&self) -> bool {
        let entries = 2 * self.segment_records_max();
        !self.fits(self.spare_bytes()) || self.index.len() + entries > self.entries_max
    }

    /// Whether the pieces have to be made all at once, because room was used faster.
    fn is_short(&self) -> bool {
        let entries = self.segment_records_max();
        self.ahead.appended > self.segment_bytes / SLACK_SHARE
            || self.index.len() + entries > self.entries_max
    }

    fn make_pieces(&mut self) {
        let mut span = None;
        while self.ahead.leaving.is_some() || self.ahead.gone.is_some() || self.lacks_spare() {
            let is_short = self.is_short();
            let mut budget = match is_short {
                true => Budget::all(),
                false => Budget(self.ahead.credit),
            };
            if budget.is_spent() {
                return;
            }
            span.get_or_insert_with(|| tracing::debug_span!("make_room").entered());
            let made = self.make_piece(&mut budget, is_short);
            self.ahead.credit = match is_short {
                true => 0,
                false => budget.0,
            };
            match made {
                Ok(true) => {}
                // A sync has to end first.
                Ok(false) if self.ahead.leaving.is_some() => return,
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "nothing reclaimed ahead");
                    break;
                }
            }
        }
        self.ahead.moving = None;
        (self.ahead.credit, self.ahead.appended) = (0, 0);
    }

    /// False if nothing more can be done now.
    fn make_piece(&mut self, budget: &mut Budget, is_short: bool) -> Result<bool, StoreError> {
        if let Some(mut gone) = self.ahead.gone.take() {
            if !self.clear(&mut gone, budget) {
                self.ahead.gone = Some(gone);
            }
            return Ok(true);
        }
        let mut moving = self.ahead.moving.take().unwrap_or(Moving {
            which: Which::Worthy,
            bytes_left: self.segment_bytes * MOVED_SEGMENTS,
            sheltered_left: self.quota,
            is_durable: false,
            now_ms: 0,
        });
        moving.now_ms = self.now_ms;
        let mut leaving = match self.take_leaving() {
            Some(leaving) => leaving,
            None if self.pinned_bytes() > self.quota / PINNED_SHARE => return Ok(false),
            None => match self.candidates(moving.which).into_iter().next() {
                Some((victim, which)) => {
                    let leaving = self.leaving(&victim, which);
                    if !is_short {
                        // Listing its records was a piece of its own.
                        *budget = Budget(0);
                    }
                    leaving
                }
                None => return self.reclaim_hidden(),
            },
        };
        let patience = match is_short {
            true => Patience::OneSync,
            false => Patience::Full,
        };
        self.is_reclaiming = true;
        let progress = self.go_on(&mut leaving, &mut moving, budget, patience);
        self.is_reclaiming = false;
        let made = match progress? {
            Progress::Underway => {
                self.ahead.leaving = Some(leaving);
                Ok(budget.is_spent())
            }
            Progress::Gone(gone) => {
                self.ahead.gone = Some(gone);
                self.ahead.appended = 0;
                Ok(true)
            }
            Progress::Stays(_) => self.reclaim(&mut moving),
        };
        self.ahead.moving = Some(moving);
        made
    }

    /// The segment that is on its way out, unless it went in another way.
    fn take_leaving(&mut self) -> Option<Leaving> {
        let leaving = self.ahead.leaving.take()?;
        let mut segments = self.segments.iter();
        let is_there = segments.any(|it| Arc::ptr_eq(it, &leaving.victim));
        is_there.then_some(leaving)
    }

    /// Whether so many bytes have room, beside the contents of the active segments.
    pub(super) fn fits(&self, bytes: u64) -> bool {
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
        let which = match by_all_means {
            true => Which::Alive,
            false => Which::Whole,
        };
        let mut moving = Moving {
            which,
            bytes_left: u64::MAX,
            sheltered_left: 0,
            is_durable: true,
            now_ms,
        };
        let outcome = self.reclaim_one(&victim, which, &mut moving)?;
        Ok(outcome != Outcome::NoRoom || by_all_means)
    }

    /// Reclaims the segment that is best reclaimed, in one go; false without one.
    fn reclaim(&mut self, moving: &mut Moving) -> Result<bool, StoreError> {
        self.clear_gone();
        if moving.which == Which::None
            && let Some(victim) = self.least_sheltered()
            && self.reclaim_one(&victim, Which::None, moving)? == Outcome::Reclaimed
        {
            return Ok(true);
        }
        if let Some(mut leaving) = self.take_leaving() {
            if moving.which == Which::None {
                leaving.which = Which::None;
            }
            if self.finish(leaving, moving)? == Outcome::Reclaimed {
                return Ok(true);
            }
        }
        for (victim, which) in self.candidates(moving.which) {
            if self.reclaim_one(&victim, which, moving)? == Outcome::Reclaimed {
                return Ok(true);
            }
        }
        self.reclaim_hidden()
    }

    /// The segments that are best reclaimed, the best first, and what of each is written again.
    fn candidates(&self, which: Which) -> Vec<(Arc<Segment>, Which)> {
        let readable = |it: &&Arc<Segment>| !it.has_hidden();
        let deadest = self.segments.iter().filter(readable);
        let deadest = deadest
            .max_by_key(|it| it.dead_bytes())
            .filter(|it| it.dead_bytes() >= it.bytes / DEAD_SHARE);
        let of_deadest = match which {
            Which::Worthy => Which::Alive,
            which => which,
        };
        let deadest = deadest.map(|it| (Arc::clone(it), of_deadest));
        let small = self.listed().filter(|it| it.log == Log::Small);
        let small_bytes = small.map(|it| it.disk_bytes()).sum();
        let first = self.policy.makes_room(small_bytes, self.quota);
        let mut in_turn: Vec<_> = self.segments.iter().filter(readable).cloned().collect();
        // Few segments are older than these, so they rarely have to wait for another.
        let mut oldest = in_turn.clone();
        in_turn.sort_by_key(|it| (it.log != first, it.turn()));
        if which == Which::Worthy {
            self.pass_sheltered(&mut in_turn);
        }
        oldest.sort_by_key(|it| it.first_sequence());
        let in_turn = in_turn.into_iter().take(CANDIDATES_MAX);
        let oldest = oldest.into_iter().take(CANDIDATES_MAX);
        let others = in_turn.chain(oldest).map(|it| (it, which));
        deadest.into_iter().chain(others).collect()
    }

    fn reclaim_one(
        &mut self,
        victim: &Arc<Segment>,
        which: Which,
        moving: &mut Moving,
    ) -> Result<Outcome, StoreError> {
        // What the pieces found of another segment holds only while this one stays.
        self.ahead.leaving = None;
        self.clear_gone();
        let leaving = self.leaving(victim, which);
        self.finish(leaving, moving)
    }

    /// The call that makes room does not begin another one.
    fn finish(&mut self, mut leaving: Leaving, moving: &mut Moving) -> Result<Outcome, StoreError> {
        self.is_reclaiming = true;
        let progress = self.go_on(&mut leaving, moving, &mut Budget::all(), Patience::None);
        self.is_reclaiming = false;
        Ok(match progress? {
            Progress::Gone(mut gone) => {
                self.clear(&mut gone, &mut Budget::all());
                Outcome::Reclaimed
            }
            Progress::Stays(outcome) => outcome,
            Progress::Underway => Outcome::Refused,
        })
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
            self.remove(segment)?;
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
        self.remove(&oldest)?;
        Ok(true)
    }

    /// Makes all written records durable, before a segment goes whose records supersede older ones.
    /// Records that are not durable yet may supersede them in its place. If a loss of power took
    /// those, the older ones would count again.
    pub(super) fn sync_all(&mut self) -> Result<(), StoreError> {
        self.settle_secrets()?;
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

    /// Removes a segment whose records are not all known: each place of the index is looked at.
    fn remove(&mut self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        self.unlink(segment)?;
        self.evicted += self.index.remove_where(|place| place.is_in(segment));
        Ok(())
    }

    /// Removes the file of a segment. Places in the index refer to it yet.
    pub(super) fn unlink(&mut self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        self.folder
            .remove_segment(&*self.disk, segment.id)
            .map_err(StoreError::io("remove", &self.folder.segment(segment.id)))?;
        // An open file keeps its space, unlinked or not.
        self.unsynced.retain(|unsynced| unsynced.id != segment.id);
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
