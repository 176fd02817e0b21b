//! A recording as an answer.

use super::Pace;
use super::file::Answer;
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use std::collections::VecDeque;
use std::time::Duration;

/// Longest delay that is kept: a file may claim any.
const DELAY_MAX: Duration = Duration::from_secs(600);

/// The response that a recording is.
pub(super) fn response(answer: &Answer, method: &Method, pace: Pace) -> Response<BoxBody> {
    let parts = answer.body.restored();
    let body = match pace {
        _ if *method == Method::HEAD => Empty::new().map_err(Error::from).boxed_unsync(),
        Pace::Recorded => in_parts(parts, answer.is_cut),
        Pace::Instant if answer.is_cut => {
            let whole = parts.into_iter().flat_map(|(_, part)| part).collect();
            in_parts(vec![(0, whole)], true)
        }
        Pace::Instant => match <[_; 1]>::try_from(parts) {
            Ok([(_, whole)]) => full(whole),
            Err(parts) => {
                let length = parts.iter().map(|(_, part)| part.len()).sum();
                let mut whole = Vec::with_capacity(length);
                parts
                    .iter()
                    .for_each(|(_, part)| whole.extend_from_slice(part));
                full(whole)
            }
        },
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    for (name, value) in &answer.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    response
}

/// The parts, each after its delay; and then an end, or the connection's.
fn in_parts(parts: Vec<(u64, Bytes)>, is_cut: bool) -> BoxBody {
    let rest = VecDeque::from(parts);
    let frames = stream::unfold((rest, is_cut), |(mut rest, is_cut)| async move {
        match rest.pop_front() {
            Some((after_ms, part)) => {
                let delay = Duration::from_millis(after_ms).min(DELAY_MAX);
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                Some((Ok(Frame::data(part)), (rest, is_cut)))
            }
            None if is_cut => {
                // hyper sends what it has when a body has to wait, and not when it fails.
                tokio::task::yield_now().await;
                Some((Err(Error::ConnectionTerminated), (rest, false)))
            }
            None => None,
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
