//! A body with a bound on each pause, and a bound on the time for the whole.

use crate::exchange::error::Error;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A body from the network that fails after a pause of `idle_max`, and a request's also when its
/// time is up.
pub(crate) struct Timed {
    inner: Incoming,
    idle_max: Duration,
    /// How long the whole may take.
    whole_max: Option<Duration>,
    /// When the whole has to be there, if it was not there at once.
    deadline: Option<Instant>,
    /// Made at the first pause: most bodies have none.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Timed {
    /// A response's body: a model may write for any time.
    pub(crate) fn response(inner: Incoming, idle_max: Duration) -> Self {
        Self {
            inner,
            idle_max,
            whole_max: None,
            deadline: None,
            sleep: None,
            waiting: false,
        }
    }

    /// A request's body, whose head is there by now.
    pub(crate) fn request(inner: Incoming, idle_max: Duration, request_max: Duration) -> Self {
        Self {
            whole_max: Some(request_max),
            ..Self::response(inner, idle_max)
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = false;
            if frame.is_some() && this.is_late() {
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let sleep = this
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(this.idle_max)));
        if !this.waiting {
            this.waiting = true;
            let now = Instant::now();
            let pause_ends = now + this.idle_max;
            let whole_ends = this.whole_max.map(|most| now + most);
            let deadline = this.deadline.or(whole_ends);
            this.deadline = deadline;
            let ends = deadline.map_or(pause_ends, |at| at.min(pause_ends));
            sleep.as_mut().reset(ends);
        }
        sleep
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
