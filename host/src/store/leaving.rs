//! A segment on its way out, piece by piece, so that no insert waits for all of it.
//!
//! ```text
//! its records are listed ─► which supersede older ones? ─► what is worth keeping is written again
//!    ─► tombstones where needed ─► a sync where needed ─► its file goes ─► its places leave the index
//! ```
//!
//! Between two pieces, records may be written, removed, purged and synced, but no other segment goes. No
//! older record of a key ever appears. So a record that was found to supersede nothing does so for good,
//! unless it comes to stand in for a lost tombstone: then `Store::stands_in` adds its key. What stands in
//! for the other records is durable before the file goes, and stays, whatever supersedes it then. If a sync
//! fails meanwhile, all of that is looked at once more.

use super::again::Again;
use super::format::{Contents, HEADER_BYTES, Header, Listed};
use super::log::Log;
use super::place::Place;
use super::policy::{Policy, Verdict};
use super::recover::{Records, records_of};
use super::segment::Segment;
use super::tombstones::OfLost;
use super::views::Views;
use super::{Store, StoreError};
use std::collections::HashSet;
use std::sync::Arc;
use std::vec;

/// What of a segment is written again, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    pub(super) which: Which,
    /// Of records that are written again from now on.
    pub(super) bytes_left: u64,
    /// Past that, of sheltered records. Those are at most half of the store, so it is never used up.
    pub(super) sheltered_left: u64,
    /// It has to be durable before the segment goes.
    pub(super) is_durable: bool,
    pub(super) now_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
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
    pub(super) fn nothing() -> Self {
        Self {
            which: Which::None,
            bytes_left: 0,
            sheltered_left: 0,
            is_durable: false,
            now_ms: 0,
        }
    }
}

/// What happened to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Reclaimed,
    /// It cannot be reclaimed now.
    Refused,
    /// Records that have to be written again find no room.
    NoRoom,
}

/// What became of an entry of a segment that goes.
enum Kept {
    /// It is written again, here.
    Again(Place),
    /// It is not worth it, or cannot be found any more.
    Not,
    NoRoom,
}

/// Of the budget, what a look at what stands in for a record takes: it may write a tombstone.
const SETTLING_BYTES: u64 = 256;

/// How long a file that has to stay until newer records are durable may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Its room is needed now.
    None,
    /// Until the sync that goes on has ended.
    OneSync,
    /// Until the flusher has synced, which it is asked to.
    Full,
}

/// How far a piece has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// More pieces are needed, or a sync has to end first.
    Underway,
    /// Its file is gone.
    Gone(Gone),
    /// It stays.
    Stays(Outcome),
}

/// A segment whose records are looked at before its file goes.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) victim: Arc<Segment>,
    pub(super) which: Which,
    /// See [`Store::sheltered_max`].
    sheltered_max: u64,
    /// Of its records that were sheltered at first and were not looked at yet, in bytes: others leave room
    /// for them.
    reserved_bytes: u64,
    records: Records,
    stage: Stage,
    /// The record that is next in this stage.
    next: usize,
    /// Keys of which other segments may hold older records.
    pub(super) uncovered: HashSet<[u8; 32]>,
    /// Where what was written again is now.
    moved: Vec<([u8; 32], Place)>,
    left: Vec<[u8; 32]>,
    /// Of `uncovered`, in the last stage: it was not yet looked at what stands in for the record.
    unsettled: Vec<[u8; 32]>,
    /// Records up to this sequence have to be durable before the file goes.
    awaited: u64,
    /// Syncs that had failed when the last stage began. With another one it begins anew: it is unknown which
    /// records are durable.
    poisonings: u64,
}

impl Leaving {
    /// The segment's record of a key, or the one that was written again, stands in for a lost tombstone.
    pub(super) fn supersedes(&mut self, key: &[u8; 32]) {
        self.uncovered.insert(*key);
        if self.stage == Stage::Ending {
            self.unsettled.push(*key);
        }
    }
}

/// What stands in for a record that goes.
enum Settled {
    Durable,
    /// It is not durable yet.
    Written,
    /// A tombstone was needed, and has no room.
    NoRoom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Covering,
    Moving,
    Ending,
}

/// A segment whose file is gone, and some of whose places are still in the index. No reader finds
/// anything there.
#[derive(Debug)]
pub(super) struct Gone {
    views: Arc<Views>,
    log: Log,
    records: Vec<Listed>,
    next: usize,
    pub(super) uncovered: HashSet<[u8; 32]>,
    moved: vec::IntoIter<([u8; 32], Place)>,
    left: vec::IntoIter<[u8; 32]>,
}

impl Gone {
    pub(super) fn has(&self, place: &Place) -> bool {
        place.is_seen_in(&self.views)
    }
}

/// The bytes of records that a piece may look at.
#[derive(Debug)]
pub(super) struct Budget(pub(super) u64);

impl Budget {
    pub(super) fn all() -> Self {
        Self(u64::MAX)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    fn spend(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(bytes);
    }

    fn spend_for(&mut self, header: &Header) {
        self.spend(header.shape().record_bytes());
    }
}

impl Store {
    pub(super) fn leaving(&self, victim: &Arc<Segment>, which: Which) -> Leaving {
        let records = self.records(victim);
        if !records.are_all && !victim.has_hidden() {
            victim.note_hidden(victim.first_sequence()..=victim.last_sequence());
        }
        let sheltered_max = match which {
            Which::Worthy | Which::Alive => self.sheltered_max(),
            Which::None | Which::Whole => 0,
        };
        Leaving {
            victim: Arc::clone(victim),
            which,
            sheltered_max,
            reserved_bytes: self.sheltered_bytes(victim, sheltered_max),
            records,
            stage: Stage::Covering,
            next: 0,
            uncovered: HashSet::new(),
            moved: Vec::new(),
            left: Vec::new(),
            unsettled: Vec::new(),
            awaited: 0,
            poisonings: 0,
        }
    }

    /// Looks at as many records as the budget allows, and removes the file at the end. Until then, a
    /// failure leaves all as durable as it was. With patience, a later piece tries again where the removal
    /// has to wait for a sync.
    pub(super) fn go_on(
        &mut self,
        leaving: &mut Leaving,
        moving: &mut Moving,
        budget: &mut Budget,
        patience: Patience,
    ) -> Result<Progress, StoreError> {
        let victim = Arc::clone(&leaving.victim);
        if leaving.stage == Stage::Covering {
            if !self.look_for_uncovered(leaving, budget) {
                return Ok(Progress::Underway);
            }
            let is_whole = matches!(leaving.which, Which::Alive | Which::Whole);
            let has_to_wait = self.is_syncing && self.needs_sync(leaving, moving);
            if has_to_wait && patience == Patience::None || victim.has_hidden() && !is_whole {
                return Ok(Progress::Stays(Outcome::Refused));
            }
            let tombstone_bytes = leaving.uncovered.len() as u64 * HEADER_BYTES as u64;
            if tombstone_bytes > 0 && !self.has_room_for(Log::Main, tombstone_bytes) {
                return Ok(Progress::Stays(Outcome::NoRoom));
            }
            (leaving.stage, leaving.next) = (Stage::Moving, 0);
        }
        while leaving.stage == Stage::Moving {
            let Some((offset, header, _)) = leaving.records.found.get(leaving.next).copied() else {
                leaving.stage = Stage::Ending;
                self.begin_to_end(leaving, moving);
                break;
            };
            if budget.is_spent() {
                return Ok(Progress::Underway);
            }
            budget.spend_for(&header);
            leaving.next += 1;
            let key = header.key;
            let place = self.index.find(&key, Place::clone);
            let Some(place) = place.filter(|place| place.is_at(&victim, offset)) else {
                continue;
            };
            match self.keep(leaving, &header, &place, moving)? {
                Kept::Again(new) => leaving.moved.push((key, new)),
                Kept::NoRoom if leaving.which == Which::Whole => {
                    return Ok(Progress::Stays(Outcome::NoRoom));
                }
                Kept::NoRoom | Kept::Not => leaving.left.push(key),
            }
        }
        self.end(leaving, moving, budget, patience)
    }

    /// Whether all are known.
    fn look_for_uncovered(&self, leaving: &mut Leaving, budget: &mut Budget) -> bool {
        let is_in_doubt = self.index.is_in_doubt();
        while let Some(listed) = leaving.records.found.get(leaving.next) {
            if budget.is_spent() {
                return false;
            }
            let (_, header, _) = listed;
            budget.spend_for(header);
            leaving.next += 1;
            if self.is_uncovered(&leaving.victim, listed, is_in_doubt) {
                leaving.uncovered.insert(header.key);
            }
        }
        true
    }

    /// The last stage: tombstones, the sync that they need, and the file goes.
    fn end(
        &mut self,
        leaving: &mut Leaving,
        moving: &Moving,
        budget: &mut Budget,
        patience: Patience,
    ) -> Result<Progress, StoreError> {
        let victim = Arc::clone(&leaving.victim);
        if leaving.poisonings != self.poisonings {
            self.begin_to_end(leaving, moving);
        }
        if patience == Patience::None && self.is_syncing && self.needs_sync(leaving, moving) {
            return Ok(Progress::Stays(Outcome::Refused));
        }
        while let Some(key) = leaving.unsettled.last().copied() {
            if budget.is_spent() {
                return Ok(Progress::Underway);
            }
            budget.spend(SETTLING_BYTES);
            match self.settle(&key, &victim)? {
                Settled::Durable => {}
                Settled::Written => leaving.awaited = self.last,
                Settled::NoRoom => return Ok(Progress::Stays(Outcome::NoRoom)),
            }
            leaving.unsettled.pop();
        }
        if leaving.awaited > self.durable {
            let may_wait = match patience {
                Patience::None => false,
                Patience::OneSync => self.is_syncing,
                Patience::Full => true,
            };
            if may_wait {
                // One that goes on may not have all of it: the next one has.
                self.is_sync_wanted |= leaving.awaited > self.syncing;
                return Ok(Progress::Underway);
            }
            self.sync_all()?;
        }
        if self.is_syncing && *self.tombstones.of_lost() != OfLost::None {
            return Ok(match patience {
                Patience::None => Progress::Stays(Outcome::Refused),
                Patience::OneSync | Patience::Full => Progress::Underway,
            });
        }
        if !self.bury_lost()? {
            return Ok(Progress::Stays(Outcome::Refused));
        }
        if victim.has_hidden() {
            // All readable records are elsewhere now. The rest is purged with all that is as old.
            return Ok(Progress::Stays(Outcome::Refused));
        }
        self.unlink(&victim)?;
        Ok(Progress::Gone(Gone {
            views: Arc::clone(&victim.views),
            log: victim.log,
            records: std::mem::take(&mut leaving.records.found),
            next: 0,
            uncovered: std::mem::take(&mut leaving.uncovered),
            moved: std::mem::take(&mut leaving.moved).into_iter(),
            left: std::mem::take(&mut leaving.left).into_iter(),
        }))
    }

    /// Takes places of a segment whose file is gone out of the index, as many as the budget allows; whether
    /// those were all.
    pub(super) fn clear(&mut self, gone: &mut Gone, budget: &mut Budget) -> bool {
        while let Some((offset, header, _)) = gone.records.get(gone.next) {
            if budget.is_spent() {
                return false;
            }
            budget.spend_for(header);
            gone.next += 1;
            let is_out = self.index.remove_at(&header.key, &gone.views, *offset);
            self.evicted += u64::from(is_out);
        }
        while !gone.moved.as_slice().is_empty() {
            if budget.is_spent() {
                return false;
            }
            budget.spend(SETTLING_BYTES);
            let Some((key, moved)) = gone.moved.next() else {
                break;
            };
            let covers = gone.uncovered.contains(&key);
            self.index.find(&key, |place| {
                if place.is(&moved) {
                    place.set_covers(covers);
                }
            });
        }
        let entries = self.index.len();
        while !gone.left.as_slice().is_empty() {
            if budget.is_spent() {
                return false;
            }
            budget.spend(SETTLING_BYTES);
            let Some(key) = gone.left.next() else {
                break;
            };
            self.policy.note_left(&key, gone.log, entries);
        }
        true
    }

    /// Sees to it that something newer than a record of the victim supersedes the older ones.
    fn settle(&mut self, key: &[u8; 32], victim: &Arc<Segment>) -> Result<Settled, StoreError> {
        let has_to_be_buried = match self.index.find(key, Place::clone) {
            Some(place) if place.is_in(victim) => true,
            Some(place) => {
                // It supersedes the older ones only as long as it lasts.
                let is_poisoned = |it: &Arc<Segment>| it.is_poisoned() && place.is_in(it);
                let lasts = !self.listed().any(is_poisoned) || self.is_moved(key, &place)?;
                self.index.find(key, |place| place.set_covers(true));
                !lasts
            }
            // It was removed, damaged, or superseded in memory, and the tombstone may be this
            // record, another one, or not be written yet.
            None => true,
        };
        if has_to_be_buried && !self.bury(key)? {
            return Ok(Settled::NoRoom);
        }
        Ok(match has_to_be_buried || !self.is_durable(key, victim) {
            true => Settled::Written,
            false => Settled::Durable,
        })
    }

    fn begin_to_end(&self, leaving: &mut Leaving, moving: &Moving) {
        leaving.unsettled = leaving.uncovered.iter().copied().collect();
        leaving.awaited = match moving.is_durable {
            true => self.last,
            false => 0,
        };
        leaving.poisonings = self.poisonings;
    }

    /// Whether something has to be made durable before the file may go.
    fn needs_sync(&self, leaving: &Leaving, moving: &Moving) -> bool {
        let is_unsure = |key: &[u8; 32]| !self.is_durable(key, &leaving.victim);
        leaving.awaited > self.durable
            || moving.is_durable
            || match leaving.stage {
                Stage::Ending => leaving.unsettled.iter().any(is_unsure),
                Stage::Covering | Stage::Moving => leaving.uncovered.iter().any(is_unsure),
            }
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

    /// Whether other segments may hold older records of the key of a record. Without this record those
    /// would count again after the next start, unless something else that is durable supersedes them.
    fn is_uncovered(
        &self,
        victim: &Arc<Segment>,
        (offset, header, _): &Listed,
        is_in_doubt: bool,
    ) -> bool {
        // As a rule a stored entry supersedes nothing: it is the only record of its key.
        let alone = |place: &Place| place.is_at(victim, *offset) && !place.covers();
        if !is_in_doubt && self.index.find(&header.key, alone) == Some(true) {
            return false;
        }
        let is_older = |it: &Segment| it.id != victim.id && it.first_sequence() < header.sequence;
        let sealed = self.segments.iter();
        let actives = self.actives.iter().flatten();
        sealed
            .filter(|it| is_older(it))
            .any(|it| it.may_hold(&header.key))
            || actives
                .filter(|it| is_older(&it.segment))
                .any(|it| it.keys.may_hold(&header.key))
    }

    /// Writes a live record of a reclaimed segment again, if it should be kept; its new place.
    fn keep(
        &mut self,
        leaving: &mut Leaving,
        header: &Header,
        place: &Place,
        moving: &mut Moving,
    ) -> Result<Kept, StoreError> {
        let bytes = header.shape().record_bytes() + self.growth_by_sealing(&leaving.victim);
        let is_sheltered = self.is_sheltered(place, leaving.sheltered_max);
        let (log, hits) = match (leaving.which, Policy::verdict(place.hits())) {
            (Which::Alive | Which::Whole, _) => (leaving.victim.log, place.hits()),
            (Which::Worthy, Verdict::Stays { hits }) => (Log::Main, hits),
            (Which::Worthy, Verdict::Leaves) if is_sheltered => (Log::Main, 0),
            (Which::None, _) | (Which::Worthy, Verdict::Leaves) => return Ok(Kept::Not),
        };
        if is_sheltered {
            leaving.reserved_bytes = leaving.reserved_bytes.saturating_sub(bytes);
        }
        let room = match is_sheltered {
            true => bytes,
            false => bytes + leaving.reserved_bytes,
        };
        let left = match bytes > moving.bytes_left && is_sheltered {
            false => &mut moving.bytes_left,
            true => &mut moving.sheltered_left,
        };
        if !self.is_alive(header, moving.now_ms) {
            return Ok(Kept::Not);
        }
        if bytes > *left || !self.has_room_for(log, room) {
            return Ok(Kept::NoRoom);
        }
        let new = match self.write_again(&header.key, place, log)? {
            Again::Written(new) => new,
            // It was purged, or its tenant erased.
            Again::Gone => return Ok(Kept::Not),
            // A key that is not needed for anything else must not be needed for what it does not open.
            Again::Unreadable if self.segment_key().is_some() => return Ok(Kept::Not),
            // It may be readable later, so the segment stays if all of it has to be kept.
            Again::Unreadable | Again::NoRoom => return Ok(Kept::NoRoom),
        };
        self.index.find(&header.key, |new| new.set_hits(hits));
        *left -= bytes;
        self.moved_bytes += bytes;
        Ok(Kept::Again(new))
    }

    /// Whether an entry may still be served.
    fn is_alive(&self, header: &Header, now_ms: u64) -> bool {
        header.expires_at_ms.saturating_add(self.stale_ms_max) > now_ms
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
}
