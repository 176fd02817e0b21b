//! Bounds on connections and waits.

use crate::serve::config::{File, bounded};
use std::num::NonZeroU64;
use std::time::Duration;

/// A year: a wait that is longer is a mistake, and one without end cannot be added to a time.
const WAIT_SECONDS_LIMIT: u64 = 365 * 24 * 3600;

/// Bounds on connections and waits.
#[derive(Debug, Clone, PartialEq)]
pub struct NetLimits {
    /// Client connections at once; further ones wait in the listen queue.
    pub connections_max: usize,
    /// How long a client may take for a request's head: for the first request counted from
    /// connecting, then from the first byte of each. Also how long an HTTP/2 client may take to
    /// answer a ping.
    pub header_read_max: Duration,
    /// How long a client's connection is kept without a request. Less when all `connections_max`
    /// are taken and another client needs the place.
    pub keep_alive_max: Duration,
    /// Longest pause within a body: of the side that sends, and of a client that does not read.
    pub idle_max: Duration,
    /// How long a client may take to send a whole request, from when its head is there. It bounds a
    /// client that sends a byte now and then.
    pub request_max: Duration,
    /// How long connecting to the provider may take, TLS included.
    pub connect_max: Duration,
    /// How long the provider may take until its response begins.
    pub response_max: Duration,
    /// How long running requests may go on after SIGTERM.
    pub drain_max: Duration,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            header_read_max: Duration::from_secs(60),
            // Load balancers use a connection again until their own limit: 60 s (AWS, application),
            // 240 s (Azure), 350 s (AWS, network), 600 s (Google, which asks for 620 s). If ours
            // were shorter, requests would meet a connection that closes.
            keep_alive_max: Duration::from_secs(620),
            // The SDKs' own default is 600 s. Ours must not be the first to give up.
            idle_max: Duration::from_secs(600),
            // The largest file that providers take in one request has 512 MB: at 150 KB/s, an hour.
            request_max: Duration::from_secs(3600),
            connect_max: Duration::from_secs(10),
            response_max: Duration::from_secs(600),
            drain_max: Duration::from_secs(30),
        }
    }
}

/// The limits of connections, from the file.
pub(crate) fn limits(file: &File) -> Result<NetLimits, String> {
    let defaults = NetLimits::default();
    let wait = |name, value: Option<NonZeroU64>, default: Duration| {
        bounded(name, value, default.as_secs(), WAIT_SECONDS_LIMIT).map(Duration::from_secs)
    };
    Ok(NetLimits {
        connections_max: bounded(
            "connections_max",
            file.connections_max,
            defaults.connections_max as u64,
            tokio::sync::Semaphore::MAX_PERMITS as u64,
        )?,
        header_read_max: wait(
            "header_read_seconds_max",
            file.header_read_seconds_max,
            defaults.header_read_max,
        )?,
        keep_alive_max: wait(
            "keep_alive_seconds_max",
            file.keep_alive_seconds_max,
            defaults.keep_alive_max,
        )?,
        idle_max: wait("idle_seconds_max", file.idle_seconds_max, defaults.idle_max)?,
        request_max: wait(
            "request_seconds_max",
            file.request_seconds_max,
            defaults.request_max,
        )?,
        connect_max: wait(
            "connect_seconds_max",
            file.connect_seconds_max,
            defaults.connect_max,
        )?,
        response_max: wait(
            "response_seconds_max",
            file.response_seconds_max,
            defaults.response_max,
        )?,
        drain_max: wait(
            "drain_seconds_max",
            file.drain_seconds_max,
            defaults.drain_max,
        )?,
    })
}
