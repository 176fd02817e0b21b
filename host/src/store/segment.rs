//! One segment: a file of records, mapped once, and where in it a record lies.
//!
//! A segment hands out records and knows whether each was checked. The index knows which keys it
//! holds, and the store decides when it is reclaimed.

use super::disk::DiskFile;
pub(crate) use super::disk_use::DiskUse;
use super::disk_use::Held;
use super::epochs::Epochs;
use super::format::{ALIGN, Contents, Header, KEY_START_BYTES, Kind, Salt, Shape};
use super::keys::Keys;
use super::mmap::Mapping;
use super::record::NewRecord;
use bytes::Bytes;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

/// A segment that can be read. The store holds the one lasting `Arc`. When the store drops it,
/// every [`Place`] in the segment is gone, while payloads that were handed out stay readable.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    salt: Salt,
    /// The whole file. Only slices of it are read: the part behind the last record is still being
    /// written.
    map: Bytes,
    /// For the first read of each record: a bad sector is an error here, and a signal in the
    /// mapping.
    file: Arc<dyn DiskFile>,
    /// Written by an earlier process, so its records may have to be read from disk.
    is_old: bool,
    dead_bytes: AtomicU64,
    /// A purge came since the segment was begun or recovered, so each record has to be compared to
    /// the purge marks.
    is_suspect: AtomicBool,
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
    pub(crate) fn read(&self, key: &[u8; 32], epochs: &Epochs) -> Read {
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
        if segment.is_suspect.load(Relaxed) && epochs.covers(&record) {
            return Read::Gone;
        }
        Read::Sound(record)
    }

    /// As [`read`](Self::read), of a record that was checked before; otherwise it is cold. Looks at
    /// the record only for its tenant, and only after a purge.
    pub(crate) fn read_again(&self, epochs: &Epochs) -> Read {
        match (self.is_verified(), self.segment.upgrade()) {
            (_, None) => Read::Gone,
            (false, Some(_)) => Read::Cold,
            (true, Some(segment)) => match self.slice(&segment) {
                None => Read::Damaged,
                Some(record) if segment.is_suspect.load(Relaxed) && epochs.covers(&record) => {
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
    pub(crate) fn read_now(&self, key: &[u8; 32], epochs: &Epochs) -> Read {
        let is_old = |segment: Arc<Segment>| segment.is_old;
        match !self.is_verified() && self.segment.upgrade().is_some_and(is_old) {
            true => Read::Cold,
            false => self.read(key, epochs),
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

/// A segment gets its space in steps of this size: little space is held unused, and one call is
/// enough for very many records.
const ALLOCATED_BYTES: u64 = 1 << 20;

/// How much space a segment of `bytes` has when it is written up to `end`.
pub(crate) fn allocated_for(end: u64, bytes: u64) -> u64 {
    end.next_multiple_of(ALLOCATED_BYTES).min(bytes)
}

/// The segment that records are added to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next record goes. No slice given out reaches it or lies behind it.
    pub(crate) end: u64,
    /// Up to here the file has its space. Behind it are holes, which are never read.
    pub(crate) allocated: u64,
    /// The records so far.
    pub(crate) contents: Contents,
    /// Their keys.
    pub(crate) keys: Keys,
    /// Something was written since the file was last synced.
    pub(crate) is_dirty: bool,
}

impl Active {
    pub(crate) fn room(&self) -> u64 {
        self.segment.bytes.saturating_sub(self.end)
    }

    /// Gives the file space up to `end`, and some more.
    fn allocate(&mut self, end: u64) -> io::Result<()> {
        if end > self.allocated {
            let end = allocated_for(end, self.segment.bytes);
            self.file.preallocate(self.allocated..end)?;
            self.allocated = end;
        }
        Ok(())
    }

    /// Writes a record at the end. After an error the end is where it was, and the next record
    /// overwrites what this one may have left there.
    pub(crate) fn write(
        &mut self,
        record: &NewRecord<'_>,
        sequence: u64,
        previous: [u8; KEY_START_BYTES],
    ) -> io::Result<Place> {
        assert!(record.shape.record_bytes() <= self.room());
        let header = record.header(sequence, previous);
        let head = header.encode(self.segment.salt, self.end);
        self.is_dirty = true;
        self.allocate(self.end + record.shape.record_bytes())?;
        self.file.write_at(
            [
                &head,
                record.metadata,
                record.payload,
                record.shape.padding(),
            ],
            self.end,
        )?;
        self.segment.note(&header);
        let offset = self.end;
        let place = Place::new(&self.segment, offset, &header);
        self.end += record.shape.record_bytes();
        self.contents.add(offset, &header, true);
        self.keys.add(&header);
        if record.kind == Kind::Tombstone {
            self.segment.count_dead(record.shape);
        }
        Ok(place)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::disk::{Disk, RealDisk};
    use super::super::format;
    use super::*;

    const SIZE: u64 = 4096;
    const KEY: [u8; 32] = [1; 32];

    fn active() -> (tempfile::TempDir, Active, Arc<DiskUse>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.set_len(SIZE).unwrap();
        let disk_use = Arc::default();
        let mapping = file.map(SIZE).unwrap();
        let active = Active {
            segment: Segment::new(
                1,
                Salt::NONE,
                (Arc::clone(&file), mapping),
                &disk_use,
                false,
            ),
            file,
            end: 0,
            allocated: 0,
            contents: Contents::default(),
            keys: Keys::default(),
            is_dirty: false,
        };
        (dir, active, disk_use)
    }

    #[test]
    fn a_place_gives_its_record_to_its_key_and_to_no_other() {
        let (_dir, mut active, _) = active();
        let record = NewRecord::entry(&KEY, &[2; 32], b"meta", b"payload", 3, 4);
        let place = active.write(&record, 1, [0; KEY_START_BYTES]).unwrap();
        assert!(matches!(
            place.read(&[9; 32], &Epochs::default()),
            Read::Damaged
        ));
        let Read::Sound(bytes) = place.read(&KEY, &Epochs::default()) else {
            panic!("not sound")
        };
        assert_eq!(&bytes[place.shape().metadata()], b"meta");
        assert_eq!(&bytes[place.shape().payload()], b"payload");
        assert_eq!(format::tenant_of(&bytes), [2; 32]);

        let tombstone = active.write(&NewRecord::tombstone(&KEY), 2, [1; KEY_START_BYTES]);
        assert!(matches!(
            tombstone.unwrap().read(&KEY, &Epochs::default()),
            Read::Damaged
        ));
    }

    #[test]
    fn the_space_counts_for_as_long_as_someone_reads() {
        let (_dir, mut active, disk_use) = active();
        let record = NewRecord::entry(&KEY, &[2; 32], b"", b"payload", 3, 4);
        let place = active.write(&record, 1, [0; KEY_START_BYTES]).unwrap();
        let Read::Sound(bytes) = place.read(&KEY, &Epochs::default()) else {
            panic!("not sound")
        };
        drop(active);
        assert!(matches!(place.read(&KEY, &Epochs::default()), Read::Gone));
        assert_eq!(disk_use.bytes(), SIZE);
        assert_eq!(&bytes[place.shape().payload()], b"payload");
        drop(bytes);
        assert_eq!(disk_use.bytes(), 0);
    }
}
