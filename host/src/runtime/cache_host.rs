//! `reflex:cache/cache` for guests: every name becomes a key in the component's own namespace.

use super::bindings::cache::{self, Error, Host, HostEntry, InsertOptions, Limits, Name};
use super::grant::{Grant, Refusal, bytes32};
#[cfg(feature = "http")]
use crate::answer::AnswerHead;
use crate::cache::{Cache, CacheKey, Entry, InsertError, METADATA_BYTES_MAX, Mark, NewEntry};
use crate::clock::Clock;
use reflex_llm::{Anonymous, Bypass, Head, Key, Life, Shape, Stated, Tenant, Term};
use std::fmt;
#[cfg(feature = "http")]
use std::time::Duration;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime::{Result, StoreContextMut};

/// The cache, the grant and the time that one component's calls work with.
#[derive(Debug, Clone)]
pub struct ReflexCtx {
    /// Where entries are.
    pub cache: Cache,
    /// The component's grant.
    pub grant: Grant,
    /// Where "now" comes from, so that tests own it.
    pub clock: Clock,
}

/// A borrowed look at the parts of a store that the cache interface needs.
#[derive(Debug)]
pub struct ReflexCtxView<'a> {
    /// The cache and the grant.
    pub ctx: &'a ReflexCtx,
    /// Where the entries that a guest holds live. Bound it with `set_max_capacity`.
    pub table: &'a mut ResourceTable,
}

/// Marker for wasmtime's `HasData`: what [`add_to_linker`] lends to the generated functions.
#[derive(Debug)]
pub struct Reflex;

impl HasData for Reflex {
    type Data<'a> = ReflexCtxView<'a>;
}

/// Adds `reflex:cache/cache` to the linker of any host. `view` borrows what the cache needs from the
/// host's own store data.
///
/// ```
/// use reflex_host::Cache;
/// use reflex_host::runtime::{Grant, ReflexCtx, ReflexCtxView, add_to_linker};
/// use wasmtime::component::{Linker, ResourceTable};
/// use wasmtime::{Engine, Store};
///
/// struct Host {
///     reflex: ReflexCtx,
///     table: ResourceTable,
/// }
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::<Host>::new(&engine);
/// add_to_linker(&mut linker, |host| ReflexCtxView {
///     ctx: &host.reflex,
///     table: &mut host.table,
/// })?;
///
/// let cache = Cache::builder("").in_memory();
/// let store = Store::new(&engine, Host {
///     reflex: cache.granted(Grant::new("plugin")),
///     table: ResourceTable::new(),
/// });
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Fails only if the linker has that interface already.
pub fn add_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> ReflexCtxView<'_>,
) -> Result<()> {
    cache::add_to_linker::<_, Reflex>(linker, view)
}

/// As [`add_to_linker`], for hosts that call their guests asynchronously. While the disk reads an
/// entry, or an insert or a removal waits until it is durable, the guest is suspended and its
/// thread is free. A lookup that takes the disk longer than a quarter of a second is a miss.
///
/// The linker allows no shadowing when this returns.
///
/// # Errors
///
/// Fails only if the linker has that interface already.
pub fn add_to_linker_async<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> ReflexCtxView<'_>,
) -> Result<()> {
    add_to_linker(linker, view)?;
    // In place of the blocking functions.
    linker.allow_shadowing(true);
    let mut interface = linker.instance("reflex:cache/cache@0.1.0")?;
    interface.func_wrap_async(
        "lookup",
        move |mut store: StoreContextMut<'_, T>, (name,)| {
            Box::new(async move { Ok((view(store.data_mut()).lookup_async(name).await,)) })
        },
    )?;
    interface.func_wrap_async(
        "contains",
        move |mut store: StoreContextMut<'_, T>, (name,)| {
            Box::new(async move { Ok((view(store.data_mut()).contains_async(name).await,)) })
        },
    )?;
    type Inserted = (Name, Vec<u8>, Vec<u8>, InsertOptions);
    interface.func_wrap_async(
        "insert",
        move |mut store: StoreContextMut<'_, T>, (name, metadata, payload, options): Inserted| {
            Box::new(async move {
                let mut view = view(store.data_mut());
                let inserted = view.insert_async(name, &metadata, &payload, options);
                Ok((inserted.await,))
            })
        },
    )?;
    interface.func_wrap_async(
        "remove",
        move |mut store: StoreContextMut<'_, T>, (name,)| {
            Box::new(async move { Ok((view(store.data_mut()).remove_async(name).await,)) })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Longest single `entry.read`: what crosses into a guest at once stays well below its memory.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The part that a guest reads in one call.
pub(super) fn part(bytes: &[u8], offset: u64, length: u64) -> Vec<u8> {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let length = usize::try_from(length.min(READ_BYTES_MAX)).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(bytes.len());
    bytes[start..end].to_vec()
}

/// Why an insert was refused: the operator's rules exclude such answers.
const NOT_KEPT: &str = "not-kept";

impl ReflexCtx {
    /// The entry of that key in this component's namespace, if it may be served now.
    pub(super) fn find(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.lookup(key, self.clock.now_ms()).hit()
    }

    /// The same, for callers that must not wait for the disk.
    pub(super) async fn find_async(&self, key: &CacheKey) -> Option<Entry> {
        let now_ms = self.clock.now_ms();
        self.cache.lookup_async(key, now_ms).await.hit()
    }

    /// The entry of that key if it has expired, but no longer ago than `most`, and how many
    /// seconds ago that was. None that has come to the end that it states itself, and none that was
    /// not recorded here: of that nobody knows when it ends.
    #[cfg(feature = "http")]
    pub(super) async fn find_stale(&self, key: &CacheKey, most: Duration) -> Option<(Entry, u64)> {
        if most.is_zero() {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let looked_up = self.cache.lookup_async(key, now_ms).await;
        let crate::cache::Lookup::Stale(entry) = looked_up else {
            return None;
        };
        let expired_ms = now_ms.saturating_sub(entry.expires_at_ms()?);
        let notes = AnswerHead::decode(entry.metadata())?.notes;
        let has_ended = notes.ends_at_ms.is_some_and(|end| end <= now_ms);
        let is_within = !has_ended && u128::from(expired_ms) <= most.as_millis();
        is_within.then_some((entry, expired_ms / 1000))
    }

    pub(super) fn key(&self, key: &Key) -> CacheKey {
        CacheKey::new(&self.grant.namespace, &key.tenant.0, &key.digest)
    }

    pub(super) fn resolve(&self, name: Name) -> Result<Named, Error> {
        match name {
            Name::Key(key) => Ok(Named::bare(Key {
                tenant: self.grant.tenant(&key.tenant)?,
                digest: bytes32(&key.digest, "digest")?,
            })),
            Name::Prompt(prompt) => {
                self.check_length("prompt", prompt.text.len())?;
                let tenant = self.grant.tenant(&prompt.tenant)?;
                Ok(Named::bare(Key::for_prompt(&tenant, &prompt.text)))
            }
            Name::Request(request) => {
                let headers: Vec<(&str, &[u8])> = request
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_ref()))
                    .collect();
                let head = Head {
                    method: &request.method,
                    upstream: &request.upstream,
                    path: &request.path,
                    headers: &headers,
                };
                self.classify(&head, &request.body, None)
            }
        }
    }

    /// The name of a request: under the tenant that it is made for, or that of its credential.
    pub(super) fn classify(
        &self,
        head: &Head<'_>,
        body: &[u8],
        tenant: Option<Tenant>,
    ) -> Result<Named, Error> {
        self.check_length("body", body.len())?;
        let bypass = |reason: Bypass| Error::Bypass(reason.detail().into());
        let mut policy = self.grant.policy();
        if tenant.is_some() {
            policy.anonymous = Anonymous::Share;
        }
        let candidate = reflex_llm::candidate(head, &policy).map_err(bypass)?;
        let group = tenant.unwrap_or_else(|| self.grant.group_of(candidate.tenant()));
        let candidate = candidate.as_tenant(group, self.grant.tenant_header.as_deref());
        let examined = candidate.examine(body).map_err(bypass)?;
        Ok(Named {
            key: examined.exchange.key,
            shape: Some(examined.exchange.shape),
            path: head.path.into(),
            model: examined.model,
        })
    }

    pub(super) fn check_length(&self, what: &str, length: usize) -> Result<(), Error> {
        let most = self.grant.request_bytes_max;
        if length as u64 > most {
            return Err(Error::Invalid(format!(
                "{what}: {length} bytes, at most {most} are allowed"
            )));
        }
        Ok(())
    }
}

/// The key of a name, and the path and model for the operator's rules, where known.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) key: Key,
    /// Of the answer to a request.
    shape: Option<Shape>,
    path: String,
    model: Option<String>,
}

impl Named {
    pub(super) fn bare(key: Key) -> Self {
        Self {
            key,
            shape: None,
            path: String::new(),
            model: None,
        }
    }
}

impl Host for ReflexCtxView<'_> {
    fn get_limits(&mut self) -> Result<Limits> {
        Ok(Limits {
            request_bytes_max: self.ctx.grant.request_bytes_max,
            entry_bytes_max: self.ctx.cache.entry_bytes_max(),
            metadata_bytes_max: METADATA_BYTES_MAX as u64,
            read_bytes_max: READ_BYTES_MAX,
        })
    }

    fn lookup(&mut self, name: Name) -> Result<Result<Option<Resource<Entry>>, Error>> {
        let key = match self.ctx.resolve(name) {
            Ok(named) => named.key,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.open(self.ctx.look_up(&key)))
    }

    fn contains(&mut self, name: Name) -> Result<Result<bool, Error>> {
        let found = self.ctx.resolve(name);
        Ok(found.map(|named| self.ctx.looks_for(&named.key)))
    }

    fn insert(
        &mut self,
        name: Name,
        metadata: Vec<u8>,
        payload: Vec<u8>,
        options: InsertOptions,
    ) -> Result<Result<(), Error>> {
        let inserted = self.ctx.insert(name, &metadata, &payload, options);
        Ok(self.ctx.settled(inserted))
    }

    fn remove(&mut self, name: Name) -> Result<Result<bool, Error>> {
        let removed = self.ctx.remove(name);
        Ok(self.ctx.settled(removed))
    }
}

impl ReflexCtx {
    /// A guest's lookup: after a miss, the guest may fetch from now on.
    pub(super) fn look_up(&self, key: &Key) -> Option<Entry> {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let found = self.find(&key);
        self.note(&key, since, found.is_some());
        found
    }

    /// As [`look_up`](Self::look_up), for callers that must not wait for the disk.
    pub(super) async fn look_up_async(&self, key: &Key) -> Option<Entry> {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let found = self.find_async(&key).await;
        self.note(&key, since, found.is_some());
        found
    }

    /// A guest asks whether a lookup would be a hit.
    pub(super) fn looks_for(&self, key: &Key) -> bool {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let is_there = self.cache.contains(&key, self.clock.now_ms());
        self.note(&key, since, is_there);
        is_there
    }

    /// As [`looks_for`](Self::looks_for), for callers that must not wait for the disk.
    pub(super) async fn looks_for_async(&self, key: &Key) -> bool {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let now_ms = self.clock.now_ms();
        let is_there = self.cache.contains_async(&key, now_ms).await;
        self.note(&key, since, is_there);
        is_there
    }

    fn note(&self, key: &CacheKey, since: Mark, is_there: bool) {
        if !is_there {
            self.grant.lookups.missed(key, since);
        }
    }

    /// The outcome of an insert or a removal, once it is durable, if the operator asks for that.
    pub(super) fn settled<V, E>(&self, done: Result<V, E>) -> Result<V, E> {
        if done.is_ok() {
            self.cache.wait_until_durable();
        }
        done
    }

    /// The same, for callers that must not wait for the disk.
    pub(super) async fn settled_async<V, E>(&self, done: Result<V, E>) -> Result<V, E> {
        if done.is_ok() {
            self.cache.wait_until_durable_async().await;
        }
        done
    }
}

impl ReflexCtx {
    fn insert(
        &self,
        name: Name,
        metadata: &[u8],
        payload: &[u8],
        options: InsertOptions,
    ) -> Result<(), Error> {
        self.grant.check_write()?;
        let named = self.resolve(name)?;
        let since = self.begun(&named.key);
        self.keep(&named, metadata, payload, options.ttl_seconds, since)
    }

    /// Since when a guest may have fetched the answer that it inserts now.
    pub(super) fn begun(&self, key: &Key) -> Mark {
        let now = self.cache.purges().now();
        self.grant.lookups.take(&self.key(key), now)
    }

    /// Stores an entry for as long as the operator's rules say, or as asked for within them, unless
    /// a purge since its request covers it. A caller that reports the entry as stored must wait
    /// until it is durable.
    pub(super) fn keep(
        &self,
        named: &Named,
        metadata: &[u8],
        payload: &[u8],
        ttl_seconds: Option<u64>,
        since: Mark,
    ) -> Result<(), Error> {
        self.grant.check_write()?;
        if ttl_seconds == Some(0) {
            return Err(Error::Invalid("ttl-seconds: 0 would store nothing".into()));
        }
        let Named {
            key,
            shape,
            path,
            model,
        } = named;
        let lifetimes = &self.grant.lifetimes;
        let ttl = match lifetimes.of(path, model.as_deref(), ttl_seconds) {
            Life::NotKept => return Err(Error::Bypass(NOT_KEPT.into())),
            Life::For(ttl) => Some(ttl),
            Life::Forever => None,
        };
        let stated = shape.map_or(Ok(Stated::default()), |shape| shape.stated(payload));
        let term = stated.and_then(|stated| stated.within(ttl, self.clock.now_ms()));
        let term = term.map_err(|rejected| Error::Bypass(rejected.detail().into()))?;
        let stored = self.store(key, metadata, payload, term, since);
        stored.map_err(|refused| self.error(refused))
    }

    /// The error that a guest gets for an entry that was not stored.
    pub(super) fn error(&self, refused: NotStored) -> Error {
        match refused {
            NotStored::Cache(
                InsertError::PayloadTooLarge(most) | InsertError::MetadataTooLarge(most),
            ) => {
                self.grant.note(Refusal::Size);
                Error::TooLarge(most)
            }
            NotStored::Cache(error @ (InsertError::QueueFull | InsertError::Purged)) => {
                Error::Unavailable(error.to_string())
            }
            NotStored::Refused(refusal) => self.grant.refuse(refusal),
        }
    }

    /// Stores an entry for this term that was begun at `since`, if the grant has room for it. A
    /// caller that reports the entry as stored must wait until it is durable.
    pub(super) fn store(
        &self,
        key: &Key,
        metadata: &[u8],
        payload: &[u8],
        term: Term,
        since: Mark,
    ) -> Result<(), NotStored> {
        let now_ms = self.clock.now_ms();
        let allowance = &self.grant.allowance;
        let cache_key = self.key(key);
        // It brings its own mark, so a noted one is not needed.
        self.grant.lookups.forget(&cache_key);
        let bytes = (metadata.len() + payload.len()) as u64;
        allowance.take_insert(now_ms).map_err(NotStored::Refused)?;
        let before = allowance
            .reserve(&cache_key, bytes, |key| self.cache.may_contain(key, now_ms))
            .map_err(NotStored::Refused)?;
        let new = NewEntry {
            key: &cache_key,
            tenant: &key.tenant.0,
            metadata,
            payload,
            now_ms: term.stored_at_ms,
            ttl_ms: term.ttl_ms(),
        };
        let digest = &key.digest;
        match self.cache.insert_named_now_since(new, digest, since) {
            Ok(_) => Ok(()),
            Err(error) => {
                allowance.set(&cache_key, before);
                Err(NotStored::Cache(error))
            }
        }
    }

    fn remove(&self, name: Name) -> Result<bool, Error> {
        self.grant.check_write()?;
        let key = self.resolve(name)?.key;
        Ok(self.forget(&key))
    }

    /// Removes an entry, and makes room for others. As for [`store`](Self::store).
    pub(super) fn forget(&self, key: &Key) -> bool {
        let digest = &key.digest;
        let key = self.key(key);
        let was_there = self.cache.remove_named_now(&key, digest);
        self.grant.lookups.forget(&key);
        self.grant.allowance.set(&key, 0);
        was_there
    }
}

/// Why an entry was not stored.
#[derive(Debug)]
pub(super) enum NotStored {
    Cache(InsertError),
    Refused(Refusal),
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::Refused(refusal) => write!(f, "over the quota: {}", refusal.reason()),
        }
    }
}

impl ReflexCtxView<'_> {
    async fn lookup_async(&mut self, name: Name) -> Result<Option<Resource<Entry>>, Error> {
        let key = self.ctx.resolve(name)?.key;
        let found = self.ctx.look_up_async(&key).await;
        self.open(found)
    }

    async fn contains_async(&mut self, name: Name) -> Result<bool, Error> {
        let key = self.ctx.resolve(name)?.key;
        Ok(self.ctx.looks_for_async(&key).await)
    }

    async fn insert_async(
        &mut self,
        name: Name,
        metadata: &[u8],
        payload: &[u8],
        options: InsertOptions,
    ) -> Result<(), Error> {
        let inserted = self.ctx.insert(name, metadata, payload, options);
        self.ctx.settled_async(inserted).await
    }

    async fn remove_async(&mut self, name: Name) -> Result<bool, Error> {
        let removed = self.ctx.remove(name);
        self.ctx.settled_async(removed).await
    }

    /// The entry found, as a handle for the guest.
    pub(super) fn open(&mut self, found: Option<Entry>) -> Result<Option<Resource<Entry>>, Error> {
        let Some(entry) = found else {
            return Ok(None);
        };
        // A full table is the guest's doing, and an error that it can handle.
        let pushed = self.table.push(entry);
        pushed
            .map(Some)
            .map_err(|_| self.ctx.grant.refuse(Refusal::Open))
    }
}

impl HostEntry for ReflexCtxView<'_> {
    fn metadata(&mut self, entry: Resource<Entry>) -> Result<Vec<u8>> {
        Ok(self.table.get(&entry)?.metadata().to_vec())
    }

    fn size(&mut self, entry: Resource<Entry>) -> Result<u64> {
        Ok(self.table.get(&entry)?.payload().len() as u64)
    }

    fn read(&mut self, entry: Resource<Entry>, offset: u64, length: u64) -> Result<Vec<u8>> {
        let payload = self.table.get(&entry)?.payload();
        Ok(part(&payload, offset, length))
    }

    fn age_seconds(&mut self, entry: Resource<Entry>) -> Result<u64> {
        Ok(self.table.get(&entry)?.age_seconds(self.ctx.clock.now_ms()))
    }

    fn ttl_seconds(&mut self, entry: Resource<Entry>) -> Result<Option<u64>> {
        Ok(self.table.get(&entry)?.ttl_seconds(self.ctx.clock.now_ms()))
    }

    fn drop(&mut self, entry: Resource<Entry>) -> Result<()> {
        self.table.delete(entry)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
