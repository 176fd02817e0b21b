//! Where a record lies, and how it is read.
//!
//! A place knows whether its record was checked, and how often the entry was used. The index holds
//! the places, and the store decides when their segment is reclaimed.

use super::disk::Cached;
use super::encryption::{Unopened, Vault};
use super::format::{ALIGN, Header, Kind, METADATA_BYTES_LIMIT, SEGMENT_BYTES_LIMIT, Seal, Shape};
use super::policy::HITS_MAX;
use super::segment::Segment;
use super::shares::Account;
use super::views::{Seen, Views};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Of [`Place::used`], the bits of the hits; the one that says that the record was checked through
/// the mapping; and the one that says that the disk may hold an older record of the key.
const HITS: u8 = 3;
const VERIFIED: u8 = 4;
const COVERS: u8 = 8;

const _: () = assert!(HITS_MAX <= HITS);

/// A record that was read is assumed to stay in the page cache for one to two of these: 4 to 8 seconds.
/// Only a system without memory evicts pages sooner.
const TICK_MS: u64 = 4096;

/// A longer record is opened on a thread that may wait, as if it were not in memory: AES-256-GCM takes
/// some 50 µs for so many bytes.
const OPENED_NOW_BYTES_MAX: usize = 128 << 10;

/// Where a record lies, and what a lookup needs to know before it touches the record. The index
/// holds one for each key: 24 bytes that keep neither file nor mapping open.
#[derive(Debug)]
pub(crate) struct Place {
    views: Arc<Views>,
    /// In units of [`ALIGN`].
    at: u32,
    payload_bytes: u32,
    metadata_bytes: [u8; 3],
    /// Of the tenant, among those of the segment.
    tenant: [u8; 3],
    /// Hits since it was written here, at most [`HITS_MAX`], [`VERIFIED`] and [`COVERS`].
    used: AtomicU8,
    /// When its record was last known to be in the page cache, in ticks; they begin anew after 17
    /// minutes.
    cached_at: AtomicU8,
}

const _: () = assert!(size_of::<Place>() == 24);
const _: () = assert!(METADATA_BYTES_LIMIT <= 1 << 24);
// No segment has more records, and so no more tenants, than fit the number of a tenant.
const _: () = assert!(SEGMENT_BYTES_LIMIT / super::format::HEADER_BYTES as u64 <= 1 << 24);

impl Clone for Place {
    fn clone(&self) -> Self {
        Self {
            views: Arc::clone(&self.views),
            used: AtomicU8::new(self.used.load(Relaxed)),
            cached_at: AtomicU8::new(self.cached_at.load(Relaxed)),
            ..*self
        }
    }
}

/// The outcome of reading a [`Place`].
#[derive(Debug)]
pub(crate) enum Read {
    /// The record: header, metadata, payload, padding. Keeps the mapping alive, unless it was sealed: then
    /// it is a copy, without padding.
    Sound(Bytes),
    /// The record differs from the written one. It must not be served.
    Damaged,
    /// The segment was reclaimed, or the record purged.
    Gone,
    /// It may have to be fetched from the medium first, or opening it takes long.
    Cold,
}

impl Place {
    /// Counts the record's bytes as live.
    pub(crate) fn new(segment: &Arc<Segment>, offset: u64, header: &Header) -> Self {
        let shape = header.shape();
        let views = Arc::clone(&segment.views);
        let tenant = views.count(&header.tenant, shape);
        Self {
            views,
            at: (offset / ALIGN) as u32,
            payload_bytes: shape.payload_bytes,
            metadata_bytes: three_bytes(shape.metadata_bytes),
            tenant: three_bytes(tenant),
            used: AtomicU8::new(0),
            cached_at: AtomicU8::new(0),
        }
    }

    /// Of the payload, in bytes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.into()
    }

    fn is_verified(&self) -> bool {
        self.used.load(Relaxed) & VERIFIED != 0
    }

    /// Whether it is the very same record.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.views, &other.views) && self.at == other.at
    }

    pub(crate) fn is_at(&self, segment: &Arc<Segment>, offset: u64) -> bool {
        self.is_seen_at(&segment.views, offset)
    }

    /// Whether it is this place of a segment, which may be gone.
    pub(super) fn is_seen_at(&self, views: &Arc<Views>, offset: u64) -> bool {
        self.is_seen_in(views) && self.offset() == offset
    }

    pub(crate) fn is_in(&self, segment: &Arc<Segment>) -> bool {
        self.is_seen_in(&segment.views)
    }

    /// Whether it is in a segment, which may be gone.
    pub(super) fn is_seen_in(&self, views: &Arc<Views>) -> bool {
        Arc::ptr_eq(&self.views, views)
    }

    pub(crate) fn segment_id(&self) -> u64 {
        self.views.id
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.at) * ALIGN
    }

    /// Notes a use. Of many concurrent uses some may be lost, which does no harm.
    pub(crate) fn hit(&self) {
        let hits = self.hits();
        if hits < HITS_MAX {
            self.set_hits(hits + 1);
        }
    }

    /// Takes over the hits of another place of the same entry.
    pub(crate) fn set_hits(&self, hits: u8) {
        // A concurrent use may be lost, but none of the other bits.
        let set = |used| Some(used & !HITS | hits.min(HITS_MAX));
        let _ = self.used.fetch_update(Relaxed, Relaxed, set);
    }

    pub(crate) fn hits(&self) -> u8 {
        self.used.load(Relaxed) & HITS
    }

    /// Whether the disk may hold an older record of the key, which would count again without this
    /// one.
    pub(crate) fn covers(&self) -> bool {
        self.used.load(Relaxed) & COVERS != 0
    }

    pub(crate) fn set_covers(&self, covers: bool) {
        match covers {
            true => self.used.fetch_or(COVERS, Relaxed),
            false => self.used.fetch_and(!COVERS, Relaxed),
        };
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            metadata_bytes: number(self.metadata_bytes),
            payload_bytes: self.payload_bytes,
        }
    }

    /// Whether its tenant's oldest entries had to go, and it was among them: no lookup finds it. Its record
    /// counts again after a restart, so it has to stay in the index, where a removal finds it.
    pub(crate) fn is_evicted(&self) -> bool {
        self.views.is_evicted(number(self.tenant))
    }

    /// The account of its tenant.
    pub(super) fn account(&self) -> Option<Arc<Account>> {
        self.views.account(number(self.tenant))
    }

    /// Counts the bytes of the record as dead in its segment, unless a purge has.
    pub(crate) fn count_dead(&self) {
        self.views.count_dead(number(self.tenant), self.shape());
    }

    /// The record, which is waited for. Its header, its key and the checksum of its body are checked
    /// on the first read in this process, then trusted. Its bytes come from the file before they are
    /// read through the mapping, unless they are in memory.
    pub(crate) fn read(&self, key: &[u8; 32]) -> Read {
        match self.needs_disk().map(|needs| needs.then(|| self.fetch())) {
            None => Read::Gone,
            Some(Some(Err(_))) => Read::Damaged,
            Some(None | Some(Ok(()))) => self.read_mapped(key, usize::MAX),
        }
    }

    /// As [`read`](Self::read), without waiting for the medium: it is cold if it is not in memory.
    pub(crate) fn read_now(&self, key: &[u8; 32]) -> Read {
        match self.needs_disk() {
            None => Read::Gone,
            Some(true) => Read::Cold,
            Some(false) => self.read_mapped(key, OPENED_NOW_BYTES_MAX),
        }
    }

    /// The header of the record; `bytes` begins with the header and the metadata then. Neither the payload
    /// nor the checksum of the body is read, so the record must not be served. Waits for the medium. `None`
    /// if the segment is gone, the record purged, or its header damaged. An evicted record has its header
    /// read: what removes entries must not leave it to the next start.
    pub(crate) fn read_head(&self, key: &[u8; 32], bytes: &mut Vec<u8>) -> Option<Header> {
        match self.slice() {
            Read::Sound(_) => {}
            Read::Gone if self.is_evicted() => {}
            _ => return None,
        }
        let file = self.views.file()?;
        bytes.resize(self.shape().metadata().end, 0);
        file.read_at(bytes, self.offset()).ok()?;
        let header = Header::decode(bytes, self.views.salt, self.offset()).ok()?;
        let is_it =
            header.kind == Kind::Entry && header.key == *key && header.shape() == self.shape();
        match self.views.vault() {
            _ if !is_it => None,
            None => (header.seal == Seal::None).then_some(header),
            Some(vault) => {
                let place = (self.views.id, self.offset());
                vault.open_head(key, bytes, self.views.salt, place).ok()
            }
        }
    }

    /// As [`read_now`](Self::read_now), of a record that was checked, and was in memory a moment before
    /// `now_ms`; otherwise it is cold. Asks the system for nothing.
    pub(crate) fn read_again(&self, key: &[u8; 32], now_ms: u64) -> Read {
        let age = tick(now_ms).wrapping_sub(self.cached_at.load(Relaxed));
        match self.is_verified() && age <= 1 {
            true => self.opened(key, self.slice(), OPENED_NOW_BYTES_MAX),
            false => Read::Cold,
        }
    }

    /// It was read through a clone at this time, and verified.
    pub(crate) fn set_read(&self, now_ms: u64) {
        if !self.is_verified() {
            self.used.fetch_or(VERIFIED, Relaxed);
        }
        self.cached_at.store(tick(now_ms), Relaxed);
    }

    /// Whether its bytes may have to be read from disk; `None` if the segment is gone.
    fn needs_disk(&self) -> Option<bool> {
        let file = self.views.file()?;
        Some(match file.is_cached(self.part()) {
            Cached::Yes => false,
            Cached::No => true,
            // Unread records of earlier processes may have to be read, too.
            Cached::Unknown => self.views.is_old && !self.is_verified(),
        })
    }

    /// Opens at most so many bytes of a sealed record; a longer one is cold.
    fn read_mapped(&self, key: &[u8; 32], opened_max: usize) -> Read {
        let read = match self.slice() {
            Read::Sound(record) if !self.is_verified() => {
                if !self.is_sound(key, &record) {
                    return Read::Damaged;
                }
                self.used.fetch_or(VERIFIED, Relaxed);
                Read::Sound(record)
            }
            read => read,
        };
        self.opened(key, read, opened_max)
    }

    fn opened(&self, key: &[u8; 32], read: Read, bytes_max: usize) -> Read {
        match (self.views.vault(), read) {
            (Some(vault), Read::Sound(record)) => match record.len() > bytes_max {
                true => Read::Cold,
                false => self.open(vault, key, record),
            },
            (_, read) => read,
        }
    }

    fn open(&self, vault: &Vault, key: &[u8; 32], record: Bytes) -> Read {
        let place = (self.views.id, self.offset());
        match vault.open(key, &record, self.views.salt, place) {
            Ok(Some(opened)) => Read::Sound(opened),
            Ok(None) => Read::Sound(record),
            Err(Unopened::Forgotten) => Read::Gone,
            Err(Unopened::Damaged) => Read::Damaged,
        }
    }

    /// Brings the record into the page cache, where the mapping then finds it.
    fn fetch(&self) -> io::Result<()> {
        const CHUNK_BYTES: u64 = 64 << 10;
        let Some(file) = self.views.file() else {
            return Ok(());
        };
        let Range { start, end } = self.part();
        let mut offset = start;
        let mut chunk = vec![0; CHUNK_BYTES.min(end - offset) as usize];
        while offset < end {
            let length = CHUNK_BYTES.min(end - offset);
            file.read_at(&mut chunk[..length as usize], offset)?;
            offset += length;
        }
        Ok(())
    }

    /// Where its bytes lie in the segment.
    fn part(&self) -> Range<u64> {
        self.offset()..self.offset() + self.shape().record_bytes()
    }

    fn slice(&self) -> Read {
        let Range { start, end } = self.part();
        let part = start as usize..end as usize;
        match self.views.slice(number(self.tenant), part) {
            Seen::Bytes(record) => Read::Sound(record),
            Seen::Outside => Read::Damaged,
            Seen::Nothing => Read::Gone,
        }
    }

    fn is_sound(&self, key: &[u8; 32], record: &[u8]) -> bool {
        let header = Header::decode(record, self.views.salt, self.offset());
        header.is_ok_and(|header| {
            header.kind == Kind::Entry
                && header.key == *key
                && header.shape() == self.shape()
                // Without keys there is nothing to open it with.
                && (header.seal == Seal::None || self.views.vault().is_some())
                && header.check_body(record).is_ok()
        })
    }
}

fn tick(now_ms: u64) -> u8 {
    (now_ms / TICK_MS) as u8
}

/// The caller knows that the fourth byte is zero.
fn three_bytes(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

fn number([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}
