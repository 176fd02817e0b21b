//! An entry as an HTTP answer.

pub(crate) mod batch;
pub(crate) mod head;
pub(crate) mod pace;
pub(crate) mod rest;
pub(crate) mod samples;
mod stale;

use crate::cache::Entry;
use crate::exchange::answer::StoredHead;
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::policy::HttpPolicy;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use pace::{PacedBody, Replay};
use reflex_llm::status::X_REFLEX_SAVED_TOKENS;

const SAVED_TOKENS: HeaderName = HeaderName::from_static(X_REFLEX_SAVED_TOKENS);

/// Status, headers and body of a recorded answer, with what `set` puts on top; none for other entries.
pub(crate) fn replayed(
    entry: &Entry,
    policy: &HttpPolicy,
    set: impl FnOnce(&mut HeaderMap),
) -> Option<(StatusCode, HeaderMap, BoxBody)> {
    let stored = StoredHead::read(entry.metadata())?;
    let mut headers = stored.headers()?;
    set(&mut headers);
    if let Some(usage) = &stored.usage {
        policy.observer.saved(usage, stored.model);
        headers.insert(SAVED_TOKENS, head::number(usage.total_tokens));
    }
    let payload = entry.payload();
    let body = match policy.replay {
        Replay::Paced if stored.has_pace() => PacedBody::new(payload, stored.pace()).boxed_unsync(),
        Replay::Paced | Replay::Instant => full(payload),
    };
    Some((stored.status, headers, body))
}
