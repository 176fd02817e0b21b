//! The settings of a cache; `CacheOptions` has the reason for each default.

use crate::cache;
use crate::cache::{CacheOptions, Durability, EncryptionKeys, OpenError};
use crate::clock::Clock;
use crate::embed::flights::Flights;
use crate::embed::{Cache, Shared};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Followers at once: as many as a busy process has tasks, and a few MiB.
const WAITERS_MAX_DEFAULT: usize = 10_000;

/// Longer than a model takes for its answer, as a rule.
const FETCH_WAIT_MAX_DEFAULT: Duration = Duration::from_secs(60);

/// The settings of a [`Cache`]: its folder, its bounds, and its defaults.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open` or `in_memory`"]
pub struct Builder {
    options: CacheOptions,
    clock: Clock,
    namespace: String,
    ttl: Option<Duration>,
    fetch_wait_max: Duration,
    waiters_max: usize,
}

impl Builder {
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self {
            options: CacheOptions {
                data_dir,
                ..CacheOptions::default()
            },
            clock: Clock::system(),
            namespace: "default".into(),
            ttl: None,
            fetch_wait_max: FETCH_WAIT_MAX_DEFAULT,
            waiters_max: WAITERS_MAX_DEFAULT,
        }
    }

    /// Part of every key: two namespaces share only the space. Default: `default`, as the daemon's.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Life of an answer that is stored without one of its own. Default: until it has to make room.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Upper bound of the files, in bytes. Default: 4 GiB.
    pub fn disk_bytes_max(mut self, bytes: u64) -> Self {
        self.options.disk_bytes_max = bytes;
        self
    }

    /// Upper bound of answers in memory, in bytes: those that the disk did not take, or all of
    /// [`in_memory`](Self::in_memory). Default: 256 MiB.
    pub fn memory_bytes_max(mut self, bytes: u64) -> Self {
        self.options.memory_bytes_max = bytes;
        self
    }

    /// The longest answer that is stored, in bytes. Default: 16 MiB.
    pub fn entry_bytes_max(mut self, bytes: u64) -> Self {
        self.options.entry_bytes_max = bytes;
        self
    }

    /// The most answers that are kept, of any size; each takes some 100 bytes of memory. Default: one
    /// for each 2 KiB of [`disk_bytes_max`](Self::disk_bytes_max), and at least a million.
    pub fn entries_max(mut self, entries: u64) -> Self {
        self.options.entries_max = Some(entries);
        self
    }

    /// When an answer survives a loss of power. Default: after a second or 8 MiB. It always
    /// survives the end of the process.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Encrypts what is on disk with the first of these keys. Default: it is not encrypted.
    pub fn encryption_keys(mut self, keys: EncryptionKeys) -> Self {
        self.options.encryption_keys = Some(keys);
        self
    }

    /// The source of the time. Default: the system's clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How long [`get_or_fetch_blocking`](Cache::get_or_fetch_blocking) waits for a leader's fetch.
    /// Default: a minute.
    pub fn fetch_wait_max(mut self, wait: Duration) -> Self {
        self.fetch_wait_max = wait;
        self
    }

    /// How many calls may wait for leaders at once. Default: 10,000.
    pub fn waiters_max(mut self, waiters: usize) -> Self {
        self.waiters_max = waiters;
        self
    }

    /// Opens the folder and finds the answers stored there.
    ///
    /// # Errors
    ///
    /// Another process has the folder, it is not ours, damaged or of a later release, the sizes
    /// contradict each other, or the system refuses. A folder that is refused is left as it was.
    pub fn open(self) -> Result<Cache, OpenError> {
        let core = cache::Cache::open(&self.options)?;
        Ok(self.around(core))
    }

    /// As [`open`](Self::open), but if the disk cannot be used (read-only, full, failing, a quota
    /// too small for an entry) the cache begins in memory, as [`Cache::stats`] shows. It uses the
    /// folder as soon as that works.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), for errors that an operator has to fix.
    pub fn open_even_without_disk(self) -> Result<Cache, OpenError> {
        let core = cache::Cache::open_even_without_disk(&self.options)?;
        Ok(self.around(core))
    }

    /// A cache without a disk: the same within [`memory_bytes_max`](Self::memory_bytes_max), and
    /// gone with the process. The folder is not looked at.
    pub fn in_memory(self) -> Cache {
        let core = cache::Cache::in_memory(&self.options);
        self.around(core)
    }

    fn around(self, core: cache::Cache) -> Cache {
        let flights = Flights::new(Arc::clone(core.purges()), self.waiters_max);
        Cache {
            core,
            shared: Arc::new(Shared {
                clock: self.clock,
                namespace: self.namespace,
                ttl: self.ttl,
                fetch_wait_max: self.fetch_wait_max,
                flights: Arc::new(flights),
            }),
        }
    }
}
