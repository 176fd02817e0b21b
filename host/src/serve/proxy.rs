//! One request through the daemon: to the guest, to the provider if the guest fails, and back with
//! an answer.

use super::held::{Held, hold};
use super::hop::strip_hop_by_hop;
use super::own_error::ErrorVoice;
use super::place::OpenConnection;
use super::reasons::Reasons;
use super::timed::Timed;
use super::upstream::UpstreamClient;
use super::{heads, tunnel};
use crate::component::{Failure, Handler, Lost};
use crate::exchange::ask::SendRequest as _;
use crate::exchange::body::budget::Budget;
use crate::exchange::body::lent::NotHeld;
use crate::exchange::reply::head::mark;
use crate::serve::metrics::Metrics;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade;
use reflex_llm::status::{CACHE_STATUS, X_REFLEX_STATUS, last_cache_status};
use reflex_llm::{Bypass, COMPARED_BYTES_MAX, PathRule, Status, is_event_stream};
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
    pub(crate) reasons: Reasons,
    /// Which API answers at paths that name none, for the shape of an error.
    pub(crate) paths: Arc<[PathRule]>,
    /// How much of a request is kept, so that it can go to the provider when the guest fails.
    pub(crate) held_bytes_max: u64,
    /// The memory budget of all requests.
    pub(crate) budget: Arc<Budget>,
    /// Names the tenant. For the component only: the provider learns nothing of our tenants.
    pub(crate) tenant_header: Option<HeaderName>,
    /// Longest pause in a client's body.
    pub(crate) idle_max: Duration,
    /// The longest that a client may take to send a request.
    pub(crate) request_max: Duration,
}

/// The assumed length of a request that does not state one. Most are shorter.
const UNKNOWN_BYTES: u64 = 64 << 10;

impl Proxy {
    /// Answers one request. The response comes from the provider, the cache or, if both fail, from
    /// us; its status headers show which.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<WasiBody> {
        let began = Instant::now();
        let response = match tunnel::wanted(&request) {
            Some(protocols) => self.tunnel(request, protocols).await,
            None => self.handle(request).await,
        };
        self.count(&response, began.elapsed());
        response
    }

    /// Has the guest answer, or the provider if the guest fails.
    async fn handle(&self, request: Request<Incoming>) -> Response<WasiBody> {
        let (request, voice) = match self.aim(request) {
            Ok(aimed) => aimed,
            Err(refused) => return *refused,
        };
        if !self.has_room(&request) {
            // Without the guest, no byte of it is held.
            return self.send(request, Bypass::Memory, &voice).await;
        }
        let (held, lent) = hold(request, self.held_bytes_max, &self.budget);
        let failure = match self.handler.handle_lent(lent, held.lender().clone()).await {
            Ok(response) => {
                self.explain(&held, &response);
                return response;
            }
            Err(failure) => failure,
        };
        self.metrics.no_answer_of_guest(&failure);
        log(&failure);
        match failure {
            Failure::Refused {
                error,
                upstream_called: true,
            } => voice.gateway_error(&error),
            // The provider is asked once: it may have acted already.
            Failure::AfterSending { rest, .. } => match rest.answer().await {
                Ok(response) => bypassed(response, Bypass::Unavailable),
                Err(Lost::NotSent) => self.pass(held, &voice).await,
                Err(Lost::TimedOut) => voice.gateway_error(&ErrorCode::HttpResponseTimeout),
                Err(Lost::Closed) => voice.gateway_error(&ErrorCode::ConnectionTerminated),
                Err(_) => voice.error(
                    StatusCode::BAD_GATEWAY,
                    "the component failed after it had sent the request",
                ),
            },
            _ => self.pass(held, &voice).await,
        }
    }

    /// Turns the client's request into the one for the provider.
    fn aim(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Request<WasiBody>, ErrorVoice), Box<Response<WasiBody>>> {
        let head_fits = heads::fits(&request);
        let (parts, body) = request.into_parts();
        let voice = |target: &Uri| ErrorVoice::of(target, &parts, &self.paths);
        let refused = |status, why| Err(Box::new(voice(&parts.uri).error(status, why)));
        if !head_fits {
            return refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is too large",
            );
        }
        if parts.method == Method::CONNECT {
            return refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is not a forward proxy, and WebSockets need HTTP/1.1 here",
            );
        }
        if self.upstream.has_passed(&parts.headers) {
            return refused(
                StatusCode::LOOP_DETECTED,
                "this request has come through here before: the address of the provider leads back",
            );
        }
        let Ok(uri) = self.upstream.target(parts.uri.path_and_query()) else {
            return refused(
                StatusCode::BAD_REQUEST,
                "the request's path does not lead to the provider",
            );
        };
        // Rules are about the path that the provider gets.
        let voice = voice(&uri);

        let body = Timed::request(body, self.idle_max, self.request_max).boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers;
        let headers = request.headers_mut();
        // A client must not remove the header that the operator's gateway has set.
        strip_hop_by_hop(headers, self.tenant_header.as_slice());
        // The client's connection is ours to answer, and the provider's host has its own name.
        headers.remove(header::EXPECT);
        headers.remove(header::HOST);
        join_cookies(headers);
        Ok((request, voice))
    }

    /// Whether the budget has memory for the bytes that the request will hold, as far as known.
    fn has_room(&self, request: &Request<WasiBody>) -> bool {
        let body = request.body();
        let expected = match body.size_hint().exact() {
            _ if body.is_end_stream() => return true,
            // Once to be sent again, and once for the guest to read.
            Some(length) => 2 * length.min(self.held_bytes_max),
            None => 2 * UNKNOWN_BYTES,
        };
        self.budget.has_room(expected)
    }

    /// To the provider without the guest.
    async fn pass(&self, held: Held, voice: &ErrorVoice) -> Response<WasiBody> {
        match held.take_back() {
            Ok(request) => self.send(request, Bypass::Unavailable, voice).await,
            Err(NotHeld::Broken) => voice.error(
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not come to its end",
            ),
            Err(NotHeld::TooLong | NotHeld::Gone) => {
                voice.gateway_error(&ErrorCode::InternalError(None))
            }
            Err(NotHeld::NoMemory) => voice.error(
                StatusCode::SERVICE_UNAVAILABLE,
                "the requests under way hold all the memory that they may (inflight_bytes_max)",
            ),
        }
    }

    async fn send(
        &self,
        mut request: Request<WasiBody>,
        why: Bypass,
        voice: &ErrorVoice,
    ) -> Response<WasiBody> {
        self.hide_tenant(request.headers_mut());
        match self.upstream.send(request).await {
            Ok(response) => bypassed(response, why),
            Err(error) => voice.gateway_error(&error_code(&error)),
        }
    }

    /// Has the client and the provider speak another protocol with each other, if the provider
    /// wants to; hands its answer on if not.
    async fn tunnel(
        &self,
        mut request: Request<Incoming>,
        protocols: HeaderValue,
    ) -> Response<WasiBody> {
        let client = upgrade::on(&mut request);
        let open = request.extensions_mut().remove::<Arc<OpenConnection>>();
        let (mut request, voice) = match self.aim(request) {
            Ok(aimed) => aimed,
            Err(refused) => return *refused,
        };
        let headers = request.headers_mut();
        self.hide_tenant(headers);
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, protocols);
        let mut response = match self.upstream.upgrade(request).await {
            Ok(response) => response,
            Err(error) => return voice.gateway_error(&error_code(&error)),
        };
        let provider = upgrade::on(&mut response);
        let (mut parts, body) = response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        strip_hop_by_hop(&mut parts.headers, &[]);
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            parts.headers.remove(header::CONTENT_LENGTH);
            let body = Timed::response(body, self.idle_max).boxed_unsync();
            return bypassed(Response::from_parts(parts, body), Bypass::Upgrade);
        }
        let Some(open) = open else {
            return voice.error(
                StatusCode::BAD_GATEWAY,
                "the connection cannot become a tunnel",
            );
        };
        parts.headers.insert(header::CONNECTION, UPGRADE);
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        tunnel::pass(client, provider, self.idle_max, open);
        let body = Empty::new().map_err(Error::from).boxed_unsync();
        bypassed(Response::from_parts(parts, body), Bypass::Upgrade)
    }

    fn hide_tenant(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.tenant_header {
            headers.remove(name);
        }
    }

    /// Notes why a response is no hit.
    fn explain(&self, held: &Held, response: &Response<WasiBody>) {
        let headers = response.headers();
        let told = own_status(headers);
        let told = |status: Status| told == status.cache_status();
        // Not of a batch that was partly cached, nor of a follower: these have found an answer.
        if told(Status::Miss) {
            if let Some((parts, body)) = held.seen(COMPARED_BYTES_MAX) {
                self.reasons.miss(parts, &body);
            }
            return;
        }
        let controlled = [Status::Refresh, Status::Bypass(Bypass::NoStore)];
        let directive = controlled.into_iter().find(|status| told(*status));
        if let Some(directive) = directive.and_then(Status::directive) {
            let content_type = headers.get(header::CONTENT_TYPE);
            let is_stream = content_type.is_some_and(|it| is_event_stream(it.as_bytes()));
            self.reasons.controlled(directive, is_stream);
        }
    }

    fn count(&self, response: &Response<WasiBody>, took: Duration) {
        let cache_status = own_status(response.headers());
        match last(response.headers(), X_REFLEX_STATUS) {
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

/// Our own status of a response: the last member of the list.
fn own_status(headers: &HeaderMap) -> &str {
    last(headers, CACHE_STATUS).map_or("", last_cache_status)
}

fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all(name).iter().next_back()?.to_str().ok()
}

impl Failure {
    /// Its name in metrics.
    pub(crate) fn detail(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Instantiate(_) => "instantiate",
            Self::Trapped(_) => "trap",
            Self::TimedOut => "timeout",
            Self::Refused { .. } => "refused",
            Self::AfterSending { cause, .. } => cause.detail(),
        }
    }
}

fn log(failure: &Failure) {
    match failure {
        Failure::Busy | Failure::Refused { .. } => {
            tracing::debug!(?failure, "not handled by the guest")
        }
        Failure::AfterSending { cause, .. } => tracing::warn!(
            failure = ?cause,
            "guest failed after it had sent the request: the provider's answer goes to the client \
             without it"
        ),
        failure => tracing::warn!(
            ?failure,
            "guest failed: the request goes to the provider without it"
        ),
    }
}

/// The `Connection` of a request or response that changes the protocol.
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// HTTP/2 lets a client send a cookie in parts, for compression. In all other protocols they are
/// one header: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if parts.len() > 1
        // Valid parts make a valid whole.
        && let Ok(mut joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// The provider's answer to a request that the guest had no part in.
fn bypassed(mut response: Response<WasiBody>, why: Bypass) -> Response<WasiBody> {
    mark(response.headers_mut(), Status::Bypass(why));
    response
}

/// The reason in a `Cache-Status` of ours. A label of a metric must be one of a known few, but
/// another component may say anything.
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
        Error::DnsError { .. } => ErrorCode::DnsTimeout,
        Error::ConnectionLimitReached => ErrorCode::ConnectionLimitReached,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        _ => ErrorCode::DestinationUnavailable,
    }
}
