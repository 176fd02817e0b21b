//! A body that may pause, but not for ever.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::Error;

/// A body from the network that fails after a pause of `idle_max`.
pub(crate) struct Timed {
    inner: Incoming,
    idle_max: Duration,
    /// Made at the first pause: most bodies have none.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Timed {
    pub(crate) fn new(inner: Incoming, idle_max: Duration) -> Self {
        Self {
            inner,
            idle_max,
            sleep: None,
            waiting: false,
        }
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
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let sleep = this
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(this.idle_max)));
        if !this.waiting {
            this.waiting = true;
            sleep.as_mut().reset(Instant::now() + this.idle_max);
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
