//! One request through the daemon, as one straight line: to the guest, and whatever becomes of
//! that, to an answer.

use super::held::hold;
use super::own_error::ErrorVoice;
use super::timed::Timed;
use super::upstream::{UpstreamClient, strip_hop_by_hop};
use crate::metrics::Metrics;
use crate::runtime::{Failure, Handler, SendRequest as _, mark};
use http::header;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use reflex_llm::status::{CACHE_STATUS, X_REFLEX_STATUS, last_cache_status};
use reflex_llm::{Bypass, PathRule, Status};
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
    /// Which API answers at paths that do not tell, for the shape of an error.
    pub(crate) paths: Arc<[PathRule]>,
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
        let (request, voice) = match self.aim(request) {
            Ok(aimed) => aimed,
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
                    } => voice.gateway_error(&error),
                    _ => match held.take_back() {
                        Some(request) => self.pass(request, &voice).await,
                        None => voice.gateway_error(&ErrorCode::InternalError(None)),
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
    ) -> Result<(Request<WasiBody>, ErrorVoice), Box<Response<WasiBody>>> {
        let (parts, body) = request.into_parts();
        let voice = |target: &Uri| ErrorVoice::of(target, &parts, &self.paths);
        let refused = |status, why| Box::new(voice(&parts.uri).error(status, why));
        if parts.method == Method::CONNECT {
            let why = "this is not a forward proxy";
            return Err(refused(StatusCode::METHOD_NOT_ALLOWED, why));
        }
        let uri = self
            .upstream
            .target(parts.uri.path_and_query())
            .map_err(|_| refused(StatusCode::BAD_REQUEST, "the request's path is not one"))?;
        // Rules are about the path that the provider gets.
        let voice = voice(&uri);

        let body = Timed::new(body, self.idle_max).boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers;
        strip_hop_by_hop(request.headers_mut());
        // The client's connection is ours to answer, and the provider's host has its own name.
        request.headers_mut().remove(header::EXPECT);
        request.headers_mut().remove(header::HOST);
        Ok((request, voice))
    }

    /// To the provider without the guest.
    async fn pass(&self, request: Request<WasiBody>, voice: &ErrorVoice) -> Response<WasiBody> {
        match self.upstream.send(request).await {
            Ok(mut response) => {
                let status = Status::Bypass(Bypass::Unavailable);
                mark(response.headers_mut(), status);
                response
            }
            Err(error) => voice.gateway_error(&error_code(&error)),
        }
    }

    fn count(&self, response: &Response<WasiBody>, took: Duration) {
        // Of a list, the last one is ours.
        let value = |name| {
            let values = response.headers().get_all(name);
            values.iter().next_back()?.to_str().ok()
        };
        let cache_status = value(CACHE_STATUS).map_or("", last_cache_status);
        match value(X_REFLEX_STATUS) {
            Some("HIT_L1_EXACT") => self.metrics.hit(took),
            Some("HIT_STALE") => self.metrics.stale(),
            Some("MISS") => {
                let details = [
                    (Status::Collapsed, "collapsed"),
                    (Status::Partial, "partial"),
                ];
                let told = |(status, _): &(Status, _)| cache_status == status.cache_status();
                let detail = details.into_iter().find(told).map_or("", |found| found.1);
                self.metrics.miss(detail, took);
            }
            Some("BYPASS") => self.metrics.bypass(detail(cache_status)),
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

/// The reason in a `Cache-Status` of ours. A label of a metric must be one of a known few, and a
/// component of somebody else's may say anything.
fn detail(cache_status: &str) -> &'static str {
    let detail = cache_status
        .split_once("detail=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let known = detail.and_then(|(detail, _)| Bypass::from_detail(detail));
    known.map_or("other", Bypass::detail)
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
