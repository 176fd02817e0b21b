//! A segment as readers see it: its mapping and its file, until the store closes it.
//!
//! Each group of threads has a view of its own, on a cache line of its own, with a reference count of
//! its own. So a lookup writes to no line that a thread of another group uses. The places of the index
//! refer to the views, and keep neither the mapping nor the file open once the store has let go.

use super::disk::DiskFile;
use super::disk_use::Held;
use super::encryption::Vault;
use super::format::{ALIGN, Salt, Shape};
use super::shares::{Account, Shares};
use super::tenant_bytes::{Live, Purged, TenantBytes};
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// Views for each processor. Threads are numbered as they come, so that two which are busy may share
/// a view; with more views than processors that is rare.
const VIEWS_PER_PROCESSOR: usize = 4;

/// Bound of the views of a segment, at some 400 bytes each.
const VIEWS_MAX: usize = 64;

static VIEWS: LazyLock<usize> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (VIEWS_PER_PROCESSOR * processors).clamp(1, VIEWS_MAX)
});

/// Which view this thread uses.
fn view_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Relaxed) % *VIEWS;
    }
    NUMBER.with(|number| *number)
}

/// What all places in a segment refer to.
#[derive(Debug)]
pub(crate) struct Views {
    /// Of the segment.
    pub(super) id: u64,
    pub(super) salt: Salt,
    /// Written by an earlier process, so its records may have to be read from disk.
    pub(super) is_old: bool,
    /// Of an encrypted folder.
    vault: OnceLock<Arc<Vault>>,
    views: Box<[View]>,
    tenants: Mutex<TenantBytes>,
    dead_bytes: AtomicU64,
}

/// Empty once the segment is closed. Two cache lines, because processors fetch pairs of them.
#[derive(Debug)]
#[repr(align(128))]
struct View(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    /// The whole file. Only slices of it are read: the part behind the last record is still being
    /// written.
    map: Bytes,
    /// For reads that may wait: a bad sector is an error here, and a signal in the mapping.
    file: Arc<dyn DiskFile>,
    purged: Arc<Purged>,
}

/// Keeps the mapping alive for the slices of one view. Aligned so that the reference counts of two
/// views, which lie beside their owners, share no cache line.
#[repr(align(128))]
struct Owner(Arc<Held>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// What a look at a part of a segment finds.
#[derive(Debug)]
pub(super) enum Seen {
    /// The segment was reclaimed, or the tenant's part of it purged.
    Nothing,
    /// The segment is shorter.
    Outside,
    Bytes(Bytes),
}

impl Views {
    pub(super) fn new(
        id: u64,
        (file, held): (Arc<dyn DiskFile>, Held),
        salt: Salt,
        is_old: bool,
        shares: &Arc<Shares>,
    ) -> Arc<Self> {
        let held = Arc::new(held);
        let tenants = TenantBytes::new(id, shares);
        let view = |_| {
            View(Mutex::new(Some(Open {
                map: Bytes::from_owner(Owner(Arc::clone(&held))),
                file: Arc::clone(&file),
                purged: tenants.purged(),
            })))
        };
        let views = (0..*VIEWS).map(view).collect();
        Arc::new(Self {
            id,
            salt,
            is_old,
            vault: OnceLock::new(),
            views,
            tenants: Mutex::new(tenants),
            dead_bytes: AtomicU64::new(0),
        })
    }

    /// Its records are opened by this from now on. Before any is read.
    pub(super) fn set_vault(&self, vault: &Arc<Vault>) {
        let _ = self.vault.set(Arc::clone(vault));
    }

    /// What opens its records, in an encrypted folder.
    pub(super) fn vault(&self) -> Option<&Vault> {
        self.vault.get().map(|vault| &**vault)
    }

    /// Readers find nothing from now on. Slices that were given out stay readable.
    pub(super) fn close(&self) {
        for view in &self.views {
            *lock(&view.0) = None;
        }
        lock(&self.tenants).close();
    }

    /// A part of the segment that belongs to the tenant of this number.
    pub(super) fn slice(&self, tenant: u32, part: Range<usize>) -> Seen {
        match &*lock(&self.view().0) {
            Some(open) if open.purged.has(tenant) => Seen::Nothing,
            Some(open) if part.end <= open.map.len() => Seen::Bytes(open.map.slice(part)),
            Some(_) => Seen::Outside,
            None => Seen::Nothing,
        }
    }

    /// The file, for reads that may wait.
    pub(super) fn file(&self) -> Option<Arc<dyn DiskFile>> {
        let open = lock(&self.view().0);
        open.as_ref().map(|open| Arc::clone(&open.file))
    }

    fn view(&self) -> &View {
        &self.views[view_number()]
    }

    /// Counts the bytes of a new record for its tenant; returns the tenant's number.
    pub(super) fn count(&self, tenant: &[u8; 32], shape: Shape) -> u32 {
        lock(&self.tenants).add(tenant, shape.record_bytes() / ALIGN)
    }

    /// A record of the tenant of this number is dead.
    pub(super) fn count_dead(&self, tenant: u32, shape: Shape) {
        let dead = lock(&self.tenants).remove(tenant, shape.record_bytes() / ALIGN);
        self.dead_bytes.fetch_add(dead * ALIGN, Relaxed);
    }

    /// A record that has no place is dead.
    pub(super) fn count_damaged(&self, shape: Shape) {
        self.dead_bytes.fetch_add(shape.record_bytes(), Relaxed);
    }

    /// Bytes of records that are superseded, evicted, purged, damaged or tombstones.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.dead_bytes.load(Relaxed)
    }

    /// How many live records one tenant has here, or all, and their bytes.
    pub(super) fn live(&self, tenant: Option<&[u8; 32]>) -> (u64, u64) {
        let tenants = lock(&self.tenants);
        tenants.live(tenant).fold((0, 0), |(records, bytes), live| {
            let more = u64::from(live.units) * ALIGN;
            (records + u64::from(live.records), bytes + more)
        })
    }

    /// Purges the records so far, of one tenant or of all.
    pub(super) fn purge(&self, tenant: Option<&[u8; 32]>) {
        self.end(|tenants| ((), tenants.purge(tenant)));
    }

    /// Evicts the oldest part that an account has here; `None` without one.
    pub(super) fn evict_oldest(&self, account: &Arc<Account>) -> Option<Live> {
        self.end(|tenants| {
            let live = tenants.evict_oldest(account);
            (live, live.map_or(0, |live| live.units.into()))
        })
    }

    /// Ends numbers: `end` tells, beside its result, how many units became dead.
    fn end<R>(&self, end: impl FnOnce(&mut TenantBytes) -> (R, u64)) -> R {
        let mut tenants = lock(&self.tenants);
        let before = tenants.purged();
        let (result, dead) = end(&mut tenants);
        self.dead_bytes.fetch_add(dead * ALIGN, Relaxed);
        let purged = tenants.purged();
        if !Arc::ptr_eq(&before, &purged) {
            for view in &self.views {
                if let Some(open) = &mut *lock(&view.0) {
                    open.purged = Arc::clone(&purged);
                }
            }
        }
        result
    }

    /// Whether the records of this number were evicted, and not purged.
    pub(super) fn is_evicted(&self, tenant: u32) -> bool {
        lock(&self.tenants).is_evicted(tenant)
    }

    /// The account that a number counts for.
    pub(super) fn account(&self, tenant: u32) -> Option<Arc<Account>> {
        lock(&self.tenants).account(tenant).cloned()
    }

    /// The bytes of the live records for whose account `is_meant`.
    pub(super) fn bytes_of(&self, is_meant: impl Fn(&Account) -> bool) -> u64 {
        lock(&self.tenants).units_of(is_meant) * ALIGN
    }
}

/// Each statement under these locks leaves the guarded value consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
