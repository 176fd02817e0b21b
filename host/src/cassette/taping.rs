//! An answer on its way to the client, and into a file when it has ended.
//!
//! The answer is read to its end even when the client leaves: what is written is what the provider said.

use super::asked::Asked;
use super::body::Body;
use super::events::Arrival;
use super::file::{Answer, Exchange, is_of_connection};
use super::redact::Redactor;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use reflex_llm::is_event_stream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Longest answer that is recorded.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Frames on their way to a client. The provider waits for a client that reads more slowly.
const FRAMES_MAX: usize = 16;

/// Headers of answers that differ with each answer and mean nothing to a replay, or that are the account's alone.
const LEFT_OUT_HEADERS: [&str; 6] = [
    "alt-svc",
    "cf-ray",
    "date",
    "set-cookie",
    "set-cookie2",
    "via",
];

/// The head of an answer as it is recorded.
pub(super) struct Head {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_events: bool,
    is_encoded: bool,
}

impl Head {
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, redactor: &Redactor) -> Self {
        let kept = headers.iter().filter_map(|(name, value)| {
            let is_left_out =
                LEFT_OUT_HEADERS.contains(&name.as_str()) || is_of_connection(name.as_str());
            let text = value.to_str().ok().filter(|_| !is_left_out)?;
            let value = HeaderValue::from_str(&redactor.header(name.as_str(), text)).ok()?;
            Some((name.clone(), value))
        });
        let kind = headers.get(http::header::CONTENT_TYPE);
        let is_events = kind.is_some_and(|kind| is_event_stream(kind.as_bytes()));
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let is_encoded = codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        Self {
            status,
            headers: kept.collect(),
            is_events,
            is_encoded,
        }
    }
}

/// What has come of an answer.
pub(super) struct Taped {
    head: Head,
    bytes: BytesMut,
    arrivals: Vec<Arrival>,
    is_cut: bool,
    is_too_long: bool,
}

impl Taped {
    /// The exchange to be written.
    ///
    /// # Errors
    ///
    /// Why it is not recorded.
    pub(super) fn exchange(self, asked: Asked, redactor: &Redactor) -> Result<Exchange, String> {
        if self.is_too_long {
            return Err(format!(
                "its answer is longer than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        if self.head.is_encoded {
            let why = "its answer is compressed, though that was not asked for, and may hold a credential";
            return Err(why.into());
        }
        let bytes = self.bytes.freeze();
        let body = Body::of_answer(&bytes, self.head.is_events, &self.arrivals, redactor);
        let body = body.ok_or("its answer is no text and holds the request's credential")?;
        let answer = Answer {
            status: self.head.status,
            headers: self.head.headers,
            body,
            is_cut: self.is_cut,
        };
        Ok(Exchange { asked, answer })
    }
}

/// The client's response, whose body a task passes on. `done` is called with the whole before the client has the
/// end, so that a client that has its answer has its file.
pub(super) fn tape<F>(
    response: Response<BoxBody>,
    head: Head,
    sent: Instant,
    done: impl FnOnce(Taped) -> F + Send + 'static,
) -> (Response<BoxBody>, impl Future<Output = ()> + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let (parts, mut body) = response.into_parts();
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let size = body.size_hint();
    let passing = async move {
        let mut taped = Taped {
            head,
            bytes: BytesMut::new(),
            arrivals: Vec::new(),
            is_cut: false,
            is_too_long: false,
        };
        // The client's last frame, which is held back until the file is there.
        let mut last: Option<Result<Frame<Bytes>, Error>> = None;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        taped.add(data, sent);
                    }
                    if body.is_end_stream() {
                        last = Some(Ok(frame));
                        break;
                    }
                    // A client that has left reads nothing; the answer is read on.
                    let _ = sender.send(Ok(frame)).await;
                }
                Some(Err(error)) => {
                    taped.is_cut = true;
                    last = Some(Err(error));
                    break;
                }
                None => break,
            }
        }
        done(taped).await;
        if let Some(held) = last {
            let _ = sender.send(held).await;
        }
    };
    let body = Passed {
        frames,
        size,
        error: None,
    };
    let body = body.boxed_unsync();
    (Response::from_parts(parts, body), passing)
}

impl Taped {
    fn add(&mut self, data: &Bytes, sent: Instant) {
        if self.is_too_long || self.bytes.len() + data.len() > ANSWER_BYTES_MAX {
            self.is_too_long = true;
            self.bytes = BytesMut::new();
            self.arrivals = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(data);
        if self.head.is_events {
            let at_ms = sent.elapsed().as_millis() as u64;
            match self.arrivals.last_mut() {
                // Of the same millisecond.
                Some((end, ms)) if *ms == at_ms => *end = self.bytes.len(),
                _ => self.arrivals.push((self.bytes.len(), at_ms)),
            }
        }
    }
}

/// A body that a task passes on.
struct Passed {
    frames: mpsc::Receiver<Result<Frame<Bytes>, Error>>,
    size: SizeHint,
    /// The error that ends it, for the next poll.
    error: Option<Error>,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.frames.poll_recv(cx)) {
            Some(Err(error)) => {
                // hyper sends what it has when a body has to wait, and not when it fails.
                self.error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
