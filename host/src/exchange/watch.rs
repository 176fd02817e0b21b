//! Misses: the leader asks the provider, followers join it, and the answer is recorded.

use crate::cache::Mark;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::fills::Lead;
use crate::exchange::observer::Outcome;
use crate::exchange::policy::HttpPolicy;
use crate::exchange::recording::{Recording, Target};
use crate::exchange::reply::head::only;
use crate::exchange::shared_body::{Record, Shared};
use crate::grant::ctx::ReflexCtx;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};
use reflex_llm::{Dropped, Key, Life, Limits, Part, Recorder, Rejected, Shape, Validator, flow};
use std::sync::Arc;

/// What to do with the body of an answer on its way: record it, share it with the followers, or
/// both.
pub(crate) struct Watch {
    status: StatusCode,
    /// The headers for the followers.
    seen: HeaderMap,
    recording: Option<Box<dyn Record>>,
    lead: Option<Lead>,
    body_bytes_max: usize,
    budget: Arc<Budget>,
}

impl Watch {
    /// None if the head says that the answer is for the leader only.
    pub(crate) fn new(
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
        let limits = policy.limits(&target.ctx.cache, target.texts.is_some());
        let fill = lead.as_ref().map(Lead::fill);
        let recording = begin(target, limits, (status, headers), |validator, target| {
            let recording = Recording::new(validator, target, policy.replay, fill, &policy.budget);
            Box::new(recording) as Box<dyn Record>
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
    pub(crate) fn body(self, body: BoxBody) -> BoxBody {
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
pub(crate) fn fails(status: StatusCode) -> bool {
    flow::is_failure(status.as_u16())
}

/// Begins to record, unless the head already says that the answer is not to be kept.
fn begin(
    target: Target,
    limits: Limits,
    (status, headers): (StatusCode, &HeaderMap),
    recording: impl FnOnce(Validator, Target) -> Box<dyn Record>,
) -> Option<Box<dyn Record>> {
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
pub(crate) fn recorder(
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

/// An answer that is wanted in the cache, and what the operator's rules need to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) shape: Shape,
    pub(crate) path: String,
    pub(crate) model: Option<String>,
    /// The client's wish.
    pub(crate) ttl_seconds: Option<u64>,
}

impl Wanted {
    /// Whether client and operator let the answer be kept.
    pub(crate) fn is_kept(&self, ctx: &ReflexCtx) -> bool {
        self.life(ctx) != Life::NotKept
    }

    fn life(&self, ctx: &ReflexCtx) -> Life {
        let lifetimes = &ctx.grant.lifetimes;
        lifetimes.of(&self.path, self.model.as_deref(), self.ttl_seconds)
    }
}

/// Where an answer is to be recorded, if that may be. `since` is from before the cache was looked at.
pub(crate) fn target(
    ctx: &ReflexCtx,
    policy: &HttpPolicy,
    since: Mark,
    wanted: &Wanted,
) -> Option<Target> {
    let grant = &ctx.grant;
    // What the grant does not allow is not recorded; it is counted like any other call.
    grant.check_write().ok()?;
    grant.tenant(&wanted.key.tenant.0).ok()?;
    let ttl = match wanted.life(ctx) {
        Life::NotKept => return None,
        Life::For(ttl) => Some(ttl),
        Life::Forever => None,
    };
    Some(Target {
        ctx: ctx.clone(),
        key: wanted.key,
        shape: wanted.shape,
        texts: None,
        model: wanted.model.clone(),
        ttl,
        observer: Arc::clone(&policy.observer),
        since,
        fills: Arc::clone(&policy.fills),
    })
}

/// The same, where the answer is there. One that is to live for no time is counted as such.
pub(crate) fn target_or_count(
    ctx: &ReflexCtx,
    policy: &HttpPolicy,
    since: Mark,
    wanted: &Wanted,
) -> Option<Target> {
    let target = target(ctx, policy, since, wanted);
    if target.is_none() && !wanted.is_kept(ctx) {
        policy.observer.ended(Outcome::Dropped(Dropped::Ttl));
    }
    target
}
