//! The caches of this process: one a folder, whichever configurations name it.
//!
//! Envoy makes a configuration for each listener, and at each update a new one beside the old, which
//! goes minutes later. They share the cache of their folder, and all configurations without a folder
//! share one in memory. A folder that another process has (the Envoy before a hot restart) is
//! waited for: until it is free, answers are in memory.

use crate::abi::{Level, log};
use crate::settings::Settings;
use reflex_host::cache::{Cache, CacheKey, CacheOptions, Folder};
use reflex_host::flights::Flights;
use reflex_llm::Key;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Part of every key; the daemon's default, so that either finds the answers of the other in a folder.
const NAMESPACE: &str = "default";

/// Requests that wait for the answer to another one, at once. Further ones ask for themselves.
const WAITERS_MAX: usize = 10_000;

/// Counters of turns, for `samples`. Requests share them by their keys; two requests with one counter
/// skip some of their answers.
const TURNS: usize = 4096;

/// All caches.
static HOMES: Mutex<Vec<Used>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Used {
    home: Arc<Home>,
    /// The configurations that have it.
    users: usize,
}

/// A cache, and the requests that ask for what it lacks.
#[derive(Debug)]
pub(crate) struct Home {
    /// The cache.
    pub(crate) cache: Cache,
    /// Requests for the same, in all workers.
    pub(crate) fills: Arc<Flights>,
    turns: Vec<AtomicU32>,
    folder: Option<PathBuf>,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    disk: u64,
    memory: u64,
    entry: u64,
}

impl Home {
    /// The cache that a configuration names, which others may have already. For the main thread: it
    /// waits up to a second for the folder. [`leave`](Self::leave) ends the use.
    ///
    /// # Errors
    ///
    /// What an operator has to fix, in one line.
    pub(crate) fn of(settings: &Settings) -> Result<Arc<Self>, String> {
        let folder = settings.data_dir.as_deref().map(one_name);
        let bounds = Bounds {
            disk: settings.disk_bytes_max,
            memory: settings.memory_bytes_max,
            entry: settings.filter.limits.body_bytes_max as u64,
        };
        let mut homes = homes();
        if let Some(used) = homes.iter_mut().find(|used| used.home.folder == folder) {
            used.users += 1;
            if used.home.bounds != bounds {
                let line = "reflex: another configuration has the same cache with other bounds, \
                            which stay as they are";
                log(Level::Warn, line);
            }
            return Ok(Arc::clone(&used.home));
        }
        let home = Arc::new(Self::open(folder, bounds)?);
        homes.push(Used {
            home: Arc::clone(&home),
            users: 1,
        });
        Ok(home)
    }

    fn open(folder: Option<PathBuf>, bounds: Bounds) -> Result<Self, String> {
        let mut options = CacheOptions {
            disk_bytes_max: bounds.disk,
            memory_bytes_max: bounds.memory,
            entry_bytes_max: bounds.entry,
            ..CacheOptions::default()
        };
        let cache = match &folder {
            None => Cache::in_memory(&options),
            Some(folder) => {
                options.data_dir.clone_from(folder);
                let opened = Cache::open_after_another(&options);
                let cache = opened.map_err(|error| format!("data_dir: {error}"))?;
                if cache.folder() == Folder::OfAnother {
                    // Nobody tells when it is free, so it is tried now and then.
                    cache.expects_no_folder();
                }
                cache
            }
        };
        Ok(Self {
            folder,
            bounds,
            ..Self::around(cache)
        })
    }

    /// A cache that no configuration names.
    pub(crate) fn around(cache: Cache) -> Self {
        Self {
            fills: Arc::new(Flights::new(Arc::clone(cache.purges()), WAITERS_MAX)),
            cache,
            turns: (0..TURNS).map(|_| AtomicU32::new(0)).collect(),
            folder: None,
            bounds: Bounds::default(),
        }
    }

    /// A configuration has it no longer.
    pub(crate) fn leave(&self) {
        let mut homes = homes();
        if let Some(used) = homes
            .iter_mut()
            .find(|used| used.home.folder == self.folder)
        {
            used.users -= 1;
        }
        let gone: Vec<Used> = homes.extract_if(.., |used| used.users == 0).collect();
        drop(homes);
        drop(gone);
    }

    /// The key of an entry.
    pub(crate) fn key(&self, key: &Key) -> CacheKey {
        CacheKey::new(NAMESPACE, &key.tenant.0, &key.digest)
    }

    /// How many requests with this key have had their turn. Counts one more.
    pub(crate) fn turn(&self, key: &Key) -> u32 {
        let [a, b, ..] = key.digest;
        let place = usize::from(u16::from_le_bytes([a, b])) % TURNS;
        self.turns
            .get(place)
            .map_or(0, |turn| turn.fetch_add(1, Relaxed))
    }

    /// Where its answers lie; none is memory only.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

fn homes() -> MutexGuard<'static, Vec<Used>> {
    HOMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same for all spellings of a folder that exists; a new folder has few.
fn one_name(folder: &Path) -> PathBuf {
    folder
        .canonicalize()
        .unwrap_or_else(|_| folder.to_path_buf())
}
