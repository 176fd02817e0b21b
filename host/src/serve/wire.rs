//! A client's socket with two checks: it bounds the wait for a client that takes nothing, and tells
//! a client that has only ended its own side from one that is gone.
//!
//! TCP looks the same in both cases. So when a client ends its side while it waits for its
//! response, the socket writes a byte that comes next in any case: the first one of `HTTP/1.1`, or
//! a leading zero of the next chunk's length. The system of a client that is gone answers with a
//! reset; a client that still reads sees a normal response.

use super::line::{Line, Response};
use super::place::Place;
use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

/// Bytes read from a client while hyper does not read, to notice its end behind them: an extra line
/// end, or the next request. A longer request hides the end until something is written.
const AHEAD_BYTES_MAX: usize = 8 << 10;
/// The beginning of every response of hyper to HTTP/1.x.
const BEGINNING: &[u8] = b"HTTP/1.";
/// Leading zeros of a chunk's length. Parsers take 16 digits, and hyper writes 8 at most.
const ZEROS_MAX: usize = 7;
/// The first pause between two looks; each next one is four times as long. The answer to a byte
/// comes after a round trip: with the first pauses, within a third of a second after one of 100 ms.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Bytes still read from a client after its last response. Closing at once would make the client's
/// system drop that response.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_MAX: Duration = Duration::from_secs(5);

/// A connection before its first byte.
pub(crate) trait Accepted: Send + 'static {
    /// What HTTP is spoken on.
    type Socket: Socket;

    /// Does what comes before HTTP: TLS, if there is any. The caller bounds its time; dropping it closes
    /// the connection.
    fn open(self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

/// A socket that can tell whether its peer is gone.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// An error that no read or write has reported yet, such as a reset.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
}

impl Socket for UnixStream {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        UnixStream::take_error(self)
    }
}

impl Accepted for UnixStream {
    type Socket = Self;

    async fn open(self) -> io::Result<Self> {
        Ok(self)
    }
}

/// A client's socket, shared between hyper and the checks here. Both are polled in one task.
pub(super) struct Wire<S>(Arc<Mutex<Inner<S>>>);

impl<S> Clone for Wire<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<S> {
    socket: S,
    /// Freed with the socket, also after an upgrade.
    _place: Place,
    line: Arc<Line>,
    /// How long the client may take nothing.
    idle_max: Duration,
    /// Until it is handed on by an upgrade.
    is_hypers: bool,
    /// The bytes read while hyper was not reading; at most `AHEAD_BYTES_MAX`.
    ahead: BytesMut,
    /// The client has ended its side.
    ended: bool,
    /// hyper waits for bytes, and will see the client's end itself.
    hyper_reads: bool,
    /// Runs while a write waits.
    stall: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
    probe: Option<Probe>,
    shut: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

/// The check whether a client that has ended its side is still there.
struct Probe {
    next: Pin<Box<Sleep>>,
    pause: Duration,
    looks: u32,
    /// Bytes of `BEGINNING` that hyper still has to write, and the client has already.
    begun: usize,
    zeros: usize,
}

impl<S: Socket> Wire<S> {
    pub(super) fn new(socket: S, place: Place, line: Arc<Line>, idle_max: Duration) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            socket,
            _place: place,
            line,
            idle_max,
            is_hypers: true,
            ahead: BytesMut::new(),
            ended: false,
            hyper_reads: false,
            stall: None,
            is_stalled: false,
            probe: None,
            shut: false,
            linger: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<S>> {
        // A socket that panicked is not used any more: its task is gone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the client is found to be gone while it waits for a response. To be polled
    /// after hyper's connection.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut inner = self.inner();
        let Some(response) = inner.line.awaits() else {
            // Unless the client has more of the response than hyper knows.
            inner.probe = inner.probe.take().filter(|probe| probe.begun > 0);
            return Poll::Pending;
        };
        if !inner.hyper_reads
            && let Err(error) = inner.read_ahead(cx)
        {
            return Poll::Ready(error);
        }
        match inner.ended {
            true => inner.poll_probe(cx, response),
            false => Poll::Pending,
        }
    }

    /// hyper's connection has ended. After an upgrade, each side of the socket ends by itself.
    pub(super) fn hand_on(&self) {
        self.inner().is_hypers = false;
    }

    /// Writes the last bytes and ends our side, as far as possible without waiting. Only for a
    /// connection on which nothing else is being written.
    pub(super) fn say_goodbye(&self, cx: &mut Context<'_>, word: &[u8]) {
        let mut inner = self.inner();
        // Best effort: the client may be gone, or take nothing.
        let _ = Pin::new(&mut inner.socket).poll_write(cx, word);
        let _ = Pin::new(&mut inner.socket).poll_shutdown(cx);
    }
}

impl<S: Socket> Inner<S> {
    /// Reads while hyper does not, to learn of the client's end.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut space = [0; 1024];
        while self.ahead.len() < AHEAD_BYTES_MAX && !self.ended {
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => {
                    self.ended = read.filled().is_empty();
                    self.ahead.extend_from_slice(read.filled());
                }
            }
        }
        Ok(())
    }

    fn poll_probe(&mut self, cx: &mut Context<'_>, response: Option<Response>) -> Poll<io::Error> {
        let probe = self.probe.get_or_insert_with(|| Probe {
            next: Box::pin(sleep(Duration::ZERO)),
            pause: LOOK_AGAIN,
            looks: 0,
            begun: 0,
            zeros: 0,
        });
        loop {
            // At once the first time: on one machine, the answer is there when the byte is written.
            if probe.looks > 0 {
                ready!(probe.next.as_mut().poll(cx));
            }
            let (byte, sent) = match response {
                Some(Response::Awaited) => (BEGINNING.get(probe.begun), &mut probe.begun),
                Some(Response::BetweenChunks) if probe.zeros < ZEROS_MAX => {
                    (Some(&b'0'), &mut probe.zeros)
                }
                _ => (None, &mut probe.zeros),
            };
            // Every second time: the reaction to a byte may take longer than the first pauses.
            if let Some(byte) = byte.filter(|_| probe.looks.is_multiple_of(2)) {
                match Pin::new(&mut self.socket).poll_write(cx, &[*byte]) {
                    Poll::Ready(Ok(count)) => *sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(error),
                    // The client takes nothing, but is there.
                    Poll::Pending => {}
                }
            }
            match self.socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Poll::Ready(error),
            }
            probe.looks = probe.looks.saturating_add(1);
            probe.next.as_mut().reset(Instant::now() + probe.pause);
            probe.pause = (probe.pause * 4).min(LOOK_AGAIN_MAX);
        }
    }

    /// Removes from hyper's bytes those that the client has already.
    fn skip_begun(&mut self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let probe = self.probe.as_mut()?;
        probe.zeros = 0;
        let begun = std::mem::take(&mut probe.begun);
        if begun == 0 {
            return None;
        }
        Some(match bytes.starts_with(&BEGINNING[..begun]) {
            true => Ok(begun),
            false => Err(io::Error::other("a response that does not begin as one")),
        })
    }

    /// Bounds the time of a write: the client must take some of it in time.
    fn timed(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.is_stalled = false;
            self.line.wrote();
            return written;
        }
        self.poll_stall(cx).map(Err)
    }

    /// Bounds the time of bytes that wait in TLS, which takes some before the socket does.
    fn timed_flush(
        &mut self,
        cx: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if flushed.is_ready() {
            if std::mem::take(&mut self.is_stalled) {
                self.line.took();
            }
            return flushed;
        }
        self.poll_stall(cx).map(Err)
    }

    /// Resolves when the client has taken nothing for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let idle_max = self.idle_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(idle_max)));
        if !self.is_stalled {
            self.is_stalled = true;
            self.line.stalled();
            stall.as_mut().reset(Instant::now() + idle_max);
        }
        ready!(stall.as_mut().poll(cx));
        let why = "the client has taken nothing for too long";
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why))
    }

    /// Reads what a client still sends until it sees our end.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 4096];
        while !self.ended {
            let mut read = ReadBuf::new(&mut space);
            match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => {
                    let count = read.filled().len();
                    let (_, left) = self
                        .linger
                        .get_or_insert_with(|| (Box::pin(sleep(LINGER_MAX)), LINGER_BYTES_MAX));
                    *left = left.saturating_sub(count);
                    self.ended = count == 0 || *left == 0;
                }
                Poll::Pending => match &mut self.linger {
                    // It sends nothing, so closing cannot cost it the response.
                    None => break,
                    Some((end, _)) => {
                        ready!(end.as_mut().poll(cx));
                        break;
                    }
                },
                Poll::Ready(Err(_)) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.hyper_reads = false;
        if !inner.ahead.is_empty() {
            let count = inner.ahead.len().min(buf.remaining());
            inner.line.heard(&inner.ahead[..count]);
            buf.put_slice(&inner.ahead[..count]);
            inner.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        if inner.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut inner.socket).poll_read(cx, buf);
        match &polled {
            Poll::Pending => inner.hyper_reads = true,
            Poll::Ready(Ok(())) => match &buf.filled()[before..] {
                [] => inner.ended = true,
                bytes => inner.line.heard(bytes),
            },
            Poll::Ready(Err(_)) => {}
        }
        polled
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        if let Some(skipped) = inner.skip_begun(bytes) {
            return Poll::Ready(skipped);
        }
        let written = Pin::new(&mut inner.socket).poll_write(cx, bytes);
        inner.timed(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        let first = parts.iter().find(|part| !part.is_empty());
        if let Some(skipped) = first.and_then(|part| inner.skip_begun(part)) {
            return Poll::Ready(skipped);
        }
        let written = Pin::new(&mut inner.socket).poll_write_vectored(cx, parts);
        inner.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner().socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let flushed = Pin::new(&mut inner.socket).poll_flush(cx);
        inner.timed_flush(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if !inner.shut {
            let shut = Pin::new(&mut inner.socket).poll_shutdown(cx);
            ready!(inner.timed_flush(cx, shut))?;
            inner.shut = true;
        }
        match inner.is_hypers {
            true => inner.poll_linger(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}
