//! Entries on their way to the fleet: a bounded queue that drops and counts, and never holds up a client.
//!
//! ```text
//! share ─► view ─► the entry, as it is here now ─► queue ─► value ─► SET NX ─► written
//!                       something is there ─► GET ─► older? ─► SET GET ─► what was replaced
//! ```
//!
//! The view comes before the entry. So an entry that is found under a new generation is from after the
//! purge, and one from before it is written under a name that nobody looks for.
//!
//! An older answer is replaced: a client has asked for a fresh one (`no-cache`), and the next edge is to have
//! it. The mark of a removed entry stays. Another edge may set it between `GET` and `SET`: then the entry is
//! removed once more, which also reaches the edges that have read it meanwhile.

use super::Parts;
use super::client::{Trouble, Write};
use super::ledger::Changes;
use super::news::drop_from;
use super::secret::Name;
use super::state::View;
use super::stats::Shared;
use super::value::{Expected, Found, OVERHEAD_BYTES, Value, decode};
use crate::cache::{CacheKey, Entry};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

/// Entries that wait. A burst of a second at a thousand misses a second.
const QUEUE_MAX: usize = 1024;

/// Their bytes: no more than an engine takes in a second over a network of a gigabit.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Writes under way at once: a distant engine is to get thousands a second.
const WRITES_MAX: usize = 32;

/// The longest value. Redis answers others the later, the longer one is.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;

/// How long an entry without an end stays in the engine: what is asked for once a month may be asked anew.
const FOREVER_MS: u64 = 30 * 24 * 3600 * 1000;

pub(super) struct Sharing {
    parts: Arc<Parts>,
    queue: Sender<Waiting>,
    queued: Arc<AtomicUsize>,
}

struct Waiting {
    key: CacheKey,
    tenant: [u8; 32],
    view: View,
    entry: Entry,
    room: Room,
}

/// A part of the queue's bytes, until this is dropped.
struct Room {
    queued: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn of(queued: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let room = Self {
            queued: Arc::clone(queued),
            bytes,
        };
        let before = queued.fetch_add(bytes, Relaxed);
        // Dropping it gives the bytes back.
        (before.saturating_add(bytes) <= QUEUE_BYTES_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Relaxed);
    }
}

impl Sharing {
    pub(super) fn start(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = channel(QUEUE_MAX);
        tasks.spawn(write_all(Arc::clone(parts), waiting));
        Self {
            parts: Arc::clone(parts),
            queue,
            queued: Arc::default(),
        }
    }

    /// See [`Remote::share`](crate::cache::Remote::share).
    pub(super) fn share(&self, key: &CacheKey, tenant: &[u8; 32]) {
        let parts = &self.parts;
        let Some(view) = parts.state.view(tenant) else {
            return parts.stats.shared(Shared::Dropped);
        };
        // What was not stored, or was purged since, is not shared either.
        let Some(entry) = parts.cache.peek_now(key, parts.clock.now_ms()) else {
            return;
        };
        let bytes = length(&entry);
        if bytes > VALUE_BYTES_MAX {
            return parts.stats.shared(Shared::TooLong);
        }
        if parts.breaker.is_open() {
            return parts.stats.shared(Shared::Dropped);
        }
        let waiting = Room::of(&self.queued, bytes).map(|room| Waiting {
            key: *key,
            tenant: *tenant,
            view,
            entry,
            room,
        });
        let taken = waiting.map(|waiting| self.queue.try_send(waiting).is_ok());
        if taken != Some(true) {
            parts.stats.shared(Shared::Dropped);
        }
    }
}

fn length(entry: &Entry) -> usize {
    let payload = usize::try_from(entry.payload_bytes()).unwrap_or(usize::MAX);
    payload.saturating_add(entry.metadata().len() + OVERHEAD_BYTES)
}

async fn write_all(parts: Arc<Parts>, mut waiting: Receiver<Waiting>) {
    let places = Arc::new(Semaphore::new(WRITES_MAX));
    while let Some(next) = waiting.recv().await {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let parts = Arc::clone(&parts);
        tokio::spawn(async move {
            let outcome = next.write(&parts).await;
            parts.stats.shared(outcome);
            drop(place);
        });
    }
}

impl Waiting {
    async fn write(self, parts: &Arc<Parts>) -> Shared {
        if parts.breaker.is_open() {
            return Shared::Dropped;
        }
        let now_ms = parts.clock.now_ms();
        let expires_at_ms = self.entry.expires_at_ms();
        let left = match expires_at_ms {
            Some(at) if at <= now_ms => return Shared::Dropped,
            Some(at) => at - now_ms,
            None => FOREVER_MS,
        };
        let name = parts.name(&self.key, &self.view);
        let payload = self.entry.payload();
        let value = Value {
            key: self.key,
            tenant: self.tenant,
            generation: self.view.tenant,
            stored_at_ms: self.entry.stored_at_ms(),
            expires_at_ms,
            metadata: self.entry.metadata(),
            payload: &payload,
        };
        let bytes = value.encode(&parts.secret, &name);
        drop(self.room);
        let ours = Ours {
            expected: Expected {
                key: self.key,
                tenant: self.tenant,
                generation: self.view.tenant,
            },
            stored_at_ms: self.entry.stored_at_ms(),
            name,
        };
        let written = parts.written(&name);
        let shared = match parts.client.set(&written, &bytes, Write::New(left)).await {
            Ok(true) => Ok(Shared::Stored),
            Ok(false) => ours.replace(parts, &written, &bytes, left).await,
            Err(trouble) => Err(trouble),
        };
        shared.unwrap_or(Shared::Failed)
    }
}

/// An entry that is to be in place of an older one.
struct Ours {
    expected: Expected,
    stored_at_ms: u64,
    name: Name,
}

/// What a value in the engine means for an entry that is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    /// As new as this one, or from after a purge that is not known here.
    Newer,
    /// An older answer, one from before a purge, or bytes that are no value.
    Older,
    /// The mark of a removed entry.
    Removed,
}

impl Ours {
    async fn replace(
        &self,
        parts: &Arc<Parts>,
        written: &str,
        bytes: &[u8],
        left_ms: u64,
    ) -> Result<Shared, Trouble> {
        let there = parts.client.get(written).await?;
        if there.is_some_and(|there| self.judge(parts, &there) != There::Older) {
            return Ok(Shared::There);
        }
        let replaced = parts.client.replace(written, bytes, left_ms).await?;
        match replaced.map(|replaced| self.judge(parts, &replaced)) {
            Some(There::Removed) => {
                self.remove(parts).await;
                Ok(Shared::There)
            }
            _ => Ok(Shared::Replaced),
        }
    }

    /// Removes the entry here, which tells the other edges.
    async fn remove(&self, parts: &Arc<Parts>) {
        let parts = Arc::clone(parts);
        let changes = Changes {
            keys: vec![*self.expected.key.as_bytes()],
            ..Changes::default()
        };
        let work = move || drop_from(&parts.cache, &changes, parts.clock.now_ms());
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "removing an entry once more failed");
        }
    }

    fn judge(&self, parts: &Parts, there: &[u8]) -> There {
        match decode(&parts.secret, &self.name, &self.expected, there) {
            Ok(Found::Removed) => There::Removed,
            Ok(Found::Later) => There::Newer,
            Ok(Found::Answer(value)) if value.stored_at_ms >= self.stored_at_ms => There::Newer,
            Ok(Found::Answer(_) | Found::Purged) | Err(_) => There::Older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_a_bound_in_bytes() {
        let queued = Arc::default();
        let first = Room::of(&queued, QUEUE_BYTES_MAX).expect("it is empty");
        assert!(Room::of(&queued, 1).is_none());
        drop(first);
        let all: Vec<_> = (0..4)
            .map(|_| Room::of(&queued, QUEUE_BYTES_MAX / 4))
            .collect();
        assert!(all.iter().all(Option::is_some) && Room::of(&queued, 1).is_none());
        drop(all);
        assert_eq!(queued.load(Relaxed), 0);
    }
}
