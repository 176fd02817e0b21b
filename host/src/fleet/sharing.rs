//! Entries on their way to the fleet: a bounded queue that drops and counts, and never holds up a client.
//!
//! ```text
//! share ─► view ─► the entry, as it is here now ─► queue ─► value ─► SET, only where nothing is
//! ```
//!
//! The view comes before the entry. So an entry that is found under a new generation is from after the
//! purge, and one from before it is written under a name that nobody looks for.
//!
//! What is there is not replaced: it is an answer to the same request, or says that the entry was removed
//! lately.

use super::Parts;
use super::client::Write;
use super::state::View;
use super::stats::Shared;
use super::value::{OVERHEAD_BYTES, Value};
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
        let taken = waiting.map(|waiting| self.queue.try_send(waiting));
        if !matches!(taken, Some(Ok(()))) {
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
    async fn write(self, parts: &Parts) -> Shared {
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
        let written = parts.written(&name);
        match parts.client.set(&written, &bytes, Write::New(left)).await {
            Ok(true) => Shared::Stored,
            Ok(false) => Shared::There,
            Err(_) => Shared::Failed,
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
