//! An entry as an HTTP answer.

pub(crate) mod batch;
pub(crate) mod head;
pub(crate) mod pace;
pub(crate) mod rest;
pub(crate) mod samples;
mod stale;

use crate::cache::Entry;
use crate::exchange::answer::AnswerHead;
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::policy::HttpPolicy;
use head::{Header, apply};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use pace::{PacedBody, Replay};
use reflex_llm::status::X_REFLEX_SAVED_TOKENS;

/// Status, headers and body of a recorded answer, with `set` on top; none for other entries.
pub(crate) fn replayed(
    entry: &Entry,
    set: &[Header],
    policy: &HttpPolicy,
) -> Option<(StatusCode, HeaderMap, BoxBody)> {
    let AnswerHead {
        status,
        mut headers,
        notes,
    } = AnswerHead::decode(entry.metadata())?;
    apply(&mut headers, &[], set);
    if let Some(usage) = &notes.usage {
        policy.observer.saved(usage, notes.model.as_deref());
        let tokens = HeaderValue::from(usage.total_tokens);
        headers.insert(HeaderName::from_static(X_REFLEX_SAVED_TOKENS), tokens);
    }
    let payload = entry.payload();
    let body = match policy.replay {
        Replay::Paced if !notes.pace.is_empty() => {
            PacedBody::new(payload, notes.pace).boxed_unsync()
        }
        Replay::Paced | Replay::Instant => full(payload),
    };
    Some((status, headers, body))
}
