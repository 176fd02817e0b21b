//! Transparent mode: the host's outgoing HTTP answers a guest's own LLM calls from the cache. The
//! guest need not know.
//!
//! ```text
//! guest ─► wasi:http client ─► Transparent ─► llm::candidate ─► classify ─► lookup ─► hit ─► guest
//!                                  │             └► bypass ─► sender, untouched
//!                                  └► miss: lead ─► sender ─► recorded on its way ─► guest
//! ```
//!
//! The middleware component does the same in front of a handler; this is for a guest's own calls.

use crate::cache::Entry;
use crate::component::state::{Sent, sent};
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::body::ahead::read_ahead;
use crate::exchange::fills::{Lead, Turn};
use crate::exchange::policy::HttpPolicy;
use crate::exchange::recording::Target;
use crate::exchange::reply::batch::Batch;
use crate::exchange::reply::head::{apply, status_headers};
use crate::exchange::reply::rest::Rest;
use crate::exchange::reply::{batch, replayed};
use crate::exchange::shared_body::Follower;
use crate::exchange::watch::{Wanted, Watch, fails, target, target_or_count};
use crate::grant::ctx::ReflexCtx;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use reflex_llm::embeddings::{self, Found, are_taken_apart};
use reflex_llm::flow::Edits;
use reflex_llm::status::{NOT_CACHED_STATUS, Status};
use reflex_llm::{Bypass, Control, ERROR_HEADERS, Examined, Flow, Head, Key, Policy, Shape};
use std::fmt;
use std::sync::Arc;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Outgoing HTTP for guests that answers LLM calls from the cache. A clone is the same.
///
/// It is a [`SendRequest`] around another one, and `WasiHttpHooks` for the `hooks` of a host's
/// `WasiHttpCtxView`, in WASI 0.3 and 0.2 alike. Every response to a guest says in its
/// `x-reflex-status` and `cache-status` what happened.
///
/// The sender decides where guests' requests may go, and writes `Host` from the target. The target
/// of a request is part of the key; a sender that sends it elsewhere must do so for all alike.
#[derive(Clone)]
pub struct Transparent {
    ctx: ReflexCtx,
    policy: Arc<HttpPolicy>,
    sender: Arc<dyn SendRequest>,
}

impl fmt::Debug for Transparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transparent")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl SendRequest for Transparent {
    fn send(&self, request: Request<WasiBody>) -> ResponseFuture {
        let this = self.clone();
        Box::pin(async move { this.answer(request).await })
    }
}

impl WasiHttpHooks for Transparent {
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _transmitted: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        sent(self.send(request))
    }
}

impl Transparent {
    /// Answers from the cache as the grant allows, and has `sender` send the rest.
    pub fn new(ctx: ReflexCtx, policy: HttpPolicy, sender: Arc<dyn SendRequest>) -> Self {
        Self {
            ctx,
            policy: Arc::new(policy),
            sender,
        }
    }

    async fn answer(&self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error> {
        let grant = &self.ctx.grant;
        let (mut parts, body) = request.into_parts();
        let (method, upstream, path) = named(&parts);
        let sent = parts.headers.clone();
        let headers: Vec<(&str, &[u8])> = sent
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let head = Head {
            method: &method,
            upstream: &upstream,
            path: &path,
            headers: &headers,
        };
        if let Some(name) = &grant.tenant_header {
            parts.headers.remove(name.as_str());
        }
        let policy = Policy {
            client_control: self.policy.client_control,
            ..grant.policy()
        };
        let candidate = match reflex_llm::candidate(&head, &policy) {
            Ok(candidate) => candidate,
            Err(reason) => return self.pass(Request::from_parts(parts, body), reason).await,
        };
        let group = grant.group_of(candidate.tenant());
        let candidate = candidate.as_tenant(group, grant.tenant_header.as_deref());
        let (whole, body) =
            read_ahead(body, grant.request_bytes_max, &self.policy.budget, None).await?;
        let request = Request::from_parts(parts, body);
        let whole = match whole {
            Ok(whole) => whole,
            Err(reason) => return self.pass(request, reason).await,
        };
        let examined = match candidate.examine(&whole) {
            Ok(examined) => examined,
            Err(reason) => return self.pass(request, reason).await,
        };
        let is_batch = are_taken_apart(self.policy.samples.count());
        let batch = is_batch.then(|| candidate.batch(&whole)).flatten();
        let batch = batch.map(Texts::of);
        self.serve(request, path, examined, batch).await
    }

    /// From the cache if it is there; else from the provider, recorded on its way.
    async fn serve(
        &self,
        mut request: Request<WasiBody>,
        path: String,
        examined: Examined,
        mut batch: Option<Texts<'_>>,
    ) -> Result<Response<WasiBody>, Error> {
        let Examined { exchange, model } = examined;
        let control = &exchange.control;
        let samples = &self.policy.samples;
        let key = samples.next(&exchange.key);
        let wanted = Wanted {
            key,
            shape: exchange.shape,
            path,
            model,
            ttl_seconds: control.ttl_seconds,
        };
        let since = self.ctx.cache.purges().now();
        let target = || target(&self.ctx, &self.policy, since, &wanted);

        let flow = Flow::of(control).kept_if(wanted.is_kept(&self.ctx));

        let mut fill = None;
        let mut missing = None;
        for joins in flow.looks() {
            if let Some(response) = self.look_up(&key, flow).await {
                return Ok(response);
            }
            if let Some(batch) = &mut batch {
                missing = match self.look_up_texts(batch, control).await {
                    Look::All(response) => return Ok(response),
                    Look::AllBut(missing) => Some(missing),
                    Look::Nothing => None,
                };
            }
            if fill.is_some() || !joins || target().is_none() {
                break;
            }
            let cache_key = self.ctx.key(&key);
            let wait_max = self.policy.fill_wait_max;
            let fills = &self.policy.fills;
            match fills.join(cache_key, key.tenant, wait_max).await {
                Turn::Lead(lead) => fill = Some(lead),
                Turn::Follow(Follower {
                    status,
                    headers,
                    body,
                }) => {
                    let stale = self.stale(&key, batch.as_ref(), flow, Some(status)).await;
                    return Ok(stale.unwrap_or_else(|| {
                        told(response(status, headers, body), Status::Collapsed)
                    }));
                }
                Turn::Failed(error) => {
                    let stale = self.stale(&key, batch.as_ref(), flow, None).await;
                    return stale.ok_or_else(|| error.into());
                }
                Turn::Again => {}
                Turn::Alone => break,
            }
        }
        if !flow.asks() {
            for _ in (1..samples.count()).filter(|_| flow.takes_any_sample()) {
                let key = samples.next(&exchange.key);
                if let Some(response) = self.look_up(&key, flow).await {
                    return Ok(response);
                }
            }
            return Ok(not_cached(exchange.shape));
        }

        edit(request.headers_mut(), flow.edits(missing.is_some()));
        let part = match (&batch, missing) {
            (Some(batch), Some(missing)) => {
                let rest = with_body(&request, batch.spelled.asking(&missing));
                self.complete(rest, &batch.cached, &missing, exchange.shape, target())
                    .await
            }
            _ => Ok(Part::Apart),
        };
        let asked = match part {
            // The followers find its parts in the cache.
            Ok(Part::Whole(response)) => return Ok(response),
            Ok(Part::Failed(response)) => Ok(response),
            Ok(Part::Apart) => self.sender.send(request).await,
            Err(error) => Err(error),
        };
        let response = match asked {
            Ok(response) => response,
            Err(error) => {
                if let Some(lead) = fill {
                    Lead::fail(lead, error_code(&error));
                }
                let stale = self.stale(&key, batch.as_ref(), flow, None).await;
                return stale.ok_or(error);
            }
        };
        let (parts, body) = response.into_parts();
        let texts = batch.as_ref().map(|batch| batch.cached.texts.clone());
        if let Some(texts) = &texts {
            self.policy.observer.batch(0, texts.count());
        }
        let target = target_or_count(&self.ctx, &self.policy, since, &wanted);
        let target = target.map(|target| Target { texts, ..target });
        let watch = Watch::new(target, &self.policy, (parts.status, &parts.headers), fill);
        let body = match watch {
            Some(watch) => watch.body(body),
            None => body,
        };
        let fwd_status = Some(parts.status);
        let stale = self.stale(&key, batch.as_ref(), flow, fwd_status).await;
        Ok(stale.unwrap_or_else(|| told(Response::from_parts(parts, body), flow.answered())))
    }

    async fn look_up(&self, key: &Key, flow: Flow) -> Option<Response<WasiBody>> {
        let entry = self.ctx.find_async(&self.ctx.key(key)).await?;
        let now_ms = self.ctx.clock.now_ms();
        let (age, ttl) = (entry.age_seconds(now_ms), entry.ttl_seconds(now_ms));
        if !flow.accepts(age, ttl) {
            return None;
        }
        self.replay(&entry, age, Status::Hit { ttl_seconds: ttl })
    }

    async fn look_up_texts(&self, batch: &mut Texts<'_>, control: &Control) -> Look {
        let now_ms = self.ctx.clock.now_ms();
        let life = |entry: &Entry| (entry.age_seconds(now_ms), entry.ttl_seconds(now_ms));
        let answers = batch.cached.find(&self.ctx, &self.policy.budget).await;
        let (age, ttl_seconds) = match Found::of(control, answers.map(|found| found.map(life))) {
            Found::All {
                age_seconds,
                ttl_seconds,
            } => (age_seconds, ttl_seconds),
            Found::AllBut(missing) => return Look::AllBut(missing),
            Found::Nothing => return Look::Nothing,
        };
        let Some(made) = batch.cached.replay() else {
            return Look::Nothing;
        };
        let set = status_headers(Status::Hit { ttl_seconds }, Some(age));
        let (status, headers, body) = made.replayed(&set, &self.policy);
        Look::All(response(status, headers, body))
    }

    /// Asks the provider for these elements of a batch only.
    async fn complete(
        &self,
        rest: Request<WasiBody>,
        batch: &Batch,
        missing: &[u32],
        shape: Shape,
        target: Option<Target>,
    ) -> Result<Part, Error> {
        let answer = self.sender.send(rest).await?;
        if fails(answer.status()) {
            return Ok(Part::Failed(answer));
        }
        let (head, body) = answer.into_parts();
        let seen = (head.status, &head.headers);
        let limits = self.policy.limits(&self.ctx.cache, true);
        let rest = Rest::new(
            batch,
            missing,
            shape,
            seen,
            limits,
            target,
            &self.policy.budget,
        );
        let made = match rest {
            Some(rest) => rest.read(body).await,
            None => None,
        };
        Ok(made.map_or(Part::Apart, |made| {
            let set = status_headers(Status::Partial, None);
            let head = (head.status, head.headers);
            let (status, headers, body) = made.completed(head, &set, &self.policy);
            Part::Whole(response(status, headers, body))
        }))
    }

    /// The expired entry, for a client whose request the provider has failed.
    async fn stale(
        &self,
        key: &Key,
        batch: Option<&Texts<'_>>,
        flow: Flow,
        fwd_status: Option<StatusCode>,
    ) -> Option<Response<WasiBody>> {
        let fwd_status = fwd_status.map(|status| status.as_u16());
        if !flow.serves_stale(fwd_status) {
            return None;
        }
        let most = self.policy.stale_if_error_max;
        let key = self.ctx.key(key);
        let status = |expired_seconds| Status::Stale {
            fwd_status,
            expired_seconds,
        };
        if let Some((entry, expired_seconds)) = self.ctx.find_stale(&key, most).await {
            let age = entry.age_seconds(self.ctx.clock.now_ms());
            return self.replay(&entry, age, status(expired_seconds));
        }
        // A batch is kept text by text, as a rule.
        let mut batch = batch?.cached.clone();
        let found = batch.find_stale(&self.ctx, most).await?;
        let set = status_headers(status(found.expired_seconds), Some(found.age_seconds));
        let (status, headers, body) = batch.replay()?.replayed(&set, &self.policy);
        Some(response(status, headers, body))
    }

    fn replay(&self, entry: &Entry, age: u64, status: Status) -> Option<Response<WasiBody>> {
        let (status, headers, body) =
            replayed(entry, &status_headers(status, Some(age)), &self.policy)?;
        Some(response(status, headers, body))
    }

    /// Sends the request to the provider unchanged, and marks the response as a bypass.
    async fn pass(
        &self,
        request: Request<WasiBody>,
        reason: Bypass,
    ) -> Result<Response<WasiBody>, Error> {
        let response = self.sender.send(request).await?;
        Ok(told(response, Status::Bypass(reason)))
    }
}

/// The texts of a batch, as the client spells them and as the cache has them.
struct Texts<'b> {
    spelled: embeddings::Batch<'b>,
    cached: Batch,
}

impl<'b> Texts<'b> {
    fn of(spelled: embeddings::Batch<'b>) -> Self {
        let element = |element: &embeddings::Element| (element.key, element.bytes.into());
        let elements = spelled.elements().iter().map(element).collect();
        let cached = Batch::new(batch::Texts::new(elements, spelled.places().to_vec()));
        Self { spelled, cached }
    }
}

/// The cache's part of a batch.
enum Look {
    All(Response<WasiBody>),
    /// All but these elements, by number.
    AllBut(Vec<u32>),
    Nothing,
}

/// The provider's answer to the rest of a batch.
enum Part {
    /// It fits the cached part; this is the joined answer.
    Whole(Response<WasiBody>),
    /// It fails.
    Failed(Response<WasiBody>),
    /// It does not certainly fit: the whole batch must be asked for.
    Apart,
}

/// Method, `scheme://authority`, and path with query.
fn named(parts: &http::request::Parts) -> (String, String, String) {
    let scheme = parts.uri.scheme_str().unwrap_or_default();
    let authority = parts.uri.authority().map_or("", |it| it.as_str());
    let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
    (
        parts.method.to_string(),
        format!("{scheme}://{authority}"),
        path.into(),
    )
}

fn response(status: StatusCode, headers: HeaderMap, body: WasiBody) -> Response<WasiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn told(mut response: Response<WasiBody>, status: Status) -> Response<WasiBody> {
    apply(response.headers_mut(), &[], &status_headers(status, None));
    response
}

/// Turns the client's head into the provider's.
fn edit(headers: &mut HeaderMap, edits: Edits) {
    for name in edits.remove {
        headers.remove(*name);
    }
    for &(name, value) in edits.set {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// `only-if-cached` and nothing cached: 504, in the API's error shape.
fn not_cached(shape: Shape) -> Response<WasiBody> {
    let mut headers = HeaderMap::new();
    let mut set = status_headers(Status::Absent, None);
    let header = |(name, value): (&str, &str)| (name.into(), value.as_bytes().to_vec());
    set.extend(ERROR_HEADERS.map(header));
    apply(&mut headers, &[], &set);
    let status = StatusCode::from_u16(NOT_CACHED_STATUS).unwrap_or(StatusCode::GATEWAY_TIMEOUT);
    response(status, headers, full(shape.not_cached_body().into()))
}

/// The same request with another body and its length.
fn with_body(request: &Request<WasiBody>, body: Vec<u8>) -> Request<WasiBody> {
    let mut other = Request::new(());
    *other.method_mut() = request.method().clone();
    *other.uri_mut() = request.uri().clone();
    *other.version_mut() = request.version();
    *other.headers_mut() = request.headers().clone();
    *other.extensions_mut() = request.extensions().clone();
    let length = HeaderValue::from(body.len());
    other.headers_mut().insert(CONTENT_LENGTH, length);
    other.map(|()| full(body.into()))
}

fn full(body: Bytes) -> WasiBody {
    Full::new(body).map_err(Error::from).boxed_unsync()
}

/// The error for the followers. The leader's client gets the error itself.
fn error_code(error: &Error) -> ErrorCode {
    match error {
        Error::ConnectionRefused => ErrorCode::ConnectionRefused,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::ConnectionTimeout => ErrorCode::ConnectionTimeout,
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::HttpRequestDenied => ErrorCode::HttpRequestDenied,
        Error::DestinationUnavailable => ErrorCode::DestinationUnavailable,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}
