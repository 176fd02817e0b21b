//! A disk that could not be used when the cache was opened: the changes that it misses, and taking
//! it into use later.
//!
//! ```text
//! insert, remove, purge ─► memory, and noted as missed
//! each REOPEN_AFTER     ─► open the folder ─► what it missed is superseded and purged there
//!                              └ refused: memory goes on     └► its entries are found, inserts reach it,
//!                                                               and those in memory are written
//! ```

use super::flusher::{Bell, Told};
use super::writer::{Trouble, Writer};
use super::{Cache, CacheKey, CacheOptions, EncryptionKeys, Shared, lock};
use crate::store::{
    Disk, NEVER, NewRecord, OpenError, Opened, RealDisk, Store, StoreError, StoreOptions, Whose,
};
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use std::{fmt, io};

/// Upper bound of the wait for a folder to open. A million entries take about this long; with more,
/// the first requests would find no daemon.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Bound of the keys, and of the tenants, that are remembered one by one: some 4 MiB. Further keys are
/// marked in a [`Sieve`]. Past the bound of tenants everything on disk is given up, because no purged
/// entry may come back.
const MISSED_MAX: usize = 1 << 16;

/// Bits of a [`Sieve`]: 4 MiB. After a million missed keys, one entry in 6,000 on the disk is lost
/// needlessly; after five million, one in 25.
const SIEVE_BITS: usize = 1 << 25;

impl Cache {
    /// As [`open`](Self::open), but a folder that the system refuses is no error, and one that takes
    /// longer than a second to read is not waited for: the cache begins in memory, as
    /// [`stats`](Self::stats) shows, and uses the folder as soon as that works. If the quota has no
    /// room for one entry, it stays in memory.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), for errors that an operator has to fix, if they are found within
    /// that second.
    pub fn open_even_without_disk(options: &CacheOptions) -> Result<Self, OpenError> {
        let mut cache = Self::open_within(Arc::new(RealDisk), options, OPEN_WAIT_MAX)?;
        cache.start_threads(&options.data_dir)?;
        Ok(cache)
    }

    /// As [`open_even_without_disk`](Self::open_even_without_disk), for a process that takes over from
    /// another one: while that one has the folder, the cache is in memory, and waits for
    /// [`folder_is_free`](Self::folder_is_free).
    ///
    /// # Errors
    ///
    /// As of [`open_even_without_disk`](Self::open_even_without_disk).
    pub fn open_after_another(options: &CacheOptions) -> Result<Self, OpenError> {
        let disk = Arc::new(RealDisk);
        let mut cache = match Self::open_within(Arc::clone(&disk) as _, options, OPEN_WAIT_MAX) {
            Err(error @ OpenError::Locked(_)) => Self::behind(disk, options, &error)?,
            opened => opened?,
        };
        cache.start_threads(&options.data_dir)?;
        Ok(cache)
    }

    /// Whether a process has the folder open. Takes the folder's lock for a moment, so only a process that
    /// can wait for the folder may ask.
    pub fn is_folder_in_use(data_dir: &Path) -> bool {
        crate::store::is_in_use(&RealDisk, data_dir)
    }

    /// The other process has given the folder up: opens it, on a thread of its own.
    pub fn folder_is_free(&self) {
        let shared = &self.shared;
        if let Some(absence) = &shared.absence
            && shared.is_disk_awaited()
        {
            absence.begin_opening(&shared.bell);
        }
    }

    /// The folder is waited for no longer: it comes when it comes.
    pub fn expects_no_folder(&self) {
        if let Some(absence) = &self.shared.absence {
            absence.expects_no_more();
        }
    }

    /// Waits until the folder is in use, if it is expected soon; whether it is in use.
    pub fn wait_for_folder(&self, at_most: Duration) -> bool {
        let shared = &*self.shared;
        let Some(absence) = &shared.absence else {
            return shared.writer.get().is_some();
        };
        let missed = lock(&absence.missed);
        let waited = absence.arrived.wait_timeout_while(missed, at_most, |_| {
            shared.is_disk_awaited() && absence.is_expected.load(Relaxed)
        });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        shared.writer.get().is_some()
    }

    /// Whether the folder is still being read for the first time: until then its entries are misses. False
    /// once that has failed, and the cache goes on in memory.
    pub fn is_reading_folder(&self) -> bool {
        matches!(self.folder(), Folder::Reading { .. })
    }

    /// What the cache knows of its folder.
    pub fn folder(&self) -> Folder {
        let shared = &*self.shared;
        let Some(absence) = shared.absence.as_ref().filter(|_| shared.is_disk_awaited()) else {
            return Folder::Settled;
        };
        if lock(&absence.opening).is_some() {
            let (read, segments) = lock(&absence.options).progress.now();
            return Folder::Reading { read, segments };
        }
        match absence.is_expected.load(Relaxed) {
            true => Folder::OfAnother,
            false => Folder::Settled,
        }
    }

    /// In memory, without threads yet, because another process has the folder.
    fn behind(
        disk: Arc<dyn Disk>,
        options: &CacheOptions,
        error: &OpenError,
    ) -> Result<Self, OpenError> {
        let mut shared = Shared::new(options, Arc::default(), None);
        let absence = Absence::new(disk, options.store()?);
        absence.is_expected.store(true, Relaxed);
        shared.absence = Some(absence);
        shared.note_absence(&error.to_string());
        Ok(Self {
            writer: None,
            flusher: None,
            shared: Arc::new(shared),
        })
    }

    /// Without threads yet.
    pub(super) fn open_within(
        disk: Arc<dyn Disk>,
        options: &CacheOptions,
        wait: Duration,
    ) -> Result<Self, OpenError> {
        let sizes = match options.store() {
            Ok(sizes) => sizes,
            Err(error) => return Self::without_disk(disk, options, error),
        };
        let bell = Arc::<Bell>::default();
        let opening = Opening::begin(Arc::clone(&disk), sizes.clone(), Arc::clone(&bell))
            .map_err(OpenError::io("start a thread for", &options.data_dir))?;
        match opening.wait(wait) {
            Some(Ok(opened)) => Ok(Self::of_opened(opened, options)),
            Some(Err(error)) => Self::without_disk(disk, options, error),
            None => {
                let mut shared = Shared::new(options, Arc::default(), None);
                shared.shares = Arc::clone(&sizes.shares);
                shared.bell = bell;
                let mut absence = Absence::new(disk, sizes);
                absence.opening = Mutex::new(Some(opening));
                absence.is_expected.store(true, Relaxed);
                shared.absence = Some(absence);
                shared.note_absence("the data folder is still being read");
                Ok(Self {
                    writer: None,
                    flusher: None,
                    shared: Arc::new(shared),
                })
            }
        }
    }

    /// A cache in memory for now, if `error` is of the disk.
    pub(super) fn without_disk(
        disk: Arc<dyn Disk>,
        options: &CacheOptions,
        error: OpenError,
    ) -> Result<Self, OpenError> {
        if !error.is_of_the_disk() {
            return Err(error);
        }
        let mut shared = Shared::new(options, Arc::default(), None);
        // Without valid sizes the folder can never open.
        let sizes = options.store().ok();
        if let Some(sizes) = &sizes {
            shared.shares = Arc::clone(&sizes.shares);
        }
        shared.absence = sizes.map(|sizes| Absence::new(disk, sizes));
        shared.note_trouble(error.to_string(), None);
        Ok(Self {
            writer: None,
            flusher: None,
            shared: Arc::new(shared),
        })
    }
}

/// What a cache knows of its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Folder {
    /// It is in use, or cannot be used, as [`Stats::trouble`](super::Stats::trouble) says.
    Settled,
    /// Another process has it, and will give it up.
    OfAnother,
    /// It is being read.
    Reading {
        /// Segments that were read.
        read: u64,
        /// All segments; 0 while that is not known.
        segments: u64,
    },
}

/// The disk that cannot be used yet.
#[derive(Debug)]
pub(super) struct Absence {
    disk: Arc<dyn Disk>,
    /// The keys may change.
    options: Mutex<StoreOptions>,
    missed: Mutex<Missed>,
    /// The first try to open it, while that goes on.
    opening: Mutex<Option<Opening>>,
    /// It is being read, or another process is about to give it up.
    is_expected: AtomicBool,
    /// It is in use, or expected no longer. Belongs to `missed`.
    arrived: Condvar,
}

/// A thread that opens a folder and rings when it is done. A store that is not taken is closed.
#[derive(Debug)]
struct Opening(Receiver<Result<Opened, OpenError>>);

impl Opening {
    fn begin(disk: Arc<dyn Disk>, options: StoreOptions, bell: Arc<Bell>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("reflex-opening".into());
        thread.spawn(move || {
            // The cache may be gone by now.
            let _ = sender.send(Store::open(disk, &options));
            bell.ring();
        })?;
        Ok(Self(receiver))
    }

    /// `None`: it goes on.
    fn wait(&self, at_most: Duration) -> Option<Result<Opened, OpenError>> {
        match self.0.recv_timeout(at_most) {
            Ok(opened) => Some(opened),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let lost = io::Error::other("the thread that opened it has ended");
                Some(Err(OpenError::io("open", Path::new("the data folder"))(
                    lost,
                )))
            }
        }
    }
}

/// What the folder missed while it could not be used.
#[derive(Clone, Debug, Default)]
struct Missed {
    /// Stored or removed.
    keys: HashSet<CacheKey>,
    /// Further keys that were stored or removed.
    sieve: Option<Sieve>,
    /// Purged.
    tenants: HashSet<[u8; 32]>,
    everything: bool,
}

impl Missed {
    fn note_everything(&mut self) {
        *self = Self {
            everything: true,
            ..Self::default()
        };
    }

    fn note_key(&mut self, key: &CacheKey) {
        if self.everything {
            return;
        }
        match &mut self.sieve {
            Some(sieve) => sieve.mark(key.as_bytes()),
            None => {
                self.keys.insert(*key);
                if self.keys.len() > MISSED_MAX {
                    let mut sieve = Sieve::default();
                    let keys = std::mem::take(&mut self.keys);
                    keys.iter().for_each(|key| sieve.mark(key.as_bytes()));
                    self.sieve = Some(sieve);
                }
            }
        }
    }

    fn note_tenant(&mut self, tenant: &[u8; 32]) {
        if self.everything {
            return;
        }
        self.tenants.insert(*tenant);
        if self.tenants.len() > MISSED_MAX {
            self.note_everything();
        }
    }

    /// Supersedes and purges in a store without readers yet. Doing it twice does no harm.
    fn make_up(&self, writer: &mut Writer) {
        if self.everything {
            writer.give_up_all();
        }
        for tenant in &self.tenants {
            writer.store.purge(Whose::Tenant(tenant));
        }
        let index = writer.store.index();
        if let Some(sieve) = &self.sieve {
            if index.has_hidden() {
                // What could not be read may be any of the keys, and cannot be looked through.
                tracing::warn!("too much was missed by a disk that cannot be read; it is given up");
                writer.give_up_all();
                return;
            }
            for key in index.remove_keys_where(|key, _| sieve.may_have(key)) {
                writer.owe_tombstone(&CacheKey::from_bytes(key), true);
            }
        }
        for key in &self.keys {
            let was_there = index.remove(key.as_bytes());
            if was_there || index.has_hidden() {
                writer.owe_tombstone(key, was_there);
            }
        }
    }
}

/// Keys past the bound of single keys: a Bloom filter. It reports each marked key as perhaps present,
/// and few others. Keys are hashes, so parts of them serve as the filter's hashes.
#[derive(Clone)]
struct Sieve(Vec<u64>);

impl Default for Sieve {
    fn default() -> Self {
        Self(vec![0; SIEVE_BITS / 64])
    }
}

impl Sieve {
    fn mark(&mut self, key: &[u8; 32]) {
        for (word, bit) in Self::bits(key) {
            self.0[word] |= bit;
        }
    }

    fn may_have(&self, key: &[u8; 32]) -> bool {
        Self::bits(key).all(|(word, bit)| self.0[word] & bit != 0)
    }

    /// Which words, and which bit of each.
    fn bits(key: &[u8; 32]) -> impl Iterator<Item = (usize, u64)> {
        let parts = key.as_chunks::<8>().0.iter();
        parts.map(|part| {
            let at = u64::from_le_bytes(*part) as usize % SIEVE_BITS;
            (at / 64, 1 << (at % 64))
        })
    }
}

impl fmt::Debug for Sieve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        write!(f, "Sieve({bits} of {SIEVE_BITS} bits)")
    }
}

/// A cache without a disk. While this is held, the disk is not taken into use.
pub(super) struct WithoutDisk<'a>(Option<MutexGuard<'a, Missed>>);

impl WithoutDisk<'_> {
    /// An entry is stored or removed.
    pub(super) fn misses(&mut self, key: &CacheKey) {
        if let Some(missed) = &mut self.0 {
            missed.note_key(key);
        }
    }

    /// Notes a purge. Fails if a disk exists that does not have the purge yet.
    pub(super) fn misses_purge(&mut self, whose: Whose<'_>) -> io::Result<()> {
        let Some(missed) = &mut self.0 else {
            return Ok(());
        };
        match whose {
            Whose::All => missed.note_everything(),
            Whose::Tenant(tenant) => missed.note_tenant(tenant),
        }
        Err(io::Error::other("the data folder cannot be used yet"))
    }
}

impl Absence {
    pub(super) fn new(disk: Arc<dyn Disk>, options: StoreOptions) -> Self {
        Self {
            disk,
            options: Mutex::new(options),
            missed: Mutex::default(),
            opening: Mutex::default(),
            is_expected: AtomicBool::new(false),
            arrived: Condvar::new(),
        }
    }

    fn expects_no_more(&self) {
        let _no_wait_begins = lock(&self.missed);
        self.is_expected.store(false, Relaxed);
        self.arrived.notify_all();
    }

    fn begin_opening(&self, bell: &Arc<Bell>) {
        let mut opening = lock(&self.opening);
        if opening.is_none() {
            let (disk, sizes) = (Arc::clone(&self.disk), lock(&self.options).clone());
            match Opening::begin(disk, sizes, Arc::clone(bell)) {
                Ok(begun) => *opening = Some(begun),
                // The flusher opens it itself, a moment later.
                Err(error) => tracing::debug!(%error, "no thread opens the data folder"),
            }
        }
    }

    /// The keys with which the folder is opened, or will be when it is open.
    pub(super) fn set_keys(&self, keys: &EncryptionKeys) {
        let mut options = lock(&self.options);
        if options.keys.is_some() {
            options.keys = Some(keys.clone());
        }
    }

    /// A store, as soon as it is open.
    fn open(&self) -> Result<Option<Opened>, OpenError> {
        let mut opening = lock(&self.opening);
        let Some(first) = &*opening else {
            // Reading may take long, and others look at it.
            drop(opening);
            let options = lock(&self.options).clone();
            return Store::open(Arc::clone(&self.disk), &options).map(Some);
        };
        let opened = first.wait(Duration::ZERO);
        if opened.is_some() {
            *opening = None;
        }
        opened.transpose()
    }
}

impl Shared {
    /// `None` with a disk.
    pub(super) fn without_disk(&self) -> Option<WithoutDisk<'_>> {
        if self.writer.get().is_some() || !self.leaving.has_not_begun() {
            return None;
        }
        let missed = self.absence.as_ref().map(|absence| lock(&absence.missed));
        // It may have come meanwhile, or be another process's.
        let is_so = self.writer.get().is_none() && self.leaving.has_not_begun();
        is_so.then_some(WithoutDisk(missed))
    }

    /// The disk is not there yet, and nothing has failed.
    fn note_absence(&self, reason: &str) {
        *lock(&self.trouble) = Some(Trouble {
            reason: reason.into(),
            failed_at_ms: None,
        });
        self.is_in_trouble.store(true, Relaxed);
    }

    /// Whether the disk is missing but may come.
    pub(super) fn is_disk_awaited(&self) -> bool {
        self.absence.is_some() && self.writer.get().is_none() && self.leaving.has_not_begun()
    }

    /// Takes the folder into use, if that works by now.
    pub(super) fn try_disk(&self) {
        let Some(absence) = self.absence.as_ref().filter(|_| self.is_disk_awaited()) else {
            return;
        };
        let Err(error) = self.take_in_use(absence) else {
            if self.writer.get().is_some() {
                absence.arrived.notify_all();
                self.write_memory();
            }
            return;
        };
        // The start of the trouble was logged, as a rule.
        match &error {
            OpenError::Locked(_) => tracing::debug!(%error, "the data folder is waited for"),
            error if error.is_of_the_disk() => {
                tracing::debug!(%error, "the data folder still cannot be used");
            }
            error => self.note_trouble(error.to_string(), None),
        }
        if !matches!(error, OpenError::Locked(_)) {
            absence.expects_no_more();
        }
    }

    /// Has the entries in memory written, now that a disk is there: they would be gone with the process.
    fn write_memory(&self) {
        let again = |key: &CacheKey| {
            let entry = self.memory.peek(key.as_bytes())?;
            let tenant = entry.tenant();
            let expires_at_ms = entry.expires_at_ms().unwrap_or(NEVER);
            let record = NewRecord::entry(
                key.as_bytes(),
                &tenant,
                entry.metadata(),
                entry.as_ref(),
                entry.stored_at_ms(),
                expires_at_ms,
            );
            let body_checksum = record.body_checksum();
            Some((entry, body_checksum))
        };
        for key in self.memory.keys(|_| true) {
            let key = CacheKey::from_bytes(key);
            let mut stored = self.queue.store_again(&key, || again(&key));
            if stored.is_err() {
                // This thread is the one that syncs. Trouble is noted, and entries then stay in memory.
                let _ = self.flush(None, Told::NextSync);
                stored = self.queue.store_again(&key, || again(&key));
            }
            if stored.is_err() {
                tracing::warn!("the disk is slow: some entries stay in memory");
                break;
            }
        }
        self.write_without_thread();
    }

    fn take_in_use(&self, absence: &Absence) -> Result<(), OpenError> {
        if absence.is_expected.load(Relaxed) && lock(&absence.opening).is_none() {
            absence.begin_opening(&self.bell);
            return Ok(());
        }
        let Some(Opened { store, damaged }) = absence.open()? else {
            return Ok(());
        };
        let mut writer = Writer::new(store);
        // Most of it before any thread waits, and durable before any relies on it.
        let so_far = lock(&absence.missed).clone();
        so_far.make_up(&mut writer);
        writer.settle().map_err(StoreError::into_open_error)?;

        {
            let mut missed = lock(&absence.missed);
            if !self.leaving.has_not_begun() {
                return Ok(());
            }
            missed.make_up(&mut writer);
            writer.store.publish(&self.index);
            if self.writer.set(Mutex::new(writer)).is_err() {
                return Ok(());
            }
            *missed = Missed::default();
        }
        // Keys that came while the folder was being read.
        let keys = lock(&absence.options).keys.clone();
        if let (Some(keys), Some(mut writer)) = (keys, self.writer())
            && let Err(error) = writer.store.set_keys(&keys)
        {
            tracing::warn!(error, "the newest encryption keys are not used");
        }
        self.counters.corrupt.fetch_add(damaged, Relaxed);
        self.is_in_trouble.store(false, Relaxed);
        *lock(&self.trouble) = None;
        tracing::info!("the data folder is in use: the disk takes entries");
        // The purges and keys of the last moments; if this fails, the next write tries again.
        let settled = self.writer().map_or(Ok(()), |mut writer| writer.settle());
        settled.map_err(StoreError::into_open_error)
    }
}
