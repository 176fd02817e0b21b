//! One request through the daemon: a hit from the native flow, the rest by way of the component, and
//! back with an answer.

use super::access::{Asked, Told, Trail};
use super::aim::{Aimer, Unaimed};
#[cfg(feature = "middleware")]
use super::config::Hits;
#[cfg(feature = "middleware")]
use super::guests::{Guests, Outcome, Unhandled};
use super::hop::strip_hop_by_hop;
use super::own_error::ErrorVoice;
use super::place::OpenConnection;
use super::reasons::Reasons;
use super::timed::Timed;
use super::upstream::{Aim, Providers};
use super::{shadow, tunnel};
use crate::cache::Tier;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::limits::{Over, OverRate};
use crate::exchange::miss::{Miss, told};
use crate::exchange::question::{Begun, Question, Read};
use crate::exchange::renew::Overdue;
use crate::exchange::reply::head::{CACHE_STATUS_NAME, STATUS_NAME};
use crate::exchange::{Found, NativeFlow};
use crate::serve::metrics::{Answered, Metrics};
use crate::serve::recent::Subject;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade;
#[cfg(feature = "middleware")]
use reflex_llm::COMPARED_BYTES_MAX;
use reflex_llm::status::last_cache_status;
use reflex_llm::{Bypass, Status, is_event_stream};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Everything that a request needs on its way.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) flow: NativeFlow,
    #[cfg(feature = "middleware")]
    pub(crate) guests: Guests,
    pub(super) aimer: Aimer,
    pub(crate) providers: Arc<Providers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reasons: Reasons,
    /// Where it is told how each request ended.
    pub(super) told: Told,
    /// Nothing is answered from the cache.
    pub(crate) is_shadow: bool,
    /// Names the tenant. For the component only: the provider learns nothing of our tenants.
    pub(crate) tenant_header: Option<HeaderName>,
    /// Longest pause in a body that does not go through the cache.
    pub(crate) idle_max: Duration,
}

impl Proxy {
    /// Answers one request. The response comes from the provider, the cache or, if both fail, from
    /// us; its status headers show which.
    pub(crate) fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        Answering {
            began: Instant::now(),
            trail: Trail::of(&request, &self.told),
            request: Some(request),
            on: None,
            proxy: self,
        }
    }

    /// Counts an answer, and has its line follow it.
    fn end(&self, answer: Answer, began: Instant, trail: Option<Trail>) -> Response<BoxBody> {
        let Answer { mut response, tier } = answer;
        let took = match self.is_shadow {
            true => shadow::took(&response, began.elapsed()),
            false => began.elapsed(),
        };
        self.count(&response, tier, took);
        // Its line tells the operator what would have been.
        if let Some(trail) = trail {
            response = trail.follow(response, tier.map(Tier::name));
        }
        if self.is_shadow {
            shadow::hide(response.headers_mut());
        }
        response
    }

    /// Answers what needs no waiting: of a hit in memory, all of it.
    fn begin(self: &Arc<Self>, request: Request<Incoming>, cx: &mut Context<'_>) -> Step {
        if let Some(protocols) = tunnel::wanted(&request) {
            return self.goes(|this| async move { this.tunnel(request, protocols).await.into() });
        }
        let (request, voice) = match self.aimer.aim(request) {
            Ok(aimed) => aimed,
            Err(Unaimed::Refused(refused)) => return Step::Answered((*refused).into()),
            Err(Unaimed::Unread(request)) => {
                return self.goes(|this| async move {
                    match this.aimer.aim_by_model(*request).await {
                        Ok((request, voice)) => {
                            let read = this.flow.read(request).await;
                            this.handle(read, &voice).await
                        }
                        Err(refused) => (*refused).into(),
                    }
                });
            }
        };
        match self.flow.begin(request, cx) {
            Ok(Begun::Read(Read::Question(mut question))) if self.answers_hits() => {
                let found = self.flow.find_now(&mut question);
                match found {
                    Some(response) => Step::Answered(self.found(&question, response)),
                    None => self.goes(|this| async move { this.reply(question, &voice).await }),
                }
            }
            Ok(Begun::Read(read)) => {
                self.goes(|this| async move { this.handle(Ok(read), &voice).await })
            }
            Ok(Begun::Waits(waits)) => self.goes(|this| async move {
                let read = this.flow.go_on(waits).await;
                this.handle(read, &voice).await
            }),
            Err(_) => Step::Answered(voice.cut_off().into()),
        }
    }

    fn goes<F>(self: &Arc<Self>, on: impl FnOnce(Arc<Self>) -> F) -> Step
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Step::Goes(Box::pin(on(Arc::clone(self))))
    }

    /// Whether hits are the native flow's.
    #[cfg(feature = "middleware")]
    fn answers_hits(&self) -> bool {
        self.guests.hits == Hits::Native
    }

    /// Whether hits are the native flow's.
    #[cfg(not(feature = "middleware"))]
    fn answers_hits(&self) -> bool {
        true
    }

    /// A hit.
    fn found(&self, question: &Question, response: Response<BoxBody>) -> Answer {
        self.note(question, &response);
        told_of(self.asked(question), response, question.tier())
    }

    /// What the line of a question says.
    fn asked(&self, question: &Question) -> Option<Asked> {
        self.told.is_anywhere().then(|| Asked {
            shape: question.shape(),
            model: question.model().cloned(),
        })
    }

    /// Answers a request that was read.
    async fn handle(&self, read: Result<Read, Error>, voice: &ErrorVoice) -> Answer {
        match read {
            Ok(Read::Question(question)) => self.reply(question, voice).await,
            Ok(Read::Passes(request, why)) => self.pass(request, why, voice).await.into(),
            Err(_) => voice.cut_off().into(),
        }
    }

    /// Answers an LLM request whose body is there.
    async fn reply(&self, mut question: Box<Question>, voice: &ErrorVoice) -> Answer {
        Aim::may_repeat(question.extensions_mut());
        let asked = self.asked(&question);
        let mut tier = None;
        let response = self.reply_to(question, voice, &mut tier).await;
        told_of(asked, response, tier)
    }

    /// `tier` becomes that of an answer that is found in the cache.
    async fn reply_to(
        &self,
        mut question: Box<Question>,
        voice: &ErrorVoice,
        tier: &mut Option<Tier>,
    ) -> Response<BoxBody> {
        #[cfg(feature = "middleware")]
        match self.guests.answer(&mut question, &self.flow, voice).await {
            Outcome::Answered(response) => {
                *tier = question.tier();
                self.note(&question, &response);
                // A hit of the flow has a tier, has been verified, and is no miss to be explained.
                if tier.is_none() {
                    if last(response.headers(), &STATUS_NAME) == Some(HIT) {
                        self.flow.verify(&question);
                    }
                    self.explain(Some((question.parts(), question.whole())), &response);
                }
                return response;
            }
            Outcome::Unanswered(error) => return voice.gateway_error(&error),
            Outcome::Pass => {
                let passed = self.send(question.request(), Bypass::Unavailable, voice);
                return Box::pin(passed).await;
            }
            Outcome::Ask(miss) => return Box::pin(self.ask(question, miss, voice)).await,
            Outcome::Over(over) => return Box::pin(self.over(question, over, voice)).await,
            Outcome::Native => {}
        }
        match self.flow.find(&mut question).await {
            Ok(Found::Answer(response)) => {
                *tier = question.tier();
                self.note(&question, &response);
                response
            }
            Ok(Found::Miss(miss)) => Box::pin(self.ask(question, miss, voice)).await,
            Ok(Found::Over(over)) => Box::pin(self.over(question, over, voice)).await,
            Err(error) => voice.gateway_error(&error),
        }
    }

    /// Answers a miss of a tenant that has asked for more than it may.
    async fn over(
        &self,
        question: Box<Question>,
        over: Over,
        voice: &ErrorVoice,
    ) -> Response<BoxBody> {
        if let Over::Rate(wait, OverRate::Refuse) = over {
            let why = "this tenant has more requests in a second than it may ([[limit]])";
            let mut response = voice.error(StatusCode::TOO_MANY_REQUESTS, why);
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            self.note(&question, &response);
            return response;
        }
        let response = self.send(question.request(), over.into(), voice).await;
        self.note(&question, &response);
        response
    }

    /// Asks the provider without a component.
    async fn ask(
        &self,
        question: Box<Question>,
        miss: Miss,
        voice: &ErrorVoice,
    ) -> Response<BoxBody> {
        let question = Arc::from(question);
        match self.flow.ask(&question, miss).await {
            Ok(response) => {
                self.note(&question, &response);
                self.explain(Some((question.parts(), question.whole())), &response);
                response
            }
            Err(error) => voice.gateway_error(&error),
        }
    }

    /// Passes a request on that the cache may not answer. A component of the operator's own may do
    /// more with it.
    async fn pass(
        &self,
        request: Request<BoxBody>,
        why: Bypass,
        voice: &ErrorVoice,
    ) -> Response<BoxBody> {
        #[cfg(feature = "middleware")]
        if !self.guests.is_built_in {
            return match self.guests.stream(request, voice).await {
                Ok((response, held)) => {
                    let seen = held.seen(COMPARED_BYTES_MAX);
                    let seen = seen.as_ref().map(|(parts, body)| (*parts, body.as_slice()));
                    self.explain(seen, &response);
                    response
                }
                Err(Unhandled::Answered(response)) => response,
                Err(Unhandled::Pass(request, why)) => self.send(request, why, voice).await,
            };
        }
        self.send(request, why, voice).await
    }

    /// Sends a request to the provider as it came.
    async fn send(
        &self,
        request: Request<BoxBody>,
        why: Bypass,
        voice: &ErrorVoice,
    ) -> Response<BoxBody> {
        match self.flow.pass(request, why).await {
            Ok(response) => {
                self.explain(None, &response);
                response
            }
            Err(error) => voice.gateway_error(&error),
        }
    }

    /// Has the client and the provider speak another protocol with each other, if the provider
    /// wants to; hands its answer on if not.
    async fn tunnel(
        &self,
        mut request: Request<Incoming>,
        protocols: HeaderValue,
    ) -> Response<BoxBody> {
        let client = upgrade::on(&mut request);
        let open = request.extensions_mut().remove::<Arc<OpenConnection>>();
        let (mut request, voice) = match self.aimer.aim(request) {
            Ok(aimed) => aimed,
            Err(Unaimed::Refused(refused)) => return *refused,
            // A request for another protocol has no body.
            Err(Unaimed::Unread(request)) => match self.aimer.aim_without_model(*request) {
                Ok(aimed) => aimed,
                Err(refused) => return *refused,
            },
        };
        let headers = request.headers_mut();
        self.hide_tenant(headers);
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, protocols);
        let request = request.map(|body| body.boxed_unsync());
        let mut response = match self.providers.upgrade(request).await {
            Ok(response) => response,
            Err(error) => return voice.gateway_error(&error),
        };
        let provider = upgrade::on(&mut response);
        let (mut parts, body) = response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        let upgraded = Status::Bypass(Bypass::Upgrade);
        strip_hop_by_hop(&mut parts.headers, &[]);
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            parts.headers.remove(header::CONTENT_LENGTH);
            let body = Timed::response(body, self.idle_max).boxed_unsync();
            return told(Response::from_parts(parts, body), upgraded);
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
        told(Response::from_parts(parts, body), upgraded)
    }

    fn hide_tenant(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.tenant_header {
            headers.remove(name);
        }
    }

    /// Notes why a response is no hit.
    fn explain(&self, request: Option<(&Parts, &[u8])>, response: &Response<BoxBody>) {
        let headers = response.headers();
        if last(headers, &STATUS_NAME) == Some(HIT) {
            return;
        }
        let told = own_status(headers);
        let told = |status: Status| told == status.cache_status();
        // Not of a batch that was partly cached, nor of a follower: these have found an answer.
        if told(Status::Miss) {
            if let Some((parts, body)) = request {
                self.reasons.miss(parts, body);
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

    /// Notes whose request was answered, for the lists of the most frequent ones.
    fn note(&self, question: &Question, response: &Response<BoxBody>) {
        let subject = Subject {
            model: question.model().map(|model| &**model),
            route: Some(question.parts().uri.path()),
            tenant: Some(&question.request_key().tenant.0),
        };
        let recent = self.metrics.recent();
        // Only a hit has a tier; a component does not tell it.
        match question.tier().is_some() || last(response.headers(), &STATUS_NAME) == Some(HIT) {
            true => recent.hit(&subject),
            false => recent.asked(&subject),
        }
    }

    fn count(&self, response: &Response<BoxBody>, tier: Option<Tier>, took: Duration) {
        if tier.is_some() {
            // Without a search for the header that says so.
            return match response.extensions().get::<Overdue>() {
                None => self.metrics.hit(tier, took),
                Some(_) => self.metrics.overdue(tier, took),
            };
        }
        let headers = response.headers();
        match last(headers, &STATUS_NAME) {
            Some(HIT) => self.metrics.hit(tier, took),
            Some("HIT_STALE") => self.metrics.stale(took),
            Some("MISS") => {
                let kinds = [
                    (Status::Collapsed, Answered::Collapsed),
                    (Status::Partial, Answered::Partial),
                ];
                let cache_status = own_status(headers);
                let told = |(status, _): &(Status, _)| cache_status == status.cache_status();
                let kind = kinds.into_iter().find(told);
                self.metrics
                    .miss(kind.map_or(Answered::Miss, |found| found.1), took);
            }
            Some("BYPASS") => self.metrics.bypass(detail(own_status(headers)), took),
            _ => self.metrics.error(took),
        }
    }
}

/// An answer to a request, and where it was, if it was found in the cache.
struct Answer {
    response: Response<BoxBody>,
    tier: Option<Tier>,
}

impl From<Response<BoxBody>> for Answer {
    fn from(response: Response<BoxBody>) -> Self {
        Self {
            response,
            tier: None,
        }
    }
}

/// How far a request has come without waiting.
enum Step {
    Answered(Answer),
    Goes(GoesOn),
}

/// What is left to do for a request. Boxed: a future is as large as its largest part, and each hit would have
/// that moved through all layers of its service.
type GoesOn = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A request on its way. By hand, because the future of an `async` function would hold the request twice; this
/// one lies in the connection's own memory.
pub(crate) struct Answering {
    proxy: Arc<Proxy>,
    began: Instant,
    trail: Option<Trail>,
    /// Until the first poll.
    request: Option<Request<Incoming>>,
    /// From then on, if that is not the end.
    on: Option<GoesOn>,
}

impl Future for Answering {
    type Output = Result<Response<BoxBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let begun = this.request.take();
        let answer = match begun.map(|request| this.proxy.begin(request, cx)) {
            Some(Step::Answered(answer)) => answer,
            Some(Step::Goes(on)) => ready!(this.on.insert(on).as_mut().poll(cx)),
            None => match &mut this.on {
                Some(on) => ready!(on.as_mut().poll(cx)),
                // It has ended, and is not polled again.
                None => return Poll::Pending,
            },
        };
        let trail = this.trail.take();
        Poll::Ready(Ok(this.proxy.end(answer, this.began, trail)))
    }
}

/// An answer with what the line of its request says, if it has one.
fn told_of(asked: Option<Asked>, mut response: Response<BoxBody>, tier: Option<Tier>) -> Answer {
    if let Some(asked) = asked {
        response.extensions_mut().insert(asked);
    }
    Answer { response, tier }
}

/// Hits, in the short header.
const HIT: &str = Status::Hit { ttl_seconds: None }.x_reflex_status();

/// Our own status of a response: the last member of the list.
fn own_status(headers: &HeaderMap) -> &str {
    last(headers, &CACHE_STATUS_NAME).map_or("", last_cache_status)
}

fn last<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get_all(name).iter().next_back()?.to_str().ok()
}

/// The `Connection` of a request or response that changes the protocol.
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// The reason in a `Cache-Status` of ours. A label of a metric must be one of a known few, but
/// another component may say anything.
fn detail(cache_status: &str) -> &'static str {
    let detail = cache_status
        .split_once("detail=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let known = detail.and_then(|(detail, _)| Bypass::from_detail(detail));
    known.map_or("other", Bypass::detail)
}
