//! Removals and purges: one entry, those of a tenant, or everything. No fill from before a purge is
//! stored after it (`purges.rs`).

use super::queue::{TakenOut, Wait};
use super::{Cache, CacheKey, Entry, Purged, Shared};
use crate::store::Whose;
use std::io;

impl Cache {
    /// Removes the entry for a key, for good: it does not come back with a restart, unless the
    /// disk is in trouble from now until then. Returns whether the key had an entry.
    ///
    /// An [`L1`](super::L1) keeps the requests that led to the entry, prompts included, until they are
    /// evicted or their tenant is purged. They lead to a miss, and spare their reading when the answer is
    /// there again. The L1 knows no request by its key: several may share one. To find them, each removal
    /// would look at all requests, or each request would take memory for a second map.
    /// [`purge_tenant`](Self::purge_tenant) drops prompts, too.
    ///
    /// When more comes than the disk takes, this waits for it, up to a second. With
    /// [`Durability::EveryInsert`](super::Durability::EveryInsert) it also waits until the removal is
    /// durable, again up to a second.
    pub fn remove(&self, key: &CacheKey) -> bool {
        let was_there = self.take_away(key, None, Wait::ForRoom);
        self.wait_until_durable();
        was_there
    }

    /// As [`remove`](Self::remove), of a key that was [made of](CacheKey::new) this digest. Edges
    /// that keep copies by digest drop only their copy of this entry.
    pub fn remove_named(&self, key: &CacheKey, digest: &[u8; 32]) -> bool {
        let was_there = self.take_away(key, Some(*digest), Wait::ForRoom);
        self.wait_until_durable();
        was_there
    }

    /// As [`remove_named`](Self::remove_named), for threads that must not wait for the disk.
    pub fn remove_named_now(&self, key: &CacheKey, digest: &[u8; 32]) -> bool {
        self.take_away(key, Some(*digest), Wait::No)
    }

    /// As [`remove`](Self::remove), for threads that must not wait for the disk.
    pub fn remove_now(&self, key: &CacheKey) -> bool {
        self.take_away(key, None, Wait::No)
    }

    fn take_away(&self, key: &CacheKey, digest: Option<[u8; 32]>, wait: Wait) -> bool {
        let purged = Purged::Entry(*key);
        let remove = || self.remove_entry(key, wait);
        self.shared.purges.note_named(purged, digest, remove)
    }

    fn remove_entry(&self, key: &CacheKey, wait: Wait) -> bool {
        let shared = &*self.shared;
        if let Some(mut without_disk) = shared.without_disk() {
            without_disk.misses(key);
            return shared.memory.remove(key.as_bytes());
        }
        let in_memory = shared.memory.remove(key.as_bytes());
        let take_out = || match shared.index.remove(key.as_bytes()) {
            true => TakenOut::Yes,
            false if shared.index.has_hidden() => TakenOut::Perhaps,
            false => TakenOut::No,
        };
        let removed = shared.queue.remove(key, wait, take_out);
        removed.map_or(in_memory, |was_there| {
            shared.write_without_thread();
            in_memory || was_there
        })
    }

    /// Purges everything that a tenant has stored, at once and for good: no lookup finds it any
    /// more, nor does one after a restart or a loss of power. What is stored from now on is
    /// found. Waits for the medium, as a rule some milliseconds; inserts wait as well.
    ///
    /// The bytes stay on disk until their segment makes room.
    ///
    /// # Errors
    ///
    /// The purge holds in this process, but could not be made durable. The next
    /// [`sync`](Self::sync) tries again.
    pub fn purge_tenant(&self, tenant: &[u8; 32]) -> io::Result<()> {
        let purge = || self.shared.purge(Whose::Tenant(tenant));
        self.shared.purges.note(Purged::Tenant(*tenant), purge)
    }

    /// As [`purge_tenant`](Self::purge_tenant) for all tenants. The segments are removed as well; a
    /// segment with readers is removed when its last reader is done.
    ///
    /// # Errors
    ///
    /// As of [`purge_tenant`](Self::purge_tenant). No segment was removed then.
    pub fn purge_all(&self) -> io::Result<()> {
        let purge = || self.shared.purge(Whose::All);
        self.shared.purges.note(Purged::All, purge)
    }
}

impl Shared {
    fn purge(&self, whose: Whose<'_>) -> io::Result<()> {
        let is_meant = |entry: &Entry| match whose {
            Whose::All => true,
            Whose::Tenant(tenant) => entry.tenant() == *tenant,
        };
        if let Some(mut without_disk) = self.without_disk() {
            self.memory.remove_where(is_meant);
            return without_disk.misses_purge(whose);
        }
        let Some(mut writer) = self.writer() else {
            return Ok(());
        };
        // Nothing is written meanwhile. The entries in the queue were stored before.
        writer.store.purge(whose);
        self.queue.remove_where(is_meant, whose == Whose::All);
        self.memory.remove_where(is_meant);
        if whose == Whose::All {
            self.index.remove_where(|_| true);
        }
        match writer.store.settle_purge_marks() {
            Ok(()) if whose == Whose::All => {
                // Purged entries need no tombstones.
                writer.owes_nothing();
                writer.store.discard();
            }
            Ok(()) => {}
            Err(error) => {
                self.note_trouble(error.to_string(), None);
                return Err(error.into());
            }
        }
        Ok(())
    }
}
