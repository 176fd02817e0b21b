//! The cache as one component has it: its own namespace, within its grant, with its clock.

use super::Grant;
use super::refusal::{Error, Refusal};
use crate::cache::{Cache, CacheKey, Entry, InsertError, Mark, NewEntry};
use crate::clock::Clock;
use reflex_llm::{Anonymous, Bypass, Head, Key, Life, Shape, Stated, Tenant, Term};
use std::fmt;

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

/// Why an insert was refused: the operator's rules exclude such answers.
const NOT_KEPT: &str = "not-kept";

impl ReflexCtx {
    /// The entry of that key in this component's namespace, if it may be served now.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<Entry> {
        self.cache.lookup(key, self.clock.now_ms()).hit()
    }

    /// The same, for callers that must not wait for the disk.
    pub(crate) async fn find_async(&self, key: &CacheKey) -> Option<Entry> {
        self.find_at(key, self.clock.now_ms()).await
    }

    /// The same for callers that have read the clock.
    pub(crate) async fn find_at(&self, key: &CacheKey, now_ms: u64) -> Option<Entry> {
        self.cache.lookup_async(key, now_ms).await.hit()
    }

    pub(crate) fn key(&self, key: &Key) -> CacheKey {
        CacheKey::new(&self.grant.namespace, &key.tenant.0, &key.digest)
    }

    /// The name of a request: under the tenant that it is made for, or that of its credential.
    pub(crate) fn classify(
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

    pub(crate) fn check_length(&self, what: &str, length: usize) -> Result<(), Error> {
        let most = self.grant.request_bytes_max;
        if length as u64 > most {
            return Err(Error::Invalid(format!(
                "{what}: {length} bytes, at most {most} are allowed"
            )));
        }
        Ok(())
    }

    /// A guest's lookup: after a miss, the guest may fetch from now on.
    pub(crate) fn look_up(&self, key: &Key) -> Option<Entry> {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let found = self.find(&key);
        self.note(&key, since, found.is_some());
        found
    }

    /// As [`look_up`](Self::look_up), for callers that must not wait for the disk.
    pub(crate) async fn look_up_async(&self, key: &Key) -> Option<Entry> {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let found = self.find_async(&key).await;
        self.note(&key, since, found.is_some());
        found
    }

    /// A guest asks whether a lookup would be a hit.
    pub(crate) fn looks_for(&self, key: &Key) -> bool {
        let (key, since) = (self.key(key), self.cache.purges().now());
        let is_there = self.cache.contains(&key, self.clock.now_ms());
        self.note(&key, since, is_there);
        is_there
    }

    /// As [`looks_for`](Self::looks_for), for callers that must not wait for the disk.
    pub(crate) async fn looks_for_async(&self, key: &Key) -> bool {
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
    pub(crate) fn settled<V, E>(&self, done: Result<V, E>) -> Result<V, E> {
        if done.is_ok() {
            self.cache.wait_until_durable();
        }
        done
    }

    /// Since when a guest may have fetched the answer that it inserts now.
    pub(crate) fn begun(&self, key: &Key) -> Mark {
        let now = self.cache.purges().now();
        self.grant.lookups.take(&self.key(key), now)
    }

    /// Stores an entry for as long as the operator's rules say, or as asked for within them, unless
    /// a purge since its request covers it. A caller that reports the entry as stored must wait
    /// until it is durable.
    pub(crate) fn keep(
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
    pub(crate) fn error(&self, refused: NotStored) -> Error {
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
    pub(crate) fn store(
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

    /// Removes an entry, and makes room for others. As for [`store`](Self::store).
    pub(crate) fn forget(&self, key: &Key) -> bool {
        let digest = &key.digest;
        let key = self.key(key);
        let was_there = self.cache.remove_named_now(&key, digest);
        self.grant.lookups.forget(&key);
        self.grant.allowance.set(&key, 0);
        was_there
    }
}

/// The key of a name, and the path and model for the operator's rules, where known.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) key: Key,
    /// Of the answer to a request.
    shape: Option<Shape>,
    path: String,
    model: Option<String>,
}

impl Named {
    pub(crate) fn bare(key: Key) -> Self {
        Self {
            key,
            shape: None,
            path: String::new(),
            model: None,
        }
    }
}

/// Why an entry was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
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
