//! Responses of the provider: bodies that come whole or frame by frame, and what is around them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::completion;
use crate::upstream::Call;

/// A response's body: whole, or frame by frame.
pub(crate) enum Reply {
    Whole(Option<Bytes>),
    Frames {
        frames: mpsc::Receiver<io::Result<Bytes>>,
        length: Option<u64>,
    },
}

impl Reply {
    /// With a `content-length`, whatever comes then.
    pub(crate) fn promising(self, bytes: u64) -> Self {
        match self {
            Self::Frames { frames, .. } => Self::Frames {
                frames,
                length: Some(bytes),
            },
            whole => whole,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Frames { frames, .. } => frames
                .poll_recv(context)
                .map(|frame| frame.map(|frame| frame.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Frames {
                length: Some(bytes),
                ..
            } => SizeHint::with_exact(*bytes),
            Self::Frames { length: None, .. } => SizeHint::default(),
        }
    }
}

pub(crate) fn models() -> Bytes {
    Bytes::from_static(
        br#"{"object":"list","data":[{"id":"mock","object":"model","owned_by":"tests"}]}"#,
    )
}

/// Lets a page send any request.
pub(crate) fn preflight(call: &Call) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let wanted = call.header("access-control-request-headers");
    set(&mut response, "access-control-allow-headers", wanted);
    set(&mut response, "access-control-allow-methods", "POST");
    // A browser remembers it for so many seconds, and does not ask again.
    set(&mut response, "access-control-max-age", "600");
    response
}

pub(crate) fn refuse(status: u16, message: &str) -> Response<Reply> {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, completion::error(status, message))
}

pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Reply> {
    json_of(status, Reply::Whole(Some(body)))
}

pub(crate) fn json_of(status: StatusCode, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    set(&mut response, "content-type", "application/json");
    response
}

pub(crate) fn events(body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    set(
        &mut response,
        "content-type",
        "text/event-stream; charset=utf-8",
    );
    // Providers say this on every stream.
    set(&mut response, "cache-control", "no-cache");
    response
}

pub(crate) fn set(response: &mut Response<Reply>, name: &'static str, value: &str) {
    let value = value.parse().expect("a header value that this file spells");
    response.headers_mut().insert(name, value);
}

/// The bytes as a gzip member of one stored block: compressed by name only.
///
/// # Panics
///
/// If there are more bytes than a stored block holds.
pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let length = u16::try_from(bytes.len()).expect("an answer that fits a stored block");
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    member.extend(length.to_le_bytes());
    member.extend((!length).to_le_bytes());
    member.extend(bytes);
    member.extend(crc32(bytes).to_le_bytes());
    member.extend(u32::from(length).to_le_bytes());
    Bytes::from(member)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
