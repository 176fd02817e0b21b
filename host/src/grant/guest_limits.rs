//! The limits of a guest instance, and of the number of instances.

use std::time::Duration;

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
    /// ([`Budget`](crate::exchange::Budget)).
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
