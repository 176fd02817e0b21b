//! One segment: a file of records, mapped once.
//!
//! The index knows where in it each key's record lies, and the store decides when it is reclaimed.

use super::disk::DiskFile;
pub(crate) use super::disk_use::DiskUse;
use super::disk_use::Held;
use super::format::{Header, Salt, Shape};
use super::keys::Keys;
use super::mmap::Mapping;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A segment that can be read. The store holds the one lasting `Arc`. When the store drops it,
/// every [`Place`](super::place::Place) in the segment is gone, while payloads that were handed out stay readable.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    pub(super) salt: Salt,
    /// The whole file. Only slices of it are read: the part behind the last record is still being
    /// written.
    pub(super) map: Bytes,
    /// For the first read of each record: a bad sector is an error here, and a signal in the
    /// mapping.
    pub(super) file: Arc<dyn DiskFile>,
    /// Written by an earlier process, so its records may have to be read from disk.
    pub(super) is_old: bool,
    dead_bytes: AtomicU64,
    /// A purge came since the segment was begun or recovered, so each record has to be compared to
    /// the purge marks.
    pub(super) is_suspect: AtomicBool,
    /// A sync failed: its records may never be durable.
    is_poisoned: AtomicBool,
    /// The lowest sequence in here; all ones without a record.
    first_sequence: AtomicU64,
    /// The size of the file of its contents on disk.
    contents_bytes: AtomicU64,
    /// Set when it is sealed and all of it is known.
    keys: OnceLock<Keys>,
    disk_use: Arc<DiskUse>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        let bytes = self.contents_bytes.load(Relaxed);
        self.disk_use.0.fetch_sub(bytes, Relaxed);
    }
}

impl Segment {
    /// `is_old`: it was there when this process began.
    pub(crate) fn new(
        id: u64,
        salt: Salt,
        (file, mapping): (Arc<dyn DiskFile>, Mapping),
        disk_use: &Arc<DiskUse>,
        is_old: bool,
    ) -> Arc<Self> {
        let bytes = mapping.as_ref().len() as u64;
        disk_use.0.fetch_add(bytes, Relaxed);
        Arc::new(Self {
            id,
            bytes,
            salt,
            map: Bytes::from_owner(Held {
                mapping,
                bytes,
                disk_use: Arc::clone(disk_use),
            }),
            file,
            is_old,
            dead_bytes: AtomicU64::new(0),
            is_suspect: AtomicBool::new(false),
            is_poisoned: AtomicBool::new(false),
            first_sequence: AtomicU64::new(u64::MAX),
            contents_bytes: AtomicU64::new(0),
            keys: OnceLock::new(),
            disk_use: Arc::clone(disk_use),
        })
    }

    /// Notes the size that the file of its contents has, or will have.
    pub(crate) fn set_contents_bytes(&self, bytes: u64) {
        let before = self.contents_bytes.swap(bytes, Relaxed);
        self.disk_use.0.fetch_add(bytes, Relaxed);
        self.disk_use.0.fetch_sub(before, Relaxed);
    }

    /// Sets the keys of all its records, once it is sealed.
    pub(crate) fn set_keys(&self, keys: Keys) {
        let _ = self.keys.set(keys.seal());
    }

    /// Whether it may have a record of a key.
    pub(crate) fn may_hold(&self, key: &[u8; 32]) -> bool {
        self.keys.get().is_none_or(|keys| keys.may_hold(key))
    }

    /// Its space on disk, its contents included.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.bytes + self.contents_bytes.load(Relaxed)
    }

    pub(crate) fn poison(&self) {
        self.is_poisoned.store(true, Relaxed);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Relaxed)
    }

    pub(crate) fn suspect(&self) {
        self.is_suspect.store(true, Relaxed);
    }

    /// Notes a record in this segment.
    pub(crate) fn note(&self, header: &Header) {
        self.first_sequence.fetch_min(header.sequence, Relaxed);
    }

    /// Notes unreadable records in this segment: their keys and sequences are unknown.
    pub(crate) fn note_hidden(&self) {
        self.first_sequence.store(0, Relaxed);
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence.load(Relaxed)
    }

    /// Bytes of records that are superseded, evicted, damaged or tombstones.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.dead_bytes.load(Relaxed)
    }

    pub(crate) fn count_dead(&self, shape: Shape) {
        self.dead_bytes.fetch_add(shape.record_bytes(), Relaxed);
    }
}
