//! A response on its way to the client: in slices, and for HTTP/2 with a bound on the client's time
//! to take a slice.
//!
//! Over HTTP/1.x the socket itself shows that a client takes nothing. Over HTTP/2 one stream may
//! stand still while others go on, and hyper then polls neither the body nor a timer in it. So the
//! executor that hyper gives its streams to watches each of them.

use super::line::Request;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// The most of a body that hyper gets at once. hyper keeps a slice, and with it the whole buffer,
/// until the client has taken it.
const SLICE_BYTES_MAX: usize = 128 << 10;

tokio::task_local! {
    /// The HTTP/2 stream that the current task is for.
    static STREAM: Arc<Stream>;
}

/// Counts the slices that were given to hyper and the polls for more of them: while the first number
/// is ahead, the client has to take a slice.
#[derive(Debug, Default)]
struct Stream {
    given: AtomicU64,
    taken: AtomicU64,
}

/// The body of a response.
pub(super) struct Delivery<B> {
    body: B,
    /// The rest of a frame.
    rest: Bytes,
    /// Ends with this.
    _request: Option<Request>,
    /// None over HTTP/1.x.
    stream: Option<Arc<Stream>>,
}

impl<B> Delivery<B> {
    /// To be called in the task that will poll it.
    pub(super) fn new(body: B, request: Option<Request>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            _request: request,
            stream: STREAM.try_with(Arc::clone).ok(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Delivery<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if let Some(stream) = &this.stream {
            let given = stream.given.load(Ordering::Relaxed);
            stream.taken.store(given, Ordering::Relaxed);
        }
        let frame = match this.rest.is_empty() {
            false => Frame::data(std::mem::take(&mut this.rest)),
            true => match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            },
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                this.rest = data.split_off(data.len().min(SLICE_BYTES_MAX));
                Frame::data(data)
            }
            Err(other) => other,
        };
        if let Some(stream) = &this.stream {
            stream.given.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(of_body.lower().saturating_add(rest));
        hint
    }
}

/// Runs HTTP/2 streams, and resets a stream whose client takes nothing for `idle_max`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) idle_max: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(Watched {
            future: Box::pin(future),
            stream: Arc::default(),
            idle_max: self.idle_max,
            stall: None,
        });
    }
}

struct Watched<F> {
    future: Pin<Box<F>>,
    stream: Arc<Stream>,
    idle_max: Duration,
    /// Runs while the slice of that number is not taken.
    stall: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let future = this.future.as_mut();
        let polled = STREAM.sync_scope(Arc::clone(&this.stream), || future.poll(cx));
        if polled.is_ready() {
            return polled;
        }
        let given = this.stream.given.load(Ordering::Relaxed);
        if this.stream.taken.load(Ordering::Relaxed) == given {
            return Poll::Pending;
        }
        let (number, stall) = this
            .stall
            .get_or_insert_with(|| (0, Box::pin(sleep(this.idle_max))));
        if *number != given {
            *number = given;
            stall.as_mut().reset(Instant::now() + this.idle_max);
        }
        ready!(stall.as_mut().poll(cx));
        // hyper resets a stream that is dropped.
        tracing::debug!("a client has taken nothing of a stream for too long");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    #[tokio::test]
    async fn a_body_comes_in_slices_and_whole() {
        let bytes = Bytes::from(vec![7; 2 * SLICE_BYTES_MAX + 1]);
        let request = Line::new().begin(http::Version::HTTP_11);
        let mut body = Delivery::new(Full::new(bytes.clone()), Some(request));
        let mut read = Vec::new();
        for left in [2 * SLICE_BYTES_MAX + 1, SLICE_BYTES_MAX + 1, 1] {
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            assert!(!body.is_end_stream());
            let frame = body.frame().await.expect("more").expect("no error");
            let data = frame.into_data().expect("data");
            assert!(data.len() <= SLICE_BYTES_MAX);
            read.extend_from_slice(&data);
        }
        assert!(body.is_end_stream() && read == bytes);
    }

    /// A future that gives a slice and never polls for more.
    async fn stuck(polls_again: bool) {
        let stream = STREAM.with(Arc::clone);
        stream.given.fetch_add(1, Ordering::Relaxed);
        if polls_again {
            stream.taken.fetch_add(1, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_stream_that_is_not_taken_is_dropped_and_one_that_waits_is_not() {
        let watched = |polls_again, idle_max| Watched {
            future: Box::pin(stuck(polls_again)),
            stream: Arc::default(),
            idle_max,
            stall: None,
        };
        watched(false, Duration::from_millis(1)).await;
        let waits = watched(true, Duration::from_millis(1));
        tokio::time::timeout(Duration::from_millis(50), waits)
            .await
            .expect_err("it waits for the provider, not for the client");
    }
}
