//! Mapping a file into memory: the only hand-written `unsafe` of this crate.
#![expect(
    unsafe_code,
    reason = "a mapped file can be changed from outside, so mapping one cannot be safe"
)]

use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;

/// A file mapped read-only, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the first `bytes` of `file`. The file must be at least that long. Its holes must not be
    /// read: on a full tmpfs that would be a SIGBUS.
    pub(crate) fn of(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: the slice that this gives out must not change while a reader holds it.
        // `Segment` upholds that: it writes a record once, into space outside all slices given
        // out, and gives out slices of whole records only after they are written. Segments are
        // never truncated, only unlinked, which leaves a mapping as it is. The store holds the
        // folder's lock, so no other copy of us writes either. The risk left: a foreign process
        // that rewrites a segment in place can change bytes under a reader, and one that
        // truncates it can kill us with SIGBUS; we accept both.
        let mapping = unsafe { MmapOptions::new().len(bytes).map(file) }?;
        Ok(Self(mapping))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
