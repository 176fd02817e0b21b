//! Gives the data folder up while the cache goes on, because another process takes it.
//!
//! ```text
//! release ─► all that waits is written and synced ─► no entry is found any more ─► the lock is given back
//! later:  insert, remove ─► queue ─► writer ─► heir: the process that has the folder by now
//! ```
//!
//! From the release on, lookups are misses: the heir takes purges, of which this process does not learn.
//! What readers hold they keep. The heir gets each entry that is stored later, so that a request that was
//! under way loses nothing.

use super::flusher::Told;
use super::queue::What;
use super::{Cache, CacheKey, Entry, Shared, lock};
use crate::sync::Mutex;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

/// The process that takes the data folder. Each call comes after the ones before it have returned, and may
/// wait for that process, within a bound.
pub trait Heir: fmt::Debug + Send + Sync {
    /// The folder can be opened.
    fn released(&self);
    /// An entry was stored here since then.
    fn stores(&self, key: &CacheKey, entry: &Entry);
    /// An entry was removed here since then.
    fn removes(&self, key: &CacheKey);
}

/// The heir, once there is one.
#[derive(Debug, Default)]
pub(super) struct Leaving(OnceLock<Mutex<Arc<dyn Heir>>>);

impl Leaving {
    /// Whether the folder is still this process's, or would be.
    pub(super) fn has_not_begun(&self) -> bool {
        self.0.get().is_none()
    }
}

/// For purges in a process that has given its folder up: they would not hold.
pub(super) fn has_left() -> io::Error {
    let why = "another process has taken the data folder over; ask that one";
    io::Error::new(io::ErrorKind::NotConnected, why)
}

impl Cache {
    /// Why a purge in this process has no effect once the process has given its folder up.
    pub fn has_left(&self) -> Option<io::Error> {
        (!self.shared.leaving.has_not_begun()).then(has_left)
    }

    /// Writes and syncs what waits, gives the folder back, and from then on gives the heir what is stored
    /// and removed. Lookups are misses from then on. Waits for the disk, so call it on a thread of its own. A
    /// second call does nothing.
    ///
    /// # Errors
    ///
    /// The disk is in trouble, and has not all that was stored; the folder is given back all the same.
    pub fn release(&self, heir: Arc<dyn Heir>) -> io::Result<()> {
        // Most of the work, while others still may use the store.
        let synced = self.shared.flush(None, Told::Caller);
        self.shared.release(heir).and(synced)
    }
}

impl Shared {
    fn release(&self, heir: Arc<dyn Heir>) -> io::Result<()> {
        let _no_flush = lock(&self.syncing);
        let mut writer = self.writer();
        // Nothing goes to memory meanwhile, where no disk is.
        let without_disk = self.without_disk();
        if writer.is_none() && without_disk.is_none() {
            return Ok(());
        }
        let mut settled = Ok(());
        if let Some(writer) = &mut writer {
            self.write_all(writer);
            settled = writer.settle().map_err(io::Error::from);
        }
        // Before the heir can have any purge.
        self.index.remove_where(|_| true);
        self.purges.leave();
        if let Some(writer) = &mut writer {
            writer.store.release();
        }
        heir.released();
        let leaving = self.leaving.0.get_or_init(|| Mutex::new(heir));
        let heir = lock(leaving);
        drop((writer, without_disk));
        // Of a disk in trouble. Before the queue, which has what is newer.
        for key in self.memory.keys(|_| true) {
            let key = CacheKey::from_bytes(key);
            if let Some(entry) = self.memory.peek(key.as_bytes()) {
                heir.stores(&key, &entry);
                self.memory.remove(key.as_bytes());
            }
        }
        settled
    }

    /// Gives the heir at most so many of the operations that wait.
    pub(super) fn leave(&self, operations_max: usize) {
        let Some(heir) = self.leaving.0.get() else {
            return;
        };
        let heir = lock(heir);
        if self.queue.is_forgotten() {
            self.queue.has_forgotten();
        }
        let mut left = 0;
        while left < operations_max {
            let operations = self.queue.next();
            if operations.is_empty() {
                break;
            }
            left += operations.len();
            for operation in &operations {
                match &operation.what {
                    What::Store { entry, .. } if self.queue.is_newest(operation) => {
                        heir.stores(&operation.key, entry);
                    }
                    What::Store { .. } => {}
                    What::Remove | What::Bury { .. } => heir.removes(&operation.key),
                }
            }
            self.queue.done(&operations, 0);
        }
        // The heir makes it durable.
        self.queue.synced(self.queue.written(), 0);
    }

    /// Takes what is purged out of what the heir is still to get.
    ///
    /// # Errors
    ///
    /// Always, where an heir is: it has the rest, and may have more.
    pub(super) fn purge_what_leaves(&self, which: impl Fn(&Entry) -> bool) -> io::Result<()> {
        let Some(heir) = self.leaving.0.get() else {
            return Ok(());
        };
        let _nothing_in_hand = lock(heir);
        self.queue.remove_where(which, false);
        Err(has_left())
    }
}
