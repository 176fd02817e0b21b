//! What is written where a record goes: the record again, or a tombstone.

use super::active::allocated_for;
use super::format::{BLOCK_BYTES, ENVELOPE_BYTES, shape_of, tenant_of, times_of};
use super::log::Log;
use super::place::{Place, Read};
use super::record::NewRecord;
use super::{Store, StoreError, room_for};

/// What became of a record that was to be written again.
pub(super) enum Again {
    /// It lies here now.
    Written(Place),
    /// It was purged, or its segment reclaimed.
    Gone,
    /// It is damaged, or not in memory.
    Unreadable,
    NoRoom,
}

impl Store {
    /// Writes the newest record of a key again. The caller has seen to it that there is room.
    pub(super) fn write_again(
        &mut self,
        key: &[u8; 32],
        place: &Place,
        log: Log,
    ) -> Result<Again, StoreError> {
        let record = match place.read(key) {
            Read::Sound(record) => record,
            Read::Gone => return Ok(Again::Gone),
            Read::Damaged | Read::Cold => return Ok(Again::Unreadable),
        };
        // It is sealed anew, with another salt and for another place.
        let shape = shape_of(&record);
        let tenant = tenant_of(&record);
        let (stored_at_ms, expires_at_ms) = times_of(&record);
        let again = NewRecord::entry(
            key,
            &tenant,
            &record[shape.metadata()],
            &record[shape.payload()],
            stored_at_ms,
            expires_at_ms,
        );
        match self.append_to(log, &again) {
            Ok(new) => Ok(Again::Written(new)),
            Err(StoreError::Pinned(_)) => Ok(Again::NoRoom),
            Err(error) => Err(error),
        }
    }

    /// Writes a record again out of a segment that a loss of power may take.
    pub(super) fn is_moved(&mut self, key: &[u8; 32], place: &Place) -> Result<bool, StoreError> {
        let bytes = place.shape().record_bytes() + ENVELOPE_BYTES as u64;
        if !self.has_room_for(Log::Main, bytes) {
            return Ok(false);
        }
        let hits = place.hits();
        let again = self.write_again(key, place, Log::Main)?;
        let is_moved = matches!(again, Again::Written(_));
        if is_moved {
            self.index.find(key, |new| new.set_hits(hits));
        }
        Ok(is_moved)
    }

    /// Writes a tombstone for a key of which an older record would be found without it; false without
    /// room for it.
    pub(super) fn bury(&mut self, key: &[u8; 32]) -> Result<bool, StoreError> {
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
    pub(super) fn has_room_for(&self, log: Log, bytes: u64) -> bool {
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
}
