//! Our own errors, in the words of the requested API, so that the client's SDK understands them.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use crate::api::ErrorShape;
use crate::request::query;
use crate::rules::path;
use crate::{Api, Head, PathRule, Representation, Shape};

/// The headers of our own errors. Pages may read them, to learn that the provider is down, or that
/// nothing is cached. An error says no more than that, so any origin may read it. Without
/// `access-control-allow-credentials`, a page cannot read responses to requests with another site's
/// cookies.
pub const ERROR_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/json"),
    ("access-control-allow-origin", "*"),
];

/// Headers that only clients of one vendor send, for paths of unknown APIs:
/// `/v1/messages/count_tokens`, `/v1beta/models`.
pub const VENDOR_HEADERS: [(&str, Api); 4] = [
    ("anthropic-version", Api::AnthropicMessages),
    ("anthropic-beta", Api::AnthropicMessages),
    ("x-goog-api-client", Api::GeminiGenerateContent),
    ("x-goog-api-key", Api::GeminiGenerateContent),
];

impl Shape {
    /// The API whose errors a client understands, for any request: the API at its path, else that
    /// of the vendor whose headers it has, else OpenAI's, which most clients read. Only path and
    /// headers of the head matter.
    pub fn of_errors(head: &Head<'_>, rules: &[PathRule]) -> Self {
        let has = |name: &str| head.values(name).next().is_some();
        let vendor = || VENDOR_HEADERS.iter().find(|(name, _)| has(name));
        let api = path::api_at(head.path, rules)
            .ok()
            .or_else(|| vendor().map(|&(_, api)| api))
            .unwrap_or(Api::ChatCompletions);
        let representation = query::representation(api, head.path);
        Self::new(api, representation.unwrap_or(Representation::Json))
    }

    /// The JSON body of an error with this HTTP status. A client that asked for a stream gets the
    /// same: an error before the first event is no stream.
    pub fn error_body(self, status: u16, message: &str) -> String {
        let message = quoted(message);
        match self.api.row().error {
            ErrorShape::OpenAi => format!(
                r#"{{"error":{{"message":{message},"type":"gateway_error","param":null,"code":"{status}"}}}}"#
            ),
            ErrorShape::Anthropic => {
                let kind = match status {
                    400 => "invalid_request_error",
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    504 => "timeout_error",
                    529 => "overloaded_error",
                    _ => "api_error",
                };
                format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#)
            }
            ErrorShape::Google => {
                let name = match status {
                    400 => "INVALID_ARGUMENT",
                    401 => "UNAUTHENTICATED",
                    403 => "PERMISSION_DENIED",
                    404 => "NOT_FOUND",
                    429 => "RESOURCE_EXHAUSTED",
                    503 => "UNAVAILABLE",
                    504 => "DEADLINE_EXCEEDED",
                    _ => "INTERNAL",
                };
                let error = format!(
                    r#"{{"error":{{"code":{status},"message":{message},"status":"{name}"}}}}"#
                );
                match self.representation {
                    // The client expects an array.
                    Representation::Json if self.api == Api::GeminiStreamGenerateContent => {
                        format!("[{error}]")
                    }
                    _ => error,
                }
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Writing to a string does not fail.
            '\0'..='\u{1f}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
