//! Makes durable what was stored, in its own time: after an interval, or when the bell rings
//! because much has come together.
//!
//! One thread for each cache on a disk; it ends with the last clone of the cache.

use super::{Durability, Shared, lock};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Wakes the flusher.
#[derive(Debug, Default)]
pub(super) struct Bell {
    call: Mutex<Call>,
    called: Condvar,
    /// So that whoever rings a bell that rings already takes no lock.
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
                let nobody = |call: &mut Call| *call == Call::None;
                let waited = self.called.wait_timeout_while(call, at_most, nobody);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let nobody = |call: &mut Call| *call == Call::None;
                let waited = self.called.wait_while(call, nobody);
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

/// The thread. Dropping this ends it, after what it is at.
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
            while !shared.bell.wait(interval) {
                // Noted as trouble, and told to whoever syncs next.
                let _ = shared.flush(None, Told::Nobody);
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
            // It panics only by a bug of ours, and then there is nothing to be done about it.
            let _ = thread.join();
        }
    }
}

/// Up to which sequence everything is durable, and up to which some of the rest may never be.
#[derive(Debug, Default)]
pub(super) struct Synced {
    up_to: u64,
    failed_up_to: u64,
}

/// Who hears of a sync that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Caller,
    Nobody,
}

impl Shared {
    /// Makes everything durable that was stored before, or at least all up to a sequence. When
    /// `told` is nobody, whoever syncs next hears of a failure.
    pub(super) fn flush(&self, until: Option<u64>, told: Told) -> io::Result<()> {
        let Some(writer) = &self.writer else {
            return Ok(());
        };
        let mut synced = lock(&self.syncing);
        // Somebody else may have done it, or failed, while this one waited.
        match until {
            Some(until) if until <= synced.up_to => return Ok(()),
            Some(until) if until <= synced.failed_up_to => {
                return Err(io::Error::other("the sync of others failed"));
            }
            _ => {}
        }
        let (unsynced, up_to, mut result) = {
            let mut writer = lock(writer);
            let settled = writer.settle();
            let (unsynced, lost) = writer.store.take_unsynced();
            let result = settled.map_err(|error| {
                self.note_trouble(&mut writer, error.to_string(), None);
                error.into()
            });
            (unsynced, writer.store.last_sequence(), result.and(lost))
        };
        for file in unsynced {
            if let Err(error) = file.sync() {
                let mut writer = lock(writer);
                writer.store.abandon(&file);
                self.note_trouble(&mut writer, format!("cannot sync: {error}"), None);
                result = Err(error);
            } else if file.write_contents() {
                lock(writer).store.contents_written(&file);
            }
        }
        lock(writer).store.all_synced();
        match result {
            Ok(()) => synced.up_to = up_to,
            Err(_) => {
                synced.failed_up_to = up_to;
                if told == Told::Nobody {
                    lock(writer).store.note_lost();
                }
            }
        }
        result
    }

    /// After something was written: does, or has done, what the durability asks for.
    pub(super) fn settle_durability(&self) {
        let Some(writer) = &self.writer else { return };
        let bytes_max = match self.durability {
            Durability::Interval { bytes, .. } => bytes,
            Durability::Os | Durability::EveryInsert => u64::MAX,
        };
        let writer = lock(writer);
        if self.durability == Durability::EveryInsert {
            let until = writer.store.last_sequence();
            drop(writer);
            // Noted as trouble, which it is; what was stored can still be served.
            let _ = self.flush(Some(until), Told::Nobody);
        } else if writer.store.is_due(bytes_max) {
            self.bell.ring();
        }
    }
}
