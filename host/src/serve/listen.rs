//! Accepts connections up to a bound, until told to stop; then lets them end.
//!
//! When all places are taken, the connection that has been idle for longest closes for the next
//! client. So clients that hold connections without requests do not keep others out.

use super::connection::Server;
use super::line::{Line, Lines};
use super::place::{Place, StreamLimits};
use super::stop::Stopped;
use super::wire::Accepted;
use crate::serve::config::NetLimits;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Detects a client's system that is gone without notice: the first probe after a minute, then one
/// each `KEEPALIVE_INTERVAL`. The system's default is two hours.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The system's send buffer of a connection. Slow readers cost memory of the system, too, and
/// HTTP/2's own frames wait behind it.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// The first pause after a connection could not be accepted; each further pause doubles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the log repeats lasting trouble, and how long it must be absent to count as over.
const TELL_EVERY: Duration = Duration::from_secs(60);
const TROUBLE_OVER: Duration = Duration::from_secs(10);

/// Something that connections come from.
pub(crate) trait Listen {
    /// A connection.
    type Io: Accepted;

    /// The next connection.
    async fn next(&self) -> io::Result<Self::Io>;
}

/// The settings of a TCP connection of clients or operators.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

impl Listen for UnixListener {
    type Io = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Answers the requests of all connections until `stopped`; then lets running requests end.
/// HTTP/1.1, and HTTP/2 with `streams` as the bounds of one connection. `service_of` makes the service of
/// each connection.
pub(crate) async fn answer<L, S, B>(
    listener: L,
    service_of: impl Fn(&<L::Io as Accepted>::Socket) -> S + Send + Sync + 'static,
    net: &NetLimits,
    streams: StreamLimits,
    stopped: Stopped,
) where
    L: Listen,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(net.connections_max));
    let (running, cut) = watch::channel(());
    let server = Arc::new(Server::new(net, streams, cut));
    let lines = Arc::new(Lines::default());
    let service_of = Arc::new(service_of);
    let (open, mut all_closed) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let mut trouble = Trouble::default();
    let closing = stopped.clone();
    let mut told = pin!(stopped.wait());

    loop {
        while tasks.try_join_next().is_some() {}
        let next = next(&listener, &places, &lines, &mut trouble);
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = &mut told => break,
        };
        let place = Place::new(permit, open.clone());
        // Here, so that connections are as old as they came.
        let line = Line::new();
        tasks.spawn(Arc::clone(&server).serve(
            Arc::clone(&service_of),
            accepted,
            place,
            line,
            Arc::clone(&lines),
            closing.clone(),
        ));
    }

    drop((listener, open));
    // Connections that were handed on by an upgrade are among them.
    if tokio::time::timeout(net.drain_max, all_closed.recv())
        .await
        .is_err()
    {
        tracing::warn!("stopping: some requests took too long and were cut");
    }
    drop(running);
    tasks.shutdown().await;
}

/// The next connection, and a place for it.
async fn next<L: Listen>(
    listener: &L,
    places: &Arc<Semaphore>,
    lines: &Lines,
    trouble: &mut Trouble,
) -> (OwnedSemaphorePermit, L::Io) {
    let socket = loop {
        match listener.next().await {
            Ok(socket) => break socket,
            // Of that one client.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                let pause = trouble.failed(&error, Instant::now());
                // Out of file descriptors, most likely, of which each connection has one.
                lines.make_room();
                tokio::time::sleep(pause).await;
            }
        }
    };
    trouble.succeeded(Instant::now());
    if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
        return (permit, socket);
    }
    lines.make_room();
    match Arc::clone(places).acquire_owned().await {
        Ok(permit) => {
            lines.has_room();
            (permit, socket)
        }
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}

/// Whether only this connection failed before it was accepted; the next one may succeed.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Logs that connections cannot be accepted: at the beginning, at times while it lasts, and at the
/// end.
#[derive(Debug, Default)]
struct Trouble {
    /// When the last attempt failed, and when the log last told of it.
    failed: Option<(Instant, Instant)>,
    /// Since the log last told.
    count: u64,
    pause: Duration,
}

impl Trouble {
    /// Returns how long to wait.
    fn failed(&mut self, error: &io::Error, now: Instant) -> Duration {
        self.count += 1;
        let told = self.failed.map(|(_, told)| told);
        let told = match told {
            Some(told) if now < told + TELL_EVERY => told,
            _ => {
                let failures = self.count;
                tracing::warn!(%error, failures, "cannot accept connections: those that are idle close");
                self.count = 0;
                now
            }
        };
        self.failed = Some((now, told));
        self.pause = (self.pause * 2).clamp(ACCEPT_PAUSE, ACCEPT_PAUSE_MAX);
        self.pause
    }

    fn succeeded(&mut self, now: Instant) {
        self.pause = Duration::ZERO;
        if self
            .failed
            .is_some_and(|(last, _)| now >= last + TROUBLE_OVER)
        {
            let failures = self.count;
            tracing::info!(failures, "connections are accepted again");
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand failures within a minute, mixed with successes, are logged once.
    #[test]
    fn trouble_is_told_once_a_minute_and_waits_longer_each_time() {
        let error = io::Error::from_raw_os_error(24);
        let start = Instant::now();
        let mut trouble = Trouble::default();
        let mut pause = Duration::ZERO;
        for tick in 0..10_000 {
            let now = start + Duration::from_millis(tick);
            let next = trouble.failed(&error, now);
            assert!(next >= pause && next <= ACCEPT_PAUSE_MAX);
            pause = next;
            assert_eq!(trouble.count, tick, "told in between");
        }
        assert_eq!(pause, ACCEPT_PAUSE_MAX);
        let then = start + Duration::from_secs(11);
        trouble.succeeded(then);
        assert!(trouble.failed.is_some(), "it may come back at once");
        assert_eq!(trouble.failed(&error, then), ACCEPT_PAUSE);
        trouble.failed(&error, start + TELL_EVERY);
        assert_eq!(trouble.count, 0, "told again");
        trouble.succeeded(start + TELL_EVERY + TROUBLE_OVER);
        assert!(trouble.failed.is_none() && trouble.count == 0);
    }
}
