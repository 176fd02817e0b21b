//! The disk space of the segments, including unlinked ones that still have readers, and which tenant
//! uses how much of it.

use super::mmap::Mapping;
use super::shares::Shares;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that segments occupy on disk, including unlinked ones that still have readers; and the live
/// bytes of each tenant.
#[derive(Debug, Default)]
pub(crate) struct DiskUse(pub(super) AtomicU64, pub(super) Arc<Shares>);

impl DiskUse {
    pub(super) fn of(shares: &Arc<Shares>) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0), Arc::clone(shares)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The space of one segment file, without its holes.
#[derive(Debug)]
pub(super) struct Space {
    bytes: AtomicU64,
    disk_use: Arc<DiskUse>,
}

impl Space {
    pub(super) fn new(bytes: u64, disk_use: &Arc<DiskUse>) -> Arc<Self> {
        disk_use.0.fetch_add(bytes, Relaxed);
        Arc::new(Self {
            bytes: AtomicU64::new(bytes),
            disk_use: Arc::clone(disk_use),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Only the writer calls this.
    pub(super) fn grow(&self, to: u64) {
        let more = to.saturating_sub(self.bytes());
        self.bytes.fetch_add(more, Relaxed);
        self.disk_use.0.fetch_add(more, Relaxed);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.disk_use.0.fetch_sub(self.bytes(), Relaxed);
    }
}

/// A mapping, and the disk space that goes when the last reader of it goes.
pub(super) struct Held {
    pub(super) mapping: Mapping,
    pub(super) _space: Arc<Space>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.mapping.as_ref()
    }
}
