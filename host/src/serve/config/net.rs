//! Bounds on connections and waits.

use std::time::Duration;

/// Bounds on connections and waits.
#[derive(Debug, Clone, PartialEq)]
pub struct NetLimits {
    /// Client connections at once; further ones wait in the listen queue.
    pub connections_max: usize,
    /// How long a client may take to agree on TLS, counted from connecting.
    pub tls_handshake_max: Duration,
    /// How long a client may take for a request's head: for the first request counted from
    /// connecting, or from when TLS is agreed on, then from the first byte of each. Also how long an HTTP/2 client may take to
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
            // Two round trips, and one lost packet in each direction.
            tls_handshake_max: Duration::from_secs(10),
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
