//! The parts that the integration tests work with: a provider that a test controls, the real
//! `reflex-edge` and the real Envoy as child processes, and a client that sees every byte.
//!
//! Nothing here depends on how these work inside; the tests reach them as users do.

pub mod client;
pub mod completion;
pub mod raw;
pub mod raw_client;
mod spoken;

pub mod behaviour;
mod reply;
pub mod upstream;

pub mod authority;
pub mod forward;
pub mod inherited;
pub mod mount;
pub mod tls;
pub mod unix;

pub mod chromium;
pub mod edge;
pub mod envoy;
pub mod metrics;

use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that is sure to happen. Only a failing test waits so
/// long, so it is generous: the machine may be busy with a build.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits something that is sure to happen.
///
/// # Panics
///
/// If it has not happened within [`PATIENCE`]; `what` says what that was.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {} s", PATIENCE.as_secs()),
    }
}
