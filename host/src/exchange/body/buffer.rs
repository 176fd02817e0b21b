//! A buffer that grows, and goes back to the system when it is dropped.
//!
//! The parts of many answers arrive over minutes, side by side. Long buffers that grow in an
//! allocator leave holes that it keeps: 24 answers of 12 MiB left 200 MiB.

use memmap2::MmapMut;
use std::ops::Deref;

/// Longer buffers are pages of their own.
const HEAP_BYTES_MAX: usize = 128 << 10;

/// The factor by which pages grow when full: a page without writes takes no memory.
const GROWTH: usize = 4;

/// A buffer that grows at its end.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    kept: Kept,
    length: usize,
}

#[derive(Debug)]
enum Kept {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.kept {
            Kept::Heap(bytes) => bytes,
            Kept::Pages(pages) => &pages[..self.length],
        }
    }
}

impl Buffer {
    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let length = self.length + data.len();
        self.make_room(length);
        match &mut self.kept {
            Kept::Heap(bytes) => bytes.extend_from_slice(data),
            Kept::Pages(pages) => pages[self.length..length].copy_from_slice(data),
        }
        self.length = length;
    }

    /// Drops `count` bytes at the beginning, and room that is far too large for the rest.
    pub(crate) fn drop_first(&mut self, count: usize) {
        let rest = self.get(count..).unwrap_or_default();
        if rest.len() <= HEAP_BYTES_MAX {
            let rest = rest.to_vec();
            self.length = rest.len();
            self.kept = Kept::Heap(rest);
            return;
        }
        let length = rest.len();
        match &mut self.kept {
            Kept::Heap(bytes) => drop(bytes.drain(..count)),
            Kept::Pages(pages) => pages.copy_within(count..self.length, 0),
        }
        self.length = length;
    }

    fn make_room(&mut self, length: usize) {
        let room = match &self.kept {
            Kept::Heap(_) if length <= HEAP_BYTES_MAX => return,
            Kept::Heap(_) => 0,
            Kept::Pages(pages) => pages.len(),
        };
        if length <= room {
            return;
        }
        // If the system gives no pages, the allocator may still have some.
        let Ok(mut pages) = MmapMut::map_anon(length.saturating_mul(GROWTH)) else {
            self.kept = Kept::Heap(self.to_vec());
            return;
        };
        pages[..self.length].copy_from_slice(self);
        self.kept = Kept::Pages(pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_what_was_added_however_long_it_is() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for part in 0..200_u8 {
            let data = vec![part; 10_007];
            buffer.push(&data);
            expected.extend_from_slice(&data);
            assert!(*buffer == expected[..], "after {part}");
        }
        assert!(matches!(buffer.kept, Kept::Pages(_)));
        for count in [0, 1, 500_000, 1_000_000, 499_000] {
            buffer.drop_first(count);
            expected.drain(..count);
            assert!(*buffer == expected[..], "without {count}");
            buffer.push(b"more");
            expected.extend_from_slice(b"more");
            assert!(*buffer == expected[..], "more after {count}");
        }
        assert!(matches!(buffer.kept, Kept::Heap(_)));
        buffer.drop_first(usize::MAX);
        assert!(buffer.is_empty());
    }

    #[test]
    fn short_ones_take_no_pages() {
        let mut buffer = Buffer::default();
        buffer.push(&[1; HEAP_BYTES_MAX]);
        assert!(matches!(buffer.kept, Kept::Heap(_)));
        buffer.push(b"2");
        assert!(matches!(buffer.kept, Kept::Pages(_)));
    }
}
