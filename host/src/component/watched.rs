//! The body that a guest makes itself, on its way to the client. If it breaks, it must not look
//! whole, and a metric counts it.

use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::observer::RecordingObserver;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A body that drops its end of a channel when it is dropped, to tell that it is not needed any
/// more. A body whose guest has failed breaks off, and so does one that ends before its length.
pub(crate) struct Watched {
    inner: BoxBody,
    observer: Arc<dyn RecordingObserver>,
    /// The guest has failed, which is counted already.
    broken: Arc<AtomicBool>,
    _open: oneshot::Sender<()>,
}

impl Watched {
    pub(crate) fn new(
        inner: BoxBody,
        observer: Arc<dyn RecordingObserver>,
        broken: Arc<AtomicBool>,
        open: oneshot::Sender<()>,
    ) -> Self {
        Self {
            inner,
            observer,
            broken,
            _open: open,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(None) = polled {
            if self.broken.swap(false, Ordering::Acquire) {
                return Poll::Ready(Some(Err(Error::InternalError(None))));
            }
            // The rest of the length. The body below reports it only if it sees that end first.
            let left = self.inner.size_hint().lower();
            if left > 0 {
                let error = format!("it ended {left} bytes too soon");
                polled = Poll::Ready(Some(Err(Error::InternalError(Some(error)))));
            }
        }
        if let Poll::Ready(Some(Err(error))) = &polled {
            self.observer.guest_failed("stream-body");
            tracing::warn!(%error, "the body that a guest streams broke");
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::sync::Mutex;

    /// Ends at once, with this many bytes still to come.
    struct Ended(u64);

    impl Body for Ended {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(None)
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[derive(Default)]
    struct Counted(Mutex<Vec<&'static str>>);

    impl RecordingObserver for Counted {
        fn guest_failed(&self, reason: &'static str) {
            self.0.lock().unwrap().push(reason);
        }

        fn ended(&self, _: crate::exchange::observer::Outcome) {}
    }

    fn check(left: u64, broken: bool, breaks: bool, counted: &[&str]) {
        let observer = Arc::new(Counted::default());
        let (open, _ended) = oneshot::channel();
        let broken = Arc::new(AtomicBool::new(broken));
        let inner = Ended(left).boxed_unsync();
        let mut body = Watched::new(inner, Arc::clone(&observer) as _, broken, open);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = Pin::new(&mut body).poll_frame(&mut cx);
        assert_eq!(matches!(polled, Poll::Ready(Some(Err(_)))), breaks);
        assert_eq!(*observer.0.lock().unwrap(), counted);
    }

    /// One in ten bodies that were too short was not counted.
    #[test]
    fn a_body_that_ends_before_its_time_breaks_and_is_counted_once() {
        check(0, false, false, &[]);
        check(7, false, true, &["stream-body"]);
        // The trap was counted where it was seen.
        check(0, true, true, &[]);
        check(7, true, true, &[]);
    }
}
