//! The limits of a guest instance, and of the number of instances.

use std::time::Duration;
use wasmtime::{ResourceLimiter, Result, StoreLimits, StoreLimitsBuilder};

/// Bounds on guests. Each has a default that the middleware stays far below.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestLimits {
    /// Instances alive at once, which is also the number of requests that may be waiting for the
    /// provider's first byte. Past it, requests wait for `instance_wait_max`.
    pub instances_max: u32,
    /// How long a request waits for an instance before it goes to the provider without one.
    pub instance_wait_max: Duration,
    /// Linear memory of one instance, all its memories together. All guests together take at most
    /// [`instances_max`](Self::instances_max) times as much; that is beside what requests hold
    /// ([`Budget`](crate::exchange::body::budget::Budget)).
    pub memory_bytes_max: usize,
    /// Elements in all tables of one instance.
    pub table_elements_max: usize,
    /// Handles (requests, responses, headers, entries) that one instance may hold.
    pub handles_max: usize,
    /// Bytes that one call may hand from the guest to the host.
    pub hostcall_bytes_max: usize,
    /// Time that a guest may take for one request: its CPU time and its own sleeps. Waiting for the
    /// client's body, the provider, the disk or a processor does not count.
    pub guest_time_max: Duration,
    /// How long a guest that streams a body of its own making may go on after its response began.
    pub stream_time_max: Duration,
    /// Requests that one instance serves before it is replaced: a leak in a guest has an end.
    pub requests_per_instance_max: u32,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            instances_max: 1000,
            instance_wait_max: Duration::from_millis(100),
            memory_bytes_max: 64 << 20,
            table_elements_max: 10_000,
            handles_max: 1000,
            hostcall_bytes_max: 32 << 20,
            guest_time_max: Duration::from_secs(1),
            stream_time_max: Duration::from_secs(600),
            requests_per_instance_max: 10_000,
        }
    }
}

impl GuestLimits {
    /// The limits for a wasmtime store.
    pub(crate) fn of_store(&self) -> StoreLimits {
        StoreLimitsBuilder::new()
            .memory_size(self.memory_bytes_max)
            .table_elements(self.table_elements_max)
            .build()
    }
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
            let mut limits = Measured::new(GuestLimits::default().of_store());
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
        let mut limits = Measured::new(GuestLimits::default().of_store());
        assert!(!limits.memory_growing(0, 1 << 30, None).expect("no trap"));
        assert!(!limits.has_grown());
    }
}
