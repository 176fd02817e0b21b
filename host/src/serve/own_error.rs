//! Our own errors, in the words of the requested API, so that SDKs raise their usual errors.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use reflex_llm::{ERROR_HEADERS, Head, PathRule, Shape, VENDOR_HEADERS};
use std::sync::Arc;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, WasiBody};

/// Kept of a request until its answer: the API in whose words to report an error. It costs some
/// lookups in the request's headers.
#[derive(Debug)]
pub(crate) struct ErrorVoice {
    target: Uri,
    /// A header that only clients of one vendor send.
    vendor: Option<&'static str>,
    rules: Arc<[PathRule]>,
    /// A `HEAD` request: its client reads no body, but over HTTP/2 hyper would send one.
    is_head: bool,
}

impl ErrorVoice {
    /// Of a request to this path at the provider.
    pub(crate) fn of(target: &Uri, request: &Parts, rules: &Arc<[PathRule]>) -> Self {
        let has = |name: &&str| request.headers.contains_key(*name);
        Self {
            target: target.clone(),
            vendor: VENDOR_HEADERS
                .iter()
                .map(|(name, _)| *name)
                .find(|name| has(name)),
            rules: Arc::clone(rules),
            is_head: request.method == Method::HEAD,
        }
    }

    /// An error of ours.
    pub(crate) fn error(&self, status: StatusCode, message: &str) -> Response<WasiBody> {
        let headers: Vec<(&str, &[u8])> =
            self.vendor.iter().map(|name| (*name, &b""[..])).collect();
        let head = Head {
            method: "",
            upstream: "",
            path: self.target.path_and_query().map_or("", |it| it.as_str()),
            headers: &headers,
        };
        let shape = Shape::of_errors(&head, &self.rules);
        let body = shape.error_body(status.as_u16(), &format!("reflex-edge: {message}"));
        let length = HeaderValue::from(body.len());
        let sent = match self.is_head {
            true => Bytes::new(),
            false => Bytes::from(body),
        };
        let body = Full::new(sent).map_err(Error::from).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_LENGTH, length);
        for (name, value) in ERROR_HEADERS {
            let name = HeaderName::from_static(name);
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The client's response when the provider could not be reached: the status of a gateway.
    pub(crate) fn gateway_error(&self, code: &ErrorCode) -> Response<WasiBody> {
        let (status, reason) = match code {
            ErrorCode::ConnectionRefused => (StatusCode::BAD_GATEWAY, "it refused the connection"),
            ErrorCode::ConnectionTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "connecting took too long")
            }
            ErrorCode::HttpResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "its response took too long")
            }
            ErrorCode::TlsProtocolError => (StatusCode::BAD_GATEWAY, "TLS with it failed"),
            ErrorCode::ConnectionTerminated => {
                (StatusCode::BAD_GATEWAY, "it closed the connection")
            }
            ErrorCode::DnsError(_) | ErrorCode::DnsTimeout => {
                (StatusCode::BAD_GATEWAY, "its name could not be resolved")
            }
            ErrorCode::ConnectionLimitReached => (
                StatusCode::BAD_GATEWAY,
                "no file descriptor is left for a connection",
            ),
            ErrorCode::HttpProtocolError => (StatusCode::BAD_GATEWAY, "its response is not HTTP"),
            ErrorCode::HttpRequestDenied => (
                StatusCode::BAD_GATEWAY,
                "the component asked for another place",
            ),
            _ => (StatusCode::BAD_GATEWAY, "it could not be reached"),
        };
        self.error(status, &format!("no answer from the provider: {reason}"))
    }
}
