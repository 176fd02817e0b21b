//! Judging and storing a whole answer: on the worker that has passed on its last byte, or, where that
//! takes longer than a copy, on a thread of its own.

use crate::home::Home;
use crate::lookup::now_ms;
use crate::panics::{Hook, caught};
use crate::plugin::Plugin;
use reflex_host::cache::{InsertError, Mark, NewEntry};
use reflex_host::flights::{Lead, Outcome};
use reflex_host::kept_head::{Notes, encode_head};
use reflex_llm::{Dropped, Key, Life, Recorder, Rejected, Shape, Storable};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longer answers are judged elsewhere: reading their JSON would hold up other requests.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Answers that wait for the thread. Further ones are not kept. Their bytes are within the bound of
/// recordings.
const WAITING_MAX: usize = 64;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) home: Arc<Home>,
    pub(crate) recorder: Recorder,
    pub(crate) key: Key,
    pub(crate) shape: Shape,
    pub(crate) model: Option<String>,
    pub(crate) life: Life,
    /// When the provider was asked, or before.
    pub(crate) since: Mark,
    /// Followers that wait for it.
    pub(crate) lead: Option<Lead>,
    /// Its share in the bound of recordings.
    pub(crate) taken: Taken,
}

/// Bytes of recordings, of all workers.
static RECORDING: AtomicUsize = AtomicUsize::new(0);

/// Upper bound of the bytes of recordings under way in the process.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// A share in the bytes of recordings. Dropped, it gives them back.
#[derive(Debug, Default)]
pub(crate) struct Taken(usize);

impl Taken {
    /// Takes this many more, if there is room.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let with = |all: usize| {
            let all = all.checked_add(bytes)?;
            (all <= RECORDING_BYTES_MAX).then_some(all)
        };
        let has_room = RECORDING.fetch_update(Relaxed, Relaxed, with).is_ok();
        if has_room {
            self.0 += bytes;
        }
        has_room
    }

    /// What is taken.
    pub(crate) fn bytes(&self) -> usize {
        self.0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        RECORDING.fetch_sub(self.0, Relaxed);
    }
}

/// The thread's queue, once there is one.
static QUEUE: Mutex<Option<SyncSender<Whole>>> = Mutex::new(None);

impl Whole {
    /// Stores it if it is good, and tells its followers.
    pub(crate) fn keep(self) {
        if self.taken.bytes() <= INLINE_BYTES_MAX {
            return self.keep_now();
        }
        if let Err(whole) = hand_on(self) {
            whole.plugin.counts.dropped(Dropped::Busy);
            whole.let_go();
        }
    }

    /// Nothing of it is kept: its followers ask for themselves.
    fn let_go(self) {
        if let Some(lead) = self.lead {
            lead.end(|| Outcome::Unshared);
        }
    }

    fn keep_now(self) {
        let Self {
            plugin,
            home,
            recorder,
            key,
            shape,
            model,
            life,
            since,
            lead,
            taken,
        } = self;
        let ttl = match life {
            // Such an answer is not recorded; it does not come here.
            Life::NotKept => Some(Duration::ZERO),
            Life::For(ttl) => Some(ttl),
            Life::Forever => None,
        };
        let now_ms = now_ms();
        let stored = recorder.finish().and_then(|storable| {
            let term = storable.stated.within(ttl, now_ms)?;
            let Storable {
                status,
                headers,
                body,
                ..
            } = storable;
            let notes = Notes {
                usage: shape.usage(&body),
                model,
                pace: Vec::new(),
                ends_at_ms: term.ends_at_ms,
                shape: Some(shape),
                digest: Some(key.digest),
            };
            let new = NewEntry {
                key: &home.key(&key),
                tenant: &key.tenant.0,
                metadata: &encode_head(status, &headers, &notes),
                payload: &body,
                now_ms: term.stored_at_ms,
                ttl_ms: term.ttl_ms(),
            };
            Ok(home.cache.insert_named_now_since(new, &key.digest, since))
        });
        let counts = &plugin.counts;
        let entry = match stored {
            Ok(Ok(entry)) => {
                counts.insert();
                Some(entry)
            }
            Ok(Err(why)) => {
                match why {
                    InsertError::PayloadTooLarge(_) => counts.rejected(Rejected::TooLarge),
                    InsertError::MetadataTooLarge(_) => counts.dropped(Dropped::HeadersTooLarge),
                    InsertError::Purged => counts.dropped(Dropped::Purged),
                    _ => counts.dropped(Dropped::Busy),
                }
                None
            }
            Err(rejected) => {
                counts.rejected(rejected);
                None
            }
        };
        drop(taken);
        if let Some(lead) = lead {
            lead.end(|| entry.map_or(Outcome::Unshared, Outcome::Found));
        }
    }
}

/// Gives it to the thread, or back.
fn hand_on(whole: Whole) -> Result<(), Box<Whole>> {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = match &*queue {
        Some(sender) => sender,
        None => {
            let (sender, wholes) = mpsc::sync_channel::<Whole>(WAITING_MAX);
            let thread = thread::Builder::new().name("reflex-keeping".into());
            let keeps = thread.spawn(move || {
                for whole in wholes {
                    caught(Hook::Thread, || whole.keep_now());
                }
            });
            if keeps.is_err() {
                return Err(Box::new(whole));
            }
            queue.insert(sender)
        }
    };
    sender.try_send(whole).map_err(|refused| match refused {
        mpsc::TrySendError::Full(whole) | mpsc::TrySendError::Disconnected(whole) => {
            Box::new(whole)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_have_one_bound_and_give_back_what_they_had() {
        let (mut one, mut other) = (Taken::default(), Taken::default());
        assert!(one.take(RECORDING_BYTES_MAX - 1));
        assert!(!other.take(2) && other.take(1));
        assert_eq!((one.bytes(), other.bytes()), (RECORDING_BYTES_MAX - 1, 1));
        assert!(!other.take(usize::MAX));
        drop(one);
        assert!(other.take(RECORDING_BYTES_MAX - 1));
    }
}
