//! What the integration tests are played with: a provider that does what a test wants, the real
//! `reflex-edge` and the real Envoy as child processes, and a client that sees every byte.
//!
//! Nothing in here knows how these work inside; they are reached as users reach them.

pub mod client;
pub mod completion;
pub mod raw;
pub mod raw_client;
mod spoken;

pub mod behaviour;
mod reply;
pub mod upstream;

pub mod forward;
pub mod tls;
pub mod unix;

pub mod chromium;
pub mod edge;
pub mod envoy;
pub mod metrics;
pub mod proxy_wasm;

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
