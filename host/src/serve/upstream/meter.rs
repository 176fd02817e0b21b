//! Counts what arrives on a connection. A request may be sent again if its connection has said
//! nothing since; and when a connection pauses after its first bytes, its peer's settings are known.

use super::connect::Io;
use futures_util::task::AtomicWaker;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts the bytes that arrive on a connection.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: AtomicU64,
    /// The bytes that had arrived at the last pause.
    taken_in: AtomicU64,
    /// Whether pauses are of interest.
    is_watched: AtomicBool,
    waker: AtomicWaker,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            taken_in: AtomicU64::new(0),
            is_watched: AtomicBool::new(true),
            waker: AtomicWaker::new(),
        })
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Wakes the task when more has arrived and been read. Call it before the task checks the
    /// results.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// No task is woken from now on.
    pub(super) fn unwatch(&self) {
        self.is_watched.store(false, Ordering::Release);
    }

    fn add(&self, arrived: usize) {
        self.bytes.fetch_add(arrived as u64, Ordering::Release);
    }

    /// The reader has read all bytes that have arrived, and waits.
    fn pause(&self) {
        if !self.is_watched.load(Ordering::Acquire) {
            return;
        }
        let bytes = self.bytes();
        if self.taken_in.swap(bytes, Ordering::AcqRel) != bytes {
            self.waker.wake();
        }
    }
}

/// A connection with its meter.
///
/// A peer may answer before it has read a request, and close: then writing fails although its
/// answer can be read. So if a write meets the end, the next read reports it.
pub(super) struct Metered {
    io: TokioIo<Box<dyn Io>>,
    meter: Arc<Meter>,
    /// Whether a write has met the end of the connection. Later writes are dropped.
    is_closed: bool,
}

impl Metered {
    pub(super) fn new(io: Box<dyn Io>, meter: &Arc<Meter>) -> Self {
        Self {
            io: TokioIo::new(io),
            meter: Arc::clone(meter),
            is_closed: false,
        }
    }

    /// The result of a write of `all`, with the end of the connection left to be read.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if is_end(error.kind()) => {
                self.is_closed = true;
                Poll::Ready(Ok(all))
            }
            polled => polled,
        }
    }
}

/// Whether an error is the end of a connection.
pub(super) fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
    )
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let arrived = buf.filled().len() - before;
        match polled.is_pending() {
            true => self.meter.pause(),
            false => self.meter.add(arrived),
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Ok(data.len()));
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, data);
        self.written(polled, data.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.written(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = data.iter().map(|part| part.len()).sum();
        if self.is_closed {
            return Poll::Ready(Ok(all));
        }
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, data);
        self.written(polled, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
