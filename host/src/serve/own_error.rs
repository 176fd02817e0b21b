//! Our own errors, in the words of the requested API, so that SDKs raise their usual errors.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};

use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use reflex_llm::{ERROR_HEADERS, Head, PathRule, Shape, VENDOR_HEADERS};
use std::sync::Arc;

/// Kept of a request until its answer: the API in whose words to report an error. It costs a look at the names
/// of the request's headers.
#[derive(Debug)]
pub(crate) struct ErrorVoice {
    path: Option<PathAndQuery>,
    /// A header that only clients of one vendor send.
    vendor: Option<&'static str>,
    rules: Arc<[PathRule]>,
    /// A `HEAD` request: its client reads no body, but over HTTP/2 hyper would send one.
    is_head: bool,
}

impl ErrorVoice {
    /// Of a request to this path at the provider.
    pub(crate) fn of(
        target: &Uri,
        method: &Method,
        headers: &HeaderMap,
        rules: &Arc<[PathRule]>,
    ) -> Self {
        let place = |name: &HeaderName| {
            let mut vendors = VENDOR_HEADERS.iter();
            vendors.position(|(vendor, _)| *vendor == name.as_str())
        };
        // Of several, the first of the list.
        let vendor = headers.keys().filter_map(place).min();
        Self {
            path: target.path_and_query().cloned(),
            vendor: vendor.map(|place| VENDOR_HEADERS[place].0),
            rules: Arc::clone(rules),
            is_head: *method == Method::HEAD,
        }
    }

    /// An error of ours.
    pub(crate) fn error(&self, status: StatusCode, message: &str) -> Response<BoxBody> {
        let headers: Vec<(&str, &[u8])> =
            self.vendor.iter().map(|name| (*name, &b""[..])).collect();
        let head = Head {
            method: "",
            upstream: "",
            path: self.path.as_ref().map_or("", PathAndQuery::as_str),
            headers: &headers,
        };
        let shape = Shape::of_errors(&head, &self.rules);
        let body = shape.error_body(status.as_u16(), &format!("reflex-edge: {message}"));
        let length = HeaderValue::from(body.len());
        let sent = match self.is_head {
            true => Bytes::new(),
            false => Bytes::from(body),
        };
        let body = full(sent);
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

    /// The client's response when it has not sent the whole of its request.
    pub(crate) fn cut_off(&self) -> Response<BoxBody> {
        self.error(
            StatusCode::REQUEST_TIMEOUT,
            "the request's body did not come to its end",
        )
    }

    /// The client's response when the provider could not be reached: the status of a gateway.
    pub(crate) fn gateway_error(&self, code: &Error) -> Response<BoxBody> {
        let (status, reason) = match code {
            Error::ConnectionRefused => (StatusCode::BAD_GATEWAY, "it refused the connection"),
            Error::ConnectionTimeout => (StatusCode::GATEWAY_TIMEOUT, "connecting took too long"),
            Error::HttpResponseTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "its response took too long")
            }
            Error::TlsProtocolError => (StatusCode::BAD_GATEWAY, "TLS with it failed"),
            Error::ConnectionTerminated => (StatusCode::BAD_GATEWAY, "it closed the connection"),
            Error::DnsError | Error::DnsTimeout => {
                (StatusCode::BAD_GATEWAY, "its name could not be resolved")
            }
            Error::ConnectionLimitReached => (
                StatusCode::BAD_GATEWAY,
                "no file descriptor is left for a connection",
            ),
            Error::HttpProtocolError => (StatusCode::BAD_GATEWAY, "its response is not HTTP"),
            Error::DestinationUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "it has not answered lately, and is asked again in a while (breaker_failures)",
            ),
            Error::HttpRequestDenied => (
                StatusCode::BAD_GATEWAY,
                "the component asked for another place",
            ),
            _ => (StatusCode::BAD_GATEWAY, "it could not be reached"),
        };
        self.error(status, &format!("no answer from the provider: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::Api;

    /// The API whose clients send a header of these, by the list.
    fn vendor(names: &[&'static str]) -> Option<Api> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.insert(*name, HeaderValue::from_static("1"));
        }
        let target = Uri::from_static("http://provider/anything?x");
        let voice = ErrorVoice::of(&target, &Method::POST, &headers, &Arc::default());
        let of = |name| VENDOR_HEADERS.iter().find(|(vendor, _)| *vendor == name);
        voice.vendor.and_then(of).map(|(_, api)| *api)
    }

    #[test]
    fn a_vendor_is_known_by_its_headers_the_first_of_the_list_counts() {
        for (name, api) in VENDOR_HEADERS {
            assert_eq!(vendor(&["accept", name, "x-other"]), Some(api), "{name}");
        }
        let several = [VENDOR_HEADERS[3].0, VENDOR_HEADERS[1].0];
        assert_eq!(vendor(&several), Some(VENDOR_HEADERS[1].1));
        assert_eq!(vendor(&["accept"]), None);
    }
}
