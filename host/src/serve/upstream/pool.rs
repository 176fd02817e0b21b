//! The open connections to the provider. Idle HTTP/1.1 connections wait for the next request; an
//! HTTP/2 connection takes as many requests at once as the provider allows.
//!
//! Each request holds one connection or one stream. So the requests under way bound the connections
//! in use, and the constants here bound the idle ones.

use super::connect::{BoxError, Connector};
use super::meter::{Meter, is_end};
use super::open::{Http1, Http2, Opened, Pings, StreamLimit, open};
use crate::exchange::boxed::BoxBody;
use http::header::HeaderMap;
use http::{Request, Response};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// Idle connections to the provider that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long an idle HTTP/1.1 connection is kept, unless the provider states a time in `Keep-Alive`.
/// uvicorn closes after 5 s, without notice. Our end must close first, because a request that meets
/// the end of its connection is lost.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// How long at most, whatever the provider says.
const IDLE_TIME_MAX: Duration = Duration::from_secs(50);
/// How much earlier than the provider says.
const IDLE_TIME_MARGIN: Duration = Duration::from_secs(1);
/// How long an idle HTTP/2 connection is kept. It is pinged, and a provider announces when it
/// closes one.
const IDLE_HTTP2_TIME: Duration = Duration::from_secs(50);
/// How often idle connections are looked through.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections to one provider.
pub(super) struct Pool {
    connector: Connector,
    pings: Pings,
    state: Mutex<State>,
    /// Signals room on a connection, and the end of each attempt to connect.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Least recently used first.
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    /// Counts the connections that were ever in `shared`.
    shared_ever: u64,
    /// Connections that are being made.
    opening: usize,
    /// Requests that wait for those.
    waiting: usize,
    /// If the last connection was HTTP/2: the streams that it allowed.
    http2: Option<usize>,
    is_reaped: bool,
}

struct Idle {
    sender: Http1,
    meter: Arc<Meter>,
    until: Instant,
}

struct Shared {
    number: u64,
    sender: Http2,
    meter: Arc<Meter>,
    limit: Arc<StreamLimit>,
    streams: usize,
    opened: Instant,
    /// When it was last in use.
    used: Instant,
}

/// A connection, or a stream of one, for one request.
pub(super) struct Lease {
    sender: Sender,
    meter: Arc<Meter>,
    /// Whether another request had it before, or has it at the same time.
    pub(super) is_reused: bool,
}

enum Sender {
    Http1(Http1, Weak<Pool>),
    Http2(Http2, Stream),
}

/// A stream that counts against its connection's limit until this is dropped.
pub(super) struct Stream {
    pool: Weak<Pool>,
    number: u64,
}

/// Which connections will do for a request.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    Any,
    /// Not an idle one, which may have ended meanwhile: the request cannot be sent again. HTTP/2
    /// tells which requests it has not begun.
    NotIdle,
    /// A connection made after this.
    MadeAfter(Instant),
}

/// Why a request failed that was sent on a leased connection.
pub(super) struct SendError {
    pub(super) error: hyper::Error,
    /// The connection ended before the provider said anything, or the provider says that it has
    /// not begun with the request.
    pub(super) is_unanswered: bool,
}

/// The next step of a request that needs a connection.
enum Next {
    Use(Lease),
    Open(Opening),
    Wait(Waiting),
}

impl Pool {
    pub(super) fn new(connector: Connector, pings: Pings) -> Arc<Self> {
        Arc::new(Self {
            connector,
            pings,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A connection for one request.
    ///
    /// # Errors
    ///
    /// No connection can be made.
    pub(super) async fn lease(self: &Arc<Self>, wish: Wish) -> Result<Lease, BoxError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.next(wish) {
                Next::Use(lease) => return Ok(lease),
                Next::Open(opening) => return self.open(opening, wish, changed).await,
                Next::Wait(waiting) => {
                    changed.await;
                    drop(waiting);
                }
            }
        }
    }

    /// A new connection, or another that comes free earlier.
    async fn open<'a>(
        self: &'a Arc<Self>,
        opening: Opening,
        wish: Wish,
        mut changed: Pin<&mut Notified<'a>>,
    ) -> Result<Lease, BoxError> {
        let opened = async { open(self.connector.connect().await?, self.pings).await };
        tokio::pin!(opened);
        loop {
            tokio::select! {
                biased;
                opened = &mut opened => return Ok(self.add(opened?, opening)),
                () = changed.as_mut() => {}
            }
            changed.set(self.changed.notified());
            changed.as_mut().enable();
            let found = self.find(&mut self.lock(), wish);
            if let Some(lease) = found {
                return Ok(lease);
            }
        }
    }

    /// A connection that is there and has room.
    fn find(self: &Arc<Self>, state: &mut State, wish: Wish) -> Option<Lease> {
        let now = Instant::now();
        if matches!(wish, Wish::Any) {
            while let Some(idle) = state.idle.pop() {
                if idle.until > now && idle.sender.is_ready() {
                    return Some(Lease {
                        sender: Sender::Http1(idle.sender, Arc::downgrade(self)),
                        meter: idle.meter,
                        is_reused: true,
                    });
                }
            }
        }
        state.shared.retain(|shared| !shared.sender.is_closed());
        let has_room = |shared: &&mut Shared| {
            let will_do = match wish {
                Wish::Any | Wish::NotIdle => true,
                Wish::MadeAfter(then) => shared.opened > then,
            };
            will_do && shared.streams < shared.limit.get()
        };
        let shared = state.shared.iter_mut().find(has_room)?;
        shared.streams += 1;
        Some(Lease {
            sender: Sender::Http2(shared.sender.clone(), self.stream(shared.number)),
            meter: Arc::clone(&shared.meter),
            is_reused: true,
        })
    }

    fn next(self: &Arc<Self>, wish: Wish) -> Next {
        let mut state = self.lock();
        if let Some(lease) = self.find(&mut state, wish) {
            return Next::Use(lease);
        }
        // An HTTP/2 connection being opened will have room for other requests, too.
        if let Some(streams) = state.http2
            && state.opening.saturating_mul(streams.saturating_sub(1)) > state.waiting
        {
            state.waiting += 1;
            return Next::Wait(Waiting(Arc::clone(self)));
        }
        state.opening += 1;
        Next::Open(Opening(Arc::clone(self)))
    }

    /// Adds a connection, for the request that it was made for.
    fn add(self: &Arc<Self>, opened: Opened, opening: Opening) -> Lease {
        let lease = match opened {
            Opened::Http1(sender, meter) => {
                self.lock().http2 = None;
                Lease {
                    sender: Sender::Http1(sender, Arc::downgrade(self)),
                    meter,
                    is_reused: false,
                }
            }
            Opened::Http2(sender, meter, limit) => {
                let now = Instant::now();
                let mut state = self.lock();
                state.http2 = Some(limit.get());
                state.shared_ever += 1;
                let number = state.shared_ever;
                state.shared.push(Shared {
                    number,
                    sender: sender.clone(),
                    meter: Arc::clone(&meter),
                    limit,
                    streams: 1,
                    opened: now,
                    used: now,
                });
                self.reap(&mut state);
                drop(state);
                Lease {
                    sender: Sender::Http2(sender, self.stream(number)),
                    meter,
                    is_reused: false,
                }
            }
        };
        drop(opening);
        lease
    }

    fn stream(self: &Arc<Self>, number: u64) -> Stream {
        Stream {
            pool: Arc::downgrade(self),
            number,
        }
    }

    /// Keeps a connection for the next request.
    fn keep(self: &Arc<Self>, sender: Http1, meter: Arc<Meter>, time: Duration) {
        let mut state = self.lock();
        if state.idle.len() < IDLE_CONNECTIONS_MAX {
            let until = Instant::now() + time;
            state.idle.push(Idle {
                sender,
                meter,
                until,
            });
            self.reap(&mut state);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Closes connections idle for too long, until none is left.
    fn reap(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.is_reaped, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REAP_INTERVAL).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut state = pool.lock();
                let now = Instant::now();
                state
                    .idle
                    .retain(|idle| idle.until > now && !idle.sender.is_closed());
                state.shared.retain(|shared| {
                    let is_used = shared.streams > 0 || shared.used + IDLE_HTTP2_TIME > now;
                    is_used && !shared.sender.is_closed()
                });
                if state.idle.is_empty() && state.shared.is_empty() {
                    state.is_reaped = false;
                    return;
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Whether requests on it are of HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    /// Sends a request. A stream is held until the second part of the result is dropped.
    pub(super) async fn send(
        self,
        request: Request<BoxBody>,
    ) -> Result<(Response<Incoming>, Option<Stream>), SendError> {
        let Self { sender, meter, .. } = self;
        let heard = meter.bytes();
        let failed = |error: hyper::Error, is_unsent: bool| SendError {
            is_unanswered: is_unsent || meter.bytes() == heard && ended(&error) || refused(&error),
            error,
        };
        match sender {
            Sender::Http1(mut sender, pool) => {
                let response = match sender.try_send_request(request).await {
                    Ok(response) => response,
                    Err(mut error) => {
                        let is_unsent = error.take_message().is_some();
                        return Err(failed(error.into_error(), is_unsent));
                    }
                };
                let time = idle_time(response.headers());
                if time > Duration::ZERO {
                    keep_when_ready(sender, meter, pool, time);
                }
                Ok((response, None))
            }
            Sender::Http2(mut sender, stream) => match sender.try_send_request(request).await {
                Ok(response) => Ok((response, Some(stream))),
                Err(mut error) => {
                    let is_unsent = error.take_message().is_some();
                    Err(failed(error.into_error(), is_unsent))
                }
            },
        }
    }
}

/// Keeps a connection as soon as its response has been read.
fn keep_when_ready(mut sender: Http1, meter: Arc<Meter>, pool: Weak<Pool>, time: Duration) {
    let keep = move |sender, meter| {
        if let Some(pool) = pool.upgrade() {
            pool.keep(sender, meter, time);
        }
    };
    if sender.is_ready() {
        return keep(sender, meter);
    }
    tokio::spawn(async move {
        // A connection that is closed instead is not kept.
        if sender.ready().await.is_ok() {
            keep(sender, meter);
        }
    });
}

/// How long a connection may be kept after this response.
fn idle_time(headers: &HeaderMap) -> Duration {
    let said = headers
        .get_all("keep-alive")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|part| part.trim().strip_prefix("timeout="))
        .filter_map(|seconds| seconds.trim_matches('"').parse().ok())
        .min();
    said.map_or(IDLE_TIME, |seconds| {
        let said = Duration::from_secs(seconds);
        said.saturating_sub(IDLE_TIME_MARGIN).min(IDLE_TIME_MAX)
    })
}

/// Whether the connection has ended.
fn ended(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let io = error.source().and_then(|cause| cause.downcast_ref());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io.map(std::io::Error::kind).is_some_and(is_end)
        || h2_error(error)
            .is_some_and(|error| error.get_io().map(|io| io.kind()).is_some_and(is_end))
}

/// Whether the provider says that it has not begun with the request: RFC 9113, section 8.7.
fn refused(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    use std::error::Error as _;
    error.source()?.downcast_ref()
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let mut state = pool.lock();
        if let Some(shared) = state.shared.iter_mut().find(|it| it.number == self.number) {
            shared.streams = shared.streams.saturating_sub(1);
            shared.used = Instant::now();
        }
        let is_wanted = state.waiting > 0 || state.opening > 0;
        drop(state);
        if is_wanted {
            pool.changed.notify_waiters();
        }
    }
}

/// A connection that is being made, for as long as this is held.
struct Opening(Arc<Pool>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.lock().opening -= 1;
        self.0.changed.notify_waiters();
    }
}

/// A request that waits for a connection, for as long as this is held.
struct Waiting(Arc<Pool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
