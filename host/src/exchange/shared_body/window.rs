//! The part of a body that is in memory, from the first byte that a reader may still need to the
//! last byte so far. It is one buffer, however small the frames were.

use crate::exchange::body::budget::{Budget, Reservation};
use crate::exchange::body::buffer::Buffer;
use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;

/// The most that a reader gets at a time. Copying this takes microseconds.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// The bytes of a body from `start` on, counted in a [`Budget`].
#[derive(Debug)]
pub(crate) struct Window {
    /// How much of the body went before.
    start: u64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// More may come. The first `dropped` bytes are not needed any more.
    Open {
        bytes: Buffer,
        dropped: usize,
        reserved: Reservation,
    },
    /// The whole body, which may be stored at the same time.
    Whole(Arc<Whole>),
}

/// A whole body, counted for as long as it is there.
#[derive(Debug)]
pub(crate) struct Whole {
    bytes: Buffer,
    _reserved: Reservation,
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Window {
    /// Nothing yet of a body.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            start: 0,
            kept: Kept::Open {
                bytes: Buffer::default(),
                dropped: 0,
                reserved: budget.reserve(),
            },
        }
    }

    /// Where in the body the window begins.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Where it ends: how much of the body has come.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes().len() as u64
    }

    /// The bytes in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.kept {
            Kept::Open { bytes, dropped, .. } => &bytes[*dropped..],
            Kept::Whole(whole) => whole,
        }
    }

    /// Up to [`PIECE_BYTES_MAX`] bytes from a place in the body; none past the end.
    pub(crate) fn piece(&self, at: u64) -> Option<Bytes> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let rest = self.bytes().get(from..).filter(|rest| !rest.is_empty())?;
        let piece = &rest[..rest.len().min(PIECE_BYTES_MAX)];
        Some(Bytes::copy_from_slice(piece))
    }

    /// Adds bytes, if the budget has room for them; whether it had.
    #[must_use]
    pub(crate) fn push(&mut self, data: &[u8]) -> bool {
        self.add(data, |reserved| reserved.grow(data.len()))
    }

    /// Adds bytes that a reader has to get, whether the budget has room for them or not.
    pub(crate) fn push_beyond(&mut self, data: &[u8]) {
        self.add(data, |reserved| {
            reserved.count(data.len());
            true
        });
    }

    fn add(&mut self, data: &[u8], reserve: impl FnOnce(&mut Reservation) -> bool) -> bool {
        let Kept::Open {
            bytes, reserved, ..
        } = &mut self.kept
        else {
            // Nothing comes after the end.
            return false;
        };
        let has_room = reserve(reserved);
        if has_room {
            bytes.push(data);
        }
        has_room
    }

    /// Skips `count` bytes that no reader needs from here, and drops all bytes before them.
    pub(crate) fn pass(&mut self, count: usize) {
        self.drop_to(self.end());
        self.start += count as u64;
    }

    /// Drops the bytes before this place.
    pub(crate) fn drop_to(&mut self, place: u64) {
        let count = place
            .saturating_sub(self.start)
            .min(self.end() - self.start);
        let Kept::Open {
            bytes,
            dropped,
            reserved,
        } = &mut self.kept
        else {
            // It is dropped only as a whole: an answer that may be stored is bounded.
            return;
        };
        self.start += count;
        // It is within the buffer.
        *dropped += count as usize;
        // Moved only when the rest is the smaller part: each byte is moved once, on average.
        if *dropped * 2 >= bytes.len() {
            bytes.drop_first(*dropped);
            *dropped = 0;
            reserved.shrink_to(bytes.len());
        }
    }

    /// Whether the budget has room for `bytes` now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        match &self.kept {
            Kept::Open { reserved, .. } => reserved.budget().has_room(bytes as u64),
            Kept::Whole(_) => false,
        }
    }

    /// The whole body at its end, shared with the store. None if a part was dropped.
    pub(crate) fn whole(&mut self) -> Option<Arc<Whole>> {
        if self.start > 0 {
            return None;
        }
        let whole = match &mut self.kept {
            Kept::Whole(whole) => Arc::clone(whole),
            Kept::Open {
                bytes, reserved, ..
            } => Arc::new(Whole {
                bytes: std::mem::take(bytes),
                _reserved: reserved.take(),
            }),
        };
        self.kept = Kept::Whole(Arc::clone(&whole));
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(bytes_max: u64) -> (Window, Arc<Budget>) {
        let budget = Budget::new(bytes_max);
        (Window::new(&budget), budget)
    }

    #[test]
    fn a_window_moves_over_the_body() {
        let (mut window, budget) = window(1000);
        assert!(window.push(b"abcdef") && window.push(b"ghij"));
        window.drop_to(3);
        assert_eq!((window.start(), window.end()), (3, 10));
        assert_eq!(window.bytes(), b"defghij");
        assert_eq!(window.piece(2), None);
        assert_eq!(window.piece(8).as_deref(), Some(&b"ij"[..]));
        assert_eq!(window.piece(10), None);
        assert_eq!(window.piece(u64::MAX), None);
        window.drop_to(8);
        assert_eq!(budget.held(), 2);
        window.pass(5);
        assert_eq!((window.start(), window.end()), (15, 15));
        assert_eq!(budget.held(), 0);
        assert!(window.push(b"k"));
        assert_eq!(window.piece(15).as_deref(), Some(&b"k"[..]));
        // Not beyond the end.
        window.drop_to(99);
        assert_eq!((window.start(), window.end()), (16, 16));
        assert!(window.whole().is_none());
    }

    /// One byte at a time cost 56 bytes each in a queue of frames.
    #[test]
    fn small_frames_make_one_buffer() {
        let (mut window, budget) = window(u64::MAX);
        for _ in 0..(1 << 20) {
            assert!(window.push(b"x"));
        }
        assert_eq!(budget.held(), 1 << 20);
        assert_eq!(window.piece(0).map(|it| it.len()), Some(PIECE_BYTES_MAX));
    }

    /// A reader that falls behind and catches up again leaves no large buffer behind.
    #[test]
    fn what_was_dropped_is_given_back() {
        let (mut window, budget) = window(u64::MAX);
        for round in 1..=50_u64 {
            assert!(window.push(&[0; 100_000]));
            window.drop_to(round * 100_000 - 10);
            assert!(budget.held() <= 200_020, "{}", budget.held());
        }
        window.drop_to(u64::MAX);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_finds_no_room_is_not_taken_in() {
        let (mut window, budget) = window(8);
        assert!(window.push(b"abcdef") && !window.push(b"ghi"));
        assert!(window.has_room(2) && !window.has_room(3));
        assert_eq!(window.end(), 6);
        window.push_beyond(b"ghi");
        assert_eq!((window.end(), budget.held()), (9, 9));
        drop(window);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_whole_body_counts_until_all_have_done_with_it() {
        let (mut window, budget) = window(100);
        assert!(window.push(b"abc"));
        let stored = window.whole().expect("all of it");
        assert_eq!(&**stored, b"abc");
        assert_eq!(window.piece(1).as_deref(), Some(&b"bc"[..]));
        window.drop_to(3);
        assert_eq!((window.start(), budget.held()), (0, 3));
        drop(window);
        assert_eq!(budget.held(), 3);
        drop(stored);
        assert_eq!(budget.held(), 0);
    }
}
