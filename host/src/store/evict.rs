//! Keeps each tenant within its bound, and shelters those with a small part of the store from the others.
//!
//! ```text
//! append ─► its tenant is over its bound? ─► the tenant's oldest part of its oldest segment is evicted
//! a segment is reclaimed ─► entries of tenants below the fair share are written again, hit or not
//! ```
//!
//! An eviction lasts as long as the process. The records count again after a restart, and then those of a
//! tenant over its bound are evicted again: the same ones, as they still are its oldest. None of that gives
//! a wrong answer, because an eviction says nothing about an entry, and the places stay in the index: a
//! newer record, a removal or a purge of the key covers the evicted record as it covers any other.

use super::Store;
use super::place::Place;
use super::segment::Segment;
use super::shares::{Account, Stored};
use std::sync::Arc;

/// So many sheltered segments are passed over for one that is reclaimed. Each goes to the end of the line,
/// so the next search begins behind it.
const LOOKS_MAX: usize = 32;

impl Store {
    /// Evicts the oldest entries of tenants that are over their bounds.
    pub(super) fn keep_bounds(&mut self) {
        for account in self.disk_use.1.take_over() {
            self.over_bounds += self.keep_bound(&account);
        }
    }

    /// Returns how many entries were evicted.
    fn keep_bound(&self, account: &Arc<Account>) -> u64 {
        let oldest = account.oldest();
        let mut segments: Vec<_> = self.listed().filter(|it| it.id >= oldest).collect();
        segments.sort_unstable_by_key(|it| it.id);
        let mut evicted = 0;
        for segment in segments {
            account.set_oldest(segment.id);
            while account.is_over() {
                let Some(live) = segment.evict_oldest(account) else {
                    break;
                };
                evicted += u64::from(live.records);
            }
            if !account.is_over() {
                break;
            }
        }
        evicted
    }

    /// Entries of accounts with at most this part of the store are sheltered; 0: none.
    pub(super) fn sheltered_max(&self) -> u64 {
        self.disk_use.1.sheltered_max(self.room())
    }

    /// Whether an entry is sheltered.
    pub(super) fn is_sheltered(&self, place: &Place, most: u64) -> bool {
        let account = (most > 0).then(|| place.account()).flatten();
        account.is_some_and(|account| account.part_of(self.room()) <= most)
    }

    /// Where tenants are to be sheltered from each other, the segment with the fewest bytes of sheltered
    /// entries: it goes when no room is left to write any of a segment again.
    pub(super) fn least_sheltered(&self) -> Option<Arc<Segment>> {
        let most = self.sheltered_max();
        let readable = self.segments.iter().filter(|it| !it.has_hidden());
        let least = readable.min_by_key(|it| self.sheltered_bytes(it, most));
        least.filter(|_| most > 0).cloned()
    }

    /// The room that is kept for what is written again of a segment, beside what is appended meanwhile:
    /// more of a segment may be sheltered than is popular as a rule.
    pub(super) fn spare_bytes(&self) -> u64 {
        match self.disk_use.1.are_several() {
            true => self.segment_bytes + self.segment_bytes / 2,
            false => self.segment_bytes,
        }
    }

    /// The bytes of a segment's sheltered entries.
    pub(super) fn sheltered_bytes(&self, segment: &Segment, most: u64) -> u64 {
        let room = self.room();
        match most {
            0 => 0,
            most => segment.bytes_within(most, room),
        }
    }

    /// Passes over segments that are mostly sheltered: writing all of that again would make little room.
    /// `in_turn` is ordered by the turn.
    pub(super) fn pass_sheltered(&self, in_turn: &mut Vec<Arc<Segment>>) {
        let most = self.sheltered_max();
        if most == 0 {
            return;
        }
        let room = self.room();
        let looks = in_turn.iter().take(LOOKS_MAX);
        let passed = looks.take_while(|it| it.is_sheltered(most, room)).count();
        for segment in in_turn.drain(..passed) {
            segment.pass_turn(self.last);
        }
    }

    fn room(&self) -> Stored {
        Stored {
            bytes: self.quota,
            entries: self.entries_max,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
