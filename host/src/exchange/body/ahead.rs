//! A request's body, read before it is sent, so that its key can be made.

use crate::exchange::body::budget::Budget;
use crate::exchange::body::lent::{Given, Lender, NotHeld};
use crate::exchange::body::{Gathered, Prefixed};
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use bytes::Bytes;
use http_body::Body;
use reflex_llm::Bypass;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A body as far as it was read.
pub(crate) enum Read {
    Whole(Bytes),
    /// Why not all of it was, and the body from its first byte.
    Passes(Bypass, BoxBody),
}

impl Read {
    /// The whole body, or why it is not there; and in any case a body to send on.
    pub(crate) fn with_body(self) -> (Result<Bytes, Bypass>, BoxBody) {
        match self {
            Self::Whole(whole) => (Ok(whole.clone()), full(whole)),
            Self::Passes(why, body) => (Err(why), body),
        }
    }
}

/// Reads the whole body if it is at most `bytes_max` long, without trailers, and the budget has room for
/// it. What its lender keeps of it is not kept a second time.
pub(crate) fn read_ahead<B>(
    body: B,
    bytes_max: u64,
    budget: &Arc<Budget>,
    lender: Option<Lender>,
) -> Reading<B> {
    Reading {
        read: Some((body, Ahead::new(lender, budget))),
        bytes_max,
    }
}

/// A body that is being read. Its first poll reads what is there already: of most requests, all.
pub(crate) struct Reading<B> {
    /// None once all is read.
    read: Option<(B, Ahead)>,
    bytes_max: u64,
}

impl<B> Future for Reading<B>
where
    B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
{
    type Output = Result<Read, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let passed = loop {
            let Some((body, read)) = &mut this.read else {
                // It is not polled again.
                return Poll::Pending;
            };
            // A body of known length says that it is over; then it is not polled for an end.
            if body.is_end_stream() {
                break None;
            }
            let Some(frame) = ready!(Pin::new(body).poll_frame(cx)?) else {
                break None;
            };
            match frame.into_data() {
                Ok(data) => match read.push(&data) {
                    Ok(()) if read.length <= this.bytes_max => {}
                    Ok(()) => break Some((Bypass::BodyTooLarge, None)),
                    Err(why) => break Some((why, None)),
                },
                Err(frame) => break Some((Bypass::Trailers, frame.into_trailers().ok())),
            }
        };
        let Some((body, read)) = this.read.take() else {
            return Poll::Pending;
        };
        let read = read.into_bytes();
        Poll::Ready(Ok(match passed {
            None => Read::Whole(read),
            Some((why, trailers)) => Read::Passes(why, Prefixed::ended(read, trailers, body)),
        }))
    }
}

/// What was read ahead.
struct Ahead {
    /// Has lent the body.
    lender: Option<Lender>,
    /// Whether the lender keeps all of it.
    is_kept: bool,
    /// All of it, if the lender does not keep it.
    own: Gathered,
    length: u64,
}

impl Ahead {
    fn new(lender: Option<Lender>, budget: &Arc<Budget>) -> Self {
        if let Some(lender) = &lender {
            lender.spills(true);
        }
        Self {
            is_kept: lender.is_some(),
            lender,
            own: Gathered::new(budget),
            length: 0,
        }
    }

    /// Takes in the next part; or says why it is the last that is read ahead.
    fn push(&mut self, data: &Bytes) -> Result<(), Bypass> {
        let before = self.length;
        self.length += data.len() as u64;
        if let Some(lender) = self.lender.as_ref().filter(|_| self.is_kept) {
            match lender.gave(before, data) {
                Given::Kept => return Ok(()),
                Given::Spilled(why, kept) => {
                    self.own = kept;
                    self.is_kept = false;
                    self.own.push_beyond(data);
                    return Err(match why {
                        NotHeld::TooLong => Bypass::BodyTooLarge,
                        _ => Bypass::Memory,
                    });
                }
                Given::Other => {
                    // One of the guest's, or one that was read before.
                    if before > 0 {
                        self.own.push_beyond(&lender.share());
                    }
                    self.is_kept = false;
                    self.lender = None;
                }
            }
        }
        if self.own.push(data) {
            return Ok(());
        }
        self.own.push_beyond(data);
        Err(Bypass::Memory)
    }

    fn into_bytes(self) -> Bytes {
        let Some(lender) = self.lender else {
            return self.own.into_bytes();
        };
        lender.spills(false);
        if self.is_kept {
            return lender.share();
        }
        let bytes = self.own.into_bytes();
        lender.passes(bytes.clone());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::body::lent::lend;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};

    fn body(parts: &[&'static str]) -> BoxBody {
        let frame = |part: &&'static str| Ok(Frame::data(Bytes::from_static(part.as_bytes())));
        let frames: Vec<_> = parts.iter().map(frame).collect();
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    async fn text(body: BoxBody) -> String {
        let bytes = body.collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    const PARTS: [&str; 3] = ["12345", "67890", "abc"];
    const WHOLE: &str = "1234567890abc";

    /// A body that says that it is over is not asked for more.
    #[tokio::test]
    async fn a_body_of_known_length_is_polled_once_for_each_frame() {
        struct Once(Option<Bytes>);
        impl Body for Once {
            type Data = Bytes;
            type Error = Error;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                let data = self.0.take().expect("it has said that it is over");
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            fn is_end_stream(&self) -> bool {
                self.0.is_none()
            }
        }
        let body = Once(Some(Bytes::from_static(b"whole")));
        let read = read_ahead(body, 100, &Budget::new(100), None).await;
        let (whole, again) = read.expect("a body").with_body();
        assert_eq!(whole.as_deref(), Ok(&b"whole"[..]));
        assert_eq!(text(again).await, "whole");
    }

    /// It was held twice, and counted twice.
    #[tokio::test]
    async fn a_body_that_was_lent_is_held_once() {
        let budget = Budget::new(1000);
        let (lender, lent) = lend(body(&PARTS), 100, &budget);
        let (whole, again) = read_ahead(lent, 100, &budget, Some(lender.clone()))
            .await
            .expect("a body")
            .with_body();
        assert_eq!(whole.as_deref(), Ok(WHOLE.as_bytes()));
        assert_eq!(budget.held(), 13);
        assert!(lender.has(0, &whole.expect("whole")));
        assert_eq!(text(again).await, WHOLE);
        let back = lender.take_back().expect("kept");
        assert_eq!(text(back).await, WHOLE);
        drop(lender);
        assert_eq!(budget.held(), 0);
    }

    /// Whatever bound is met, by the reader or its lender, all of the body goes on.
    #[tokio::test]
    async fn what_is_too_much_goes_on_whole_and_is_known_again() {
        for (kept_max, room, ahead_max, expected) in [
            (100, 1000, 12, Bypass::BodyTooLarge),
            (12, 1000, 12, Bypass::BodyTooLarge),
            (12, 1000, 100, Bypass::BodyTooLarge),
            (7, 1000, 7, Bypass::BodyTooLarge),
            (100, 12, 100, Bypass::Memory),
            (100, 7, 100, Bypass::Memory),
            (100, 3, 100, Bypass::Memory),
        ] {
            for is_lent in [true, false] {
                let budget = Budget::new(room);
                let (lender, lent) = lend(body(&PARTS), kept_max, &budget);
                let (lender, lent) = match is_lent {
                    true => (Some(lender), lent),
                    false => (None, body(&PARTS)),
                };
                // Without a lender, only the reader's bound counts.
                let ahead_max = match is_lent {
                    true => ahead_max,
                    false => ahead_max.min(kept_max),
                };
                let (whole, mut again) = read_ahead(lent, ahead_max, &budget, lender.clone())
                    .await
                    .expect("a body")
                    .with_body();
                assert_eq!(whole, Err(expected));
                let mut read = Vec::new();
                while let Some(frame) = again.frame().await {
                    let data = frame.expect("no error").into_data().expect("data");
                    if let Some(lender) = &lender {
                        assert!(lender.has(read.len() as u64, &data));
                    }
                    read.extend_from_slice(&data);
                }
                assert_eq!(read, WHOLE.as_bytes());
                drop((again, lender));
                assert_eq!(budget.held(), 0);
            }
        }
    }

    /// A guest may ask for the body of a request of its own.
    #[tokio::test]
    async fn a_body_that_is_another_is_read_as_it_is() {
        let budget = Budget::new(1000);
        let (lender, lent) = lend(body(&PARTS), 100, &budget);
        let (whole, again) = read_ahead(body(&["else"]), 100, &budget, Some(lender.clone()))
            .await
            .expect("a body")
            .with_body();
        assert_eq!(whole.as_deref(), Ok(&b"else"[..]));
        assert_eq!(text(again).await, "else");
        // And the same once more.
        let (whole, again) = read_ahead(lent, 100, &budget, Some(lender.clone()))
            .await
            .expect("a body")
            .with_body();
        assert_eq!(whole.as_deref(), Ok(WHOLE.as_bytes()));
        let (whole, again) = read_ahead(again, 100, &budget, Some(lender))
            .await
            .expect("a body")
            .with_body();
        assert_eq!(whole.as_deref(), Ok(WHOLE.as_bytes()));
        assert_eq!(text(again).await, WHOLE);
    }
}
