//! The cache: read this first.
//!
//! ```text
//! lookup ─► index (key ─► place, no lock) ─► place: record in a mapped segment ─► Entry
//! insert ─► store: append the record ─► place ─► index
//!              └ disk in trouble ─► memory: the entry itself, bounded in bytes
//! ```
//!
//! Keys come from outside and are opaque here, and so is metadata: the cache knows neither
//! HTTP nor wasm. Time is a parameter everywhere. Trouble with the disk is never the caller's:
//! it is counted, shown by [`Cache::stats`], and the cache goes on in memory.

mod entry;
mod flusher;
mod key;
mod l1;
mod memory;
mod options;
mod purges;
mod stats;
mod upkeep;
mod writer;

pub use crate::store::{OpenError, SegmentReport, StoreReport};
pub use entry::Entry;
pub use key::CacheKey;
pub use l1::{
    L1Bound, L1Cache, L1CacheHandle, L1LookupResult, ReflexStatus, hash_prompt, hash_tenant_prompt,
};
pub use options::{CacheOptions, Durability};
pub use purges::{Held, Mark, PurgeListener, Purged, Purges};
pub use stats::Stats;

use crate::store::{
    Disk, Epochs, Index, NEVER, NewRecord, Opened, Place, Read, RealDisk, Store, StoreError,
    StoreOptions, Whose,
};
use flusher::{Bell, Flusher, Synced, Told};
use memory::Memory;
use stats::Counters;
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{error, fmt, io};
use writer::{Trouble, Writer};

/// Metadata is status and headers; whoever needs more than this has a payload.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// After the disk failed, inserts go to memory for this long before one tries it again.
const RETRY_AFTER_MS: u64 = 1000;

/// Whether a record that is not on disk may be there all the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Yes,
    No,
}

/// What a look into the cache counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Hit,
    None,
}

/// What a lookup found.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The answer.
    Hit(Entry),
    /// An answer that has expired. To be treated as a miss by whoever has no better use.
    Stale(Entry),
    /// Nothing.
    Miss,
}

/// An entry to store.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Its key; an entry of the same key is superseded.
    pub key: &'a CacheKey,
    /// Whose it is; stored with it, not looked at.
    pub tenant: &'a [u8; 32],
    /// Stored with the payload, not looked at; at most [`METADATA_BYTES_MAX`].
    pub metadata: &'a [u8],
    /// At most [`CacheOptions::entry_bytes_max`].
    pub payload: &'a [u8],
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// How long it is an answer; `None` is for ever.
    pub ttl_ms: Option<u64>,
}

/// Why an entry was not stored. It never is stored in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertError {
    /// The payload is longer than this limit.
    PayloadTooLarge(u64),
    /// The metadata is longer than this limit.
    MetadataTooLarge(u64),
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PayloadTooLarge(max) => write!(f, "payload longer than {max} bytes"),
            Self::MetadataTooLarge(max) => write!(f, "metadata longer than {max} bytes"),
        }
    }
}

impl error::Error for InsertError {}

/// The cache. A clone is the same cache.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Ends before the rest does, which it makes use of.
    flusher: Option<Arc<Flusher>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Entries on disk.
    index: Arc<Index>,
    /// Entries in memory.
    memory: Memory,
    /// Who was purged.
    epochs: Arc<Epochs>,
    /// `None`: in memory only.
    writer: Option<Mutex<Writer>>,
    /// One sync at a time: a second caller must not return before the first one's is done.
    syncing: Mutex<Synced>,
    bell: Arc<Bell>,
    durability: Durability,
    counters: Counters,
    purges: Arc<Purges>,
    entry_bytes_max: u64,
}

impl Cache {
    /// Opens the data folder and finds what was stored there.
    ///
    /// # Errors
    ///
    /// Another process has the folder, it is not ours, damaged or of a later release, the
    /// sizes contradict each other, or the system refuses. A folder that is refused is left as
    /// it was.
    pub fn open(options: &CacheOptions) -> Result<Self, OpenError> {
        let mut cache = Self::open_on(Arc::new(RealDisk), options)?;
        cache
            .start_flusher()
            .map_err(OpenError::io("start a thread for", &options.data_dir))?;
        Ok(cache)
    }

    fn start_flusher(&mut self) -> io::Result<()> {
        let interval = match self.shared.durability {
            Durability::Interval { ms, .. } => Some(Duration::from_millis(ms.max(1))),
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
        let Opened { store, damaged } = Store::open(disk, store)?;
        let shared = Shared::new(options, store.index(), store.epochs(), Some(store));
        shared.counters.corrupt.fetch_add(damaged, Relaxed);
        Ok(Self {
            flusher: None,
            shared: Arc::new(shared),
        })
    }

    /// A cache without a disk: the same, within [`CacheOptions::memory_bytes_max`], and gone
    /// with the process.
    pub fn in_memory(options: &CacheOptions) -> Self {
        Self {
            flusher: None,
            shared: Arc::new(Shared::new(options, Arc::default(), Arc::default(), None)),
        }
    }

    /// The longest payload that [`insert`](Self::insert) takes.
    pub fn entry_bytes_max(&self) -> u64 {
        self.shared.entry_bytes_max
    }

    /// The entry for a key.
    pub fn lookup(&self, key: &CacheKey, now_ms: u64) -> Lookup {
        match self.shared.find(key, Use::Hit) {
            Some(entry) if entry.is_expired(now_ms) => Lookup::Stale(entry),
            Some(entry) => Lookup::Hit(entry),
            None => Lookup::Miss,
        }
    }

    /// As [`lookup`](Self::lookup), for threads that must not wait for the disk: `None` when the
    /// entry may have to be fetched from it first, which is so once for each entry that an
    /// earlier process has stored. Then [`lookup`](Self::lookup) is to be called where waiting
    /// is fine.
    pub fn lookup_now(&self, key: &CacheKey, now_ms: u64) -> Option<Lookup> {
        let is_cold = self.shared.index.find(key.as_bytes(), Place::is_cold);
        match is_cold {
            Some(true) => None,
            Some(false) | None => Some(self.lookup(key, now_ms)),
        }
    }

    /// Whether a lookup would be a hit. Reads the record when it was not read before, but is
    /// not counted as a use of it.
    pub fn contains(&self, key: &CacheKey, now_ms: u64) -> bool {
        let found = self.shared.find(key, Use::None);
        found.is_some_and(|entry| !entry.is_expired(now_ms))
    }

    /// Stores an entry, in place of the one before, and returns it. A lookup finds it from now
    /// on, until it expires, is removed, or has to make room. It outlives the process, unless
    /// the disk is in trouble, and the machine after the next [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// The entry is too large; nothing was stored, and an older entry is still there.
    pub fn insert(&self, new: NewEntry<'_>) -> Result<Entry, InsertError> {
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
        let entry = shared.store(new.key, &record);
        shared.settle_durability();
        shared.counters.inserts.fetch_add(1, Relaxed);
        Ok(entry)
    }

    /// Which purges there were. Whoever stores what took time to fetch asks here whether it may
    /// still be stored.
    pub fn purges(&self) -> &Arc<Purges> {
        &self.shared.purges
    }

    /// Removes the entry for a key, for good: it does not come back with a restart, unless the
    /// disk is in trouble from now until then. Returns whether there was one to be found.
    pub fn remove(&self, key: &CacheKey) -> bool {
        let purged = Purged::Entry(*key);
        self.shared.purges.note(purged, || self.remove_entry(key))
    }

    fn remove_entry(&self, key: &CacheKey) -> bool {
        let shared = &*self.shared;
        let in_memory = shared.memory.remove(key.as_bytes());
        let on_disk = shared.writer.as_ref().is_some_and(|writer| {
            let mut writer = lock(writer);
            // What the index does not know has nothing on disk to be buried.
            let was_there = shared.index.remove(key.as_bytes());
            if was_there && writer.is_failing() {
                writer.owe_tombstone(key);
            } else if was_there
                && let Err(error) = writer.store.append(&NewRecord::tombstone(key.as_bytes()))
            {
                writer.owe_tombstone(key);
                shared.note_trouble(&mut writer, error.to_string(), None);
            }
            was_there
        });
        shared.settle_durability();
        in_memory || on_disk
    }

    /// Purges everything that a tenant has stored, at once and for good: no lookup finds it any
    /// more, nor does one after a restart or a loss of power. What is stored from now on is
    /// found. Waits for the medium, as a rule some milliseconds; inserts wait as well.
    ///
    /// The bytes stay on disk until their segment makes room.
    ///
    /// # Errors
    ///
    /// The purge holds in this process, but could not be made durable. The next
    /// [`sync`](Self::sync) tries again.
    pub fn purge_tenant(&self, tenant: &[u8; 32]) -> io::Result<()> {
        let purge = || self.shared.purge(Whose::Tenant(tenant));
        self.shared.purges.note(Purged::Tenant(*tenant), purge)
    }

    /// As [`purge_tenant`](Self::purge_tenant) for everything of everybody. The segments are
    /// removed as well; those that someone still reads are, when the last reader is done.
    ///
    /// # Errors
    ///
    /// As of [`purge_tenant`](Self::purge_tenant). No segment was removed then.
    pub fn purge_all(&self) -> io::Result<()> {
        let purge = || self.shared.purge(Whose::Everybody);
        self.shared.purges.note(Purged::All, purge)
    }

    /// Makes everything durable that was stored before. Meant to be called at the end;
    /// [`CacheOptions::durability`] does the same meanwhile.
    ///
    /// # Errors
    ///
    /// Entries stored since the last call may not survive the machine. The next call does not
    /// try them again: a disk that failed to sync must not be believed when it then succeeds.
    pub fn sync(&self) -> io::Result<()> {
        self.shared.flush(None, Told::Caller)
    }

    /// Counts for the operator.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let counters = &shared.counters;
        // moka lets go late otherwise, and whoever has just inserted an entry wants to see it.
        shared.memory.settle();
        let mut stats = Stats {
            entries: shared.index.len() + shared.memory.len(),
            payload_bytes: shared.index.payload_bytes() + shared.memory.payload_bytes(),
            inserts: counters.inserts.load(Relaxed),
            inserts_in_memory: counters.inserts_in_memory.load(Relaxed),
            evictions: shared.memory.evictions(),
            store_errors: counters.store_errors.load(Relaxed),
            corrupt: counters.corrupt.load(Relaxed),
            healthy: true,
            ..Stats::default()
        };
        if let Some(writer) = &shared.writer {
            let writer = lock(writer);
            let store = writer.store.stats();
            stats.disk_bytes = store.disk_bytes;
            stats.pinned_bytes = store.pinned_bytes;
            stats.dead_bytes = store.dead_bytes;
            stats.segments = store.segments;
            stats.segments_reclaimed = store.reclaimed;
            stats.evictions += store.evicted;
            stats.healthy = writer.trouble.is_none();
            stats.trouble = writer.trouble.as_ref().map(|t| t.reason.clone());
        }
        stats
    }
}

impl Shared {
    fn new(
        options: &CacheOptions,
        index: Arc<Index>,
        epochs: Arc<Epochs>,
        store: Option<Store>,
    ) -> Self {
        let writer = |store| {
            Mutex::new(Writer {
                store,
                trouble: None,
                owed_tombstones: HashSet::new(),
            })
        };
        Self {
            index,
            memory: Memory::new(options.memory_bytes_max, options.entries_max),
            epochs,
            writer: store.map(writer),
            syncing: Mutex::default(),
            bell: Arc::default(),
            durability: options.durability,
            counters: Counters::default(),
            purges: Arc::default(),
            entry_bytes_max: options.entry_bytes_max,
        }
    }

    fn find(&self, key: &CacheKey, counts_as: Use) -> Option<Entry> {
        let key_bytes = key.as_bytes();
        let read = self.index.find(key_bytes, |place| {
            match place.read(key_bytes, &self.epochs) {
                Read::Sound(record) => {
                    if counts_as == Use::Hit {
                        place.hit();
                    }
                    Ok(Entry::from_place(record, place))
                }
                read => Err((read, place.clone())),
            }
        });
        match read {
            Some(Ok(entry)) => return Some(entry),
            Some(Err((read, place))) => self.give_up(key, &place, matches!(read, Read::Damaged)),
            None => {}
        }
        match counts_as {
            Use::Hit => self.memory.find(key_bytes),
            Use::None => self.memory.peek(key_bytes),
        }
    }

    /// Takes a place out that is of no use, unless something else is there by now.
    fn give_up(&self, key: &CacheKey, place: &Place, is_damaged: bool) {
        let Some(writer) = &self.writer else { return };
        let mut writer = lock(writer);
        if self.index.remove_place(key.as_bytes(), place) && is_damaged {
            self.counters.corrupt.fetch_add(1, Relaxed);
            // It may be readable again after the next start, and must not come back when it
            // was removed or superseded by then.
            writer.owe_tombstone(key);
        }
    }

    fn store(&self, key: &CacheKey, record: &NewRecord<'_>) -> Entry {
        let Some(writer) = &self.writer else {
            return self.store_in_memory(key, record);
        };
        let mut writer = lock(writer);
        let tried = match self.store_on_disk(&mut writer, key, record) {
            Ok(entry) => return entry,
            Err(tried) => tried,
        };
        self.counters.inserts_in_memory.fetch_add(1, Relaxed);
        // What is there now is superseded, and so is what a failed write may have left.
        if self.index.remove(key.as_bytes()) || tried == Tried::Yes {
            writer.owe_tombstone(key);
        }
        self.store_in_memory(key, record)
    }

    /// Fails when it has to go to memory.
    fn store_on_disk(
        &self,
        writer: &mut Writer,
        key: &CacheKey,
        record: &NewRecord<'_>,
    ) -> Result<Entry, Tried> {
        let now_ms = record.stored_at_ms();
        let failed_at = writer.trouble.as_ref().and_then(|t| t.failed_at_ms);
        // Either way: the clock may have been set back.
        if failed_at.is_some_and(|at| now_ms.abs_diff(at) < RETRY_AFTER_MS) {
            return Err(Tried::No);
        }
        let appended = writer.settle().and_then(|()| writer.store.append(record));
        let place = match appended {
            Ok(place) => place,
            Err(error) => {
                let failed_at_ms = match error {
                    StoreError::Io { .. } => Some(now_ms),
                    StoreError::Pinned(_) => None,
                };
                self.note_trouble(writer, error.to_string(), failed_at_ms);
                return Err(Tried::Yes);
            }
        };
        if writer.trouble.take().is_some() {
            tracing::info!("the disk takes entries again");
        }
        let written = place.written().ok_or(Tried::Yes)?;
        self.memory.remove(key.as_bytes());
        Ok(Entry::from_place(written, &place))
    }

    fn store_in_memory(&self, key: &CacheKey, record: &NewRecord<'_>) -> Entry {
        let entry = Entry::in_memory(record);
        self.memory.insert(key.as_bytes(), entry.clone());
        entry
    }

    fn purge(&self, whose: Whose<'_>) -> io::Result<()> {
        let is_meant = |entry: &Entry| match whose {
            Whose::Everybody => true,
            Whose::Tenant(tenant) => entry.tenant() == *tenant,
        };
        let Some(writer) = &self.writer else {
            self.memory.remove_where(is_meant);
            return Ok(());
        };
        // Nothing is stored meanwhile, or it would be unclear what came before.
        let mut writer = lock(writer);
        writer.store.purge(whose);
        self.memory.remove_where(is_meant);
        if whose == Whose::Everybody {
            self.index.remove_where(|_| true);
        }
        match writer.store.settle_epochs() {
            Ok(()) if whose == Whose::Everybody => {
                // What was purged need not be buried one by one.
                writer.owed_tombstones.clear();
                writer.store.discard();
            }
            Ok(()) => {}
            Err(error) => {
                self.note_trouble(&mut writer, error.to_string(), None);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn note_trouble(&self, writer: &mut Writer, reason: String, failed_at_ms: Option<u64>) {
        self.counters.store_errors.fetch_add(1, Relaxed);
        if writer.trouble.is_none() {
            tracing::warn!(reason, "the disk is in trouble; new entries stay in memory");
        }
        let before = writer.trouble.take().and_then(|t| t.failed_at_ms);
        writer.trouble = Some(Trouble {
            reason,
            failed_at_ms: failed_at_ms.or(before),
        });
    }
}

/// A panic while the lock was held is a bug, but what it guards is whole between any two
/// statements, so that the cache can go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
