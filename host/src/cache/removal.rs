//! Removals and purges: one entry, those of a tenant, or everything. No fill from before a purge is
//! stored after it (`purges.rs`).

use super::queue::{TakenOut, Wait};
use super::writer::Writer;
use super::{Cache, CacheKey, Entry, Purged, Shared};
use crate::store::{Store, Whose};
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
            // The process that has the folder by now may have it.
            false if !shared.leaving.has_not_begun() => TakenOut::Perhaps,
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
        self.purge_tenant_counted(tenant).1
    }

    /// As [`purge_tenant`](Self::purge_tenant), and how many entries that covers, expired ones included.
    /// Those are counted by segments, so it takes no longer.
    pub fn purge_tenant_counted(&self, tenant: &[u8; 32]) -> (Counted, io::Result<()>) {
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
        self.purge_all_counted().1
    }

    /// As [`purge_tenant_counted`](Self::purge_tenant_counted), for everything.
    pub fn purge_all_counted(&self) -> (Counted, io::Result<()>) {
        let purge = || self.shared.purge(Whose::All);
        self.shared.purges.note(Purged::All, purge)
    }

    /// How many entries a purge of this tenant, or of all, would cover now. May wait for the disk.
    pub fn count_of(&self, tenant: Option<&[u8; 32]>) -> Counted {
        let whose = tenant.map_or(Whose::All, Whose::Tenant);
        let writer = self.shared.writer();
        self.shared.count(whose, writer.as_deref())
    }

    /// As [`purge_tenant`](Self::purge_tenant), and forgets the tenant's secret. Whether nothing of the tenant
    /// can be read any more.
    pub(super) fn purge_and_forget(&self, tenant: &[u8; 32]) -> io::Result<bool> {
        let mut is_unreadable = false;
        let purge = || {
            let forget = |store: &mut Store| is_unreadable = store.forget_secret(tenant);
            self.shared.purge_and(Whose::Tenant(tenant), forget)
        };
        let (_, purged) = self.shared.purges.note(Purged::Tenant(*tenant), purge);
        purged.map(|()| is_unreadable)
    }

    /// As [`remove`](Self::remove), within a purge that is noted already, and never waiting until the removal
    /// is durable.
    pub(super) fn remove_quietly(&self, key: &CacheKey) -> bool {
        self.remove_entry(key, Wait::ForRoom)
    }
}

/// How many entries something is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Their number.
    pub entries: u64,
    /// The space that they take, in bytes.
    pub bytes: u64,
}

impl Counted {
    pub(super) fn add(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
    }
}

fn is_of(entry: &Entry, whose: Whose<'_>) -> bool {
    match whose {
        Whose::All => true,
        Whose::Tenant(tenant) => entry.tenant() == *tenant,
    }
}

impl Shared {
    /// Entries on disk that a newer one in the queue or in memory hides are counted with those.
    fn count(&self, whose: Whose<'_>, writer: Option<&Writer>) -> Counted {
        let mut counted = Counted::default();
        if let Some(writer) = writer {
            let (entries, bytes) = writer.store.count(whose);
            counted.add(entries, bytes);
        }
        let is_hidden = |key: &[u8; 32]| self.index.find(key, |_| ()).is_some();
        let is_meant = |key: &[u8; 32], entry: &Entry| is_of(entry, whose) && !is_hidden(key);
        for (entries, bytes) in [self.queue.count(is_meant), self.memory.count(is_meant)] {
            counted.add(entries, bytes);
        }
        counted
    }

    fn purge(&self, whose: Whose<'_>) -> (Counted, io::Result<()>) {
        self.purge_and(whose, |_| ())
    }

    /// As [`purge`](Self::purge), and something else before anything is written again. What that does to
    /// secrets is durable when the purge is.
    fn purge_and(
        &self,
        whose: Whose<'_>,
        also: impl FnOnce(&mut Store),
    ) -> (Counted, io::Result<()>) {
        let is_meant = |entry: &Entry| is_of(entry, whose);
        if let Some(mut without_disk) = self.without_disk() {
            let counted = self.count(whose, None);
            self.memory.remove_where(is_meant);
            return (counted, without_disk.misses_purge(whose));
        }
        let Some(mut writer) = self.writer() else {
            return (Counted::default(), self.purge_what_leaves(is_meant));
        };
        // Nothing is written meanwhile. What waits to be was stored before.
        let counted = self.count(whose, Some(&writer));
        writer.store.purge(whose);
        also(&mut writer.store);
        // In this order: entries go from memory to the queue at times, and never back meanwhile.
        self.memory.remove_where(is_meant);
        self.queue.remove_where(is_meant, whose == Whose::All);
        if whose == Whose::All {
            self.index.remove_where(|_| true);
        }
        // The marks first: without them, records would be looked for that cannot be opened.
        let settled = writer.store.settle_purge_marks();
        let settled = settled.and_then(|()| {
            if whose == Whose::All {
                // What was purged need not be buried one by one.
                writer.owes_nothing();
                writer.store.discard();
                return writer.store.forget_secrets();
            }
            writer.store.settle_forgotten()
        });
        let settled = match settled {
            Ok(()) => Ok(()),
            Err(error) => {
                self.note_trouble(error.to_string(), None);
                Err(error.into())
            }
        };
        (counted, settled)
    }
}
