//! L1: the exact-match index in memory, 32-byte hash to payload handle, over moka.
//!
//! [`L1Cache`] is for programs with payloads of their own: it takes prompts and any handle, and has
//! no disk and no expiry. [`Cache`](crate::cache::Cache) does not use it: moka takes some 370 bytes for
//! each entry, and the store must learn of each eviction.

use crate::store::KeyState;
use bytes::Bytes;
use moka::policy::EvictionPolicy;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Entries that [`L1Cache::new`] holds.
const ENTRIES_MAX_DEFAULT: u64 = 10_000;

/// Memory of an entry beyond its payload, measured and rounded up. It is part of the weight, so
/// that very small payloads cannot make very many entries.
const OVERHEAD_BYTES: u64 = 400;

const TENANT_PROMPT_CONTEXT: &str = "reflex-edge l1 tenant prompt v1";

/// The BLAKE3 hash of the prompt's bytes, as they are: nothing is trimmed or lower-cased.
///
/// ```
/// use reflex_host::hash_prompt;
///
/// assert_eq!(hash_prompt("hello"), hash_prompt("hello"));
/// assert_ne!(hash_prompt("hello"), hash_prompt("Hello"));
/// ```
pub fn hash_prompt(prompt: &str) -> [u8; 32] {
    *blake3::hash(prompt.as_bytes()).as_bytes()
}

/// The hash of a prompt of one tenant: BLAKE3 in its key derivation mode over the tenant and the
/// prompt, each with its length before it. It differs from the hashes of other tenants, and from
/// [`hash_prompt`] of any prompt.
///
/// ```
/// use reflex_host::{hash_prompt, hash_tenant_prompt};
///
/// assert_ne!(hash_tenant_prompt(b"a", "bc"), hash_tenant_prompt(b"ab", "c"));
/// assert_ne!(hash_tenant_prompt(b"", "bc"), hash_prompt("bc"));
/// ```
pub fn hash_tenant_prompt(tenant: &[u8], prompt: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(TENANT_PROMPT_CONTEXT);
    for field in [tenant, prompt.as_bytes()] {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    *hasher.finalize().as_bytes()
}

/// The outcome of a request, as the header `x-reflex-status` says it.
///
/// ```
/// use reflex_host::ReflexStatus;
///
/// assert_eq!(ReflexStatus::HitL1Exact.to_string(), "HIT_L1_EXACT");
/// assert!(ReflexStatus::HitL1Exact.is_hit());
/// assert!(!ReflexStatus::Bypass.is_hit());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReflexStatus {
    /// Answered by an entry with exactly this key.
    HitL1Exact,
    /// Answered by an entry of the same meaning. Not in use yet.
    HitL2Semantic,
    /// Answered by such an entry after a check. Not in use yet.
    HitL3Verified,
    /// Looked for, but not there.
    Miss,
    /// Not looked up: the request may not be answered from the cache.
    Bypass,
}

impl ReflexStatus {
    /// The value of the header.
    pub const fn as_header_value(&self) -> &'static str {
        match self {
            Self::HitL1Exact => "HIT_L1_EXACT",
            Self::HitL2Semantic => "HIT_L2_SEMANTIC",
            Self::HitL3Verified => "HIT_L3_VERIFIED",
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
        }
    }

    /// Whether the cache gave the answer.
    pub const fn is_hit(&self) -> bool {
        match self {
            Self::HitL1Exact | Self::HitL2Semantic | Self::HitL3Verified => true,
            Self::Miss | Self::Bypass => false,
        }
    }
}

impl fmt::Display for ReflexStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_header_value())
    }
}

/// An entry that [`L1Cache`] found.
#[derive(Clone, Debug)]
pub struct L1LookupResult<H = Bytes> {
    handle: H,
    hash: [u8; 32],
}

impl<H> L1LookupResult<H> {
    /// Always [`ReflexStatus::HitL1Exact`]: a miss gives no result.
    pub fn status(&self) -> ReflexStatus {
        ReflexStatus::HitL1Exact
    }

    /// The payload handle.
    pub fn handle(&self) -> &H {
        &self.handle
    }

    /// The payload handle, to keep.
    pub fn into_handle(self) -> H {
        self.handle
    }

    /// The hash it was found by.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl<H: AsRef<[u8]>> L1LookupResult<H> {
    /// The payload.
    pub fn as_slice(&self) -> &[u8] {
        self.handle.as_ref()
    }
}

/// The bound of an [`L1Cache`]. Past it, the entries least worth keeping are evicted.
pub enum L1Bound<H> {
    /// The number of entries.
    Entries(u64),
    /// The weights of all entries together. An entry heavier than `max` is not kept.
    Weight {
        /// The sum that is not exceeded.
        max: u64,
        /// The weight of a handle.
        weigh: Box<dyn Fn(&H) -> u32 + Send + Sync>,
    },
}

impl<H: AsRef<[u8]>> L1Bound<H> {
    /// Bounds the bytes: those of payloads, and 400 for each entry.
    pub fn bytes(bytes_max: u64) -> Self {
        Self::Weight {
            max: bytes_max,
            weigh: Box::new(|handle| {
                let bytes = handle.as_ref().len() as u64 + OVERHEAD_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
        }
    }
}

impl<H> fmt::Debug for L1Bound<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(max) => f.debug_tuple("Entries").field(max).finish(),
            Self::Weight { max, .. } => f.debug_struct("Weight").field("max", max).finish(),
        }
    }
}

/// An exact-match cache in memory: 32-byte hash to payload handle.
///
/// A handle is anything that is cheap to clone; plain `Bytes` unless told otherwise, and
/// [`Entry`](crate::Entry) works too. Shared between threads by reference, or as an [`L1CacheHandle`].
///
/// ```
/// use reflex_host::{L1Cache, ReflexStatus};
///
/// let l1 = L1Cache::new();
/// let hash = l1.insert("What is 2+2?", "4".into());
///
/// let hit = l1.lookup("What is 2+2?").expect("it was inserted");
/// assert_eq!(hit.status(), ReflexStatus::HitL1Exact);
/// assert_eq!(hit.as_slice(), b"4");
/// assert_eq!(hit.hash(), &hash);
/// assert!(l1.lookup("what is 2+2?").is_none());
///
/// // Tenants share no entries, also not with the lookups without a tenant.
/// l1.insert_for_tenant(b"alice", "What is 2+2?", "four".into());
/// assert!(l1.lookup_for_tenant(b"bob", "What is 2+2?").is_none());
/// ```
pub struct L1Cache<H = Bytes> {
    entries: moka::sync::Cache<[u8; 32], H, KeyState>,
}

impl L1Cache {
    /// A cache of plain bytes that holds 10,000 entries.
    pub fn new() -> Self {
        Self::with_capacity(ENTRIES_MAX_DEFAULT)
    }

    /// A cache of plain bytes that holds `entries_max` entries.
    pub fn with_capacity(entries_max: u64) -> Self {
        Self::with_bound(L1Bound::Entries(entries_max))
    }

    /// A cache of plain bytes that takes at most `bytes_max` bytes of memory, by estimate:
    /// payloads and 400 bytes for each entry.
    pub fn with_bytes_capacity(bytes_max: u64) -> Self {
        Self::with_bound(L1Bound::bytes(bytes_max))
    }
}

impl Default for L1Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Clone + Send + Sync + 'static> L1Cache<H> {
    /// A cache of any handles within `bound`.
    ///
    /// ```
    /// use reflex_host::{L1Bound, L1Cache};
    /// use std::sync::Arc;
    ///
    /// let l1: L1Cache<Arc<str>> = L1Cache::with_bound(L1Bound::Entries(2));
    /// l1.insert("question", "answer".into());
    /// assert_eq!(&**l1.lookup("question").expect("inserted").handle(), "answer");
    /// ```
    pub fn with_bound(bound: L1Bound<H>) -> Self {
        // moka's default, TinyLFU: entries in frequent use stay, also during scans.
        let builder = moka::sync::Cache::builder().eviction_policy(EvictionPolicy::tiny_lfu());
        let builder = match bound {
            L1Bound::Entries(max) => builder.max_capacity(max),
            L1Bound::Weight { max, weigh } => builder
                .max_capacity(max)
                .weigher(move |_: &[u8; 32], handle| weigh(handle)),
        };
        Self {
            entries: builder.build_with_hasher(KeyState::new()),
        }
    }

    /// The entry of a prompt; `None` is a miss.
    pub fn lookup(&self, prompt: &str) -> Option<L1LookupResult<H>> {
        self.lookup_by_hash(&hash_prompt(prompt))
    }

    /// The entry of a tenant's prompt; `None` is a miss.
    pub fn lookup_for_tenant(&self, tenant: &[u8], prompt: &str) -> Option<L1LookupResult<H>> {
        self.lookup_by_hash(&hash_tenant_prompt(tenant, prompt))
    }

    /// The entry of a hash; `None` is a miss.
    pub fn lookup_by_hash(&self, hash: &[u8; 32]) -> Option<L1LookupResult<H>> {
        let handle = self.entries.get(hash)?;
        Some(L1LookupResult {
            handle,
            hash: *hash,
        })
    }

    /// Stores the handle for a prompt, in place of an older one, and returns the prompt's hash.
    pub fn insert(&self, prompt: &str, handle: H) -> [u8; 32] {
        let hash = hash_prompt(prompt);
        self.insert_by_hash(hash, handle);
        hash
    }

    /// Stores the handle for a tenant's prompt and returns its hash.
    pub fn insert_for_tenant(&self, tenant: &[u8], prompt: &str, handle: H) -> [u8; 32] {
        let hash = hash_tenant_prompt(tenant, prompt);
        self.insert_by_hash(hash, handle);
        hash
    }

    /// Stores the handle for a hash, in place of an older one.
    pub fn insert_by_hash(&self, hash: [u8; 32], handle: H) {
        self.entries.insert(hash, handle);
    }

    /// Removes the entry of a hash and returns its handle.
    pub fn remove(&self, hash: &[u8; 32]) -> Option<H> {
        self.entries.remove(hash)
    }

    /// Removes the entry of a prompt and returns its handle.
    pub fn remove_prompt(&self, prompt: &str) -> Option<H> {
        self.remove(&hash_prompt(prompt))
    }

    /// Removes the entry of a tenant's prompt and returns its handle.
    pub fn remove_prompt_for_tenant(&self, tenant: &[u8], prompt: &str) -> Option<H> {
        self.remove(&hash_tenant_prompt(tenant, prompt))
    }

    /// The number of entries. Inserts and removals of the last moment may not be counted yet;
    /// [`run_pending_tasks`](Self::run_pending_tasks) counts them.
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Whether [`len`](Self::len) is 0, with the same reservation.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Whether a hash has an entry. Does not count as a use of it.
    pub fn contains_hash(&self, hash: &[u8; 32]) -> bool {
        self.entries.contains_key(hash)
    }

    /// Whether a prompt has an entry. Does not count as a use of it.
    pub fn contains_prompt(&self, prompt: &str) -> bool {
        self.contains_hash(&hash_prompt(prompt))
    }

    /// Whether a tenant's prompt has an entry. Does not count as a use of it.
    pub fn contains_prompt_for_tenant(&self, tenant: &[u8], prompt: &str) -> bool {
        self.contains_hash(&hash_tenant_prompt(tenant, prompt))
    }

    /// Evicts and counts now, instead of along with later calls.
    pub fn run_pending_tasks(&self) {
        self.entries.run_pending_tasks();
    }

    /// The hashes of all entries, in no order.
    pub fn hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        self.entries.iter().map(|(hash, _)| *hash)
    }
}

impl<H: Clone + Send + Sync + 'static> fmt::Debug for L1Cache<H> {
    /// Hides the keys: the hash of a guessable prompt would reveal it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1Cache")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// An [`L1Cache`] that many can own; a clone is the same cache. It has all its methods.
///
/// ```
/// use reflex_host::L1CacheHandle;
///
/// let l1 = L1CacheHandle::new();
/// let same = l1.clone();
/// l1.insert("question", "answer".into());
/// assert!(same.contains_prompt("question"));
/// assert_eq!(l1.strong_count(), 2);
/// ```
pub struct L1CacheHandle<H = Bytes>(Arc<L1Cache<H>>);

impl L1CacheHandle {
    /// As [`L1Cache::new`].
    pub fn new() -> Self {
        L1Cache::new().into()
    }

    /// As [`L1Cache::with_capacity`].
    pub fn with_capacity(entries_max: u64) -> Self {
        L1Cache::with_capacity(entries_max).into()
    }

    /// As [`L1Cache::with_bytes_capacity`].
    pub fn with_bytes_capacity(bytes_max: u64) -> Self {
        L1Cache::with_bytes_capacity(bytes_max).into()
    }
}

impl Default for L1CacheHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> L1CacheHandle<H> {
    /// The number of handles of this cache, this one included.
    pub fn strong_count(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl<H> From<L1Cache<H>> for L1CacheHandle<H> {
    fn from(l1: L1Cache<H>) -> Self {
        Self(Arc::new(l1))
    }
}

impl<H> Clone for L1CacheHandle<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> Deref for L1CacheHandle<H> {
    type Target = L1Cache<H>;

    fn deref(&self) -> &L1Cache<H> {
        &self.0
    }
}

impl<H: Clone + Send + Sync + 'static> fmt::Debug for L1CacheHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const LAST: u64 = 20_000;

    #[test]
    fn what_is_inserted_is_found_by_every_way_and_removed_by_every_way() {
        let l1 = L1Cache::default();
        let hash = l1.insert("p", "1".into());
        assert_eq!(hash, hash_prompt("p"));
        assert_eq!(l1.lookup("p").unwrap().as_slice(), b"1");
        assert_eq!(l1.lookup_by_hash(&hash).unwrap().into_handle(), "1");
        assert!(l1.contains_prompt("p") && l1.contains_hash(&hash));

        l1.insert("p", "2".into());
        assert_eq!(l1.lookup("p").unwrap().handle(), "2");
        assert_eq!(l1.remove_prompt("p").unwrap(), "2");
        assert!(l1.lookup("p").is_none() && l1.remove(&hash).is_none());

        l1.insert_by_hash(hash, "3".into());
        l1.run_pending_tasks();
        assert_eq!(l1.len(), 1);
        assert_eq!(l1.hashes().collect::<Vec<_>>(), [hash]);
        assert_eq!(format!("{l1:?}"), "L1Cache { len: 1, .. }");
        assert_eq!(l1.remove(&hash).unwrap(), "3");

        l1.insert("q", "4".into());
        l1.clear();
        l1.run_pending_tasks();
        assert!(l1.is_empty() && !l1.contains_prompt("q"));
    }

    #[test]
    fn tenants_share_nothing() {
        let l1 = L1CacheHandle::new();
        l1.insert("p", "all".into());
        l1.insert_for_tenant(b"a", "p", "a".into());
        l1.insert_for_tenant(b"b", "p", "b".into());
        for (tenant, payload) in [(b"a", "a"), (b"b", "b")] {
            let found = l1.lookup_for_tenant(tenant, "p").unwrap();
            assert_eq!(found.handle(), payload);
            assert!(l1.contains_prompt_for_tenant(tenant, "p"));
        }
        assert!(l1.lookup_for_tenant(b"c", "p").is_none());
        assert_eq!(l1.remove_prompt_for_tenant(b"a", "p").unwrap(), "a");
        assert_eq!(l1.lookup("p").unwrap().handle(), "all");
    }

    #[test]
    fn the_bounds_are_kept() {
        let filled = |l1: L1Cache, payload: &'static [u8]| {
            for i in 0..LAST {
                l1.insert(&i.to_string(), Bytes::from_static(payload));
            }
            l1.run_pending_tasks();
            l1.len()
        };
        assert_eq!(filled(L1Cache::new(), b""), ENTRIES_MAX_DEFAULT);
        assert_eq!(filled(L1Cache::with_capacity(7), b""), 7);
        let bytes = 100 * (OVERHEAD_BYTES + 1000);
        assert_eq!(filled(L1Cache::with_bytes_capacity(bytes), &[0; 1000]), 100);
        // Payloads without a byte have their weight too.
        assert!(filled(L1Cache::with_bytes_capacity(bytes), b"") < 500);
        // A payload heavier than the bound is not kept.
        assert_eq!(filled(L1Cache::with_bytes_capacity(1000), &[0; 1000]), 0);
    }

    #[test]
    fn every_status_has_its_name() {
        use ReflexStatus::*;
        for (status, name, is_hit) in [
            (HitL1Exact, "HIT_L1_EXACT", true),
            (HitL2Semantic, "HIT_L2_SEMANTIC", true),
            (HitL3Verified, "HIT_L3_VERIFIED", true),
            (Miss, "MISS", false),
            (Bypass, "BYPASS", false),
        ] {
            assert_eq!(status.as_header_value(), name);
            assert_eq!(status.to_string(), name);
            assert_eq!(status.is_hit(), is_hit);
        }
    }
}
