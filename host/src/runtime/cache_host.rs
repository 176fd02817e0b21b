//! `reflex:cache/cache` for guests: every name becomes a key in the component's own namespace.

use super::bindings::cache::{self, Error, Host, HostEntry, InsertOptions, Limits, Name};
use crate::cache::{Cache, CacheKey, Entry, InsertError, Lookup, METADATA_BYTES_MAX, NewEntry};
use crate::clock::Clock;
use reflex_llm::{Anonymous, Bypass, Head, Key, Life, Lifetimes, Policy, Tenant};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

/// What the operator lets one component do. It stands behind every call of that component.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Mixed into every key, so that no component can name another's entries.
    pub namespace: String,
    /// Whether requests without a credential share their answers.
    pub anonymous: Anonymous,
    /// A header that names the tenant and that clients cannot set themselves, in lower case.
    pub tenant_header: Option<String>,
    /// Longest request body or prompt that a key is made of, in bytes.
    pub request_bytes_max: u64,
    /// The greatest temperature that a request may ask for and still be answered from the cache.
    pub temperature_max: Option<f64>,
    /// Tenants that share their answers with others, and as whom.
    pub groups: Arc<HashMap<Tenant, Tenant>>,
    /// How long entries live.
    pub lifetimes: Arc<Lifetimes>,
}

impl Grant {
    /// The rules of this grant in the words of `reflex-llm`.
    pub(super) fn policy(&self) -> Policy<'_> {
        Policy {
            anonymous: self.anonymous,
            tenant_header: self.tenant_header.as_deref(),
            temperature_max: self.temperature_max,
            ..Policy::default()
        }
    }

    /// As whom a tenant's answers are kept: a group, or just itself.
    pub(super) fn group_of(&self, tenant: Tenant) -> Tenant {
        self.groups.get(&tenant).copied().unwrap_or(tenant)
    }
}

/// The cache, the grant and the time that one component's calls work with.
#[derive(Debug, Clone)]
pub struct ReflexCtx {
    /// Where entries are.
    pub cache: Cache,
    /// What this component may do.
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

/// Implemented by a store's data, so that the cache can be added to its linker.
pub trait ReflexView: Send {
    /// Borrows what the cache needs.
    fn reflex(&mut self) -> ReflexCtxView<'_>;
}

/// Marker for [`HasData`]: what [`add_to_linker`] lends to the generated functions.
#[derive(Debug)]
pub struct Reflex;

impl HasData for Reflex {
    type Data<'a> = ReflexCtxView<'a>;
}

/// Adds `reflex:cache/cache` to a linker.
///
/// # Errors
///
/// Fails only if the linker has that interface already.
pub fn add_to_linker<T: ReflexView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    cache::add_to_linker::<_, Reflex>(linker, T::reflex)
}

/// Longest single `entry.read`: what crosses into a guest at once stays well below its memory.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Why an insert was refused: the operator has such answers not kept.
const NOT_KEPT: &str = "not-kept";

impl ReflexCtx {
    /// The entry of that key in this component's namespace, if it may be served now.
    pub(super) fn find(&self, key: &CacheKey) -> Option<Entry> {
        match self.cache.lookup(key, self.clock.now_ms()) {
            Lookup::Hit(entry) => Some(entry),
            Lookup::Stale(_) | Lookup::Miss => None,
        }
    }

    pub(super) fn key(&self, key: &Key) -> CacheKey {
        CacheKey::new(&self.grant.namespace, &key.tenant.0, &key.digest)
    }

    fn resolve(&self, name: Name) -> Result<Named, Error> {
        match name {
            Name::Key(key) => Ok(Named::bare(Key {
                tenant: Tenant(bytes32(&key.tenant, "tenant")?),
                digest: bytes32(&key.digest, "digest")?,
            })),
            Name::Prompt(prompt) => {
                self.check_length("prompt", prompt.text.len())?;
                let tenant = Tenant(bytes32(&prompt.tenant, "tenant")?);
                Ok(Named::bare(Key::for_prompt(&tenant, &prompt.text)))
            }
            Name::Request(request) => {
                self.check_length("body", request.body.len())?;
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
                let bypass = |reason: Bypass| Error::Bypass(reason.detail().into());
                let candidate =
                    reflex_llm::candidate(&head, &self.grant.policy()).map_err(bypass)?;
                let group = self.grant.group_of(candidate.tenant());
                let candidate = match group == candidate.tenant() {
                    true => candidate,
                    false => candidate.as_tenant(group, self.grant.tenant_header.as_deref()),
                };
                let examined = candidate.examine(&request.body).map_err(bypass)?;
                Ok(Named {
                    key: examined.exchange.key,
                    path: request.path,
                    model: examined.model,
                })
            }
        }
    }

    fn check_length(&self, what: &str, length: usize) -> Result<(), Error> {
        let most = self.grant.request_bytes_max;
        if length as u64 > most {
            return Err(Error::Invalid(format!(
                "{what}: {length} bytes, at most {most} are allowed"
            )));
        }
        Ok(())
    }
}

/// What a name stands for, and what the operator has rules about, where it is known.
struct Named {
    key: Key,
    path: String,
    model: Option<String>,
}

impl Named {
    fn bare(key: Key) -> Self {
        Self {
            key,
            path: String::new(),
            model: None,
        }
    }
}

fn bytes32(bytes: &[u8], what: &str) -> Result<[u8; 32], Error> {
    <[u8; 32]>::try_from(bytes).map_err(|_| {
        Error::Invalid(format!(
            "{what}: {} bytes, exactly 32 are needed",
            bytes.len()
        ))
    })
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
        let Some(entry) = self.ctx.find(&self.ctx.key(&key)) else {
            return Ok(Ok(None));
        };
        // A full table is the guest's doing, and an error that it can handle.
        Ok(match self.table.push(entry) {
            Ok(resource) => Ok(Some(resource)),
            Err(_) => Err(Error::Unavailable(
                "too many open entries: drop some".into(),
            )),
        })
    }

    fn contains(&mut self, name: Name) -> Result<Result<bool, Error>> {
        let found = |named: Named| {
            self.ctx
                .cache
                .contains(&self.ctx.key(&named.key), self.ctx.clock.now_ms())
        };
        Ok(self.ctx.resolve(name).map(found))
    }

    fn insert(
        &mut self,
        name: Name,
        metadata: Vec<u8>,
        payload: Vec<u8>,
        options: InsertOptions,
    ) -> Result<Result<(), Error>> {
        Ok(self.ctx.insert(name, &metadata, &payload, options))
    }

    fn remove(&mut self, name: Name) -> Result<Result<bool, Error>> {
        Ok(self
            .ctx
            .resolve(name)
            .map(|named| self.ctx.cache.remove(&self.ctx.key(&named.key))))
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
        if options.ttl_seconds == Some(0) {
            return Err(Error::Invalid("ttl-seconds: 0 would store nothing".into()));
        }
        let Named { key, path, model } = self.resolve(name)?;
        let lifetimes = &self.grant.lifetimes;
        let ttl = match lifetimes.of(&path, model.as_deref(), options.ttl_seconds) {
            Life::NotKept => return Err(Error::Bypass(NOT_KEPT.into())),
            Life::For(ttl) => Some(ttl),
            Life::Forever => None,
        };
        self.store(&key, metadata, payload, ttl)
            .map_err(|error| match error {
                InsertError::PayloadTooLarge(most) | InsertError::MetadataTooLarge(most) => {
                    Error::TooLarge(most)
                }
            })
    }

    pub(super) fn store(
        &self,
        key: &Key,
        metadata: &[u8],
        payload: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), InsertError> {
        self.cache.insert(NewEntry {
            key: &self.key(key),
            tenant: &key.tenant.0,
            metadata,
            payload,
            now_ms: self.clock.now_ms(),
            ttl_ms: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        })?;
        Ok(())
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
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(payload.len());
        let length = usize::try_from(length.min(READ_BYTES_MAX)).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(payload.len());
        Ok(payload[start..end].to_vec())
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
