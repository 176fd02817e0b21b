//! Misses: the leader asks the provider, followers join it, and the answer is recorded.

use super::batch::Texts;
use super::bindings::{cache, http as bindings};
use super::body::HostBody;
use super::budget::Budget;
use super::cache_host::ReflexCtx;
use super::fills::{Lead, Turn};
use super::heads::only;
use super::http_host::{HttpPolicy, ReflexHttp, ReflexHttpView};
use super::recording::{Outcome, Recording, Target};
use super::sharing::{Follower, Shared};
use crate::cache::Mark;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};
use reflex_llm::{Dropped, Key, Life, Limits, Part, Recorder, Rejected, Shape, Tenant, Validator};
use std::future::ready;
use std::sync::Arc;
use wasmtime::Result;
use wasmtime::component::{Access, Accessor, Resource};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p3::Response;

/// Joins the fill of an answer, or begins it.
pub(super) async fn join<T: ReflexHttpView + 'static>(
    store: &Accessor<T, ReflexHttp>,
    recording: bindings::Recording,
) -> Result<bindings::Turn> {
    let (target, wait_max, progress) = store.with(|mut store| {
        let view = store.get();
        let since = view.progress.since(&view.ctx.cache);
        let target = target(view.ctx, view.policy, since, &recording);
        (target, view.policy.fill_wait_max, view.progress)
    });
    let Some(target) = target else {
        return Ok(bindings::Turn::Alone);
    };
    let key = target.ctx.key(&target.key);
    let waiting = progress.wait();
    let turn = target.fills.join(key, target.key.tenant, wait_max).await;
    drop(waiting);

    store.with(|mut store| {
        let view = store.get();
        Ok(match turn {
            Turn::Lead(lead) => {
                view.progress.lead(lead.audience());
                bindings::Turn::Lead(view.http.table.push(lead)?)
            }
            Turn::Follow(Follower {
                status,
                headers,
                body,
            }) => {
                let mut response = http::Response::new(HostBody::boxed(body, &view.progress));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                let (response, _transmitted) = Response::from_http(view.http.hooks, response);
                bindings::Turn::Follow(view.http.table.push(response)?)
            }
            Turn::Failed(error) => {
                view.progress.call_upstream();
                bindings::Turn::Failed(error)
            }
            Turn::Again => bindings::Turn::Again,
            Turn::Alone => bindings::Turn::Alone,
        })
    })
}

/// Hands a response back with a recorder on its body, which followers may read as well. An answer
/// to several texts is stored text by text.
pub(super) fn record<T: ReflexHttpView + 'static>(
    mut store: Access<'_, T, ReflexHttp>,
    response: Resource<Response>,
    recording: bindings::Recording,
    fill: Option<Resource<Lead>>,
    texts: Option<Texts>,
) -> Result<Resource<Response>> {
    let view = store.get();
    let lead = fill.map(|fill| view.http.table.delete(fill)).transpose()?;
    let wanted = view.http.table.get(&response)?;
    let (status, headers) = (wanted.status, HeaderMap::clone(&wanted.headers));
    let since = view.progress.since(&view.ctx.cache);
    let target = target_or_count(view.ctx, view.policy, since, &recording);
    let target = target.map(|target| Target { texts, ..target });
    let Some(watch) = Watch::new(target, view.policy, (status, &headers), lead) else {
        return Ok(response);
    };
    let response = view.http.table.delete(response)?;
    let response = response.into_http(&mut store, ready(Ok(())))?;
    let response = response.map(|body| watch.body(body));
    let view = store.get();
    let (response, _transmitted) = Response::from_http(view.http.hooks, response);
    Ok(view.http.table.push(response)?)
}

/// What to do with the body of an answer on its way: record it, share it with the followers, or
/// both.
pub(super) struct Watch {
    status: StatusCode,
    /// The headers for the followers.
    seen: HeaderMap,
    recording: Option<Recording>,
    lead: Option<Lead>,
    body_bytes_max: usize,
    budget: Arc<Budget>,
}

impl Watch {
    /// None if the head says that the answer is for the leader only.
    pub(super) fn new(
        target: Option<Target>,
        policy: &HttpPolicy,
        (status, headers): (StatusCode, &HeaderMap),
        lead: Option<Lead>,
    ) -> Option<Self> {
        let keep = |lead: Option<Lead>| {
            if let Some(lead) = lead {
                lead.keep();
            }
        };
        let Some(mut target) = target else {
            keep(lead);
            return None;
        };
        if let Some(lead) = &lead {
            target.since = lead.since();
        }
        let limits = policy.limits(&target.ctx.cache, target.texts.as_ref());
        let fill = lead.as_ref().map(Lead::fill);
        let recording = begin(target, limits, (status, headers), |validator, target| {
            Recording::new(validator, target, policy.replay, fill, &policy.budget)
        });
        let is_shared = recording.is_some() || lead.is_some() && is_failure(status, headers);
        if !is_shared {
            keep(lead);
            return None;
        }
        // Followers get a failure too, with `retry-after` and rate limits.
        let seen = match recording {
            Some(_) => only(headers, Part::is_kept),
            None => only(headers, Part::is_followed),
        };
        Some(Self {
            status,
            seen,
            recording,
            lead,
            body_bytes_max: limits.body_bytes_max,
            budget: Arc::clone(&policy.budget),
        })
    }

    /// The body for the leader's client.
    pub(super) fn body(self, body: WasiBody) -> WasiBody {
        let is_open = self.recording.is_some();
        let shared = Shared::new(
            (self.status, self.seen),
            body,
            self.recording,
            self.body_bytes_max,
            &self.budget,
        );
        let body = shared.leader();
        if let Some(lead) = self.lead {
            lead.share(&shared, is_open);
        }
        body
    }
}

/// Whether the provider fails, with a body that every client can read.
fn is_failure(status: StatusCode, headers: &HeaderMap) -> bool {
    fails(status) && !headers.contains_key(CONTENT_ENCODING)
}

/// Whether the provider says that it fails.
pub(super) fn fails(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Begins to record, unless the head already says that the answer is not to be kept.
fn begin(
    target: Target,
    limits: Limits,
    (status, headers): (StatusCode, &HeaderMap),
    recording: impl FnOnce(Validator, Target) -> Recording,
) -> Option<Recording> {
    let mut validator = Validator::new(target.shape, limits);
    match validator.head(status.as_u16(), &named(headers)) {
        Ok(()) => Some(recording(validator, target)),
        Err(rejected) => {
            target.reject(rejected);
            None
        }
    }
}

/// A recorder that has seen the head of an answer.
pub(super) fn recorder(
    shape: Shape,
    limits: Limits,
    (status, headers): (StatusCode, &HeaderMap),
) -> Result<Recorder, Rejected> {
    let mut recorder = Recorder::new(shape, limits);
    recorder.head(status.as_u16(), &named(headers))?;
    Ok(recorder)
}

/// Headers as `reflex-llm` reads them.
fn named(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// The recording that a guest asks for, if it is valid. `since` is from before the lookup.
pub(super) fn target(
    ctx: &ReflexCtx,
    policy: &HttpPolicy,
    since: Mark,
    recording: &bindings::Recording,
) -> Option<Target> {
    let bindings::Recording {
        key,
        shape,
        path,
        model,
        ttl_seconds,
    } = recording;
    let grant = &ctx.grant;
    // Beyond the grant nothing is recorded; the refusal is counted like any other.
    grant.check_write().ok()?;
    grant.tenant(&key.tenant).ok()?;
    let key = key_of(key)?;
    let lifetimes = &grant.lifetimes;
    let ttl = match lifetimes.of(path, model.as_deref(), *ttl_seconds) {
        Life::NotKept => return None,
        Life::For(ttl) => Some(ttl),
        Life::Forever => None,
    };
    Some(Target {
        ctx: ctx.clone(),
        key,
        shape: Shape::from_token(shape)?,
        texts: None,
        model: model.clone(),
        ttl,
        observer: Arc::clone(&policy.observer),
        since,
        fills: Arc::clone(&policy.fills),
    })
}

/// The same, once the answer has come. An answer with a life of zero is counted as such.
pub(super) fn target_or_count(
    ctx: &ReflexCtx,
    policy: &HttpPolicy,
    since: Mark,
    recording: &bindings::Recording,
) -> Option<Target> {
    let target = target(ctx, policy, since, recording);
    let life = || {
        let (path, model) = (&recording.path, recording.model.as_deref());
        ctx.grant.lifetimes.of(path, model, recording.ttl_seconds)
    };
    if target.is_none() && life() == Life::NotKept {
        policy.observer.ended(Outcome::Dropped(Dropped::Ttl));
    }
    target
}

pub(super) fn key_of(key: &cache::Key) -> Option<Key> {
    Some(Key {
        tenant: Tenant(key.tenant.as_slice().try_into().ok()?),
        digest: key.digest.as_slice().try_into().ok()?,
    })
}
