//! A refusal of the edge API: a status, a word for programs and a sentence for people.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use reflex_llm::{Dropped, Rejected};
use std::fmt::Display;

/// A reply that refuses the request.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: &'static str,
    why: String,
    /// The methods that would be allowed.
    allow: Option<&'static str>,
}

impl Refusal {
    /// `reason` and `why` are ours and need no escaping.
    pub(crate) fn new(status: StatusCode, reason: &'static str, why: impl Display) -> Self {
        Self {
            status,
            reason,
            why: why.to_string(),
            allow: None,
        }
    }

    /// The request is not well-formed.
    pub(crate) fn bad(reason: &'static str, why: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, why)
    }

    pub(crate) fn miss() -> Self {
        Self::new(StatusCode::NOT_FOUND, "miss", "no such entry")
    }

    pub(crate) fn too_large(most: u64) -> Self {
        let why = format!("an entry has at most {most} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Rejected::TooLarge.detail(),
            why,
        )
    }

    pub(crate) fn headers_too_large(most: u64) -> Self {
        let why = format!("the headers that are kept have at most {most} bytes in all");
        let reason = Dropped::HeadersTooLarge.detail();
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason, why)
    }

    pub(crate) fn busy() -> Self {
        let why = "the disk does not keep up";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Dropped::Busy.detail(), why)
    }

    pub(crate) fn no_memory() -> Self {
        let why = "all requests together hold as much as inflight_bytes_max lets them";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "memory", why)
    }

    pub(crate) fn purged() -> Self {
        let why = "a purge came after that epoch";
        Self::new(StatusCode::CONFLICT, Dropped::Purged.detail(), why)
    }

    /// Why a well-formed answer was not kept, if this refuses one.
    pub(crate) fn not_kept(&self) -> Option<&'static str> {
        // A body without its proper end is a cut answer.
        let reason = match self.reason {
            "body" => Rejected::Cut.detail(),
            reason => reason,
        };
        let is_known =
            Rejected::from_detail(reason).is_some() || Dropped::from_detail(reason).is_some();
        is_known.then_some(reason)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let why = format!("here one may {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            reason,
            why,
            allow,
        } = self;
        let body = format!("{{\"reason\":\"{reason}\",\"message\":\"{why}\"}}\n");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        headers.extend(allow.map(|allow| (ALLOW, HeaderValue::from_static(allow))));
        response
    }
}
