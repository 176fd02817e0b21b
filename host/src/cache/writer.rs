//! The writer: moves operations from the queue to the store, or to memory when the disk is in
//! trouble, and remembers the tombstones and purges that it then owes the disk.
//!
//! The writer thread does this for a cache in use, so that no other thread waits for the disk. A
//! sync or a purge needs the queue empty, and so empties it on its own thread.

use super::queue::{Operation, What};
use super::{CacheKey, Durability, RETRY_AFTER_MS, Shared, Told, lock};
use crate::store::{NewRecord, Place, Store, StoreError, Whose};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread::{self, JoinHandle};
use std::io;
use std::sync::Arc;

/// Bound of the keys still to be removed from a disk in trouble of which the index knew no record: some
/// 4 MiB. Parts of the disk could not be read then, and may hold any key. Past the bound everything on
/// disk is given up: none of it may come back.
const OWED_IN_DOUBT_MAX: usize = 1 << 16;

/// After this many removals the disk is tried again: it may have recovered, which removals alone do
/// not show.
const OWED_BEFORE_TRIAL: usize = 1 << 16;

/// After this many operations, the writer gives the store to a waiting thread.
const TURN_OPERATIONS: usize = 256;

/// Upper bound of the writer's yields to a thread that waits for the store.
const STEPS_ASIDE: usize = 100;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: Store,
}

impl Writer {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Remembers to write a tombstone for a key. `was_there`: the index knew a record of it.
    pub(super) fn owe_tombstone(&mut self, key: &CacheKey, was_there: bool) {
        let owed = self.store.owe_tombstone(key.as_bytes(), was_there);
        let is_trial = was_there && owed.known.is_multiple_of(OWED_BEFORE_TRIAL);
        let is_too_much = owed.in_doubt > OWED_IN_DOUBT_MAX;
        // Should it fail, they stay owed.
        let is_unsettled = (is_trial || is_too_much) && self.settle().is_err();
        if is_unsettled && is_too_much {
            tracing::warn!(
                "too much was removed of a disk in trouble that cannot be read; it is given up"
            );
            self.give_up_all();
        }
    }

    /// Gives up everything on disk: none of it is found again.
    pub(super) fn give_up_all(&mut self) {
        self.owes_nothing();
        self.store.purge(Whose::All);
        self.store.index().remove_where(|_| true);
    }

    /// Forgets the owed tombstones: everything on disk was purged.
    pub(super) fn owes_nothing(&mut self) {
        self.store.owes_no_tombstones();
    }

    /// Writes the owed tombstones and purges, at the first opportunity.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        self.store.settle_purge_marks()?;
        self.store.settle_tombstones()
    }
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    /// Inserts near this time go to memory at once; `None` when trying again is cheap.
    pub(super) failed_at_ms: Option<u64>,
}

/// The thread. Dropping this ends it, when everything is written that waits.
#[derive(Debug)]
pub(super) struct WriterThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let writing = Arc::clone(shared);
        let write = move || {
            while writing.queue.wait() {
                writing.write_some(TURN_OPERATIONS);
                if writing.durability == Durability::EveryInsert {
                    // The failure is noted as trouble; stored entries can still be served.
                    let _ = writing.flush(None, Told::NextSync);
                }
                writing.step_aside();
                while writing.queue.len() == 0 && writing.make_some_room() {
                    writing.step_aside();
                }
            }
        };
        let thread = thread::Builder::new().name("reflex-writer".into());
        Ok(Self {
            shared: Arc::clone(shared),
            thread: Some(thread.spawn(write)?),
        })
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.shared.queue.stop();
        if let Some(thread) = self.thread.take() {
            // The thread panics only by a bug of ours; nothing can be done about that here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The store, for threads that may wait for the disk. The writer steps aside. `None` as well once the
    /// folder is another process's.
    pub(super) fn writer(&self) -> Option<MutexGuard<'_, Writer>> {
        let writer = self.writer.get()?;
        self.wanted.fetch_add(1, Relaxed);
        let writer = lock(writer);
        self.wanted.fetch_sub(1, Relaxed);
        self.leaving.has_not_begun().then_some(writer)
    }

    /// The same for the writer itself.
    fn own_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        let writer = lock(self.writer.get()?);
        self.leaving.has_not_begun().then_some(writer)
    }

    fn step_aside(&self) {
        for _ in 0..STEPS_ASIDE {
            if self.wanted.load(Relaxed) == 0 {
                return;
            }
            thread::yield_now();
        }
    }

    /// Writes at most `operations_max` waiting operations.
    pub(super) fn write_some(&self, operations_max: usize) {
        match self.own_writer() {
            Some(mut writer) => self.write_with(&mut writer, operations_max),
            None => self.leave(operations_max),
        }
    }

    /// Goes on to make room in the store; false when there is enough.
    fn make_some_room(&self) -> bool {
        let Some(mut writer) = self.own_writer() else {
            return false;
        };
        let is_more = writer.store.make_some_room();
        self.ring_if_due(&writer.store);
        is_more
    }

    /// Writes all that waits now. Where inserts come faster than they are written, the queue never is
    /// empty.
    pub(super) fn write_all(&self, writer: &mut Writer) {
        self.write_with(writer, self.queue.len());
    }

    fn write_with(&self, writer: &mut Writer, operations_max: usize) {
        writer.store.keep_expired(self.stale_ms_max.load(Relaxed));
        if self.queue.is_forgotten() {
            writer.give_up_all();
            self.queue.has_forgotten();
        }
        let mut written = 0;
        while written < operations_max {
            let operations = self.queue.next();
            if operations.is_empty() {
                break;
            }
            written += operations.len();
            for operation in &operations {
                self.write(writer, operation);
            }
            let unsynced_bytes = writer.store.unsynced_bytes();
            self.queue.done(&operations, unsynced_bytes);
        }
        self.ring_if_due(&writer.store);
    }

    fn ring_if_due(&self, store: &Store) {
        let bytes_max = match self.durability {
            Durability::Interval { bytes, .. } => bytes,
            Durability::Os | Durability::EveryInsert => u64::MAX,
        };
        if store.is_due(bytes_max) {
            self.bell.ring();
        }
    }

    fn write(&self, writer: &mut Writer, operation: &Operation) {
        let key = &operation.key;
        match &operation.what {
            // A superseded entry need not be written.
            What::Store { .. } if !self.queue.is_newest(operation) => {}
            What::Store {
                entry,
                body_checksum,
            } => {
                let tenant = entry.tenant();
                let record = entry.as_record(key, &tenant, *body_checksum);
                let tried = match self.store_on_disk(writer, &record) {
                    Ok(_) => {
                        self.memory.remove(key.as_bytes());
                        return;
                    }
                    Err(tried) => tried,
                };
                self.counters.inserts_in_memory.fetch_add(1, Relaxed);
                // Supersede an earlier record, and any that the failed write may have left.
                let was_there = self.index.remove(key.as_bytes());
                if was_there || self.index.has_hidden() || tried == Tried::Yes {
                    writer.owe_tombstone(key, was_there);
                }
                self.memory.insert(key.as_bytes(), entry.clone());
            }
            What::Remove => {
                self.memory.remove(key.as_bytes());
                // If all of the disk could be read, a key outside the index has no record on disk.
                let was_there = self.index.remove(key.as_bytes());
                if was_there || self.index.has_hidden() {
                    self.bury(writer, key, was_there);
                }
            }
            What::Bury { was_there } => self.bury(writer, key, *was_there),
        }
    }

    /// Owes a tombstone for a key that is out of the index, and writes it unless the disk fails.
    fn bury(&self, writer: &mut Writer, key: &CacheKey, was_there: bool) {
        writer.owe_tombstone(key, was_there);
        if self.is_failing() {
            return;
        }
        if let Err(error) = writer.settle() {
            self.note_trouble(error.to_string(), None);
        }
    }

    /// Fails when it has to go to memory.
    fn store_on_disk(&self, writer: &mut Writer, record: &NewRecord<'_>) -> Result<Place, Tried> {
        let now_ms = record.stored_at_ms();
        // Either way: the clock may have been set back.
        if self
            .failed_at_ms()
            .is_some_and(|at| now_ms.abs_diff(at) < RETRY_AFTER_MS)
        {
            return Err(Tried::No);
        }
        let failed = |error: StoreError, tried| {
            let failed_at_ms = match error {
                StoreError::Io { .. } => Some(now_ms),
                StoreError::Pinned(_) => None,
            };
            self.note_trouble(error.to_string(), failed_at_ms);
            tried
        };
        writer.settle().map_err(|error| failed(error, Tried::No))?;
        let appended = writer.store.append(record);
        let place = appended.map_err(|error| failed(error, Tried::Yes))?;
        if self.is_in_trouble.load(Relaxed) {
            self.is_in_trouble.store(false, Relaxed);
            *lock(&self.trouble) = None;
            tracing::info!("the disk takes entries again");
        }
        Ok(place)
    }

    pub(super) fn note_trouble(&self, reason: String, failed_at_ms: Option<u64>) {
        self.counters.store_errors.fetch_add(1, Relaxed);
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            tracing::warn!(reason, "the disk is in trouble; new entries stay in memory");
        }
        let before = trouble.take().and_then(|t| t.failed_at_ms);
        *trouble = Some(Trouble {
            reason,
            failed_at_ms: failed_at_ms.or(before),
        });
        self.is_in_trouble.store(true, Relaxed);
    }

    /// Whether the disk has failed since it last worked, however long ago: this has no clock.
    fn is_failing(&self) -> bool {
        self.failed_at_ms().is_some()
    }

    fn failed_at_ms(&self) -> Option<u64> {
        if !self.is_in_trouble.load(Relaxed) {
            return None;
        }
        lock(&self.trouble).as_ref()?.failed_at_ms
    }
}

/// Whether the disk may have a record that the index does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    Yes,
    No,
}
