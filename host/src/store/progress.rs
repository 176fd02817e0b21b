//! How far the reading of a folder is, for those who wait for it.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Segments that were read or are being read, of those that are there.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    read: AtomicU64,
    segments: AtomicU64,
}

impl Progress {
    /// So many segments are to be read.
    pub(crate) fn begin(&self, segments: usize) {
        self.read.store(0, Relaxed);
        self.segments.store(segments as u64, Relaxed);
    }

    /// The next one is being read.
    pub(crate) fn step(&self) {
        self.read.fetch_add(1, Relaxed);
    }

    /// Which one is being read, of how many; 0 of 0 before the folder was looked at.
    pub(crate) fn now(&self) -> (u64, u64) {
        (self.read.load(Relaxed), self.segments.load(Relaxed))
    }
}
