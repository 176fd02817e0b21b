//! One request through the daemon, as one straight line: to the guest, and whatever becomes of
//! that, to an answer.

use super::held::hold;
use super::timed::Timed;
use super::upstream::{UpstreamClient, strip_hop_by_hop};
use crate::metrics::Metrics;
use crate::runtime::{Failure, Handler, SendRequest as _};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use reflex_llm::status::{CACHE_STATUS, X_REFLEX_STATUS};
use reflex_llm::{Bypass, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, WasiBody};

/// Everything that a request needs on its way.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) handler: Handler,
    pub(crate) upstream: Arc<UpstreamClient>,
    pub(crate) metrics: Arc<Metrics>,
    /// How much of a request is kept, so that it can go to the provider when the guest fails.
    pub(crate) held_bytes_max: u64,
    /// Longest pause in a client's body.
    pub(crate) idle_max: Duration,
}

impl Proxy {
    /// Answers one request. There is always a response; whether the provider gave it, the cache
    /// or, where neither could, we ourselves, shows in its status headers.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<WasiBody> {
        let began = Instant::now();
        let request = match self.aim(request) {
            Ok(request) => request,
            Err(refused) => return *refused,
        };
        let (held, lent) = hold(request, self.held_bytes_max);
        let response = match self.handler.handle(lent).await {
            Ok(response) => response,
            Err(failure) => {
                self.metrics.no_answer_of_guest(&failure);
                log(&failure);
                match failure {
                    Failure::Refused {
                        error,
                        upstream_called: true,
                    } => gateway_error(&error),
                    _ => match held.take_back() {
                        Some(request) => self.pass(request).await,
                        None => gateway_error(&ErrorCode::InternalError(None)),
                    },
                }
            }
        };
        self.count(&response, began.elapsed());
        response
    }

    /// Turns the client's request into the one that the provider is to get.
    fn aim(
        &self,
        request: Request<Incoming>,
    ) -> Result<Request<WasiBody>, Box<Response<WasiBody>>> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Box::new(error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is not a forward proxy",
            )));
        }
        let uri = self
            .upstream
            .target(parts.uri.path_and_query())
            .map_err(|_| {
                Box::new(error(
                    StatusCode::BAD_REQUEST,
                    "the request's path is not one",
                ))
            })?;

        let body = Timed::new(body, self.idle_max).boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers;
        strip_hop_by_hop(request.headers_mut());
        // The client's connection is ours to answer, and the provider's host has its own name.
        request.headers_mut().remove(header::EXPECT);
        request.headers_mut().remove(header::HOST);
        Ok(request)
    }

    /// To the provider without the guest.
    async fn pass(&self, request: Request<WasiBody>) -> Response<WasiBody> {
        match self.upstream.send(request).await {
            Ok(mut response) => {
                mark(&mut response, Status::Bypass(Bypass::Unavailable));
                response
            }
            Err(error) => gateway_error(&error_code(&error)),
        }
    }

    fn count(&self, response: &Response<WasiBody>, took: Duration) {
        let value = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        match value(X_REFLEX_STATUS) {
            Some("HIT_L1_EXACT") => self.metrics.hit(took),
            Some("HIT_STALE") => self.metrics.stale(),
            Some("MISS") => {
                let details = [
                    (Status::Collapsed, "collapsed"),
                    (Status::Partial, "partial"),
                ];
                let told = |(status, _): &(Status, _)| {
                    value(CACHE_STATUS) == Some(&*status.cache_status())
                };
                let detail = details.into_iter().find(told).map_or("", |found| found.1);
                self.metrics.miss(detail, took);
            }
            Some("BYPASS") => self.metrics.bypass(value(CACHE_STATUS).map_or("", detail)),
            _ => self.metrics.error(),
        }
    }
}

impl Failure {
    /// What it is called in metrics.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Instantiate(_) => "instantiate",
            Self::Trapped(_) => "trap",
            Self::TimedOut => "timeout",
            Self::Refused { .. } => "refused",
        }
    }
}

fn log(failure: &Failure) {
    match failure {
        Failure::Busy | Failure::Refused { .. } => {
            tracing::debug!(?failure, "not handled by the guest")
        }
        failure => tracing::warn!(
            ?failure,
            "guest failed: the request goes to the provider without it"
        ),
    }
}

fn mark(response: &mut Response<WasiBody>, status: Status) {
    let headers = response.headers_mut();
    headers.insert(
        X_REFLEX_STATUS,
        HeaderValue::from_static(status.x_reflex_status()),
    );
    if let Ok(value) = HeaderValue::try_from(&*status.cache_status()) {
        headers.insert(CACHE_STATUS, value);
    }
}

/// The reason in a `Cache-Status` of ours. A label of a metric must be one of a known few, and a
/// component of somebody else's may say anything.
fn detail(cache_status: &str) -> &'static str {
    let detail = cache_status
        .split_once("detail=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let known = detail.and_then(|(detail, _)| Bypass::from_detail(detail));
    known.map_or("other", Bypass::detail)
}

/// What the client gets when the provider could not be reached: the status of a gateway, in the
/// shape of the API's own errors, so that SDKs raise what they always do.
fn gateway_error(code: &ErrorCode) -> Response<WasiBody> {
    let (status, reason) = match code {
        ErrorCode::ConnectionRefused => (StatusCode::BAD_GATEWAY, "it refused the connection"),
        ErrorCode::ConnectionTimeout => (StatusCode::GATEWAY_TIMEOUT, "connecting took too long"),
        ErrorCode::HttpResponseTimeout => {
            (StatusCode::GATEWAY_TIMEOUT, "its response took too long")
        }
        ErrorCode::TlsProtocolError => (StatusCode::BAD_GATEWAY, "TLS with it failed"),
        ErrorCode::ConnectionTerminated => (StatusCode::BAD_GATEWAY, "it closed the connection"),
        ErrorCode::HttpRequestDenied => (
            StatusCode::BAD_GATEWAY,
            "the component asked for another place",
        ),
        _ => (StatusCode::BAD_GATEWAY, "it could not be reached"),
    };
    error(status, &format!("no answer from the provider: {reason}"))
}

fn error_code(error: &Error) -> ErrorCode {
    match error {
        Error::ConnectionRefused => ErrorCode::ConnectionRefused,
        Error::ConnectionTimeout => ErrorCode::ConnectionTimeout,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::TlsProtocolError => ErrorCode::TlsProtocolError,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        _ => ErrorCode::DestinationUnavailable,
    }
}

/// What a client gets whose request has a head beyond the bounds of `heads.rs`.
pub(super) fn head_too_large() -> Response<WasiBody> {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    error(status, "the head of the request is too large")
}

/// An error of ours. `message` is ours too and needs no escaping.
fn error(status: StatusCode, message: &str) -> Response<WasiBody> {
    let body = format!(
        r#"{{"error":{{"message":"reflex-edge: {message}","type":"gateway_error","param":null,"code":"{}"}}}}"#,
        status.as_str()
    );
    let body = Full::new(Bytes::from(body))
        .map_err(Error::from)
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
