//! Accepting connections: so many at once, until told to stop, and then to their end.

use crate::config::NetLimits;
use http::{Request, Response, header};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Something that connections come from.
pub(crate) trait Listen {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    async fn next(&self) -> io::Result<Self::Io>;
}

impl Listen for TcpListener {
    type Io = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection without TCP_NODELAY");
        }
        Ok(stream)
    }
}

impl Listen for UnixListener {
    type Io = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// What one HTTP/2 connection may have open.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    /// Requests at once.
    pub(crate) max: u32,
    /// Requests that were taken back before they were looked at. Past it the connection is
    /// closed, since there is an attack that consists of these.
    pub(crate) reset_max: usize,
}

/// A connection that counts as open until this is dropped. A request that asks for another protocol
/// carries it as an extension, for the connection outlives HTTP on it.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    _permit: Option<OwnedSemaphorePermit>,
    /// Closed when the time to stop is up.
    cut: watch::Receiver<()>,
}

impl OpenConnection {
    /// Resolves when the connection may stay open no longer.
    pub(crate) async fn cut(&self) {
        // Nothing is ever sent.
        let _ = self.cut.clone().changed().await;
    }
}

/// Answers the requests of all connections until `stopped`; then lets those that run come to
/// their end. HTTP/1.1, and HTTP/2 with at most so many `streams` on one connection.
pub(crate) async fn answer<L, S, B>(
    listener: L,
    service: S,
    net: &NetLimits,
    streams: Streams,
    mut stopped: watch::Receiver<()>,
) where
    L: Listen,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connections = Arc::new(Semaphore::new(net.connections_max));
    let graceful = GracefulShutdown::new();
    let (running, cut) = watch::channel(());
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(net.header_read_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams.max)
        .max_pending_accept_reset_streams(streams.reset_max);

    loop {
        let next = async {
            // The semaphore is never closed; were it, there would be nothing left to bound.
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            (permit, listener.next().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end give some back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let open = Arc::new(OpenConnection {
            _permit: permit,
            cut: cut.clone(),
        });
        let (inner, of_request) = (service.clone(), Arc::clone(&open));
        let service = service_fn(move |mut request: Request<Incoming>| {
            if request.headers().contains_key(header::UPGRADE) {
                request.extensions_mut().insert(Arc::clone(&of_request));
            }
            inner.call(request)
        });
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop(open);
        });
    }

    drop(listener);
    drop(cut);
    let drained = async {
        graceful.shutdown().await;
        running.closed().await;
    };
    if tokio::time::timeout(net.drain_max, drained).await.is_err() {
        tracing::warn!("stopping: some requests took too long and were cut");
    }
}
