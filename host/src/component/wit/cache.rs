//! `reflex:cache/cache` for guests: every name becomes a key in the component's own namespace.

use crate::cache::{Entry, METADATA_BYTES_MAX};
use crate::component::bindings::cache;
use crate::component::bindings::cache::{Error, Host, HostEntry, InsertOptions, Limits, Name};
use crate::grant::ctx::{Named, ReflexCtx};
use crate::grant::{Refusal, bytes32};
use reflex_llm::{Head, Key};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime::{Result, StoreContextMut};

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
/// use reflex_host::component::{ReflexCtxView, add_to_linker};
/// use reflex_host::grant::{Grant, ReflexCtx};
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
pub(crate) fn part(bytes: &[u8], offset: u64, length: u64) -> Vec<u8> {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let length = usize::try_from(length.min(READ_BYTES_MAX)).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(bytes.len());
    bytes[start..end].to_vec()
}

impl ReflexCtx {
    pub(crate) fn resolve(&self, name: Name) -> Result<Named, Error> {
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
                Ok(self.classify(&head, &request.body, None)?)
            }
        }
    }

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
        Ok(self.keep(&named, metadata, payload, options.ttl_seconds, since)?)
    }

    fn remove(&self, name: Name) -> Result<bool, Error> {
        self.grant.check_write()?;
        let key = self.resolve(name)?.key;
        Ok(self.forget(&key))
    }

    /// The same, for callers that must not wait for the disk.
    pub(crate) async fn settled_async<V, E>(&self, done: Result<V, E>) -> Result<V, E> {
        if done.is_ok() {
            self.cache.wait_until_durable_async().await;
        }
        done
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
    pub(crate) fn open(&mut self, found: Option<Entry>) -> Result<Option<Resource<Entry>>, Error> {
        let Some(entry) = found else {
            return Ok(None);
        };
        // A full table is the guest's doing, and an error that it can handle.
        let pushed = self.table.push(entry);
        pushed
            .map(Some)
            .map_err(|_| self.ctx.grant.refuse(Refusal::Open).into())
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
