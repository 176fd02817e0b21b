//! A refusal of the admin API: a status, a word for programs, and a sentence for people.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{StatusCode, header::HeaderMap};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt::Display;

/// A reply that refuses the request.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: &'static str, message: impl Display) -> Self {
        Self {
            status,
            reason,
            message: message.to_string(),
        }
    }

    pub(crate) fn bad(reason: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, message)
    }

    pub(crate) fn forbidden(reason: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, message)
    }

    pub(crate) fn unavailable(reason: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, message)
    }

    pub(crate) fn failed(message: impl Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    /// Many scans, or imports, are under way.
    pub(crate) fn busy(what: &str) -> Self {
        Self::unavailable("busy", format!("{what}; try again when it is done"))
    }

    pub(crate) fn too_large(most: u64) -> Self {
        let message = format!("the body of this request has at most {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    /// Status, word and sentence, for another form of refusals.
    pub(crate) fn into_parts(self) -> (StatusCode, &'static str, String) {
        (self.status, self.reason, self.message)
    }
}

#[derive(Serialize)]
struct Told<'a> {
    reason: &'a str,
    message: &'a str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let told = Told {
            reason: self.reason,
            message: &self.message,
        };
        let mut response = json(&told);
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let headers: &mut HeaderMap = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A reply as JSON, with a line end for people.
pub(crate) fn json(value: &impl Serialize) -> Response {
    // Structs of strings and numbers can always be written.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
