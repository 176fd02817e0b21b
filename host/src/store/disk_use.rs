//! The disk space of the segments, including unlinked ones that still have readers.

use super::mmap::Mapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that segments occupy on disk, including unlinked ones that still have readers.
#[derive(Debug, Default)]
pub(crate) struct DiskUse(pub(super) AtomicU64);

impl DiskUse {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A mapping, and the disk space that goes when the last reader of it goes.
pub(super) struct Held {
    pub(super) mapping: Mapping,
    pub(super) bytes: u64,
    pub(super) disk_use: Arc<DiskUse>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.mapping.as_ref()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk_use.0.fetch_sub(self.bytes, Relaxed);
    }
}
