//! One segment: a file of records, mapped once.
//!
//! The index knows where in it each key's record lies, and the store decides when it is reclaimed.

use super::disk::DiskFile;
pub(crate) use super::disk_use::DiskUse;
use super::disk_use::{Held, Space};
use super::encryption::{Sealed, Vault};
use super::format::{Header, KeyId, Salt, Shape};
use super::keys::{Keys, NewKeys};
use super::log::Log;
use super::mmap::Mapping;
use super::purge_marks::Whose;
use super::shares::{Account, Stored};
use super::tenant_bytes::Live;
use super::views::Views;
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A segment of the store. When the store drops it, every [`Place`](super::place::Place) in the segment
/// is gone, while payloads that were handed out stay readable.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) log: Log,
    /// Its length, holes included.
    pub(crate) bytes: u64,
    space: Arc<Space>,
    pub(super) views: Arc<Views>,
    /// A sync failed: its records may never be durable.
    is_poisoned: AtomicBool,
    /// The lowest sequence in here; all ones without a record.
    first_sequence: AtomicU64,
    /// The highest sequence in here.
    last_sequence: AtomicU64,
    /// Not all of its records can be read.
    has_hidden: AtomicBool,
    /// Its turn to be reclaimed comes as if it had been begun at this sequence.
    turn: AtomicU64,
    /// The size of the file of its contents on disk.
    contents_bytes: AtomicU64,
    /// The key that its records are encrypted with, if it is known.
    key: OnceLock<KeyId>,
    /// Set when it is sealed and all its records are known.
    keys: OnceLock<Keys>,
    disk_use: Arc<DiskUse>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.views.close();
        let bytes = self.contents_bytes.load(Relaxed);
        self.disk_use.0.fetch_sub(bytes, Relaxed);
    }
}

impl Segment {
    /// `allocated` is its space on disk. `is_old`: it was there when this process began.
    pub(crate) fn new(
        (id, log): (u64, Log),
        salt: Salt,
        (file, mapping): (Arc<dyn DiskFile>, Mapping),
        (allocated, disk_use): (u64, &Arc<DiskUse>),
        is_old: bool,
    ) -> Arc<Self> {
        let bytes = mapping.as_ref().len() as u64;
        let space = Space::new(allocated, disk_use);
        let held = Held {
            mapping,
            _space: Arc::clone(&space),
        };
        Arc::new(Self {
            id,
            log,
            bytes,
            space,
            views: Views::new(id, (file, held), salt, is_old, &disk_use.1),
            is_poisoned: AtomicBool::new(false),
            first_sequence: AtomicU64::new(u64::MAX),
            last_sequence: AtomicU64::new(0),
            has_hidden: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            contents_bytes: AtomicU64::new(0),
            key: OnceLock::new(),
            keys: OnceLock::new(),
            disk_use: Arc::clone(disk_use),
        })
    }

    /// It is one of an encrypted folder, and its records are encrypted with this key, if it is known.
    pub(super) fn encrypted(&self, vault: &Arc<Vault>, key: Option<KeyId>) {
        self.views.set_vault(vault);
        if let Some(key) = key {
            let _ = self.key.set(key);
        }
    }

    /// Seals a record for its place here.
    pub(super) fn seal(
        &self,
        header: &Header,
        body: (&[u8], &[u8]),
        offset: u64,
    ) -> io::Result<Sealed> {
        let sealer = self.views.vault().zip(self.key());
        let (vault, key) = sealer.ok_or(io::ErrorKind::Unsupported)?;
        vault.seal(header, body, key, (self.id, offset))
    }

    pub(super) fn key(&self) -> Option<KeyId> {
        self.key.get().copied()
    }

    pub(super) fn salt(&self) -> Salt {
        self.views.salt
    }

    /// Notes the size that the file of its contents has, or will have.
    pub(crate) fn set_contents_bytes(&self, bytes: u64) {
        let before = self.contents_bytes.swap(bytes, Relaxed);
        self.disk_use.0.fetch_add(bytes, Relaxed);
        self.disk_use.0.fetch_sub(before, Relaxed);
    }

    /// Sets the keys of all its records, once it is sealed.
    pub(crate) fn set_keys(&self, keys: NewKeys) {
        let _ = self.keys.set(keys.seal());
    }

    /// Whether it may have a record of a key.
    pub(crate) fn may_hold(&self, key: &[u8; 32]) -> bool {
        self.keys.get().is_none_or(|keys| keys.may_hold(key))
    }

    /// Its space on disk, its contents included.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.space.bytes() + self.contents_bytes.load(Relaxed)
    }

    /// Up to here the file has its space. Behind it are holes, which are never read.
    pub(crate) fn allocated(&self) -> u64 {
        self.space.bytes()
    }

    /// Its file was given this much space.
    pub(super) fn set_allocated(&self, bytes: u64) {
        self.space.grow(bytes);
    }

    pub(crate) fn poison(&self) {
        self.is_poisoned.store(true, Relaxed);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Relaxed)
    }

    /// Purges its records so far: no reader finds them from now on, and their bytes are dead. Looks at
    /// no record.
    pub(crate) fn purge(&self, whose: Whose<'_>) {
        self.views.purge(whose.tenant());
    }

    /// Evicts the oldest part that an account has here; `None` without one.
    pub(super) fn evict_oldest(&self, account: &Arc<Account>) -> Option<Live> {
        self.views.evict_oldest(account)
    }

    /// The bytes of live records of accounts that take at most this part of a store of `room`.
    pub(super) fn bytes_within(&self, most: u64, room: Stored) -> u64 {
        self.views.bytes_of(|account| account.part_of(room) <= most)
    }

    /// Whether less than a third of it can become free, because such records take the rest.
    pub(super) fn is_sheltered(&self, most: u64, room: Stored) -> bool {
        let least = 2 * (self.bytes / 3);
        self.bytes.saturating_sub(self.dead_bytes()) > least
            && self.bytes_within(most, room) > least
    }

    /// Its turn comes again when all that was written so far has had its own.
    pub(super) fn pass_turn(&self, last: u64) {
        self.turn.store(last, Relaxed);
    }

    /// The lower, the sooner it is its turn.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Relaxed).max(self.first_sequence())
    }

    /// How many live records are here, and their bytes.
    pub(super) fn live(&self, whose: Whose<'_>) -> (u64, u64) {
        self.views.live(whose.tenant())
    }

    /// Notes a record in this segment.
    pub(crate) fn note(&self, header: &Header) {
        self.first_sequence.fetch_min(header.sequence, Relaxed);
        self.last_sequence.fetch_max(header.sequence, Relaxed);
    }

    /// Notes unreadable records in this segment, with sequences in this range. Their keys are
    /// unknown.
    pub(crate) fn note_hidden(&self, sequences: RangeInclusive<u64>) {
        self.first_sequence.fetch_min(*sequences.start(), Relaxed);
        self.last_sequence.fetch_max(*sequences.end(), Relaxed);
        self.has_hidden.store(true, Relaxed);
    }

    /// All records that it holds now have sequences up to this one.
    pub(crate) fn note_last(&self, sequence: u64) {
        self.last_sequence.fetch_min(sequence, Relaxed);
    }

    pub(crate) fn has_hidden(&self) -> bool {
        self.has_hidden.load(Relaxed)
    }

    /// A lower bound of the sequences in here.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence.load(Relaxed)
    }

    /// An upper bound of the sequences in here.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence.load(Relaxed)
    }

    /// Bytes of records that are superseded, evicted, purged, damaged or tombstones.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.views.dead_bytes()
    }

    /// Counts a record without a place as dead.
    pub(crate) fn count_dead(&self, shape: Shape) {
        self.views.count_damaged(shape);
    }

    /// The number of places in memory that refer to this segment.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        Arc::strong_count(&self.views) - 1
    }
}
