//! What waits to be written: entries and removals, in the order in which they came.
//!
//! ```text
//! insert ─► pending (papaya: key ─► entry, no lock), where lookups find it at once
//!       └► operations, in turn, bounded in bytes ─► writer ─► index, and gone from pending
//! ```
//!
//! Nothing here waits for the disk, so a disk that hangs holds up no caller. A full queue is an
//! error for the caller.

mod again;

use super::entry::Entry;
use super::{CacheKey, lock};
use crate::store::KeyState;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Bounds the memory of operations that wait to be written. A disk below 32 MiB/s makes inserts
/// wait. An entry that is longer waits alone.
pub(super) const QUEUE_BYTES_MAX: u64 = 32 << 20;

/// An insert that may wait does so while more than one part in this many of the queue is full: 4 MiB. A
/// deeper queue would not make the disk faster, only take memory. The rest is left to inserts that must
/// not wait, which a loader thus cannot crowd out.
const WAITING_SHARE: u64 = 8;

/// Waiting inserts go on each time one part in this many of that is free again: 256 KiB, which the writer
/// writes in a few milliseconds. With less they would take it in turns with the writer.
const ROOM_SHARE: u64 = 16;

/// The least bound of the bytes that were written and are not durable, past which inserts that may wait do
/// so. A disk that is slower than a loader otherwise has more to sync each time, up to a part of all memory,
/// and then nothing is written until it is done.
const UNSYNCED_BYTES_MAX: u64 = 16 << 20;

/// With a longer interval, that bound is so many of it: one is synced, one is written meanwhile.
const UNSYNCED_INTERVALS: u64 = 2;

/// What an operation takes beside its record: some for the queue and some for the map.
const OPERATION_BYTES: u64 = 256;

/// Past this many unwritten removals, a removal that may wait does so. A removal that may not wait
/// is always queued: a caller must not learn that a removed entry is still there. A removal needs
/// less memory than the place that it takes out of the index, so entries bound removals, too.
const REMOVALS_MAX: usize = 1 << 16;

/// Operations that the writer takes at once.
const BATCH_OPERATIONS: usize = 64;

/// Upper bound of a wait for room in the queue, or until an entry is durable. Past it the disk
/// counts as hanging, and no caller waits until it goes on.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Threads that may wait at the same time.
const WAITERS_MAX: usize = 1024;

/// Whether an insert or a removal may wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    ForRoom,
    No,
}

/// Whether a record of a key was taken out of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenOut {
    Yes,
    /// No record was in the index, but the disk may hold one that could not be read.
    Perhaps,
    No,
}

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// An operation's place in the order: each has one more than the one before, from 1.
pub(super) type Ticket = u64;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) ticket: Ticket,
    pub(super) key: CacheKey,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// To be written.
    Store {
        entry: Entry,
        /// Of metadata and payload.
        body_checksum: u64,
    },
    /// An entry before it in the queue was removed: it is to be taken out of the index, and a
    /// tombstone written if it was there.
    Remove,
    /// Was removed or damaged, and is out of the index: a tombstone is to be written. Whether the
    /// index knew a record.
    Bury { was_there: bool },
}

impl Operation {
    fn bytes(&self) -> u64 {
        match &self.what {
            What::Store { entry, .. } => OPERATION_BYTES + entry.record_bytes(),
            What::Remove | What::Bury { .. } => OPERATION_BYTES,
        }
    }

    fn is_removal(&self) -> bool {
        !matches!(self.what, What::Store { .. })
    }
}

/// What a key is until it is written.
#[derive(Debug)]
struct Pending {
    /// Of the newest operation on the key.
    ticket: Ticket,
    /// `None`: removed.
    entry: Option<Entry>,
}

/// What [`Queue::find`] knows of a key.
#[derive(Debug)]
pub(super) enum Found {
    Entry(Entry),
    Removed,
    /// Whatever the index says.
    Nothing,
    /// Whatever the index says, it does not count.
    Forgotten,
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: u64,
    pending: papaya::HashMap<[u8; 32], Pending, KeyState>,
    /// How many are pending, and one more while everything on disk is given up: with none, a
    /// lookup need not look here.
    active: AtomicUsize,
    is_forgotten: AtomicBool,
    state: Mutex<State>,
    /// The writer waits for something to do.
    called: Condvar,
    /// Others wait for the writer.
    went_on: Condvar,
}

#[derive(Debug, Default)]
struct State {
    operations: VecDeque<Operation>,
    /// Of those that wait and of those that the writer has in hand.
    bytes: u64,
    removals: usize,
    /// Written, and not durable yet.
    unsynced_bytes: u64,
    /// `None`: no thread syncs.
    unsynced_bytes_max: Option<u64>,
    last: Ticket,
    /// Every operation up to this one was synced, or its sync failed.
    synced: Ticket,
    /// How often the writer went on.
    steps: u64,
    waiters: usize,
    /// A wait timed out since the writer last went on.
    is_stalled: bool,
    /// An operation was refused since the queue last had room.
    is_refusing: bool,
    is_asleep: bool,
    is_stopped: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            pending: papaya::HashMap::with_hasher(KeyState::new()),
            active: AtomicUsize::new(0),
            is_forgotten: AtomicBool::new(false),
            state: Mutex::default(),
            called: Condvar::new(),
            went_on: Condvar::new(),
        }
    }

    /// What is not written yet, or nothing.
    pub(super) fn find(&self, key: &[u8; 32]) -> Found {
        // Pairs with the writer's Release: a thread that sees here that a key is written finds it
        // in the index.
        if self.active.load(Ordering::Acquire) == 0 {
            return Found::Nothing;
        }
        let found = self.pending.pin().get(key).map(|found| found.entry.clone());
        match found {
            Some(Some(entry)) => Found::Entry(entry),
            Some(None) => Found::Removed,
            None => {
                fence(Ordering::Acquire);
                match self.is_forgotten.load(Ordering::Relaxed) {
                    true => Found::Forgotten,
                    false => Found::Nothing,
                }
            }
        }
    }

    /// Puts an entry in, for all to be found from now on.
    pub(super) fn store(
        &self,
        key: &CacheKey,
        entry: &Entry,
        body_checksum: u64,
        wait: Wait,
    ) -> Result<(), Full> {
        let what = What::Store {
            entry: entry.clone(),
            body_checksum,
        };
        let bytes = OPERATION_BYTES + entry.record_bytes();
        let mut state = self.room_for(bytes, wait)?;
        self.push(&mut state, key, what);
        Ok(())
    }

    /// Waits for room for an entry of this length, within bounds; whether it found room.
    pub(super) fn wait_for_room(&self, record_bytes: u64) -> bool {
        let bytes = OPERATION_BYTES.saturating_add(record_bytes);
        self.room_for(bytes, Wait::ForRoom).is_ok()
    }

    /// Waits for room, if that is wanted and worth it.
    fn room_for(&self, bytes: u64, wait: Wait) -> Result<MutexGuard<'_, State>, Full> {
        let mut state = lock(&self.state);
        let is_full = |state: &State| state.bytes > 0 && state.bytes + bytes > self.bytes_max;
        let has_to_wait = |state: &State| {
            let is_behind = |max| state.unsynced_bytes > max;
            is_full(state)
                || state.bytes > self.waiting_bytes()
                || state.unsynced_bytes_max.is_some_and(is_behind)
        };
        if wait == Wait::ForRoom && has_to_wait(&state) {
            state = self.wait_while(state, has_to_wait);
        }
        if is_full(&state) {
            state.is_refusing = true;
            return Err(Full);
        }
        Ok(state)
    }

    /// A thread syncs, from so many bytes on: inserts that may wait do not get far ahead of it.
    pub(super) fn waits_for_syncs_of(&self, bytes: u64) {
        let max = bytes.saturating_mul(UNSYNCED_INTERVALS);
        lock(&self.state).unsynced_bytes_max = Some(max.max(UNSYNCED_BYTES_MAX));
    }

    /// With more than this in the queue, inserts that may wait do so.
    fn waiting_bytes(&self) -> u64 {
        self.bytes_max / WAITING_SHARE
    }

    /// Waits for the writer, within bounds.
    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        if state.waiters >= WAITERS_MAX {
            return state;
        }
        state.waiters += 1;
        let steps = state.steps;
        let until = Instant::now() + WAIT_MAX;
        while is_so(&state) && !state.is_stalled {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if state.steps == steps {
                    tracing::warn!("the disk hangs; no caller waits for it until it goes on");
                    state.is_stalled = true;
                    self.went_on.notify_all();
                }
                break;
            }
            let waited = self.went_on.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiters -= 1;
        state
    }

    /// Removes a key, for all from now on; whether it had an entry. `take_out` takes its place
    /// out of the index; it is called if nothing is pending. `None` if the key has nothing to
    /// remove.
    pub(super) fn remove(
        &self,
        key: &CacheKey,
        wait: Wait,
        take_out: impl FnOnce() -> TakenOut,
    ) -> Option<bool> {
        let mut state = lock(&self.state);
        if wait == Wait::ForRoom {
            state = self.wait_while(state, |state| state.removals >= REMOVALS_MAX);
        }
        let pending = self.pending.pin();
        let is_there = pending.get(key.as_bytes()).map(|it| it.entry.is_some());
        match is_there {
            Some(true) => self.push(&mut state, key, What::Remove),
            // The removal before this one is on its way.
            Some(false) => {}
            None => match take_out() {
                TakenOut::Yes => {
                    self.push(&mut state, key, What::Bury { was_there: true });
                    return Some(true);
                }
                // No place made room for this one.
                TakenOut::Perhaps if state.removals >= REMOVALS_MAX => self.forget(&state),
                TakenOut::Perhaps => {
                    self.push(&mut state, key, What::Bury { was_there: false });
                }
                TakenOut::No => return None,
            },
        }
        Some(is_there.unwrap_or(false))
    }

    /// Owes a tombstone for a key whose record is damaged, unless something newer is on its way.
    /// `is_out` takes it out of the index, and says whether it was there.
    pub(super) fn bury(&self, key: &CacheKey, is_out: impl FnOnce() -> bool) {
        let mut state = lock(&self.state);
        let is_superseded = self.pending.pin().get(key.as_bytes()).is_some();
        if is_out() && !is_superseded {
            self.push(&mut state, key, What::Bury { was_there: true });
        }
    }

    fn push(&self, state: &mut State, key: &CacheKey, what: What) {
        state.last += 1;
        let ticket = state.last;
        let operation = Operation {
            ticket,
            key: *key,
            what,
        };
        let entry = match &operation.what {
            What::Store { entry, .. } => Some(Some(entry.clone())),
            What::Remove => Some(None),
            What::Bury { .. } => None,
        };
        if let Some(entry) = entry {
            self.active.fetch_add(1, Ordering::Release);
            let pending = self.pending.pin();
            self.leaves(pending.insert(*key.as_bytes(), Pending { ticket, entry }));
        }
        state.bytes += operation.bytes();
        state.removals += usize::from(operation.is_removal());
        state.operations.push_back(operation);
        if std::mem::take(&mut state.is_asleep) {
            self.called.notify_one();
        }
    }

    fn leaves(&self, old: Option<&Pending>) {
        if old.is_some() {
            self.active.fetch_sub(1, Ordering::Release);
        }
    }

    /// Gives up everything on disk. The state is held so that only one does so.
    fn forget(&self, _: &State) {
        if !self.is_forgotten.load(Ordering::Relaxed) {
            tracing::warn!("too much was removed of a disk that cannot be read; it is given up");
            self.is_forgotten.store(true, Ordering::Relaxed);
            self.active.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether everything on disk is given up. The writer has to ask before it takes an operation.
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten.load(Ordering::Relaxed)
    }

    /// The writer has given everything up.
    pub(super) fn has_forgotten(&self) {
        let _state = lock(&self.state);
        self.is_forgotten.store(false, Ordering::Relaxed);
        self.active.fetch_sub(1, Ordering::Release);
    }

    /// The next operations, at most [`BATCH_OPERATIONS`], for the writer to hand back when they
    /// are [`done`](Self::done).
    pub(super) fn next(&self) -> Vec<Operation> {
        let operations = &mut lock(&self.state).operations;
        let batch = operations.len().min(BATCH_OPERATIONS);
        operations.drain(..batch).collect()
    }

    /// Whether an operation still is the newest on its key.
    pub(super) fn is_newest(&self, operation: &Operation) -> bool {
        let pending = self.pending.pin();
        let newest = pending.get(operation.key.as_bytes());
        newest.is_some_and(|newest| newest.ticket == operation.ticket)
    }

    /// The results of these operations can be found in the index or in memory. `unsynced_bytes`: of all
    /// that was written and is not durable.
    pub(super) fn done(&self, operations: &[Operation], unsynced_bytes: u64) {
        fence(Ordering::Release);
        for operation in operations {
            self.settles(operation);
        }
        let mut state = lock(&self.state);
        state.unsynced_bytes = unsynced_bytes;
        // Woken only when some room is free: otherwise waiters and the writer would alternate.
        let enough = self.waiting_bytes() - self.waiting_bytes() / ROOM_SHARE;
        let is_full = |state: &State| state.bytes > enough || state.removals > REMOVALS_MAX / 2;
        let was_full = is_full(&state);
        for operation in operations {
            state.forget_operation(operation);
        }
        let has_room = state.bytes == 0 || was_full && !is_full(&state);
        self.goes_on(&mut state, has_room);
    }

    fn settles(&self, operation: &Operation) {
        let is_this = |_: &[u8; 32], newest: &Pending| newest.ticket == operation.ticket;
        let pending = self.pending.pin();
        if let Ok(Some((_, old))) = pending.remove_if(operation.key.as_bytes(), is_this) {
            self.leaves(Some(old));
        }
    }

    fn goes_on(&self, state: &mut State, is_news: bool) {
        state.steps += 1;
        if std::mem::take(&mut state.is_stalled) {
            tracing::info!("the disk goes on");
        }
        state.is_refusing &= state.bytes > self.bytes_max / 2;
        if is_news && state.waiters > 0 {
            self.went_on.notify_all();
        }
    }

    /// Takes out all entries that are `which`, and with `and_removals` the removals as well. The
    /// writer must not have an operation in hand.
    pub(super) fn remove_where(&self, which: impl Fn(&Entry) -> bool, and_removals: bool) {
        let mut state = lock(&self.state);
        let operations = std::mem::take(&mut state.operations);
        for operation in operations {
            let is_meant = match &operation.what {
                What::Store { entry, .. } => which(entry),
                What::Remove | What::Bury { .. } => and_removals,
            };
            if !is_meant {
                state.operations.push_back(operation);
                continue;
            }
            self.settles(&operation);
            state.forget_operation(&operation);
        }
        self.goes_on(&mut state, true);
    }

    /// The last operation before which nothing waits. The writer must have none in hand.
    pub(super) fn written(&self) -> Ticket {
        let state = lock(&self.state);
        match state.operations.front() {
            Some(next) => next.ticket - 1,
            None => state.last,
        }
    }

    pub(super) fn is_synced(&self, ticket: Ticket) -> bool {
        lock(&self.state).synced >= ticket
    }

    /// All up to here was synced, or failed to be. `unsynced_bytes`: of what was written since.
    pub(super) fn synced(&self, up_to: Ticket, unsynced_bytes: u64) {
        let mut state = lock(&self.state);
        state.unsynced_bytes = unsynced_bytes;
        state.synced = state.synced.max(up_to);
        self.goes_on(&mut state, true);
    }

    /// How many operations wait.
    pub(super) fn len(&self) -> usize {
        lock(&self.state).operations.len()
    }

    /// The newest operation.
    pub(super) fn last(&self) -> Ticket {
        lock(&self.state).last
    }

    /// Waits until an operation was synced, or failed to be; false when that takes too long.
    pub(super) fn wait_synced(&self, ticket: Ticket) -> bool {
        let state = lock(&self.state);
        self.wait_while(state, |state| state.synced < ticket).synced >= ticket
    }

    /// For the writer: waits for an operation; false when none is left and none will come.
    pub(super) fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        while state.operations.is_empty() {
            if state.is_stopped {
                return false;
            }
            state.is_asleep = true;
            let waited = self.called.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_asleep = false;
        true
    }

    /// The writer may end when all is written.
    pub(super) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.called.notify_one();
    }

    /// The keys of entries that wait to be written. [`QUEUE_BYTES_MAX`] bounds their number.
    pub(super) fn keys(&self) -> Vec<[u8; 32]> {
        let pending = self.pending.pin();
        let stored = pending.iter().filter(|(_, it)| it.entry.is_some());
        stored.map(|(key, _)| *key).collect()
    }

    /// Entries that wait to be written and are `which`, and their bytes.
    pub(super) fn count(&self, which: impl Fn(&[u8; 32], &Entry) -> bool) -> (u64, u64) {
        let pending = self.pending.pin();
        let entries = pending
            .iter()
            .filter_map(|(key, it)| Some((key, it.entry.as_ref()?)));
        let meant = entries.filter(|(key, entry)| which(key, entry));
        meant.fold((0, 0), |(count, bytes), (_, entry)| {
            (count + 1, bytes + entry.record_bytes())
        })
    }

    /// How many entries there are, and their payload bytes, when so many are written already and
    /// this is what they have of a key. What is being written is in both for a moment.
    pub(super) fn on_top_of(
        &self,
        (mut entries, mut payload_bytes): (u64, u64),
        written: impl Fn(&[u8; 32]) -> Option<u64>,
    ) -> (u64, u64) {
        for (key, pending) in &self.pending.pin() {
            if let Some(bytes) = written(key) {
                entries = entries.saturating_sub(1);
                payload_bytes = payload_bytes.saturating_sub(bytes);
            }
            if let Some(entry) = &pending.entry {
                entries += 1;
                payload_bytes += entry.payload_bytes();
            }
        }
        (entries, payload_bytes)
    }

    pub(super) fn stats(&self) -> QueueStats {
        let state = lock(&self.state);
        QueueStats {
            bytes: state.bytes,
            trouble: match (state.is_stalled, state.is_refusing) {
                (true, _) => Some("the disk hangs".into()),
                (_, true) => Some(format!(
                    "the disk is slow: {} bytes wait to be written",
                    state.bytes
                )),
                _ => None,
            },
        }
    }
}

impl State {
    fn forget_operation(&mut self, operation: &Operation) {
        self.bytes -= operation.bytes();
        self.removals -= usize::from(operation.is_removal());
    }
}

#[derive(Debug)]
pub(super) struct QueueStats {
    /// Of memory that is taken.
    pub(super) bytes: u64,
    pub(super) trouble: Option<String>,
}

#[cfg(all(test, not(shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
