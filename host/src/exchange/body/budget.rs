//! The bytes that all requests hold at once, and their bound.
//!
//! What counts: a request's body, as far as it was read, so that its key can be made and so that it
//! can be sent again; an answer's, so that it can be stored and so that others can read it; of a
//! stream that is recorded, the event that has not come to its end; the answer to a part of a batch,
//! until the client has the whole that is made of it; the body of an edge's `PUT`. Each holder has a
//! [`Reservation`], which grows with what it holds and ends with it. What does not fit is not held:
//! the request or the answer passes through.
//!
//! What does not, has bounds of its own. A guest's linear memory is bounded by
//! [`GuestLimits`](crate::component::GuestLimits), for each instance and in their number. Reading a text as JSON
//! takes at most some 300 KiB beside it, and four bytes for each key of one object. A buffer of a
//! connection is bounded in `serve/wire.rs` and by hyper.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes all requests together may hold, and how many they hold now. One for the whole
/// process.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    held: AtomicU64,
}

/// Bytes that one holder has of a [`Budget`]. They are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes_max`, of which none is held.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: AtomicU64::new(0),
        })
    }

    /// Bytes that are held now. They may exceed the bound by one frame for each answer under way,
    /// which had arrived already when the bound was reached.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The most bytes that may be held.
    #[cfg(feature = "serve")]
    pub(crate) fn most(&self) -> u64 {
        self.bytes_max
    }

    /// Whether `bytes` fit now; a moment later they may not.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.held().saturating_add(bytes) <= self.bytes_max
    }

    /// A reservation of nothing, to grow.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl Reservation {
    /// Reserves more bytes, all of them or none; whether it did.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let most = self.budget.bytes_max;
        let grown = self
            .budget
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|held| *held <= most)
            });
        self.bytes += if grown.is_ok() { bytes } else { 0 };
        grown.is_ok()
    }

    /// Counts more bytes, whether they fit or not: they are in memory already, and needed.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.budget.held.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bytes += bytes as u64;
    }

    /// Takes or gives back what there is to so many bytes. Whether there was room; if not, it stays
    /// as it is.
    #[must_use]
    pub(crate) fn fit(&mut self, bytes: usize) -> bool {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if more > 0 {
            return self.grow(usize::try_from(more).unwrap_or(usize::MAX));
        }
        self.shrink_to(bytes);
        true
    }

    /// Gives back all but so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let given_back = self.bytes.saturating_sub(bytes as u64);
        if given_back == 0 {
            return;
        }
        self.bytes -= given_back;
        self.budget.held.fetch_sub(given_back, Ordering::Relaxed);
    }

    /// Moves the whole reservation out.
    pub(crate) fn take(&mut self) -> Self {
        let rest = self.budget.reserve();
        std::mem::replace(self, rest)
    }

    /// The budget that it is part of.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holders_together_stay_within_the_bound() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.reserve(), budget.reserve());
        assert!(one.grow(6) && two.grow(4));
        assert!(!one.grow(1) && !two.grow(usize::MAX));
        assert_eq!(budget.held(), 10);
        one.shrink_to(2);
        assert!(two.grow(3) && !two.grow(2));
        drop(two);
        assert_eq!(budget.held(), 2);
        assert!(budget.has_room(8) && !budget.has_room(9));
        one.shrink_to(100);
        assert_eq!(budget.held(), 2);
        drop(one);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_reservation_follows_what_its_holder_has() {
        let budget = Budget::new(10);
        let mut one = budget.reserve();
        for (bytes, fits, held) in [(4, true, 4), (9, true, 9), (11, false, 9), (2, true, 2)] {
            assert_eq!((one.fit(bytes), budget.held()), (fits, held), "{bytes}");
        }
        assert!(one.fit(2) && one.fit(0));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn bytes_that_are_there_already_count_beyond_the_bound() {
        let budget = Budget::new(10);
        let mut one = budget.reserve();
        one.count(15);
        assert_eq!(budget.held(), 15);
        assert!(!one.grow(0) && !budget.has_room(0));
        drop(one);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn holders_on_many_threads_never_take_more_than_there_is() {
        let budget = Budget::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 0..1000 {
                        let mut one = budget.reserve();
                        let _ = one.grow(bytes % 300);
                        assert!(budget.held() <= 1000);
                    }
                });
            }
        });
        assert_eq!(budget.held(), 0);
    }
}
