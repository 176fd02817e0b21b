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

/// What has arrived on one connection.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: AtomicU64,
    /// What had arrived at the last pause.
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

    /// Has the task woken when more has arrived and been taken in. To be called before the task
    /// looks at what that changes.
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

    /// The reader has taken in all that has arrived, and waits.
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
pub(super) struct Metered {
    io: TokioIo<Box<dyn Io>>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(super) fn new(io: Box<dyn Io>, meter: &Arc<Meter>) -> Self {
        Self {
            io: TokioIo::new(io),
            meter: Arc::clone(meter),
        }
    }
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
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
