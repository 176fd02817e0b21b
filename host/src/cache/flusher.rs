//! The flusher makes entries durable: after an interval, or when the bell rings because many bytes
//! wait. Until the disk can be used, it tries to open the folder.
//!
//! One thread for each cache on a disk; it ends with the last clone of the cache.

use super::queue::Ticket;
use super::{Shared, lock};
use crate::store::{Store, StoreError};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The pause between two tries to open the folder.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// Wakes the flusher.
#[derive(Debug, Default)]
pub(super) struct Bell {
    call: Mutex<Call>,
    called: Condvar,
    /// Lets a second ring return without the lock.
    rings: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    None,
    Flush,
    Stop,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.rings.swap(true, Relaxed) {
            self.call(Call::Flush);
        }
    }

    fn call(&self, call: Call) {
        let mut now = lock(&self.call);
        // To stop is the last word.
        if *now != Call::Stop {
            *now = call;
        }
        self.called.notify_one();
    }

    /// Waits for the bell, at most as long as told; true when it is time to stop.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let call = lock(&self.call);
        let mut call = match at_most {
            Some(at_most) => {
                let no_call = |call: &mut Call| *call == Call::None;
                let waited = self.called.wait_timeout_while(call, at_most, no_call);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let no_call = |call: &mut Call| *call == Call::None;
                let waited = self.called.wait_while(call, no_call);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        self.rings.store(false, Relaxed);
        if *call == Call::Flush {
            *call = Call::None;
        }
        *call == Call::Stop
    }
}

/// The flusher thread. Dropping this ends it, after its current work.
#[derive(Debug)]
pub(super) struct Flusher {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Flushes each time the bell rings, and each `interval`.
    pub(super) fn start(shared: &Arc<Shared>, interval: Option<Duration>) -> io::Result<Self> {
        let bell = Arc::clone(&shared.bell);
        let shared = Arc::clone(shared);
        let flush = move || {
            let until_next = || match shared.is_disk_awaited() {
                true => Some(REOPEN_AFTER),
                false => interval,
            };
            while !shared.bell.wait(until_next()) {
                shared.try_disk();
                // Noted as trouble, and returned to the next sync.
                let _ = shared.flush(None, Told::NextSync);
            }
        };
        let thread = thread::Builder::new().name("reflex-flusher".into());
        Ok(Self {
            bell,
            thread: Some(thread.spawn(flush)?),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.bell.call(Call::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread panics only by a bug of ours; nothing can be done about that here.
            let _ = thread.join();
        }
    }
}

/// Which caller learns of a failed sync.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Caller,
    NextSync,
}

impl Shared {
    /// Makes all earlier inserts durable, or at least those up to an operation. With
    /// [`Told::NextSync`], the next sync returns what this one lost. Removals that this one could not
    /// write are not lost: the next sync writes them, or fails itself.
    pub(super) fn flush(&self, until: Option<Ticket>, told: Told) -> io::Result<()> {
        // One sync at a time: a second caller must not return before the first one's is done.
        let _no_other = lock(&self.syncing);
        // Another thread may have synced, or failed and noted it, while this one waited.
        if until.is_some_and(|until| self.queue.is_synced(until)) {
            return Ok(());
        }
        let Some(mut writer) = self.writer() else {
            if !self.leaving.has_not_begun() {
                self.leave(usize::MAX);
                return Ok(());
            }
            // A cache in memory alone promises no durability.
            let trouble = lock(&self.trouble);
            let reason = trouble.as_ref().map(|trouble| trouble.reason.clone());
            return reason.map_or(Ok(()), |reason| Err(io::Error::other(reason)));
        };
        self.write_all(&mut writer);
        if told == Told::Caller {
            // Until then, entries that left count as there.
            writer.store.clear_gone();
        }
        let up_to = self.queue.written();
        let noted = |error: StoreError| {
            self.note_trouble(error.to_string(), None);
            io::Error::from(error)
        };
        let settled = writer.settle().map_err(noted);
        let (unsynced, mut lost) = writer.store.take_unsynced();
        // Records are of no use without the secrets that they are sealed with.
        let secrets = writer.store.settle_secrets();
        let can_be_opened = secrets.is_ok();
        if let Err(error) = secrets {
            lost = Err(noted(error));
        }
        drop(writer);
        for file in unsynced {
            if let Err(error) = file.sync() {
                self.with_store(|store| store.abandon(&file));
                self.note_trouble(format!("cannot sync: {error}"), None);
                lost = Err(error);
            } else if file.write_contents() {
                self.with_store(|store| store.contents_written(&file));
            }
        }
        self.with_store(|store| {
            store.all_synced(can_be_opened);
            if lost.is_err() && told == Told::NextSync {
                store.note_lost();
            }
            self.queue.synced(up_to, store.unsynced_bytes());
        });
        settled.and(lost)
    }

    fn with_store(&self, what: impl FnOnce(&mut Store)) {
        if let Some(mut writer) = self.writer() {
            what(&mut writer.store);
        }
    }

    /// After an operation was put into the queue: writes it where no thread does.
    pub(super) fn write_without_thread(&self) {
        if !self.has_thread.load(Relaxed) {
            self.write_some(usize::MAX);
        }
    }

    /// Waits until all that is in the queue or was written is durable; at most a second.
    pub(super) fn wait_until_durable(&self) {
        self.wait_for_ticket(self.queue.last());
    }

    /// The same for all up to an operation.
    pub(super) fn wait_for_ticket(&self, last: Ticket) {
        if !self.has_thread.load(Relaxed) {
            // The failure is noted as trouble; stored entries can still be served.
            let _ = self.flush(Some(last), Told::NextSync);
        } else if !self.queue.wait_synced(last) {
            self.counters.store_errors.fetch_add(1, Relaxed);
        }
    }
}
