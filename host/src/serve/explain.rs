//! What the daemon would do with a request, and why: `reflex-edge explain`.
//!
//! Every decision is made by the code that decides for the proxy. This adds only the questions:
//! which part of a request makes it pass by, and which parts are out of the key.

use super::aim::aim_headers;
use super::config::{Config, Provider};
use super::upstream::{NoProvider, Wanted, aimed, chosen};
use super::{heads, tunnel};
use crate::exchange::body::ahead::read_ahead;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::full;
use crate::exchange::question::{Named, candidate};
use crate::grant::Grant;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Request};
use reflex_llm::{
    Anonymous, Bypass, Candidate, ClientControl, Control, Keyed, KeyedKind, Life, model_of,
};
use std::collections::BTreeSet;

/// Reasons of one request that are told. Each is the reason once what caused the one before is out.
const REASONS_MAX: usize = 8;
/// Fields of a body that are tried for being the cause. Each trial reads the whole body.
const FIELDS_TRIED_MAX: usize = 256;

/// Explains requests to a daemon with one configuration.
#[derive(Debug)]
pub struct Explainer {
    grant: Grant,
    client_control: ClientControl,
    /// Those that requests are for, in the order in which they are tried.
    providers: Vec<Provider>,
    tenant_header: Option<HeaderName>,
}

/// What the daemon would do with a request.
#[derive(Debug)]
pub struct Explained {
    /// The fate of the request.
    pub verdict: Verdict,
    /// The obeyed instructions of the client to the cache.
    pub control: Control,
    /// Whether an answer may be stored; not if a `[[ttl]]` rule or `x-reflex-ttl` says so.
    pub is_kept: bool,
    /// Headers that the key does not have, or not as they are.
    pub other_headers: Vec<String>,
    /// Top-level fields of the body, likewise.
    pub other_fields: Vec<String>,
}

/// The fate of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is looked up under a key.
    Keyed(Box<Keyed>),
    /// It goes to the provider untouched. Never empty.
    Bypass(Vec<Reason>),
    /// The daemon refuses it; the text says why.
    Refused(&'static str),
}

/// Why a request passes by.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// The reason.
    pub bypass: Bypass,
    /// The part without which the request would not pass by for this reason, if it is one part.
    pub part: Option<(KeyedKind, String)>,
}

/// The operator's rules about requests, without bounds on what a component stores.
pub(super) fn grant(config: &Config) -> Grant {
    let anonymous = if config.share_anonymous {
        Anonymous::Share
    } else {
        Anonymous::Bypass
    };
    Grant {
        namespace: config.namespace.clone(),
        anonymous,
        tenant_header: config.tenant_header.clone(),
        request_bytes_max: config.request_bytes_max,
        temperature_max: config.temperature_max,
        paths: config.paths.clone(),
        rules: config.rules.clone(),
        groups: config.groups.clone(),
        lifetimes: config.lifetimes.clone(),
        ..Grant::default()
    }
}

impl Explainer {
    /// By this configuration, in front of its providers.
    pub fn new(config: &Config) -> Self {
        let is_asked = |provider: &&Provider| provider.interchangeable_with.is_none();
        Self {
            grant: grant(config),
            client_control: config.client_control,
            providers: config.providers.iter().filter(is_asked).cloned().collect(),
            tenant_header: config
                .tenant_header
                .as_deref()
                .and_then(|name| name.parse().ok()),
        }
    }

    /// Explains a request as a client sends it. Its URI needs a path only.
    pub async fn explain(&self, request: Request<Bytes>) -> Explained {
        let is_tunnel = tunnel::wanted(&request).is_some();
        let (mut parts, body) = request.into_parts();
        let mut explained = Explained {
            verdict: Verdict::Refused(""),
            control: Control::default(),
            is_kept: true,
            other_headers: Vec::new(),
            other_fields: Vec::new(),
        };
        if let Some(why) = self.aim(&mut parts, &body) {
            explained.verdict = Verdict::Refused(why);
            return explained;
        }
        if is_tunnel {
            let part = Some((KeyedKind::Header, "upgrade".to_owned()));
            let bypass = Bypass::Upgrade;
            explained.verdict = Verdict::Bypass(vec![Reason { bypass, part }]);
            return explained;
        }
        match self.read(&parts, &body).await {
            Ok(keyed) => {
                explained.control = keyed.examined.exchange.control;
                let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
                let model = keyed.examined.model.as_deref();
                let asked = explained.control.ttl_seconds;
                let life = self.grant.lifetimes.of(path, model, asked);
                explained.is_kept = life != Life::NotKept;
                let keyed_parts = keyed.parts();
                let of = |kind| {
                    let parts = keyed_parts.iter().filter(move |part| part.kind == kind);
                    parts.map(|part| part.name.as_str()).collect::<Vec<_>>()
                };
                let (headers, fields) = (of(KeyedKind::Header), of(KeyedKind::Field));
                let has_cookies = !of(KeyedKind::Cookie).is_empty();
                let is_other =
                    |name: &str| !(headers.contains(&name) || has_cookies && name == "cookie");
                let names: BTreeSet<_> = parts.headers.keys().map(HeaderName::as_str).collect();
                explained.other_headers = owned(names.into_iter().filter(|name| is_other(name)));
                let names = field_names(&body);
                let names = names.iter().map(String::as_str);
                explained.other_fields = owned(names.filter(|name| !fields.contains(name)));
                explained.verdict = Verdict::Keyed(Box::new(keyed));
            }
            Err(bypass) => {
                explained.verdict = Verdict::Bypass(self.reasons(parts, body, bypass).await);
            }
        }
        explained
    }

    /// Turns the client's request into the one for the provider, or says why it is refused.
    fn aim(&self, parts: &mut Parts, body: &[u8]) -> Option<&'static str> {
        let head = Request::from_parts(parts.clone(), ());
        if !heads::fits(&head) {
            return Some("the head of the request is too large");
        }
        if parts.method == Method::CONNECT {
            return Some("this is not a forward proxy");
        }
        let takes = || self.providers.iter().map(|provider| &provider.takes);
        let wanted = Wanted::of(&parts.method, &parts.uri, &parts.headers);
        let found = match chosen(takes(), &wanted) {
            Err(NoProvider::NeedsModel) => {
                let model = model_of(parts.uri.path(), body);
                chosen(takes(), &wanted.with_model(model))
            }
            found => found,
        };
        let place = match found {
            Ok(place) => place,
            Err(why) => return Some(why.told().1),
        };
        match aimed(&self.providers[place], parts.uri.path_and_query()) {
            Ok(uri) => parts.uri = uri,
            Err(_) => return Some("the request's path does not lead to the provider"),
        }
        aim_headers(&mut parts.headers, self.tenant_header.as_ref());
        None
    }

    /// Reads a request as a [question](crate::exchange::question) is read.
    async fn read(&self, parts: &Parts, body: &Bytes) -> Result<Keyed, Bypass> {
        let named = Named::of(parts);
        let head = named.head();
        let candidate: Candidate<'_> = candidate(&head, &self.grant, self.client_control)?;
        let bytes_max = self.grant.request_bytes_max;
        let budget = Budget::new(u64::MAX);
        let read = read_ahead(full(body.clone()), bytes_max, &budget, None).await;
        // A body that is in memory does not break off.
        let (whole, _) = read.map_err(|_| Bypass::Unavailable)?.with_body();
        candidate.prepare().keyed(&whole?)
    }

    /// Every reason to pass by, each with the part that causes it: the part without which the
    /// request would not pass by for it.
    async fn reasons(&self, mut parts: Parts, mut body: Bytes, first: Bypass) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut next = Some(first);
        while let Some(bypass) = next.take() {
            let cause = self.cause(&parts, &body, bypass).await;
            let Some(cause) = cause else {
                reasons.push(Reason { bypass, part: None });
                break;
            };
            reasons.push(Reason {
                bypass,
                part: Some((cause.kind, cause.name)),
            });
            if reasons.len() < REASONS_MAX {
                (parts.headers, body, next) = (cause.headers, cause.body, cause.next);
            }
        }
        reasons
    }

    async fn cause(&self, parts: &Parts, body: &Bytes, bypass: Bypass) -> Option<Cause> {
        let mut trial = parts.clone();
        let names: Vec<HeaderName> = parts.headers.keys().cloned().collect();
        for name in names {
            trial.headers = parts.headers.clone();
            trial.headers.remove(&name);
            let next = self.read(&trial, body).await.err();
            // Without its credential, a request has one reason more.
            if next != Some(bypass) && next != Some(Bypass::NoCredential) {
                return Some(Cause {
                    kind: KeyedKind::Header,
                    name: name.as_str().to_owned(),
                    headers: trial.headers,
                    body: body.clone(),
                    next,
                });
            }
        }
        for name in field_names(body).into_iter().take(FIELDS_TRIED_MAX) {
            let shorter = without_field(body, &name)?;
            let next = self.read(parts, &shorter).await.err();
            if next != Some(bypass) {
                return Some(Cause {
                    kind: KeyedKind::Field,
                    name,
                    headers: parts.headers.clone(),
                    body: shorter,
                    next,
                });
            }
        }
        None
    }
}

/// A part that makes a request pass by, and the request without it.
struct Cause {
    kind: KeyedKind,
    name: String,
    headers: HeaderMap,
    body: Bytes,
    /// Why the request without it passes by, if it does.
    next: Option<Bypass>,
}

fn owned<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}

/// The names of a body's top-level fields; none if it is no JSON object.
fn field_names(body: &[u8]) -> Vec<String> {
    let object: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(body).ok();
    object.map_or_else(Vec::new, |object| object.keys().cloned().collect())
}

/// The same body without a top-level field. Numbers may be spelled in another way.
fn without_field(body: &[u8], name: &str) -> Option<Bytes> {
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).ok()?;
    object.remove(name)?;
    Some(serde_json::to_vec(&object).ok()?.into())
}
