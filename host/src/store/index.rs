//! Where each entry lies: key to place, in memory, for as long as the process lives.
//!
//! Readers take no lock and write to no line that they share, except to note a hit. Only the writer
//! puts places in; a reader may take out a place whose record cannot be served. A key outside the
//! index has no record on disk, or a newer one covers it there.

use super::format::Listed;
use super::hash::KeyState;
use super::place::Place;
use super::segment::Segment;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The places of all entries on disk.
#[derive(Debug)]
pub(crate) struct Index {
    places: papaya::HashMap<[u8; 32], Place, KeyState>,
    payload_bytes: AtomicU64,
    /// Parts of the disk could not be read, so it may hold records that are not in here.
    has_hidden: AtomicBool,
    /// How often each place was looked at.
    #[cfg(test)]
    scans: AtomicU64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            places: papaya::HashMap::with_hasher(KeyState::new()),
            payload_bytes: AtomicU64::new(0),
            has_hidden: AtomicBool::new(false),
            #[cfg(test)]
            scans: AtomicU64::new(0),
        }
    }
}

impl Index {
    /// Applies `look` to the place of a key.
    pub(crate) fn find<R>(&self, key: &[u8; 32], look: impl FnOnce(&Place) -> R) -> Option<R> {
        self.places.pin().get(key).map(look)
    }

    /// The place that was there before is dead.
    pub(crate) fn insert(&self, key: &[u8; 32], place: Place) {
        self.payload_bytes.fetch_add(place.payload_bytes(), Relaxed);
        if let Some(old) = self.places.pin().insert(*key, place) {
            self.leaves(old);
        }
    }

    /// Whether the disk may hold records that are not in here. A removal then needs a tombstone, even
    /// without a known place: the record may be readable again after the next start.
    pub(crate) fn has_hidden(&self) -> bool {
        self.has_hidden.load(Relaxed)
    }

    pub(crate) fn set_hidden(&self) {
        self.has_hidden.store(true, Relaxed);
    }

    /// Takes over all places of another index, which has no readers any more.
    pub(crate) fn take(&self, other: &Self) {
        self.has_hidden.store(other.has_hidden(), Relaxed);
        for (key, place) in &other.places.pin() {
            self.insert(key, place.clone());
        }
    }

    /// Takes out the place of a key, which is dead from now on; whether it existed.
    pub(crate) fn remove(&self, key: &[u8; 32]) -> bool {
        let places = self.places.pin();
        let old = places.remove(key);
        old.inspect(|old| self.leaves(old)).is_some()
    }

    /// Takes out the place of a key if it still is this one; whether it was.
    pub(crate) fn remove_place(&self, key: &[u8; 32], place: &Place) -> bool {
        let places = self.places.pin();
        match places.remove_if(key, |_, now| now.is(place)) {
            Ok(Some((_, old))) => {
                self.leaves(old);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Takes out the places of all keys that are `which`, and returns those. Looks at each.
    pub(crate) fn remove_keys_where(&self, which: impl Fn(&[u8; 32]) -> bool) -> Vec<[u8; 32]> {
        let places = self.places.pin();
        let meant = places.iter().filter(|(key, _)| which(key));
        let removed = meant.filter(|(key, place)| self.remove_place(key, place));
        removed.map(|(key, _)| *key).collect()
    }

    /// Takes out all places that are `which`; returns their number. Looks at each place.
    pub(crate) fn remove_where(&self, which: impl Fn(&Place) -> bool) -> u64 {
        #[cfg(test)]
        self.scans.fetch_add(1, Relaxed);
        let places = self.places.pin();
        let meant = places.iter().filter(|(_, place)| which(place));
        let removed = meant.filter(|(key, place)| self.remove_place(key, place));
        removed.count() as u64
    }

    /// Takes out the places of these records of a segment; returns their number.
    pub(crate) fn remove_listed(&self, segment: &Arc<Segment>, records: &[Listed]) -> u64 {
        let places = self.places.pin();
        let removed = records.iter().filter(|(offset, header, _)| {
            let is_it = |_: &[u8; 32], now: &Place| now.is_at(segment, *offset);
            match places.remove_if(&header.key, is_it) {
                Ok(Some((_, old))) => {
                    self.leaves(old);
                    true
                }
                Ok(None) | Err(_) => false,
            }
        });
        removed.count() as u64
    }

    #[cfg(test)]
    pub(crate) fn scans(&self) -> u64 {
        self.scans.load(Relaxed)
    }

    pub(crate) fn len(&self) -> u64 {
        self.places.len() as u64
    }

    /// Of all entries together.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.load(Relaxed)
    }

    fn leaves(&self, place: &Place) {
        place.count_dead();
        self.payload_bytes.fetch_sub(place.payload_bytes(), Relaxed);
    }
}
