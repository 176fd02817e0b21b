//! What we say in place of an answer, in the words of the API that was asked, so that the client's
//! SDK understands it.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

use crate::api::ErrorShape;
use crate::{Api, Representation, Shape};

impl Shape {
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
                    // Whoever expects an array gets one.
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
