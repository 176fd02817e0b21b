//! An open connection: HTTP/1.1 or HTTP/2 over the connector's stream.

use super::connect::{BoxError, Io};
use super::meter::{Meter, Metered};
use crate::exchange::boxed::BoxBody;
use crate::serve::config::NetLimits;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;

/// Headers of one response. Providers behind several gateways send dozens. hyper clears room for as
/// many with each response over HTTP/1.1: for 1000, that took a twentieth of a miss.
const RESPONSE_HEADERS_MAX: usize = 512;
/// Bytes of a response's head.
const RESPONSE_HEAD_BYTES_MAX: u32 = 256 << 10;
/// Buffer of an HTTP/1.1 connection: more than a head.
const HTTP1_BUFFER_BYTES_MAX: usize = 512 << 10;
/// How often a connection in use is pinged; without a timely answer it is given up. NATs forget a
/// connection that is silent while a model thinks.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(15);

/// How an HTTP/2 connection that ended without notice is detected.
#[derive(Clone, Copy)]
pub(super) struct Pings {
    interval: Duration,
    /// How long the provider may take to answer.
    wait_max: Duration,
}

impl Pings {
    /// No later than the operator's own bounds have it: on silence within a body, and on the time
    /// that the provider has to take a connection.
    pub(super) fn within(limits: &NetLimits) -> Self {
        Self {
            interval: PING_INTERVAL.min(limits.idle_max / 2),
            wait_max: PING_WAIT_MAX.min(limits.connect_max),
        }
    }
}
/// Requests on one HTTP/2 connection, even if the provider allows more: they share its window and
/// its losses.
const STREAMS_PER_CONNECTION_MAX: usize = 250;

pub(super) type Http1 = http1::SendRequest<BoxBody>;
pub(super) type Http2 = http2::SendRequest<BoxBody>;

/// A connection that takes requests.
pub(super) enum Opened {
    Http1(Http1, Arc<Meter>),
    Http2(Http2, Arc<Meter>, Arc<StreamLimit>),
}

/// How many streams the provider allows on a connection at present.
#[derive(Debug, Default)]
pub(super) struct StreamLimit(AtomicUsize);

impl StreamLimit {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Begins to speak HTTP on a connection. One with HTTP/2 is ready when the provider's settings
/// have arrived.
///
/// # Errors
///
/// The peer has closed the connection, or speaks something else.
pub(super) async fn open(io: Box<dyn Io>, pings: Pings) -> Result<Opened, BoxError> {
    let meter = Meter::new();
    let is_http2 = io.connected().is_negotiated_h2();
    let io = TokioIo::new(Metered::new(io, &meter));
    if is_http2 {
        return open_http2(io, meter, pings).await;
    }
    let (mut sender, connection) = http1().handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the provider ended");
        }
    });
    sender.ready().await?;
    Ok(Opened::Http1(sender, meter))
}

/// Sends one request on a connection of its own, which becomes something else if the response
/// says so.
pub(super) async fn upgrade(
    io: Box<dyn Io>,
    request: Request<BoxBody>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1().handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the provider ended");
        }
    });
    sender.send_request(request).await
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(RESPONSE_HEADERS_MAX)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        // As browsers and curl read them. They are written anew for the client.
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    builder
}

async fn open_http2(
    io: TokioIo<Metered>,
    meter: Arc<Meter>,
    pings: Pings,
) -> Result<Opened, BoxError> {
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(pings.interval)
        .keep_alive_timeout(pings.wait_max)
        .keep_alive_while_idle(true)
        .max_header_list_size(RESPONSE_HEAD_BYTES_MAX)
        // None, until the provider has said how many.
        .initial_max_send_streams(0_usize)
        .handshake(io)
        .await?;
    let limit = Arc::new(StreamLimit::default());
    let (greeting, greeted) = oneshot::channel();
    let mut greeting = Some(greeting);
    let (seen, watched) = (Arc::clone(&limit), Arc::clone(&meter));
    tokio::spawn(poll_fn(move |cx| {
        if greeting.is_some() {
            watched.watch(cx);
        }
        // The limit is looked at whenever a request is sent, too.
        let streams = connection.current_max_send_streams();
        let streams = streams.min(STREAMS_PER_CONNECTION_MAX);
        seen.0.store(streams, Ordering::Relaxed);
        if streams > 0
            && let Some(greeting) = greeting.take()
        {
            watched.unwatch();
            // The request may have been given up.
            let _ = greeting.send(());
        }
        let ended = std::task::ready!(Pin::new(&mut connection).poll(cx));
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the provider ended");
        }
        Poll::Ready(())
    }));
    greeted
        .await
        .map_err(|_| "the provider closed the connection before its settings")?;
    Ok(Opened::Http2(sender, meter, limit))
}
