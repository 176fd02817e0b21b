//! The cache as a library, for programs that bring their own prompts and answers.
//!
//! ```text
//! lookup ─────────────► cache ─► Entry
//! get_or_fetch ─► lookup ─► hit
//!                    └► miss ─► flights: a leader fetches ─► cache ─► Answer, also for followers
//! insert, writer ─────► cache
//! ```
//!
//! To [`cache`](crate::cache) this adds a clock, a namespace, a default life, and one fetch for
//! concurrent calls of one key. It needs neither wasm nor an async runtime.

mod answer;
mod builder;
pub mod flights;
pub mod kept_head;
mod l1_cache;
mod writer;

pub use answer::{Answer, Fetched, InsertOptions, Origin};
pub use builder::Builder;
pub use l1_cache::{
    L1Bound, L1Cache, L1CacheHandle, L1LookupResult, ReflexStatus, hash_prompt, hash_tenant_prompt,
};
pub use writer::EntryWriter;

use crate::cache;
use crate::cache::{CacheKey, Entry, InsertError, Mark, NewEntry, Stats};
use crate::clock::Clock;
use flights::{Flights, Lead, Outcome, Turn};
use reflex_llm::{Key, Tenant};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Lookups for one call: the first, and one more each time a leader ends without an answer. After
/// the last the call fetches alone.
const LOOKS_MAX: usize = 4;

/// A cache of answers, in memory and on disk. A clone is the same cache; share it between threads
/// and tasks.
///
/// ```
/// use reflex_host::{Cache, Key, Tenant};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let cache = Cache::builder(dir).open()?;
/// let key = Key::for_prompt(&Tenant::of_group("research"), "Why is the sky blue?");
///
/// assert!(cache.lookup(&key).is_none());
/// cache.insert(&key, b"Rayleigh scattering.")?;
/// let entry = cache.lookup(&key).expect("it was inserted");
/// assert_eq!(entry.payload(), "Rayleigh scattering.");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    core: cache::Cache,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    namespace: String,
    ttl: Option<Duration>,
    fetch_wait_max: Duration,
    flights: Arc<Flights>,
}

impl Cache {
    /// A cache whose data lie in this folder, which is made when absent. One process uses it at a
    /// time.
    pub fn builder(dir: impl Into<PathBuf>) -> Builder {
        Builder::new(dir.into())
    }

    /// The answer for a key, if it is stored and has not expired. It stays readable for as long as
    /// it is held, whatever happens to the cache meanwhile, and pins its storage.
    ///
    /// An entry that an earlier process stored is read from disk the first time. Everything else
    /// takes well below a microsecond.
    pub fn lookup(&self, key: &Key) -> Option<Entry> {
        self.find(&self.key(key))
    }

    /// As [`lookup`](Self::lookup), for async callers: another thread reads the entries of an
    /// earlier process. It is a miss if that takes longer than a quarter of a second. Works in any
    /// async runtime.
    pub async fn lookup_async(&self, key: &Key) -> Option<Entry> {
        self.find_async(&self.key(key)).await
    }

    /// Whether [`lookup`](Self::lookup) would find an answer. Counts neither as a hit nor as a use.
    pub fn contains(&self, key: &Key) -> bool {
        self.core
            .contains(&self.key(key), self.shared.clock.now_ms())
    }

    /// Stores an answer, in place of any earlier one of that key. A lookup finds it from now on,
    /// until it has expired, is removed, or has to make room. It survives the end of the process,
    /// and a loss of power as [`Builder::durability`] says. If the disk is in trouble, it is kept
    /// in memory, and [`stats`](Self::stats) says so.
    ///
    /// # Errors
    ///
    /// The answer is too large; an earlier one stays.
    pub fn insert(&self, key: &Key, payload: impl AsRef<[u8]>) -> Result<Entry, InsertError> {
        self.insert_with(key, payload, &InsertOptions::new())
    }

    /// As [`insert`](Self::insert), with a life of its own or metadata.
    ///
    /// ```
    /// use reflex_host::{Cache, InsertOptions, Key, Tenant};
    /// use std::time::Duration;
    ///
    /// let cache = Cache::builder("").in_memory();
    /// let key = Key::for_prompt(&Tenant::of_group("research"), "How is the weather?");
    /// let options = InsertOptions::new()
    ///     .ttl(Duration::from_secs(600))
    ///     .metadata("text/plain");
    /// let entry = cache.insert_with(&key, "Fine.", &options)?;
    /// assert_eq!(entry.metadata(), b"text/plain");
    /// # Ok::<(), reflex_host::InsertError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The answer or its metadata are too large; an earlier one stays. Or it was purged
    /// [since](InsertOptions::since) it was asked for.
    pub fn insert_with(
        &self,
        key: &Key,
        payload: impl AsRef<[u8]>,
        options: &InsertOptions,
    ) -> Result<Entry, InsertError> {
        let cache_key = self.key(key);
        let new = self.new_entry(key, &cache_key, payload.as_ref(), options);
        match options.since {
            Some(since) => self.core.insert_since(new, since),
            None => self.core.insert(new),
        }
    }

    /// As [`insert`](Self::insert), for async callers: their threads do not wait for the disk. If
    /// the disk does not keep up, the answer is refused at once. Works in any async runtime.
    ///
    /// # Errors
    ///
    /// As of [`insert`](Self::insert).
    pub async fn insert_async(
        &self,
        key: &Key,
        payload: impl AsRef<[u8]>,
    ) -> Result<Entry, InsertError> {
        self.insert_with_async(key, payload, &InsertOptions::new())
            .await
    }

    /// As [`insert_with`](Self::insert_with), in the manner of [`insert_async`](Self::insert_async).
    ///
    /// # Errors
    ///
    /// As of [`insert_with`](Self::insert_with).
    pub async fn insert_with_async(
        &self,
        key: &Key,
        payload: impl AsRef<[u8]>,
        options: &InsertOptions,
    ) -> Result<Entry, InsertError> {
        let entry = self.insert_now(key, payload.as_ref(), options)?;
        self.core.wait_until_durable_async().await;
        Ok(entry)
    }

    /// Waits for nothing.
    fn insert_now(
        &self,
        key: &Key,
        payload: &[u8],
        options: &InsertOptions,
    ) -> Result<Entry, InsertError> {
        let cache_key = self.key(key);
        let new = self.new_entry(key, &cache_key, payload, options);
        match options.since {
            Some(since) => self.core.insert_now_since(new, since),
            None => self.core.insert_now(new),
        }
    }

    fn new_entry<'a>(
        &self,
        key: &'a Key,
        cache_key: &'a CacheKey,
        payload: &'a [u8],
        options: &'a InsertOptions,
    ) -> NewEntry<'a> {
        let ttl = options.ttl.unwrap_or(self.shared.ttl);
        NewEntry {
            key: cache_key,
            tenant: &key.tenant.0,
            metadata: &options.metadata,
            payload,
            now_ms: self.shared.clock.now_ms(),
            ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The current position among purges, for [`InsertOptions::since`]. Take it before a fetch that
    /// takes time: an answer that a later purge or removal covers is then not stored.
    /// [`get_or_fetch`](Self::get_or_fetch) and [`writer`](Self::writer) do so by themselves.
    ///
    /// ```
    /// use reflex_host::{Cache, InsertError, InsertOptions, Key, Tenant};
    ///
    /// let cache = Cache::builder("").in_memory();
    /// let key = Key::for_prompt(&Tenant::of_group("research"), "How is the weather?");
    /// let mark = cache.mark();
    /// // … the model is asked, and meanwhile:
    /// cache.purge().expect("in memory");
    /// let options = InsertOptions::new().since(mark);
    /// let stored = cache.insert_with(&key, "Fine.", &options);
    /// assert!(matches!(stored, Err(InsertError::Purged)));
    /// ```
    pub fn mark(&self) -> Mark {
        self.core.purges().now()
    }

    /// Stores an answer that comes piece by piece. Nothing is stored before
    /// [`finish`](EntryWriter::finish), and nothing at all if the writer is dropped.
    pub fn writer(&self, key: &Key) -> EntryWriter {
        self.writer_with(key, InsertOptions::new())
    }

    /// As [`writer`](Self::writer), with a life of its own or metadata.
    pub fn writer_with(&self, key: &Key, options: InsertOptions) -> EntryWriter {
        EntryWriter::new(self.clone(), *key, options)
    }

    /// The answer for a key: from the cache, or else from `fetch`, whose answer is then stored. Of
    /// concurrent calls for one key, the leader fetches and the followers wait for its answer. On a
    /// hit `fetch` is not polled.
    ///
    /// An answer that is too large, or [not to be kept](Fetched::not_kept), is for the leader only;
    /// the followers fetch for themselves.
    ///
    /// Works in any async runtime. Followers wait until the leader's fetch ends, so give it a time
    /// limit. When the leader's future is dropped, a follower takes over. At most
    /// [`waiters_max`](Builder::waiters_max) calls wait; further calls fetch for themselves.
    ///
    /// ```
    /// use reflex_host::{Cache, Key, Origin, Tenant};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// let cache = Cache::builder("").in_memory();
    /// let key = Key::for_prompt(&Tenant::of_group("research"), "What is 2+2?");
    /// let ask = async || Ok::<_, std::io::Error>("4");
    ///
    /// let answer = cache.get_or_fetch(&key, ask()).await.expect("it does not fail");
    /// assert_eq!((answer.payload(), answer.origin()), ("4".into(), Origin::Fetched));
    /// let answer = cache.get_or_fetch(&key, ask()).await.expect("it does not fail");
    /// assert_eq!((answer.payload(), answer.origin()), ("4".into(), Origin::Hit));
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the fetch, to the leader and to each follower. The next call fetches anew.
    pub async fn get_or_fetch<P, E>(
        &self,
        key: &Key,
        fetch: impl Future<Output = Result<P, E>>,
    ) -> Result<Answer, Arc<E>>
    where
        P: Into<Fetched>,
        E: Send + Sync + 'static,
    {
        let cache_key = self.key(key);
        let mut lead = None;
        for _ in 0..LOOKS_MAX {
            // A leader's second lookup: an earlier leader may just have stored the answer.
            if let Some(entry) = self.find_async(&cache_key).await {
                return Ok(Answer::stored(entry, Origin::Hit));
            }
            if lead.is_some() {
                break;
            }
            match self.shared.flights.join(&cache_key, &key.tenant) {
                Turn::Lead(leads) => lead = Some(leads),
                Turn::Wait(waiter) => match settled(waiter.await) {
                    Settled::Done(result) => return result,
                    Settled::Again => {}
                    Settled::Alone => break,
                },
                Turn::Alone => break,
            }
        }
        let since = self.begun(lead.as_ref());
        let fetched = fetch.await;
        let answer = self.keep(key, lead, since, fetched, Cache::insert_now)?;
        if answer.entry().is_some() {
            self.core.wait_until_durable_async().await;
        }
        Ok(answer)
    }

    /// As [`get_or_fetch`](Self::get_or_fetch), for threads. Threads and async callers may wait for
    /// each other. After [`fetch_wait_max`](Builder::fetch_wait_max), a waiting thread fetches for
    /// itself.
    ///
    /// # Errors
    ///
    /// As of [`get_or_fetch`](Self::get_or_fetch).
    pub fn get_or_fetch_blocking<P, E>(
        &self,
        key: &Key,
        fetch: impl FnOnce() -> Result<P, E>,
    ) -> Result<Answer, Arc<E>>
    where
        P: Into<Fetched>,
        E: Send + Sync + 'static,
    {
        let cache_key = self.key(key);
        let mut lead = None;
        for _ in 0..LOOKS_MAX {
            if let Some(entry) = self.find(&cache_key) {
                return Ok(Answer::stored(entry, Origin::Hit));
            }
            if lead.is_some() {
                break;
            }
            match self.shared.flights.join(&cache_key, &key.tenant) {
                Turn::Lead(leads) => lead = Some(leads),
                Turn::Wait(waiter) => match settled(waiter.block(self.shared.fetch_wait_max)) {
                    Settled::Done(result) => return result,
                    Settled::Again => {}
                    Settled::Alone => break,
                },
                Turn::Alone => break,
            }
        }
        let since = self.begun(lead.as_ref());
        let insert = |cache: &Self, key: &Key, payload: &[u8], options: &InsertOptions| {
            cache.insert_with(key, payload, options)
        };
        self.keep(key, lead, since, fetch(), insert)
    }

    /// When the fetch begins: now, or, with a leader, when that began.
    fn begun(&self, lead: Option<&Lead>) -> Mark {
        lead.map_or_else(|| self.mark(), Lead::since)
    }

    /// Removes the answer for a key permanently; whether it existed. A fetch under way is not
    /// stored.
    pub fn remove(&self, key: &Key) -> bool {
        self.core.remove_named(&self.key(key), &key.digest)
    }

    /// As [`remove`](Self::remove), for async callers: their threads do not wait for the disk.
    /// Works in any async runtime.
    pub async fn remove_async(&self, key: &Key) -> bool {
        let was_there = self.core.remove_named_now(&self.key(key), &key.digest);
        self.core.wait_until_durable_async().await;
        was_there
    }

    /// Removes all that a tenant has stored, in all namespaces, at once and for good. Fetches that
    /// are under way are not stored. Waits for the disk, as a rule some milliseconds.
    ///
    /// # Errors
    ///
    /// The purge holds in this process, but could not be made durable. The next
    /// [`sync`](Self::sync) tries again.
    pub fn purge_tenant(&self, tenant: &Tenant) -> io::Result<()> {
        self.core.purge_tenant(&tenant.0)
    }

    /// Removes everything of all tenants, in all namespaces, at once and for good.
    ///
    /// # Errors
    ///
    /// As of [`purge_tenant`](Self::purge_tenant).
    pub fn purge(&self) -> io::Result<()> {
        self.core.purge_all()
    }

    /// Makes all earlier inserts durable. Meant for the end of a program;
    /// [`Builder::durability`] does the same meanwhile.
    ///
    /// # Errors
    ///
    /// Entries stored since the last call may not survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.core.sync()
    }

    /// The cache's counters, and the health of its disk.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// The longest answer that is stored, in bytes.
    pub fn entry_bytes_max(&self) -> u64 {
        self.core.entry_bytes_max()
    }

    /// The cache underneath, whose callers give the time and make the keys.
    pub fn core(&self) -> &cache::Cache {
        &self.core
    }

    /// This cache for a component: the entries within its grant.
    #[cfg(feature = "component")]
    pub fn granted(&self, grant: crate::grant::Grant) -> crate::grant::ctx::ReflexCtx {
        crate::grant::ctx::ReflexCtx {
            cache: self.core.clone(),
            grant,
            clock: self.shared.clock.clone(),
        }
    }

    fn key(&self, key: &Key) -> CacheKey {
        CacheKey::new(&self.shared.namespace, &key.tenant.0, &key.digest)
    }

    fn find(&self, key: &CacheKey) -> Option<Entry> {
        self.core.lookup(key, self.shared.clock.now_ms()).hit()
    }

    async fn find_async(&self, key: &CacheKey) -> Option<Entry> {
        let now_ms = self.shared.clock.now_ms();
        self.core.lookup_async(key, now_ms).await.hit()
    }

    /// Stores the fetched answer, by `insert`, and wakes the followers.
    fn keep<P, E>(
        &self,
        key: &Key,
        lead: Option<Lead>,
        since: Mark,
        fetched: Result<P, E>,
        insert: impl FnOnce(&Self, &Key, &[u8], &InsertOptions) -> Result<Entry, InsertError>,
    ) -> Result<Answer, Arc<E>>
    where
        P: Into<Fetched>,
        E: Send + Sync + 'static,
    {
        let mut fetched: Fetched = match fetched {
            Ok(fetched) => fetched.into(),
            Err(error) => {
                let error = Arc::new(error);
                if let Some(lead) = lead {
                    lead.end(|| Outcome::Failed(Arc::clone(&error) as _));
                }
                return Err(error);
            }
        };
        // The fetch's own mark counts if it is older.
        let since = fetched.options.since.map_or(since, |own| own.min(since));
        fetched.options.since = Some(since);
        // An answer that is too large, or was purged meanwhile, is not stored; that is no error.
        let store = || match fetched.is_kept {
            true => insert(self, key, &fetched.payload, &fetched.options).ok(),
            false => None,
        };
        let stored = match lead {
            None => store(),
            Some(lead) => {
                let mut stored = None;
                lead.end(|| {
                    stored = store();
                    let entry = stored.clone();
                    entry.map_or(Outcome::Unshared, Outcome::Found)
                });
                stored
            }
        };
        Ok(match stored {
            Some(entry) => Answer::stored(entry, Origin::Fetched),
            None => Answer::fetched(fetched),
        })
    }
}

/// The outcome of waiting.
enum Settled<E> {
    Done(Result<Answer, Arc<E>>),
    /// The leader is gone: look again.
    Again,
    /// The leader has nothing for others.
    Alone,
}

fn settled<E: Send + Sync + 'static>(outcome: Outcome) -> Settled<E> {
    match outcome {
        Outcome::Found(entry) => Settled::Done(Ok(Answer::stored(entry, Origin::Joined))),
        // The leader's error has another type, so this call fetches itself.
        Outcome::Failed(error) => match error.downcast() {
            Ok(error) => Settled::Done(Err(error)),
            Err(_) => Settled::Alone,
        },
        Outcome::Unshared => Settled::Alone,
        Outcome::Gone => Settled::Again,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
