//! The cache itself, whose callers give the time and make the keys: read this first.
//!
//! ```text
//! lookup ─► queue: not written yet ─► index (key ─► place, no lock) ─► record in a mapped segment
//! insert ─► queue, bounded ─► writer, a thread ─► store: append the record ─► place ─► index
//!                                └ disk in trouble ─► memory: the entry itself, bounded in bytes
//! ```
//!
//! Keys come from outside and are opaque here, and so is metadata: the cache knows neither
//! HTTP nor wasm. Time is a parameter everywhere. Trouble with the disk is never the caller's:
//! it is counted, shown by [`Cache::stats`], and the cache goes on in memory.

mod absence;
mod durable;
mod encryption;
mod entry;
mod flusher;
mod heir;
mod key;
mod l1;
mod memory;
mod new_entry;
mod options;
mod purges;
mod queue;
mod readers;
mod remote;
mod removal;
mod sampled;
mod scan;
mod stats;
mod upkeep;
mod writer;

pub use crate::store::{
    EncryptionKeys, OpenError, SegmentReport, StoreReport, Stored, StoredMax, TenantBounds,
};
pub use absence::Folder;
pub use entry::{Entry, Tier};
pub use heir::Heir;
pub use key::CacheKey;
pub use l1::{L1, L1_BYTES_MAX, L1Stats, Probe};
pub use new_entry::{InsertError, METADATA_BYTES_MAX, NewEntry};
pub use options::{CacheOptions, Durability};
#[cfg(feature = "serve")]
pub(crate) use purges::Gone;
pub use purges::{Held, Mark, PurgeListener, Purged, Purges};
pub use remote::Remote;
pub use removal::Counted;
pub use scan::EntryHead;
pub use stats::Stats;

use crate::store::{
    Disk, Index, NEVER, NewRecord, Opened, Place, Read, RealDisk, Shares, Store, StoreOptions,
    StoreStats,
};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Mutex, lock};
use absence::Absence;
use durable::DurableWaits;
use flusher::{Bell, Flusher, Told};
use heir::Leaving;
use memory::Memory;
use queue::{Found, QUEUE_BYTES_MAX, Queue, Wait};
use readers::Readers;
use remote::Behind;
use stats::Counters;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use writer::{Trouble, Writer, WriterThread};

/// After the disk failed, inserts go to memory for this long before one tries it again.
const RETRY_AFTER_MS: u64 = 1000;

/// How a lookup is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Hit,
    None,
}

/// The entry has to be read from disk first.
#[derive(Debug)]
struct Cold;

/// The outcome of a lookup.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The answer.
    Hit(Entry),
    /// An answer that has expired. Without a use for it, treat it as a miss.
    Stale(Entry),
    /// Nothing.
    Miss,
}

impl Lookup {
    /// The answer, unless it has expired.
    pub fn hit(self) -> Option<Entry> {
        match self {
            Self::Hit(entry) => Some(entry),
            Self::Stale(_) | Self::Miss => None,
        }
    }

    fn of(found: Option<Entry>, now_ms: u64) -> Self {
        match found {
            // Its age is unknown, so it cannot be served.
            Some(entry) if entry.is_from_the_future(now_ms) => Self::Miss,
            Some(entry) if entry.is_expired(now_ms) => Self::Stale(entry),
            Some(entry) => Self::Hit(entry),
            None => Self::Miss,
        }
    }
}

/// The cache. A clone is the same cache.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The threads end before the state that they use; the writer first.
    writer: Option<Arc<WriterThread>>,
    flusher: Option<Arc<Flusher>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Entries that are not on disk yet.
    queue: Queue,
    /// Entries on disk.
    index: Arc<Index>,
    /// Entries in memory.
    memory: Memory,
    /// Empty: in memory only, permanently or until the disk can be used. Held during disk waits;
    /// [`Self::writer`] takes it.
    writer: OnceLock<Mutex<Writer>>,
    /// For a disk that could not be used at first.
    absence: Option<Absence>,
    /// Set once the folder is another process's.
    leaving: Leaving,
    /// Threads that wait for it.
    wanted: AtomicUsize,
    /// Whether a writer thread empties the queue; otherwise the inserting thread does.
    has_thread: AtomicBool,
    /// Held during a sync.
    syncing: Mutex<()>,
    trouble: Mutex<Option<Trouble>>,
    is_in_trouble: AtomicBool,
    /// As of the last look.
    store_stats: Mutex<StoreStats>,
    bell: Arc<Bell>,
    durability: Durability,
    readers: Readers,
    durable_waits: DurableWaits,
    counters: Counters,
    purges: Arc<Purges>,
    entry_bytes_max: u64,
    /// For how long after its expiry an entry is kept.
    stale_ms_max: AtomicU64,
    /// What each tenant has on disk.
    shares: Arc<Shares>,
    behind: Behind,
}

impl Cache {
    /// Opens the data folder and finds the entries stored there.
    ///
    /// # Errors
    ///
    /// Another process has the folder, it is not ours, damaged or of a later release, the
    /// sizes contradict each other, or the system refuses. A folder that is refused is left as
    /// it was.
    pub fn open(options: &CacheOptions) -> Result<Self, OpenError> {
        let mut cache = Self::open_on(Arc::new(RealDisk), options)?;
        cache.start_threads(&options.data_dir)?;
        Ok(cache)
    }

    fn start_threads(&mut self, dir: &Path) -> Result<(), OpenError> {
        let started = self.start_flusher().and_then(|()| self.start_writer());
        started.map_err(OpenError::io("start a thread for", dir))
    }

    fn start_writer(&mut self) -> io::Result<()> {
        self.writer = Some(Arc::new(WriterThread::start(&self.shared)?));
        self.shared.has_thread.store(true, Relaxed);
        Ok(())
    }

    fn start_flusher(&mut self) -> io::Result<()> {
        let interval = match self.shared.durability {
            Durability::Interval { ms, bytes } => {
                self.shared.queue.waits_for_syncs_of(bytes);
                Some(Duration::from_millis(ms.max(1)))
            }
            Durability::Os | Durability::EveryInsert => None,
        };
        self.flusher = Some(Arc::new(Flusher::start(&self.shared, interval)?));
        Ok(())
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, options: &CacheOptions) -> Result<Self, OpenError> {
        Self::open_sized(disk, options, &options.store()?)
    }

    fn open_sized(
        disk: Arc<dyn Disk>,
        options: &CacheOptions,
        store: &StoreOptions,
    ) -> Result<Self, OpenError> {
        Ok(Self::of_opened(Store::open(disk, store)?, options))
    }

    fn of_opened(opened: Opened, options: &CacheOptions) -> Self {
        let Opened { store, damaged } = opened;
        let shared = Shared::new(options, store.index(), Some(store));
        shared.counters.corrupt.fetch_add(damaged, Relaxed);
        Self {
            writer: None,
            flusher: None,
            shared: Arc::new(shared),
        }
    }

    /// A cache without a disk: the same, within [`CacheOptions::memory_bytes_max`], and gone
    /// with the process.
    pub fn in_memory(options: &CacheOptions) -> Self {
        Self {
            writer: None,
            flusher: None,
            shared: Arc::new(Shared::new(options, Arc::default(), None)),
        }
    }

    /// The longest payload that [`insert`](Self::insert) takes.
    pub fn entry_bytes_max(&self) -> u64 {
        self.shared.entry_bytes_max
    }

    /// From now on, an entry is kept like any other for so many seconds after its expiry, in place of
    /// [`CacheOptions::stale_seconds_max`]. What has made room before does not come back.
    pub fn keep_expired(&self, seconds_max: u64) {
        let ms = seconds_max.saturating_mul(1000);
        self.shared.stale_ms_max.store(ms, Relaxed);
    }

    /// From now on, each tenant may store so much, in place of [`CacheOptions::tenant_bounds`]. With the
    /// next insert, those that have more lose their oldest entries.
    pub fn bound_tenants(&self, bounds: TenantBounds) {
        self.shared.shares.bound(bounds);
    }

    /// What a tenant has on disk; with `None`, those tenants that count as one.
    pub fn tenant_stored(&self, tenant: Option<&[u8; 32]>) -> Stored {
        self.shared.shares.stored(tenant)
    }

    /// The entry for a key.
    pub fn lookup(&self, key: &CacheKey, now_ms: u64) -> Lookup {
        Lookup::of(self.shared.find(key, Use::Hit, now_ms), now_ms)
    }

    /// As [`lookup`](Self::lookup), for threads that must not wait for the disk: `None` if the
    /// entry has to be read from it first, because the system has taken its pages away, or because
    /// it is of an earlier process. Then call [`lookup`](Self::lookup) on a thread that may wait, or
    /// [`lookup_async`](Self::lookup_async).
    pub fn lookup_now(&self, key: &CacheKey, now_ms: u64) -> Option<Lookup> {
        let found = self.shared.find_now(key, Use::Hit, now_ms).ok()?;
        Some(Lookup::of(found, now_ms))
    }

    /// As [`contains`](Self::contains), without waiting for the disk: an entry that may have to be
    /// read first counts as there.
    pub fn may_contain(&self, key: &CacheKey, now_ms: u64) -> bool {
        match self.shared.find_now(key, Use::None, now_ms) {
            Ok(found) => found.is_some_and(|entry| !entry.is_expired(now_ms)),
            Err(Cold) => true,
        }
    }

    /// Whether a lookup would be a hit. Reads the record when it was not read before, but is
    /// not counted as a use of it.
    pub fn contains(&self, key: &CacheKey, now_ms: u64) -> bool {
        let found = self.shared.find(key, Use::None, now_ms);
        found.is_some_and(|entry| !entry.is_expired(now_ms))
    }

    /// Stores an entry, in place of an older one, and returns it. A lookup finds it from now on,
    /// until it expires, is removed, or makes room. The writer thread writes it to disk at once:
    /// after that it survives the end of the process, and after the next [`sync`](Self::sync) a
    /// loss of power.
    ///
    /// If the disk does not keep up, this waits for it, up to a second. With
    /// [`Durability::EveryInsert`] it also waits until the entry is durable, again up to a second.
    ///
    /// # Errors
    ///
    /// The entry is too large, or the disk does not keep up; nothing was stored, and an older
    /// entry is still there.
    pub fn insert(&self, new: NewEntry<'_>) -> Result<Entry, InsertError> {
        let entry = self.put(new, Wait::ForRoom)?;
        self.wait_until_durable();
        Ok(entry)
    }

    /// As [`insert`](Self::insert), for threads that must not wait for the disk: if it does not
    /// keep up, the entry is refused at once. This never waits until the entry is durable.
    ///
    /// # Errors
    ///
    /// As of [`insert`](Self::insert).
    pub fn insert_now(&self, new: NewEntry<'_>) -> Result<Entry, InsertError> {
        self.put(new, Wait::No)
    }

    /// As [`insert`](Self::insert), of an answer that took time to fetch: `since` is from
    /// [`Purges::now`] before that began.
    ///
    /// # Errors
    ///
    /// As of [`insert`](Self::insert), and [`InsertError::Purged`]: a purge since then covers the
    /// entry.
    pub fn insert_since(&self, new: NewEntry<'_>, since: Mark) -> Result<Entry, InsertError> {
        // Wait before holding off purges.
        self.wait_for_room(new.metadata.len() as u64 + new.payload.len() as u64);
        let entry = self.insert_now_since(new, since)?;
        self.wait_until_durable();
        Ok(entry)
    }

    /// As [`insert_since`](Self::insert_since), for threads that must not wait for the disk.
    ///
    /// # Errors
    ///
    /// As of [`insert_since`](Self::insert_since).
    pub fn insert_now_since(&self, new: NewEntry<'_>, since: Mark) -> Result<Entry, InsertError> {
        // No purge begins between the look and the insert.
        let held = self.shared.purges.hold();
        if held.has_met(new.key, new.tenant, since) {
            return Err(InsertError::Purged);
        }
        self.put(new, Wait::No)
    }

    /// As [`insert_now_since`](Self::insert_now_since), under a key that was
    /// [made of](CacheKey::new) this digest. Edges that keep copies by digest drop their copy of the
    /// entry that it replaces, if that was live, and of nothing else.
    ///
    /// # Errors
    ///
    /// As of [`insert_since`](Self::insert_since).
    pub fn insert_named_now_since(
        &self,
        new: NewEntry<'_>,
        digest: &[u8; 32],
        since: Mark,
    ) -> Result<Entry, InsertError> {
        // Copies of an expired entry are of no use already.
        let replaces = self.may_contain(new.key, new.now_ms);
        let entry = self.insert_now_since(new, since)?;
        // Noted once the new entry can be found: an edge that dropped its copy earlier would fetch the
        // old one again.
        if replaces {
            self.shared.purges.note_replaced(*digest);
        }
        Ok(entry)
    }

    /// Waits up to a second until the queue has room for an entry of about this length, for callers
    /// that insert with [`insert_now`](Self::insert_now) on a thread that may wait. Whether it had
    /// room: another thread may take it.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> bool {
        self.shared.queue.wait_for_room(bytes)
    }

    fn put(&self, new: NewEntry<'_>, wait: Wait) -> Result<Entry, InsertError> {
        let shared = &*self.shared;
        if new.payload.len() as u64 > shared.entry_bytes_max {
            return Err(InsertError::PayloadTooLarge(shared.entry_bytes_max));
        }
        if new.metadata.len() > METADATA_BYTES_MAX {
            return Err(InsertError::MetadataTooLarge(METADATA_BYTES_MAX as u64));
        }
        let expires_at_ms = new
            .ttl_ms
            .map_or(NEVER, |ttl| new.now_ms.saturating_add(ttl));
        let record = NewRecord::entry(
            new.key.as_bytes(),
            new.tenant,
            new.metadata,
            new.payload,
            new.now_ms,
            expires_at_ms,
        );
        let entry = Entry::in_memory(&record);
        if let Some(mut without_disk) = shared.without_disk() {
            without_disk.misses(new.key);
            shared.memory.insert(new.key.as_bytes(), entry.clone());
        } else {
            let stored = shared
                .queue
                .store(new.key, &entry, record.body_checksum(), wait);
            stored.map_err(|queue::Full| {
                shared.counters.inserts_refused.fetch_add(1, Relaxed);
                InsertError::QueueFull
            })?;
            shared.write_without_thread();
        }
        shared.counters.inserts.fetch_add(1, Relaxed);
        Ok(entry)
    }

    /// The purges so far. They tell whether an answer that took time to fetch may still be stored.
    pub fn purges(&self) -> &Arc<Purges> {
        &self.shared.purges
    }

    /// Whether [`wait_until_durable`](Self::wait_until_durable) waits.
    pub fn has_to_be_durable(&self) -> bool {
        self.shared.durability == Durability::EveryInsert
    }

    /// With [`Durability::EveryInsert`], waits until all earlier inserts and removals are durable,
    /// at most a second. With another durability this does nothing.
    pub fn wait_until_durable(&self) {
        if self.has_to_be_durable() {
            self.shared.wait_until_durable();
        }
    }

    /// Makes all earlier inserts durable. Meant for the end of a program;
    /// [`CacheOptions::durability`] does the same meanwhile.
    ///
    /// # Errors
    ///
    /// Entries stored since the last call may not survive a loss of power. The next call does not
    /// try them again: a sync that succeeds after a failed one proves nothing about them.
    pub fn sync(&self) -> io::Result<()> {
        self.shared.flush(None, Told::Caller)
    }
}

impl Shared {
    fn new(options: &CacheOptions, index: Arc<Index>, store: Option<Store>) -> Self {
        let shares = store.as_ref().map_or_else(Arc::default, Store::shares);
        let writer = store.map(|store| Mutex::new(Writer::new(store)));
        Self {
            queue: Queue::new(QUEUE_BYTES_MAX),
            index,
            memory: Memory::new(options.memory_bytes_max, options.entries_max()),
            writer: writer.map(OnceLock::from).unwrap_or_default(),
            absence: None,
            leaving: Leaving::default(),
            wanted: AtomicUsize::new(0),
            has_thread: AtomicBool::new(false),
            syncing: Mutex::default(),
            trouble: Mutex::default(),
            is_in_trouble: AtomicBool::new(false),
            store_stats: Mutex::default(),
            bell: Arc::default(),
            durability: options.durability,
            readers: Readers::default(),
            durable_waits: DurableWaits::default(),
            counters: Counters::default(),
            purges: Arc::default(),
            entry_bytes_max: options.entry_bytes_max,
            stale_ms_max: AtomicU64::new(options.stale_seconds_max.saturating_mul(1000)),
            shares,
            behind: Behind::default(),
        }
    }

    fn find(&self, key: &CacheKey, counts_as: Use, now_ms: u64) -> Option<Entry> {
        // An entry in the queue is in memory.
        let found = self.find_by(Place::read, key, counts_as, now_ms);
        found.ok().flatten().filter(|entry| self.is_trusted(entry))
    }

    fn find_now(&self, key: &CacheKey, counts_as: Use, now_ms: u64) -> Result<Option<Entry>, Cold> {
        let found = self.find_by(Place::read_now, key, counts_as, now_ms);
        found.map(|found| found.filter(|entry| self.is_trusted(entry)))
    }

    fn find_by(
        &self,
        read: impl Fn(&Place, &[u8; 32]) -> Read,
        key: &CacheKey,
        counts_as: Use,
        now_ms: u64,
    ) -> Result<Option<Entry>, Cold> {
        let key_bytes = key.as_bytes();
        match self.queue.find(key_bytes) {
            Found::Nothing => {}
            Found::Entry(entry) => return Ok(Some(entry)),
            Found::Removed => return Ok(None),
            Found::Forgotten => return Ok(self.find_in_memory(key_bytes, counts_as)),
        }
        let count = |place: &Place| {
            if counts_as == Use::Hit {
                place.hit();
            }
        };
        let found = self.index.find(key_bytes, |place| {
            match place.read_again(key_bytes, now_ms) {
                Read::Sound(record) => {
                    count(place);
                    Ok(Entry::from_place(record))
                }
                read => Err((read, place.clone())),
            }
        });
        let (mut found, place) = match found {
            Some(Ok(entry)) => return Ok(Some(entry)),
            Some(Err(found)) => found,
            None => return Ok(self.find_in_memory(key_bytes, counts_as)),
        };
        if let Read::Cold = found {
            // Outside of the index: while a reader looks into the map, places that left it stay in
            // memory.
            found = read(&place, key_bytes);
        }
        match found {
            Read::Sound(record) => {
                self.index.find(key_bytes, |now| {
                    if now.is(&place) {
                        now.set_read(now_ms);
                        count(now);
                    }
                });
                return Ok(Some(Entry::from_place(record)));
            }
            Read::Cold => return Err(Cold),
            Read::Damaged | Read::Gone => {
                self.give_up(key, &place, matches!(found, Read::Damaged));
            }
        }
        Ok(self.find_in_memory(key_bytes, counts_as))
    }

    fn find_in_memory(&self, key: &[u8; 32], counts_as: Use) -> Option<Entry> {
        match counts_as {
            Use::Hit => self.memory.find(key),
            Use::None => self.memory.peek(key),
        }
    }

    /// Takes out a place whose record cannot be served, unless another place has replaced it.
    fn give_up(&self, key: &CacheKey, place: &Place, is_damaged: bool) {
        if is_damaged {
            self.index.doubt();
        }
        let is_out = || self.index.remove_place(key.as_bytes(), place);
        if !is_damaged {
            // An evicted record is on disk yet, and a newer one of the key must know of it.
            if !place.is_evicted() {
                is_out();
            }
            return;
        }
        // It may be readable again after the next start, and must not come back when it was
        // removed or superseded by then.
        self.queue.bury(key, || {
            let is_out = is_out();
            self.counters.corrupt.fetch_add(is_out.into(), Relaxed);
            is_out
        });
        if !self.has_thread.load(Relaxed) {
            self.write_some(usize::MAX);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod tests;
