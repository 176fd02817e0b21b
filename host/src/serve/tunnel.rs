//! Connections upgraded from HTTP, mostly WebSockets: the bytes of the client and the provider pass
//! untouched, until either ends.

use super::hop::connection_names;
use super::place::OpenConnection;
use http::header::{self, HeaderValue};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::Instant;

/// The protocols that a request asks its connection to switch to, if it needs a tunnel. HTTP/2 does
/// not count: clients offer it with any request, and work without it.
pub(crate) fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE)?;
    let protocols = upgrade.to_str().ok()?;
    let is_http = |protocol: &str| {
        let protocol = protocol.trim().to_ascii_lowercase();
        protocol.is_empty()
            || protocol == "h2c"
            || protocol.starts_with("http/")
            || protocol.starts_with("tls/")
    };
    let is_for_tunnel = request.version() == Version::HTTP_11
        && connection_names(headers, "upgrade")
        && !protocols.split(',').all(is_http);
    is_for_tunnel.then(|| upgrade.clone())
}

/// Passes bytes both ways, after both sides were told to switch. Ends when both sides have ended,
/// when neither has sent anything for `idle_max`, and when the client's connection has to close.
pub(super) fn pass(
    client: OnUpgrade,
    provider: OnUpgrade,
    idle_max: Duration,
    open: Arc<OpenConnection>,
) {
    tokio::spawn(async move {
        let (client, provider) = match tokio::try_join!(client, provider) {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a tunnel was not begun"),
        };
        let active = Arc::new(Active::now());
        let mut client = Side::new(TokioIo::new(client), &active);
        let mut provider = Side::new(TokioIo::new(provider), &active);
        tokio::select! {
            copied = copy_bidirectional(&mut client, &mut provider) => match copied {
                Ok((sent, received)) => tracing::debug!(sent, received, "a tunnel ended"),
                Err(error) => tracing::debug!(%error, "a tunnel broke"),
            },
            () = active.silent_for(idle_max) => tracing::debug!("a tunnel was silent for too long"),
            () = open.cut() => tracing::debug!("a tunnel was cut: stopping"),
        }
    });
}

/// When either side has last sent something.
struct Active {
    began: Instant,
    /// Milliseconds since `began`.
    last: AtomicU64,
}

impl Active {
    fn now() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn mark(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    async fn silent_for(&self, most: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let end = self.began + last + most;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// One side of a tunnel, which marks what it receives.
struct Side<T> {
    io: T,
    active: Arc<Active>,
}

impl<T> Side<T> {
    fn new(io: T, active: &Arc<Active>) -> Self {
        Self {
            io,
            active: Arc::clone(active),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Side<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.active.mark();
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Side<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websockets_are_for_tunnels_and_http2_is_not() {
        let check = |connection: &'static str, upgrade: &'static str, expected: bool| {
            let mut request = Request::new(());
            for (name, value) in [("connection", connection), ("upgrade", upgrade)] {
                if !value.is_empty() {
                    let value = HeaderValue::from_static(value);
                    request.headers_mut().append(name, value);
                }
            }
            assert_eq!(
                wanted(&request).is_some(),
                expected,
                "{connection} {upgrade}"
            );
            *request.version_mut() = Version::HTTP_2;
            assert_eq!(wanted(&request), None, "{connection} {upgrade}, HTTP/2");
        };
        check("Upgrade", "websocket", true);
        check("keep-alive, upgrade", "WebSocket", true);
        check("Upgrade", "h2c, websocket", true);
        check("upgrade", "anything/1", true);
        check("upgrade, http2-settings", "h2c", false);
        check("upgrade", "TLS/1.0, HTTP/1.1", false);
        check("keep-alive", "websocket", false);
        check("", "websocket", false);
        check("upgrade", "", false);
    }
}
