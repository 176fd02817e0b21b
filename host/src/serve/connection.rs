//! One client's connection: HTTP/1.1 or HTTP/2 by the client's first bytes, with a timer for each
//! of its states.
//!
//! | state | bound |
//! |---|---|
//! | TLS is not agreed on | `tls_handshake_max`, less if another client needs the place |
//! | nothing has come, or no whole head | `header_read_max` |
//! | a request's body pauses | `idle_max`, by the service |
//! | a request's body takes long as a whole | `request_max`, by the service |
//! | the response is awaited | the provider's bounds, by the service |
//! | the client does not take the response | `idle_max`, per stream over HTTP/2 |
//! | no request | `keep_alive_max`, less if another client needs the place |
//! | HTTP/2, the client is gone without notice | a ping after `PING_AFTER`, `header_read_max` for its answer |
//! | told to close | `LEAVE_MAX`; after SIGTERM or a handover `drain_max` |

use super::delivery::{Delivery, Streams};
use super::line::{self, Due, Line, Lines, Overdue};
use super::place::{OpenConnection, Place, StreamLimits};
use super::stop::{Stop, Stopped};
use super::wire::{Accepted, Wire};
use crate::serve::config::NetLimits;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Headers of a request. Past it, hyper answers 431 by itself. Below the 24,576 that `http` can
/// hold.
const HEADERS_MAX: usize = super::heads::HEADERS_MAX + 50;
/// Bytes read from a client before they are parsed, above all a request's head, and roughly those
/// written before the client takes them.
const BUFFER_BYTES_MAX: usize = 2 * super::heads::HEAD_BYTES_MAX;
/// A live client answers pings at any time. This detects a dead one within two minutes, while its
/// request still waits for the provider.
const PING_AFTER: Duration = Duration::from_secs(60);
/// How long a client that was told to close may take.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// How all connections of one listener are served.
pub(super) struct Server {
    builder: auto::Builder<Streams>,
    net: NetLimits,
    /// Closed when the time to stop is up.
    cut: watch::Receiver<()>,
}

/// A connection's error, in hyper-util's words.
type Error = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    pub(super) fn new(net: &NetLimits, streams: StreamLimits, cut: watch::Receiver<()>) -> Self {
        let idle_max = net.idle_max;
        let mut builder = auto::Builder::new(Streams { idle_max });
        builder
            .http1()
            // Its timer knows no difference between an idle connection and half a head. Ours do.
            .header_read_timeout(None)
            // A client that has ended its side may still read; `Wire` notices one that is gone.
            .half_close(true)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let header_list_bytes_max = u32::try_from(BUFFER_BYTES_MAX).unwrap_or(u32::MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(header_list_bytes_max)
            .max_concurrent_streams(streams.max)
            .max_pending_accept_reset_streams(streams.reset_max)
            .keep_alive_interval(PING_AFTER.min(net.keep_alive_max / 2))
            .keep_alive_timeout(net.header_read_max);
        Self {
            builder,
            net: net.clone(),
            cut,
        }
    }

    /// What comes before HTTP. None if the connection closes instead.
    async fn open<A: Accepted>(
        &self,
        accepted: A,
        line: &Line,
        lines: &Lines,
        stopped: &Stopped,
    ) -> Option<A::Socket> {
        let opened = tokio::time::timeout(self.net.tls_handshake_max, accepted.open());
        // The wish may be older than this connection's entry in the list, where it was looked for.
        let wanted = std::future::poll_fn(|_| match lines.wants_room() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let closes = async {
            if stopped.wait().await == Stop::HandsOver {
                std::future::pending().await
            }
        };
        let place = "another client needs the place";
        let error: Error = tokio::select! {
            biased;
            // At once where no TLS is.
            opened = opened => match opened {
                Ok(Ok(socket)) => return Some(socket),
                Ok(Err(error)) => error.into(),
                Err(_) => timed_out("TLS was not agreed on"),
            },
            () = std::future::poll_fn(|cx| line.poll_evicted(cx)) => place.into(),
            () = wanted => place.into(),
            () = closes => "stopping".into(),
        };
        tracing::debug!(error, "connection ended");
        None
    }

    /// Serves one connection to its end, or until it is handed on by an upgrade.
    pub(super) async fn serve<A, S, B>(
        self: Arc<Self>,
        service_of: Arc<impl Fn(&A::Socket) -> S>,
        accepted: A,
        place: Place,
        line: Arc<Line>,
        lines: Arc<Lines>,
        stopped: Stopped,
    ) where
        A: Accepted,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + Unpin + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Error>,
    {
        let listed = lines.add(&line);
        let opened = self.open(accepted, &line, &lines, &stopped).await;
        let Some(socket) = opened else {
            return;
        };
        line.opened();
        let service = service_of(&socket);
        let wire = Wire::new(socket, place, Arc::clone(&line), self.net.idle_max);
        let attended = Attended {
            service,
            line: Arc::clone(&line),
            cut: self.cut.clone(),
            stopped: stopped.clone(),
        };
        let io = TokioIo::new(wire.clone());
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(io, attended));
        let mut told = pin!(stopped.wait());
        let mut is_stopping = false;
        // To be told to close once its version is known, if that has a word for it. Over HTTP/1.x, the next
        // response has it.
        let mut hands_over = false;
        let mut alarm = pin!(sleep_until(Instant::now() + self.net.header_read_max));
        // What the alarm and `told` will wake. They are polled when there is something new for them: a poll costs
        // locks, and each request would have some.
        let mut waker: Option<Waker> = None;
        let mut is_set = false;
        // When it was told to close, and how long it may take.
        let mut leaves: Option<(Instant, Duration)> = None;

        let ended = std::future::poll_fn(|cx| {
            let is_known = waker.as_ref().is_some_and(|it| it.will_wake(cx.waker()));
            if !is_known {
                waker = Some(cx.waker().clone());
                is_set = false;
            }
            if !is_stopping
                && (!is_known || stopped.is_told())
                && let Poll::Ready(how) = told.as_mut().poll(cx)
            {
                is_stopping = true;
                leaves.get_or_insert((Instant::now(), LEAVE_MAX));
                hands_over = how == Stop::HandsOver;
                if !hands_over {
                    connection.as_mut().graceful_shutdown();
                }
            }
            loop {
                if hands_over && line.speaks_http2() {
                    hands_over = false;
                    connection.as_mut().graceful_shutdown();
                }
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                if let Poll::Ready(error) = wire.poll_gone(cx) {
                    return Poll::Ready(Err(error.into()));
                }
                let is_evicted = line.poll_evicted(cx).is_ready();
                let due = match leaves {
                    None => line.due(&self.net),
                    Some((told, max)) => line.idle_since().map(|since| Due {
                        at: since.max(told) + max,
                        why: Overdue::Leave,
                        now: Instant::now(),
                    }),
                };
                let Some(Due { at, why, now }) = due else {
                    if is_evicted {
                        // A request has come meanwhile.
                        lines.make_room();
                    }
                    return Poll::Pending;
                };
                let why = match leaves {
                    None if is_evicted || lines.wants_room() => Some(Overdue::Place),
                    _ => (now >= at).then_some(why),
                };
                let Some(why) = why else {
                    // Only ever set to an earlier time, so that a request costs nothing here.
                    if alarm.deadline() > at || alarm.is_elapsed() {
                        alarm.as_mut().reset(at);
                        is_set = false;
                    }
                    if is_set && alarm.deadline() > now {
                        return Poll::Pending;
                    }
                    is_set = true;
                    match alarm.as_mut().poll(cx) {
                        Poll::Ready(()) => continue,
                        Poll::Pending => return Poll::Pending,
                    }
                };
                let max = match why {
                    Overdue::Place => Duration::ZERO,
                    Overdue::Silence => LEAVE_MAX,
                    Overdue::Head => {
                        wire.say_goodbye(cx, head_timeout().as_bytes());
                        return Poll::Ready(Err(timed_out("the head of a request")));
                    }
                    Overdue::Leave => return Poll::Ready(Err(timed_out("told to close"))),
                };
                leaves = Some((now, max));
                connection.as_mut().graceful_shutdown();
            }
        });
        if let Err(error) = ended.await {
            tracing::debug!(error, "connection ended");
        }
        wire.hand_on();
        // Before the place is free: the next wish for one must not be told to this connection.
        drop(listed);
    }
}

/// The response to an HTTP/1.x client that has sent only a part of a head.
fn head_timeout() -> String {
    let body = r#"{"error":{"message":"reflex-edge: the head of the request took too long","type":"timeout","param":null,"code":"408"}}"#;
    format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn timed_out(what: &'static str) -> Error {
    io::Error::new(io::ErrorKind::TimedOut, what).into()
}

/// A service whose requests the connection knows of.
struct Attended<S> {
    service: S,
    line: Arc<Line>,
    cut: watch::Receiver<()>,
    stopped: Stopped,
}

impl<S, B> Service<Request<Incoming>> for Attended<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Unpin,
    B: Body<Data = Bytes>,
{
    type Response = Response<Delivery<B>>;
    type Error = Infallible;
    type Future = Attending<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Attending<S::Future> {
        if request.headers().contains_key(header::UPGRADE) {
            let open = OpenConnection::new(self.cut.clone());
            request.extensions_mut().insert(Arc::new(open));
        }
        Attending {
            running: Some(self.line.begin(request.version())),
            version: request.version(),
            is_head: *request.method() == Method::HEAD,
            stopped: self.stopped.clone(),
            response: self.service.call(request),
        }
    }
}

/// The head of a response, then its body. hyper has a place for it in the connection's memory.
struct Attending<F> {
    response: F,
    /// None once the response is there.
    running: Option<line::Request>,
    version: Version,
    is_head: bool,
    stopped: Stopped,
}

impl<F, B> Future for Attending<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<Delivery<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(Pin::new(&mut self.response).poll(cx))?;
        let is_informational = response.status().is_informational();
        if self.version != Version::HTTP_2 && !is_informational && self.stopped.is_told() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        // As hyper decides it.
        let chunked = self.version == Version::HTTP_11
            && !self.is_head
            && response.body().size_hint().exact().is_none()
            && !response.headers().contains_key(header::CONTENT_LENGTH)
            && !is_informational
            && !matches!(response.status().as_u16(), 204 | 304);
        let running = self.running.take();
        if let Some(running) = &running {
            running.answered(chunked);
        }
        Poll::Ready(Ok(response.map(|body| Delivery::new(body, running))))
    }
}
