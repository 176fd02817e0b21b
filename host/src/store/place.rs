//! Where a record lies, and how it is read.
//!
//! A place knows whether its record was checked, and how often the entry was used. The index holds
//! the places, and the store decides when their segment is reclaimed.

use super::format::{ALIGN, Header, Kind, Salt, Shape};
use super::purge_marks::PurgeMarks;
use super::segment::Segment;
use bytes::Bytes;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Hits of an entry are counted up to here. More would not change the decision to keep it.
const HITS_MAX: u8 = 3;

/// Where a record lies, and what a lookup needs to know before it touches the record. The index
/// holds one for each key: 40 bytes that keep no segment alive.
#[derive(Debug)]
pub(crate) struct Place {
    segment: Weak<Segment>,
    /// In units of [`ALIGN`].
    at: u32,
    shape: Shape,
    stored_at_ms: u64,
    expires_at_ms: u64,
    /// Since it was written here, at most [`HITS_MAX`].
    hits: AtomicU8,
    /// It was checked through the mapping.
    is_verified: AtomicBool,
}

const _: () = assert!(size_of::<Place>() == 40);

impl Clone for Place {
    fn clone(&self) -> Self {
        Self {
            segment: Weak::clone(&self.segment),
            hits: AtomicU8::new(self.hits()),
            is_verified: AtomicBool::new(self.is_verified()),
            ..*self
        }
    }
}

/// The outcome of reading a [`Place`].
#[derive(Debug)]
pub(crate) enum Read {
    /// The record: header, metadata, payload, padding. Keeps the mapping alive.
    Sound(Bytes),
    /// The record differs from the written one. It must not be served.
    Damaged,
    /// The segment was reclaimed, or the record purged.
    Gone,
    /// It was not read yet, and may have to be fetched from the medium first.
    Cold,
}

impl Place {
    pub(crate) fn new(segment: &Arc<Segment>, offset: u64, header: &Header) -> Self {
        Self {
            segment: Arc::downgrade(segment),
            at: (offset / ALIGN) as u32,
            shape: header.shape(),
            stored_at_ms: header.stored_at_ms,
            expires_at_ms: header.expires_at_ms,
            hits: AtomicU8::new(0),
            is_verified: AtomicBool::new(false),
        }
    }

    /// Of the payload, in bytes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.shape.payload_bytes.into()
    }

    fn is_verified(&self) -> bool {
        self.is_verified.load(Relaxed)
    }

    /// Whether it is the very same record.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.segment, &other.segment) && self.at == other.at
    }

    pub(crate) fn is_at(&self, segment: &Arc<Segment>, offset: u64) -> bool {
        self.is_in(segment) && u64::from(self.at) * ALIGN == offset
    }

    pub(crate) fn is_in(&self, segment: &Arc<Segment>) -> bool {
        std::ptr::eq(self.segment.as_ptr(), Arc::as_ptr(segment))
    }

    /// Notes a use. Of many concurrent uses some may be lost, which does no harm.
    pub(crate) fn hit(&self) {
        let hits = self.hits();
        if hits < HITS_MAX {
            self.hits.store(hits + 1, Relaxed);
        }
    }

    /// Takes over the hits of another place of the same entry.
    pub(crate) fn set_hits(&self, hits: u8) {
        self.hits.store(hits, Relaxed);
    }

    pub(crate) fn hits(&self) -> u8 {
        self.hits.load(Relaxed)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn stored_at_ms(&self) -> u64 {
        self.stored_at_ms
    }

    pub(crate) fn expires_at_ms(&self) -> u64 {
        self.expires_at_ms
    }

    /// Counts the bytes of the record as dead in its segment.
    pub(crate) fn count_dead(&self) {
        if let Some(segment) = self.segment.upgrade() {
            segment.count_dead(self.shape);
        }
    }

    /// The record. Its header, its key and the checksum of its body are checked on the first
    /// read in this process, then trusted.
    pub(crate) fn read(&self, key: &[u8; 32], marks: &PurgeMarks) -> Read {
        let Some(segment) = self.segment.upgrade() else {
            return Read::Gone;
        };
        let Some(record) = self.slice(&segment) else {
            return Read::Damaged;
        };
        if !self.is_verified() {
            if segment.is_old && self.fetch(&segment).is_err() {
                return Read::Damaged;
            }
            if !self.is_sound(key, &record, segment.salt) {
                return Read::Damaged;
            }
            self.set_verified();
        }
        if segment.is_suspect.load(Relaxed) && marks.covers(&record) {
            return Read::Gone;
        }
        Read::Sound(record)
    }

    /// As [`read`](Self::read), of a record that was checked before; otherwise it is cold. Looks at
    /// the record only for its tenant, and only after a purge.
    pub(crate) fn read_again(&self, marks: &PurgeMarks) -> Read {
        match (self.is_verified(), self.segment.upgrade()) {
            (_, None) => Read::Gone,
            (false, Some(_)) => Read::Cold,
            (true, Some(segment)) => match self.slice(&segment) {
                None => Read::Damaged,
                Some(record) if segment.is_suspect.load(Relaxed) && marks.covers(&record) => {
                    Read::Gone
                }
                Some(record) => Read::Sound(record),
            },
        }
    }

    /// It was read and verified through a clone.
    pub(crate) fn set_verified(&self) {
        self.is_verified.store(true, Relaxed);
    }

    /// As [`read`](Self::read), without waiting for the medium: only records that were read before,
    /// or written by this process.
    pub(crate) fn read_now(&self, key: &[u8; 32], marks: &PurgeMarks) -> Read {
        let is_old = |segment: Arc<Segment>| segment.is_old;
        match !self.is_verified() && self.segment.upgrade().is_some_and(is_old) {
            true => Read::Cold,
            false => self.read(key, marks),
        }
    }

    /// Brings the record into the page cache, where the mapping then finds it.
    fn fetch(&self, segment: &Segment) -> io::Result<()> {
        const CHUNK_BYTES: u64 = 64 << 10;
        let mut offset = u64::from(self.at) * ALIGN;
        let end = offset + self.shape.record_bytes();
        let mut chunk = vec![0; CHUNK_BYTES.min(end - offset) as usize];
        while offset < end {
            let length = CHUNK_BYTES.min(end - offset);
            segment
                .file
                .read_at(&mut chunk[..length as usize], offset)?;
            offset += length;
        }
        Ok(())
    }

    fn slice(&self, segment: &Segment) -> Option<Bytes> {
        let start = self.at as usize * ALIGN as usize;
        let end = start + self.shape.record_bytes() as usize;
        (end <= segment.map.len()).then(|| segment.map.slice(start..end))
    }

    fn is_sound(&self, key: &[u8; 32], record: &[u8], salt: Salt) -> bool {
        Header::decode(record, salt, u64::from(self.at) * ALIGN).is_ok_and(|header| {
            header.kind == Kind::Entry
                && header.key == *key
                && header.shape() == self.shape
                && header.check_body(record).is_ok()
        })
    }
}
