//! The L1: requests that were hits before, as their bytes, and what examining them gave.
//!
//! ```text
//! probe  ─► hash of the bytes, seeded
//! get    ─► requests (papaya: hash ─► Request, no lock) ─► every byte compared ─► what is known
//!              └ some reads ([`is_sampled`]), misses too ─► policy (moka: hash ─► weight)
//! insert ─► requests, policy (W-TinyLFU), which evicts
//! ```
//!
//! A repeated request is recognised before it is understood: reading its JSON and hashing its
//! canonical form takes thirty times as long. The comparison makes a hash that two requests share a
//! miss, never a wrong answer.
//!
//! The L1 holds no answers. What it knows of a request is where the answer would be, and the index
//! decides whether there is one. So purges, expiry and newer answers have one path.
//!
//! It holds requests as they were sent, prompts included, as long as their answers are asked for: in
//! memory only, never on disk, never in `Debug`. Its caller keeps credentials out of what it hands
//! over. A purge of a tenant drops the tenant's requests; the removal of one entry drops none.

use super::Cache;
use super::purges::{PurgeListener, Purged};
use super::sampled::is_sampled;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use moka::notification::RemovalCause;
use papaya::Guard;
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// 64 MiB: some 30,000 requests of a kilobyte or two.
pub const L1_BYTES_MAX: u64 = 64 << 20;

/// A request longer than this share of the bound is not taken in: it would evict sixteen others.
const SHARE: u64 = 16;

/// Memory that each request takes on top of its bytes and [`Request`], in bytes: in both maps, in
/// moka's queues, and in the allocator.
const OVERHEAD_BYTES: usize = 400;

/// Each thread frees what left the map 32 at a time, because that takes a system call; longer requests
/// at once. So the memory that is out of the bound stays below 2 MiB a thread.
const UNFREED_BYTES_MAX: u64 = 64 << 10;

/// Most heads fit.
const HEAD_BYTES: usize = 512;

/// The buffer of a longer head is freed.
const HEAD_BYTES_KEPT_MAX: usize = 4096;

/// Requests that were hits, and a `V` about each, within a bound of bytes plus the newest request.
///
/// One L1 is for one set of rules: what is known about a request under one grant, one policy or one
/// configuration is not true under another.
///
/// ```
/// use reflex_host::cache::{Cache, CacheKey, CacheOptions, L1, L1_BYTES_MAX, Lookup};
/// use reflex_llm::{Candidate, Examined, Key, Shape};
///
/// // The client's instructions are not part of what is known: each request has its own.
/// fn is_hit(cache: &Cache, l1: &L1<(Key, Shape)>, candidate: &Candidate<'_>, body: &[u8]) -> bool {
///     let is_there = |key: &Key| {
///         let key = CacheKey::new("default", &key.tenant.0, &key.digest);
///         matches!(cache.lookup(&key, 0), Lookup::Hit(_))
///     };
///     let probe = l1.probe(|head| candidate.write_identity(head), body);
///     if let Some((key, _)) = l1.get(&probe, body) {
///         return is_there(&key);
///     }
///     let Ok(Examined { exchange, .. }) = candidate.examine(body) else {
///         return false;
///     };
///     let is_hit = is_there(&exchange.key);
///     if is_hit {
///         let tenant = &exchange.key.tenant.0;
///         l1.insert(&probe, body, tenant, (exchange.key, exchange.shape));
///     }
///     is_hit
/// }
///
/// let cache = Cache::in_memory(&CacheOptions::default());
/// let l1 = L1::<(Key, Shape)>::of(&cache, L1_BYTES_MAX);
/// # let _ = (l1, is_hit as fn(&_, &_, &_, &_) -> _);
/// ```
pub struct L1<V: 'static> {
    bytes_max: u64,
    hashes: SeedableRandomState,
    shared: Arc<Shared<V>>,
    policy: moka::sync::Cache<u64, u32, IsHash>,
    /// How many purges there were.
    purges: AtomicU64,
}

struct Shared<V> {
    requests: papaya::HashMap<u64, Request<V>, IsHash>,
    /// The memory of all requests, in bytes.
    bytes: AtomicU64,
    evictions: AtomicU64,
}

struct Request<V> {
    /// The head's bytes, then the body's.
    bytes: Box<[u8]>,
    head_bytes: usize,
    tenant: [u8; 32],
    known: V,
}

/// A request to look for, but for its body. It remembers the purges before it, so that no request that was answered
/// before a purge is taken in after it: make it before the lookup in the cache.
pub struct Probe {
    head: Vec<u8>,
    hash: u64,
    purges: u64,
}

/// Counts for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct L1Stats {
    /// Requests held.
    pub requests: u64,
    /// The memory that they take, in bytes.
    pub bytes: u64,
    /// Requests that had to make room, or found none, since the start.
    pub evictions: u64,
}

impl<V: Clone + Send + Sync + 'static> L1<V> {
    /// An L1 of at most `bytes_max` bytes; 0 is one that never takes anything in.
    pub fn new(bytes_max: u64) -> Self {
        let shared = Arc::new(Shared {
            requests: papaya::HashMap::with_hasher(IsHash::default()),
            bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        });
        let policy = moka::sync::Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_: &u64, weight: &u32| *weight)
            .eviction_listener({
                let shared = Arc::clone(&shared);
                move |hash: Arc<u64>, _, cause| {
                    if cause == RemovalCause::Size && shared.remove(*hash) {
                        shared.evictions.fetch_add(1, Relaxed);
                    }
                }
            })
            .build_with_hasher(IsHash::default());
        let seed = RandomState::new().hash_one(0);
        Self {
            bytes_max,
            hashes: SeedableRandomState::with_seed(seed, &SHARED_SEED),
            shared,
            policy,
            purges: AtomicU64::new(0),
        }
    }

    /// The L1 of requests to this cache, which drops what is purged there.
    pub fn of(cache: &Cache, bytes_max: u64) -> Arc<Self> {
        let l1 = Arc::new(Self::new(bytes_max));
        if l1.is_on() {
            cache.purges().listen(&l1);
        }
        l1
    }

    /// Whether it ever takes anything in.
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// A request to look for: `write_head` appends the part of it that is not the body. Two requests
    /// must write the same only if bodies decide everything else about them.
    pub fn probe(&self, write_head: impl FnOnce(&mut Vec<u8>), body: &[u8]) -> Probe {
        let mut head = HEAD.take();
        if !self.is_on() {
            return Probe {
                head,
                hash: 0,
                purges: 0,
            };
        }
        let purges = self.purges.load(SeqCst);
        head.reserve(HEAD_BYTES);
        write_head(&mut head);
        let mut hasher = self.hashes.build_hasher();
        hasher.write(&head);
        hasher.write(body);
        Probe {
            hash: hasher.finish(),
            head,
            purges,
        }
    }

    /// What is known about the request with this body.
    pub fn get(&self, probe: &Probe, body: &[u8]) -> Option<V> {
        if !self.is_on() {
            return None;
        }
        // Misses count too: a request has to be asked for more often than the one that it replaces.
        if is_sampled() {
            self.policy.get(&probe.hash);
        }
        let requests = self.shared.requests.pin();
        let request = requests.get(&probe.hash)?;
        request.is(probe, body).then(|| request.known.clone())
    }

    /// Takes in what is known about a request whose answer belongs to this tenant. Does nothing if
    /// there was a purge since the probe, if the request is too long, or if other requests are asked
    /// for more often.
    pub fn insert(&self, probe: &Probe, body: &[u8], tenant: &[u8; 32], known: V) {
        let length = probe.head.len() + body.len();
        let weight = length + size_of::<Request<V>>() + OVERHEAD_BYTES;
        let Some(weight) = u32::try_from(weight)
            .ok()
            .filter(|weight| u64::from(*weight) <= self.bytes_max / SHARE)
        else {
            return;
        };
        if self.purges.load(SeqCst) != probe.purges {
            return;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&probe.head);
        bytes.extend_from_slice(body);
        let request = Request {
            bytes: bytes.into(),
            head_bytes: probe.head.len(),
            tenant: *tenant,
            known,
        };
        let bytes = self.shared.insert(probe.hash, request);
        // In this order, and in the reverse when removing: so no concurrent call leaves a request that
        // the policy does not know and would never evict.
        self.policy.insert(probe.hash, weight);
        // A purge that began meanwhile sees the request, or is seen here.
        fence(SeqCst);
        if self.purges.load(SeqCst) != probe.purges {
            self.remove(probe.hash);
        }
        // The policy would evict others only with its next batch, up to 64 requests later.
        if bytes > self.bytes_max {
            self.settle();
        }
    }

    /// Drops the requests of a tenant, and all that are under way. Takes a look at each.
    pub fn drop_tenant(&self, tenant: &[u8; 32]) {
        self.drop_where(|request| request.tenant == *tenant);
    }

    /// Drops all requests, and all that are under way.
    pub fn clear(&self) {
        self.drop_where(|_| true);
    }

    /// Counts for the operator.
    pub fn stats(&self) -> L1Stats {
        L1Stats {
            requests: self.shared.requests.len() as u64,
            bytes: self.shared.bytes.load(Relaxed),
            evictions: self.shared.evictions.load(Relaxed),
        }
    }

    /// Evicts the requests past the bound now, instead of along with later calls.
    fn settle(&self) {
        self.policy.run_pending_tasks();
    }

    fn drop_where(&self, which: impl Fn(&Request<V>) -> bool) {
        self.purges.fetch_add(1, SeqCst);
        fence(SeqCst);
        let requests = &self.shared.requests;
        let guard = requests.guard();
        for (hash, _) in requests.iter(&guard).filter(|(_, request)| which(request)) {
            self.remove(*hash);
        }
        guard.flush();
    }

    fn remove(&self, hash: u64) {
        self.policy.invalidate(&hash);
        self.shared.remove(hash);
    }
}

impl<V: Clone + Send + Sync + 'static> PurgeListener for L1<V> {
    fn purged(&self, what: &Purged) {
        match what {
            Purged::All => self.clear(),
            Purged::Tenant(tenant) => self.drop_tenant(tenant),
            // Its requests lead to nothing any more, until they have an answer again. See
            // `Cache::remove` for why they stay.
            Purged::Entry(_) => {}
        }
    }
}

impl<V: 'static> fmt::Debug for L1<V> {
    /// Without the requests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1")
            .field("bytes_max", &self.bytes_max)
            .field("requests", &self.shared.requests.len())
            .finish_non_exhaustive()
    }
}

impl<V> Shared<V> {
    /// The memory of all requests with this one.
    fn insert(&self, hash: u64, request: Request<V>) -> u64 {
        let bytes = request.weight();
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let guard = self.requests.guard();
        match self.requests.insert(hash, request, &guard) {
            Some(old) => self.leaves(old, &guard),
            None => bytes,
        }
    }

    /// Whether it was there.
    fn remove(&self, hash: u64) -> bool {
        let guard = self.requests.guard();
        let old = self.requests.remove(&hash, &guard);
        old.map(|old| self.leaves(old, &guard)).is_some()
    }

    /// The memory of the others.
    fn leaves(&self, request: &Request<V>, guard: &impl Guard) -> u64 {
        let bytes = request.weight();
        if bytes >= UNFREED_BYTES_MAX {
            guard.flush();
        }
        self.bytes.fetch_sub(bytes, Relaxed) - bytes
    }
}

impl<V> Request<V> {
    fn weight(&self) -> u64 {
        (self.bytes.len() + size_of::<Self>() + OVERHEAD_BYTES) as u64
    }

    fn is(&self, probe: &Probe, body: &[u8]) -> bool {
        let (own_head, own_body) = self.bytes.split_at(self.head_bytes);
        own_head == probe.head && own_body == body
    }
}

#[cfg(test)]
impl Probe {
    /// The same with the hash of another request.
    pub(super) fn colliding_with(mut self, other: &Probe) -> Self {
        self.hash = other.hash;
        self
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        if head.capacity() <= HEAD_BYTES_KEPT_MAX {
            head.clear();
            HEAD.set(head);
        }
    }
}

impl fmt::Debug for Probe {
    /// Without the request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

thread_local! {
    /// The memory of the last head, for the next.
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// foldhash would take addresses in memory for its seed, which are easier to guess than what the
/// standard library has from the system.
static SHARED_SEED: LazyLock<SharedSeed> =
    LazyLock::new(|| SharedSeed::from_u64(RandomState::new().hash_one(0)));

/// For keys that are hashes already, by a hash that is as good as random in every bit.
type IsHash = BuildHasherDefault<Same>;

#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    /// Not called: a hash is written as a number.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
