//! A request that can be sent again: its head, and as much of its body as the guest has read.
//!
//! Whatever goes wrong in a guest, the client's request still goes to the provider. So the host
//! keeps what it lends out, up to a bound, and takes it back when the guest has failed.

use crate::runtime::Prefixed;
use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::VecDeque;
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
    read: VecDeque<Frame<Bytes>>,
    /// What `read` may still grow by; `None` once it was too much to keep.
    room: Option<u64>,
}

/// Splits a request into what the host holds and what the guest gets. At most `bytes_max` of the
/// body are kept.
pub(crate) fn hold(request: Request<WasiBody>, bytes_max: u64) -> (Held, Request<WasiBody>) {
    let (parts, body) = request.into_parts();
    // A request without a body needs no watching.
    let shared = Shared {
        body: Some(body),
        read: VecDeque::new(),
        room: Some(bytes_max),
    };
    let shared = Arc::new(Mutex::new(shared));
    let lent = Lent(Arc::clone(&shared)).boxed_unsync();
    let request = Request::from_parts(parts.clone(), lent);
    (Held { parts, shared }, request)
}

impl Held {
    /// The request as it came, or `None` if the guest has read more of it than was kept.
    pub(crate) fn take_back(self) -> Option<Request<WasiBody>> {
        let mut shared = lock(&self.shared);
        shared.room?;
        let rest = shared.body.take()?;
        let read = std::mem::take(&mut shared.read);
        drop(shared);
        Some(Request::from_parts(self.parts, Prefixed::boxed(read, rest)))
    }
}

impl Held {
    /// The head, and what the guest has read of the body, unless that is more than `bytes_max`.
    pub(crate) fn seen(&self, bytes_max: usize) -> Option<(&Parts, Vec<u8>)> {
        let shared = lock(&self.shared);
        shared.room?;
        let data = shared.read.iter().filter_map(Frame::data_ref);
        let length = data.clone().map(Bytes::len).sum();
        if length > bytes_max {
            return None;
        }
        let mut read = Vec::with_capacity(length);
        data.for_each(|data| read.extend_from_slice(data));
        Some((&self.parts, read))
    }
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
        self.room = self
            .room
            .and_then(|room| room.checked_sub(data.len() as u64));
        match self.room {
            Some(_) => self.read.push_back(Frame::data(data.clone())),
            None => self.read.clear(),
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
    use http_body_util::Empty;

    fn request(parts: &[&'static str]) -> Request<WasiBody> {
        let frame = |part: &&'static str| Frame::data(Bytes::from_static(part.as_bytes()));
        let end = Empty::new().map_err(Error::from).boxed_unsync();
        Request::new(Prefixed::boxed(parts.iter().map(frame).collect(), end))
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
            let (held, mut lent) = hold(request(&["one ", "two ", "three"]), 100);
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
        let (held, lent) = hold(request(&["12345", "67890"]), 9);
        assert_eq!(text(lent).await, "1234567890");
        assert!(held.take_back().is_none());
    }

    #[tokio::test]
    async fn a_guest_that_reads_on_after_the_take_back_gets_an_error() {
        let (held, mut lent) = hold(request(&["12345"]), 9);
        assert!(held.take_back().is_some());
        assert!(lent.body_mut().frame().await.expect("frame").is_err());
    }
}
