//! Where each entry lies: key to place, in memory, for as long as the process lives.
//!
//! Readers take no lock and write to no line that they share, except to note a hit. Only the writer
//! puts places in; a reader may take out a place whose record cannot be served. A key outside the
//! index has no record on disk, or a newer one covers it there.

use super::hash::KeyState;
use super::place::Place;
use super::views::Views;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

type Places = papaya::HashMap<[u8; 32], Place, KeyState>;

/// The places of all entries on disk.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Empty until a store puts places in, or another index gives its own.
    places: OnceLock<Places>,
    payload_bytes: AtomicU64,
    /// Parts of the disk could not be read, so it may hold records that are not in here.
    has_hidden: AtomicBool,
    /// A reader took a place out whose record is on disk, and is not covered by another.
    is_in_doubt: AtomicBool,
    /// How often each place was looked at.
    #[cfg(test)]
    scans: AtomicU64,
}

impl Index {
    /// For about so many entries.
    pub(crate) fn with_room_for(entries: usize) -> Self {
        let places = Places::with_capacity_and_hasher(entries, KeyState::new());
        Self {
            places: OnceLock::from(places),
            ..Self::default()
        }
    }

    /// Applies `look` to the place of a key.
    pub(crate) fn find<R>(&self, key: &[u8; 32], look: impl FnOnce(&Place) -> R) -> Option<R> {
        self.places.get()?.pin().get(key).map(look)
    }

    /// The place that was there before is dead.
    pub(crate) fn insert(&self, key: &[u8; 32], place: Place) {
        self.payload_bytes.fetch_add(place.payload_bytes(), Relaxed);
        let places = self
            .places
            .get_or_init(|| Places::with_hasher(KeyState::new()));
        if let Some(old) = places.pin().insert(*key, place) {
            self.leaves(old);
        }
    }

    /// Looks at each place. Places that leave meanwhile stay in memory until the end, so `look` must be quick.
    pub(crate) fn each(&self, mut look: impl FnMut(&[u8; 32], &Place)) {
        if let Some(places) = self.places.get() {
            for (key, place) in &places.pin() {
                look(key, place);
            }
        }
    }

    /// Puts a place in, unless one is there that it does not replace. The one that is not in is dead, and
    /// the other one covers it.
    pub(crate) fn insert_if(
        &self,
        key: &[u8; 32],
        place: Place,
        replaces: impl Fn(&Place) -> bool,
    ) {
        let places = self
            .places
            .get_or_init(|| Places::with_hasher(KeyState::new()))
            .pin();
        let payload_bytes = place.payload_bytes();
        match places.try_insert(*key, place) {
            Ok(_) => {
                self.payload_bytes.fetch_add(payload_bytes, Relaxed);
            }
            Err(other) if replaces(other.current) => {
                other.not_inserted.set_covers(true);
                self.insert(key, other.not_inserted);
            }
            Err(other) => {
                other.current.set_covers(true);
                other.not_inserted.count_dead();
            }
        }
    }

    /// Whether the disk may hold records that are not in here. A removal then needs a tombstone, even
    /// without a known place: the record may be readable again after the next start.
    pub(crate) fn has_hidden(&self) -> bool {
        self.has_hidden.load(Relaxed)
    }

    /// Notes that a place goes whose record is damaged: a later record of its key does not know of it.
    pub(crate) fn doubt(&self) {
        self.is_in_doubt.store(true, Relaxed);
    }

    /// Whether the disk may hold records that a place does not know to cover.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.has_hidden() || self.is_in_doubt.load(Relaxed)
    }

    pub(crate) fn set_hidden(&self) {
        self.has_hidden.store(true, Relaxed);
    }

    /// Takes over all places of another index, in no time. This one must be empty.
    pub(crate) fn take(&self, other: Self) {
        self.has_hidden.store(other.has_hidden(), Relaxed);
        self.is_in_doubt.store(other.is_in_doubt(), Relaxed);
        self.payload_bytes
            .store(other.payload_bytes.into_inner(), Relaxed);
        let taken = other.places.into_inner().map(|it| self.places.set(it));
        assert!(matches!(taken, None | Some(Ok(()))), "not an empty index");
    }

    /// Takes out the place of a key, which is dead from now on; whether it existed.
    pub(crate) fn remove(&self, key: &[u8; 32]) -> bool {
        self.places.get().is_some_and(|places| {
            let places = places.pin();
            let old = places.remove(key);
            old.inspect(|old| self.leaves(old)).is_some()
        })
    }

    /// Takes out the place of a key if it still is this one; whether it was.
    pub(crate) fn remove_place(&self, key: &[u8; 32], place: &Place) -> bool {
        self.remove_if(key, |now| now.is(place))
    }

    fn remove_if(&self, key: &[u8; 32], is_it: impl Fn(&Place) -> bool) -> bool {
        self.places.get().is_some_and(|places| {
            let places = places.pin();
            match places.remove_if(key, |_, now| is_it(now)) {
                Ok(Some((_, old))) => {
                    self.leaves(old);
                    true
                }
                Ok(None) | Err(_) => false,
            }
        })
    }

    /// Takes out the places of all keys that are `which`, and returns those. Looks at each.
    pub(crate) fn remove_keys_where(
        &self,
        which: impl Fn(&[u8; 32], &Place) -> bool,
    ) -> Vec<[u8; 32]> {
        self.places.get().map_or_else(Vec::new, |places| {
            let places = places.pin();
            let meant = places.iter().filter(|(key, place)| which(key, place));
            let removed = meant.filter(|(key, place)| self.remove_place(key, place));
            removed.map(|(key, _)| *key).collect()
        })
    }

    /// Takes out all places that are `which`; returns their number. Looks at each place.
    pub(crate) fn remove_where(&self, which: impl Fn(&Place) -> bool) -> u64 {
        #[cfg(test)]
        self.scans.fetch_add(1, Relaxed);
        self.places.get().map_or(0, |places| {
            let places = places.pin();
            let meant = places.iter().filter(|(_, place)| which(place));
            let removed = meant.filter(|(key, place)| self.remove_place(key, place));
            removed.count() as u64
        })
    }

    /// Takes out the place of a key if it is this one; whether it was.
    pub(super) fn remove_at(&self, key: &[u8; 32], views: &Arc<Views>, offset: u64) -> bool {
        self.remove_if(key, |now| now.is_seen_at(views, offset))
    }

    #[cfg(test)]
    pub(crate) fn scans(&self) -> u64 {
        self.scans.load(Relaxed)
    }

    pub(crate) fn len(&self) -> u64 {
        self.places.get().map_or(0, papaya::HashMap::len) as u64
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
