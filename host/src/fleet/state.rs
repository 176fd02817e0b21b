//! What this edge knows of purges, and what it has purged itself that the fleet has not confirmed yet.
//!
//! ```text
//! purge here      ─► purging ─► entries go ─► purged: a new generation ─► kept in the file ─► told
//! purge elsewhere ─► begin   ─► entries go ─► learn: the ledger's generation
//! ```
//!
//! Between the two steps nothing is fetched: an answer would come under the old generation and be stored
//! after the purge. Entries are shared all the same: what is read after the new generation was is from after
//! the purge.

use super::file::{self, Again, Kept};
use super::generation::Generation;
use super::ledger::{Changes, Ledger};
use super::secret::{Name, PROOF_BYTES, Secret};
use crate::cache::{CacheKey, PurgeListener, Purged};
use crate::clock::Clock;
use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Removals that the fleet has not confirmed. More of them purge everything in the fleet.
const PENDING_MAX: usize = 4096;

thread_local! {
    /// Whether this thread purges because another edge has.
    static FOLLOWS: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    /// Something was purged here, and the fleet is to be told.
    pub(super) changed: Notify,
    /// Held while the file is written.
    writing: Mutex<()>,
    secret: Secret,
    name: Name,
    path: Option<PathBuf>,
    clock: Clock,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    /// The proof of the ledger, which stands for its contents.
    proof: [u8; PROOF_BYTES],
    /// When this edge has last heard of the fleet; none if it never was a member.
    heard_at_ms: Option<u64>,
    /// Whether it has heard since its start.
    is_ready: bool,
    /// On which line it has heard last. On another one there may be another engine, or an earlier state.
    heard_on: u64,
    /// Whether a purge of another edge's may not be durable in this edge's store.
    is_undurable: bool,
    /// Purges under way.
    purging: usize,
    /// Of purges of everything that were made here.
    own_all: Option<Generation>,
    /// Of purges of tenants.
    own_tenants: HashMap<[u8; 32], Generation>,
    /// Removals of keys, at most [`PENDING_MAX`].
    pending: HashMap<CacheKey, Pending>,
    /// Some of them are not in the file yet.
    has_unkept: bool,
}

/// A removal that was made here.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// Whether the entry is out of Redis.
    is_out: bool,
    /// As the ledger has it.
    at_ms: Option<u64>,
}

/// The generations under which a key's entry is shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) all: Generation,
    pub(super) season: Generation,
    pub(super) tenant: Generation,
    /// When the key was removed last, as far as that is remembered.
    pub(super) removed_at_ms: Option<u64>,
}

impl State {
    /// As the file has it; without a file, of an edge that never was a member.
    pub(super) fn new(
        secret: Secret,
        name: Name,
        path: Option<PathBuf>,
        clock: Clock,
    ) -> (Self, file::Opened) {
        let opened = path.as_deref().map_or(file::Opened::None, file::read);
        let kept = match &opened {
            file::Opened::Kept(kept) => kept.clone(),
            file::Opened::None | file::Opened::Damaged => Kept::default(),
        };
        let pending = kept.pending.into_iter();
        let mut inner = Inner {
            ledger: kept.ledger,
            proof: [0; PROOF_BYTES],
            heard_at_ms: kept.heard_at_ms,
            is_ready: false,
            heard_on: 0,
            is_undurable: false,
            purging: 0,
            own_all: None,
            own_tenants: HashMap::new(),
            pending: pending.map(|key| (key, Pending::default())).collect(),
            has_unkept: false,
        };
        inner.seal(&secret, &name);
        let state = Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            writing: Mutex::default(),
            secret,
            name,
            path,
            clock,
        };
        (state, opened)
    }

    /// Under which generations an entry is shared; none until this edge has heard of the fleet.
    pub(super) fn view(&self, tenant: &[u8; 32]) -> Option<View> {
        let inner = self.lock();
        inner.is_ready.then(|| inner.view(None, tenant))
    }

    /// The same for fetching on the line of that number: none as well before news have come on it, while a
    /// purge is under way, or if the fleet may still have an entry that was removed here.
    pub(super) fn view_to_fetch(
        &self,
        key: &CacheKey,
        tenant: &[u8; 32],
        line: u64,
    ) -> Option<View> {
        let inner = self.lock();
        let has_heard = inner.is_ready && inner.heard_on == line;
        let may_fetch = has_heard && inner.purging == 0 && !inner.pending.contains_key(key);
        may_fetch.then(|| inner.view(Some(key), tenant))
    }

    /// The names under which an entry may be, for taking it out.
    pub(super) fn view_for_removal(&self) -> View {
        self.lock().view(None, &[0; 32])
    }

    /// The proof of what is known.
    pub(super) fn proof(&self) -> [u8; PROOF_BYTES] {
        self.lock().proof
    }

    /// The ledger to write, and its proof.
    pub(super) fn encoded(&self) -> (Vec<u8>, [u8; PROOF_BYTES]) {
        let inner = self.lock();
        (inner.ledger.encode(&self.secret, &self.name), inner.proof)
    }

    /// A ledger that was read.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Ledger> {
        Ledger::decode(&self.secret, &self.name, bytes)
    }

    /// Whether this edge has heard of the fleet since its start.
    pub(super) fn is_ready(&self) -> bool {
        self.lock().is_ready
    }

    /// Whether another ledger lacks something that is known here.
    pub(super) fn knows_more_than(&self, other: &Ledger) -> bool {
        let inner = self.lock();
        let mut both = other.clone();
        let _ = both.merge(&inner.ledger, None);
        both != *other
    }
}

impl State {
    /// What has to be dropped before a ledger is learned. Nothing is fetched from now on, until
    /// [`learn`](Self::learn).
    pub(super) fn begin(&self, other: &Ledger) -> Changes {
        let mut inner = self.lock();
        inner.purging += 1;
        let heard_at_ms = inner.heard_at_ms;
        inner.ledger.clone().merge(other, heard_at_ms)
    }

    /// The changes hold in this edge, and unless `is_durable`, perhaps not after a crash: what the other
    /// ledger knows is known here.
    pub(super) fn learn(&self, other: &Ledger, is_durable: bool) {
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        inner.is_undurable |= !is_durable;
        inner.purging = inner.purging.saturating_sub(1);
        let heard_at_ms = inner.heard_at_ms;
        // What it tells to drop was dropped.
        let _ = inner.ledger.merge(other, heard_at_ms);
        inner.insist(now_ms);
        inner.seal(&self.secret, &self.name);
    }

    /// The contents of Redis cannot be relied on: shared entries have other names from now on.
    pub(super) fn begin_season(&self) {
        let mut inner = self.lock();
        inner.ledger.begin_season();
        inner.seal(&self.secret, &self.name);
    }

    /// Removals whose entries may still be in Redis, at most `most`.
    pub(super) fn to_take_out(&self, most: usize) -> Vec<CacheKey> {
        let inner = self.lock();
        let left = inner.pending.iter().filter(|(_, pending)| !pending.is_out);
        left.map(|(key, _)| *key).take(most).collect()
    }

    /// These are out of Redis: the ledger names them from now on.
    pub(super) fn taken_out(&self, keys: &[CacheKey]) {
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        for key in keys {
            if let Some(pending) = inner.pending.get_mut(key) {
                pending.is_out = true;
            }
        }
        inner.insist(now_ms);
        inner.seal(&self.secret, &self.name);
    }

    /// Redis has what was known here when this was the proof: what was purged here is confirmed.
    pub(super) fn confirmed(&self, proof: &[u8; PROOF_BYTES]) {
        let mut inner = self.lock();
        if inner.proof == *proof {
            inner.own_all = None;
            inner.own_tenants.clear();
            inner.pending.retain(|_, pending| !pending.is_out);
        }
    }

    /// Whether the fleet has confirmed all that was purged here.
    pub(super) fn is_confirmed(&self) -> bool {
        let inner = self.lock();
        inner.own_all.is_none() && inner.own_tenants.is_empty() && inner.pending.is_empty()
    }

    /// This edge knows what the fleet does.
    pub(super) fn heard(&self, line: u64) {
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        inner.heard_on = line;
        inner.heard_at_ms = Some(now_ms);
        inner.is_ready = true;
    }

    /// Whether all purges so far are durable in the store.
    pub(super) fn set_durable(&self, is_durable: bool) {
        self.lock().is_undurable = !is_durable;
    }

    /// It has not heard for too long: nothing is fetched or shared until it does.
    pub(super) fn unheard(&self) {
        self.lock().is_ready = false;
    }

    /// Whether removals were made here that the file does not name yet.
    pub(super) fn has_unkept(&self) -> bool {
        std::mem::take(&mut self.lock().has_unkept)
    }

    /// Writes the file. Waits for the disk.
    pub(super) fn keep(&self) {
        let Some(path) = &self.path else { return };
        // No older state replaces a newer one. Lookups do not wait meanwhile.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.lock().kept();
        if let Err(error) = file::write(path, &kept) {
            tracing::warn!(%error, "what the fleet has purged could not be written to the data folder");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each statement under this lock leaves it consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a purge that another edge has asked for: the fleet is not told again.
pub(super) fn following<T>(purge: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            FOLLOWS.set(false);
        }
    }
    FOLLOWS.set(true);
    let _reset = Reset;
    purge()
}

impl PurgeListener for State {
    fn purging(&self, what: &Purged) {
        if FOLLOWS.get() {
            return;
        }
        let mut inner = self.lock();
        match what {
            Purged::Entry(key) => {
                inner.pending.insert(*key, Pending::default());
            }
            Purged::All | Purged::Tenant(_) | Purged::Matching => inner.purging += 1,
        }
    }

    fn purged(&self, what: &Purged) {
        if FOLLOWS.get() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let mut inner = self.lock();
        let has_waited = !matches!(what, Purged::Entry(_));
        match what {
            // It may have been confirmed as removed before this one ended.
            Purged::Entry(key) => {
                inner.pending.insert(*key, Pending::default());
                inner.has_unkept = true;
            }
            Purged::Tenant(tenant) => {
                inner.ledger.purge_tenant(tenant, now_ms);
                let generation = inner.ledger.tenant(tenant);
                inner.own_tenants.insert(*tenant, generation);
            }
            // Which entries of other edges match cannot be told from here.
            Purged::All | Purged::Matching => inner.purge_all(now_ms),
        }
        if has_waited {
            inner.purging = inner.purging.saturating_sub(1);
        }
        if inner.pending.len() > PENDING_MAX {
            inner.pending.clear();
            inner.purge_all(now_ms);
        }
        inner.seal(&self.secret, &self.name);
        drop(inner);
        if has_waited {
            self.keep();
        }
        self.changed.notify_one();
    }
}

impl Inner {
    fn kept(&self) -> Kept {
        Kept {
            heard_at_ms: self.heard_at_ms,
            ledger: self.ledger.clone(),
            again: Again {
                all: self.is_undurable || self.own_all.is_some(),
                tenants: self.own_tenants.keys().copied().collect(),
            },
            pending: self.pending.keys().copied().collect(),
        }
    }

    fn view(&self, key: Option<&CacheKey>, tenant: &[u8; 32]) -> View {
        View {
            all: self.ledger.all,
            season: self.ledger.season,
            tenant: self.ledger.tenant(tenant),
            removed_at_ms: key.and_then(|key| self.ledger.removed_at(key.as_bytes())),
        }
    }

    fn purge_all(&mut self, now_ms: u64) {
        self.ledger.purge_all(now_ms);
        self.own_all = Some(self.ledger.all);
    }

    /// Has the ledger say what was purged here, whatever was learned since.
    fn insist(&mut self, now_ms: u64) {
        if self.own_all.is_some_and(|own| own != self.ledger.all) {
            self.purge_all(now_ms);
        }
        for (tenant, generation) in &mut self.own_tenants {
            self.ledger.insist(tenant, *generation, now_ms);
            *generation = self.ledger.tenant(tenant);
        }
        for (key, pending) in &mut self.pending {
            let key = key.as_bytes();
            let is_noted = pending.at_ms.is_some() && self.ledger.removed_at(key) == pending.at_ms;
            if pending.is_out && !is_noted {
                pending.at_ms = Some(self.ledger.remove(key, now_ms));
            }
        }
        if self.ledger.is_over() {
            self.purge_all(now_ms);
        }
    }

    fn seal(&mut self, secret: &Secret, name: &Name) {
        let bytes = self.ledger.encode(secret, name);
        if let Some(proof) = bytes.last_chunk() {
            self.proof = *proof;
        }
    }
}

#[cfg(test)]
mod tests;
