//! A request that can be sent again: its head, and as much of its body as the guest has read.
//!
//! Whatever goes wrong in a guest, the client's request still goes to the provider. So the host
//! keeps what it lends out, up to a bound, and takes it back when the guest has failed.

use crate::runtime::{Budget, Gathered, Prefixed};
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use wasmtime_wasi_http::{Error, WasiBody};

/// The request as the host holds it while a guest works on it.
pub(crate) struct Held {
    parts: Parts,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    /// Gone once it has been taken back.
    body: Option<WasiBody>,
    /// What the guest has read, if that was not too much to keep.
    read: Result<Gathered, NotHeld>,
    /// The most that is kept.
    bytes_max: u64,
}

/// Splits a request into what the host holds and what the guest gets. At most `bytes_max` of the
/// body are kept, and no more than the budget has room for.
pub(crate) fn hold(
    request: Request<WasiBody>,
    bytes_max: u64,
    budget: &Arc<Budget>,
) -> (Held, Request<WasiBody>) {
    let (parts, body) = request.into_parts();
    let shared = Shared {
        body: Some(body),
        read: Ok(Gathered::new(budget)),
        bytes_max,
    };
    let shared = Arc::new(Mutex::new(shared));
    let lent = Lent(Arc::clone(&shared)).boxed_unsync();
    let request = Request::from_parts(parts.clone(), lent);
    (Held { parts, shared }, request)
}

impl Held {
    /// The request as it came.
    ///
    /// # Errors
    ///
    /// The guest has read more of it than was kept.
    pub(crate) fn take_back(self) -> Result<Request<WasiBody>, NotHeld> {
        let mut shared = lock(&self.shared);
        let read = match &mut shared.read {
            Ok(read) => read.take(),
            Err(lost) => return Err(*lost),
        };
        let Some(rest) = shared.body.take() else {
            return Err(NotHeld::TooLong);
        };
        drop(shared);
        let body = Prefixed::boxed(read.into_bytes(), rest);
        Ok(Request::from_parts(self.parts, body))
    }

    /// The head, and what the guest has read of the body, unless that is more than `bytes_max`.
    pub(crate) fn seen(&self, bytes_max: usize) -> Option<(&Parts, Vec<u8>)> {
        let shared = lock(&self.shared);
        let read = shared.read.as_ref().ok()?.bytes();
        (read.len() <= bytes_max).then(|| (&self.parts, read.to_vec()))
    }
}

/// Why a request cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// It is longer than what is kept of a request.
    TooLong,
    /// All requests together hold as much as they may.
    NoMemory,
}

/// The guest's side of the body.
struct Lent(Arc<Mutex<Shared>>);

impl Body for Lent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = lock(&self.0);
        let Some(body) = &mut shared.body else {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            shared.keep(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0)
            .body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        // Trailers of a request are not kept: no API for LLMs has any.
        let Some(data) = frame.data_ref() else { return };
        let Ok(read) = &mut self.read else { return };
        if (read.len() + data.len()) as u64 > self.bytes_max {
            self.read = Err(NotHeld::TooLong);
        } else if !read.push(data) {
            self.read = Err(NotHeld::NoMemory);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // A body that panicked while it was polled leaves nothing half-changed here.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;

    fn request(parts: &[&'static str]) -> Request<WasiBody> {
        let frame = |part: &&'static str| Ok(Frame::data(Bytes::from_static(part.as_bytes())));
        let frames: Vec<_> = parts.iter().map(frame).collect();
        Request::new(StreamBody::new(stream::iter(frames)).boxed_unsync())
    }

    fn roomy() -> Arc<Budget> {
        Budget::new(1000)
    }

    async fn text(request: Request<WasiBody>) -> String {
        let bytes = request
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn what_the_guest_has_read_comes_back() {
        for frames in 0..=3 {
            let (held, mut lent) = hold(request(&["one ", "two ", "three"]), 100, &roomy());
            for _ in 0..frames {
                lent.body_mut().frame().await.expect("frame").expect("data");
            }
            drop(lent);
            let again = held.take_back().expect("kept");
            assert_eq!(text(again).await, "one two three", "after {frames} frames");
        }
    }

    #[tokio::test]
    async fn more_than_the_bound_is_not_kept() {
        let (held, lent) = hold(request(&["12345", "67890"]), 9, &roomy());
        assert_eq!(text(lent).await, "1234567890");
        assert_eq!(held.take_back().err(), Some(NotHeld::TooLong));
    }

    /// It goes to the guest all the same, and to the provider.
    #[tokio::test]
    async fn what_finds_no_room_in_memory_is_not_kept() {
        let budget = Budget::new(7);
        let (held, mut lent) = hold(request(&["12345", "67890"]), 100, &budget);
        let first = lent
            .body_mut()
            .frame()
            .await
            .expect("a frame")
            .expect("data");
        assert_eq!(
            (first.data_ref().map(Bytes::len), budget.held()),
            (Some(5), 5)
        );
        assert_eq!(text(lent).await, "67890");
        assert_eq!(budget.held(), 0);
        assert_eq!(held.take_back().err(), Some(NotHeld::NoMemory));
    }

    #[tokio::test]
    async fn a_request_that_is_over_holds_nothing() {
        let budget = roomy();
        let (held, lent) = hold(request(&["12345", "67890"]), 100, &budget);
        assert_eq!(text(lent).await, "1234567890");
        assert_eq!(budget.held(), 10);
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_guest_that_reads_on_after_the_take_back_gets_an_error() {
        let (held, mut lent) = hold(request(&["12345"]), 9, &roomy());
        assert!(held.take_back().is_ok());
        assert!(lent.body_mut().frame().await.expect("frame").is_err());
    }
}
