//! A cache that several processes share, behind this one: asked for what this one does not have, and given
//! what it may share. This cache knows nothing else of it.

use super::{Cache, CacheKey, Entry, Shared};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

/// A shared cache. What it finds it stores in this one.
pub trait Remote: fmt::Debug + Send + Sync {
    /// The entry for a key of this tenant, for at most `life_ms_max` from when it was made. It is in this
    /// cache by then. Takes no longer than the operator lets a lookup wait.
    fn fetch<'r>(
        &'r self,
        key: &CacheKey,
        tenant: &[u8; 32],
        life_ms_max: Option<u64>,
    ) -> Pin<Box<dyn Future<Output = Option<Entry>> + Send + 'r>>;

    /// The entry of this key is whole and good: others may have it. Never waits.
    fn share(&self, key: &CacheKey, tenant: &[u8; 32]);
}

/// The shared cache, if there is one, and which entries still count.
#[derive(Debug, Default)]
pub(super) struct Behind {
    remote: OnceLock<Weak<dyn Remote>>,
    /// Entries from before this time are not found.
    trusted_since_ms: AtomicU64,
}

impl Cache {
    /// Asks `remote` from now on, for as long as it lives. Only the first call counts.
    pub fn share_with(&self, remote: &Arc<impl Remote + 'static>) {
        let remote: Weak<dyn Remote> = Arc::downgrade(remote) as _;
        // A second one would find the first one's entries.
        let _ = self.shared.behind.remote.set(remote);
    }

    /// Whether there is a shared cache behind this one.
    #[cfg(feature = "exchange")]
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.behind.remote.get().is_some()
    }

    /// The entry that the shared cache has, to be called after this one had none.
    #[cfg(feature = "exchange")]
    pub(crate) async fn fetch(
        &self,
        key: &CacheKey,
        tenant: &[u8; 32],
        life_ms_max: Option<u64>,
    ) -> Option<Entry> {
        let remote = self.shared.behind.remote.get()?.upgrade()?;
        let found = remote.fetch(key, tenant, life_ms_max).await;
        found.map(Entry::fetched)
    }

    /// The entry of this key may be shared: its answer came to a good end.
    #[cfg(feature = "exchange")]
    pub(crate) fn share(&self, key: &CacheKey, tenant: &[u8; 32]) {
        let remote = self.shared.behind.remote.get().and_then(Weak::upgrade);
        if let Some(remote) = remote {
            remote.share(key, tenant);
        }
    }

    /// From now on, entries that were made before this time are not found: whether they were purged
    /// elsewhere is unknown. 0: all are found. They stay where they are.
    pub fn trust_since(&self, ms: u64) {
        self.shared.behind.trusted_since_ms.store(ms, Relaxed);
    }

    /// The entry of a key, without waiting for the disk and without counting as a use of it.
    #[cfg(feature = "fleet")]
    pub(crate) fn peek_now(&self, key: &CacheKey, now_ms: u64) -> Option<Entry> {
        let found = self.shared.find_now(key, super::Use::None, now_ms);
        found.ok().flatten()
    }
}

impl Shared {
    /// Whether an entry may be found, as far as other processes are concerned.
    pub(super) fn is_trusted(&self, entry: &Entry) -> bool {
        entry.stored_at_ms() >= self.behind.trusted_since_ms.load(Relaxed)
    }
}
