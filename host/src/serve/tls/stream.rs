//! A TCP connection, with TLS or without: the same for what reads and writes it.

use super::name;
use super::server::Tls;
use crate::serve::listen::{Listen, tune};
use crate::serve::wire::{Accepted, Socket};
use http::HeaderValue;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

/// A listener whose connections begin with TLS, if it has any.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// A connection before its first byte.
pub(crate) struct Incoming {
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
}

impl Listen for Tcp {
    type Io = Incoming;

    async fn next(&self) -> io::Result<Incoming> {
        let (stream, _) = self.listener.accept().await?;
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "a connection with the system's own settings");
        }
        Ok(Incoming {
            stream,
            tls: self.tls.clone(),
        })
    }
}

impl Accepted for Incoming {
    type Socket = Stream;

    async fn open(self) -> io::Result<Stream> {
        match self.tls {
            Some(tls) => Ok(Stream::Tls(tls.accept(self.stream).await?)),
            None => Ok(Stream::Plain(self.stream)),
        }
    }
}

/// A connection that takes HTTP.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What is below TLS.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The name of the client's certificate. None without one.
    pub(crate) fn client_name(&self) -> Option<HeaderValue> {
        let Self::Tls(stream) = self else {
            return None;
        };
        let certificates = stream.get_ref().1.peer_certificates()?;
        name::of(certificates.first()?)
    }
}

impl Socket for Stream {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.tcp().take_error()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => match ready!(Pin::new(stream).poll_read(cx, buf)) {
                // The client ended its side without TLS's own word for it, as many do. HTTP tells where
                // a request ends, so nothing that was cut counts as whole.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
