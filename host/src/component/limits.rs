//! A guest's limits, as wasmtime applies them.

use crate::grant::guest_limits::GuestLimits;
use std::time::Duration;
use wasmtime::{ResourceLimiter, Result, StoreLimits, StoreLimitsBuilder};

/// The limits for a wasmtime store.
pub(crate) fn of_store(limits: &GuestLimits) -> StoreLimits {
    StoreLimitsBuilder::new()
        .memory_size(limits.memory_bytes_max)
        .table_elements(limits.table_elements_max)
        .build()
}

/// An instance that has grown by more than this since it was made is not used again: a guest's memory
/// never shrinks, and one large request would keep it for as long as the instance lives. A new
/// instance costs some 50 µs, which is little beside a request that takes so much memory.
const GROWN_BYTES_MAX: usize = 512 << 10;

/// A guest that begins with more brings a language with a heap of its own, and may double it. The
/// middleware begins with one MiB.
const SMALL_BYTES_MAX: usize = 4 << 20;

/// Limits of a store that count its guest's memory.
pub(crate) struct Measured {
    limits: StoreLimits,
    /// Of all memories together.
    memory_bytes: usize,
    /// The memory right after the guest was made.
    fresh_bytes: usize,
}

impl Measured {
    pub(crate) fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            memory_bytes: 0,
            fresh_bytes: 0,
        }
    }

    /// Called when the guest is made, before its first request.
    pub(crate) fn begin(&mut self) {
        self.fresh_bytes = self.memory_bytes;
    }

    /// Whether the guest holds far more memory than it began with.
    pub(crate) fn has_grown(&self) -> bool {
        let grown = self.memory_bytes - self.fresh_bytes;
        let most = match self.fresh_bytes {
            ..=SMALL_BYTES_MAX => GROWN_BYTES_MAX,
            fresh => fresh,
        };
        grown > most
    }
}

impl ResourceLimiter for Measured {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        let may_grow = self.limits.memory_growing(current, desired, maximum)?;
        if may_grow {
            self.memory_bytes += desired - current;
        }
        Ok(may_grow)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.limits.memory_grow_failed(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

/// How often a computing guest has to yield, so that it cannot keep a thread for itself and its
/// time limit is checked.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_has_grown_far_beyond_its_beginning_is_told() {
        let check = |fresh: usize, grown: usize, expected: bool| {
            let mut limits = Measured::new(of_store(&GuestLimits::default()));
            assert!(limits.memory_growing(0, fresh, None).expect("no trap"));
            limits.begin();
            assert!(!limits.has_grown());
            let grows = limits.memory_growing(fresh, fresh + grown, None);
            assert!(grows.expect("no trap"));
            assert_eq!(limits.has_grown(), expected, "{fresh} and {grown}");
        };
        check(1 << 20, 512 << 10, false);
        check(1 << 20, (512 << 10) + 1, true);
        // Other languages begin with more, and need more.
        check(16 << 20, 16 << 20, false);
        check(16 << 20, 17 << 20, true);
        // A refused growth does not count.
        let mut limits = Measured::new(of_store(&GuestLimits::default()));
        assert!(!limits.memory_growing(0, 1 << 30, None).expect("no trap"));
        assert!(!limits.has_grown());
    }
}
