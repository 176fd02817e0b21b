//! Which expired entry stands in for a failing provider.

use crate::cache::{CacheKey, Entry, Lookup};
use crate::exchange::answer::StoredHead;
use crate::grant::ctx::ReflexCtx;
use std::time::Duration;

impl ReflexCtx {
    /// The entry of that key if it has expired, but no longer ago than `most`, and how many
    /// seconds ago that was. Not an entry past the end that it states itself, and not one that was
    /// not recorded here, because its end is unknown.
    pub(crate) async fn find_stale(&self, key: &CacheKey, most: Duration) -> Option<(Entry, u64)> {
        if most.is_zero() {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let looked_up = self.cache.lookup_async(key, now_ms).await;
        let Lookup::Stale(entry) = looked_up else {
            return None;
        };
        let expired_ms = now_ms.saturating_sub(entry.expires_at_ms()?);
        let stored = StoredHead::read(entry.metadata())?;
        let has_ended = stored.ends_at_ms.is_some_and(|end| end <= now_ms);
        let is_within = !has_ended && u128::from(expired_ms) <= most.as_millis();
        is_within.then_some((entry, expired_ms / 1000))
    }
}
