//! The middleware component: a `wasi:http` handler in front of another one.
//!
//! The code follows the flow: classify, look up, then replay, or forward and record. `reflex-llm`
//! interprets requests. Bodies stay with the host, except the body of a request that may be
//! answered from the cache: the guest reads it for the key.

mod batch;
pub mod bindings;
mod told;

use batch::{Batch, Look};
use bindings::exports::wasi::http::handler::Guest;
use bindings::reflex::cache::cache;
use bindings::reflex::cache::embeddings::{self, Completed};
use bindings::reflex::cache::http::{self, Fresh, Recording, Turn, Unread};
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Request, Response};
use reflex_llm::embeddings::are_taken_apart;
use reflex_llm::status::{NOT_CACHED_STATUS, Status};
use reflex_llm::{
    Anonymous, Api, Bypass, ClientControl, ERROR_HEADERS, Examined, Flow, Head, PathRule, Policy,
    Rules, Shape, Tenant,
};
use std::sync::{Arc, OnceLock};
use std::{mem, slice};

pub use told::Told;

/// The handler; a crate that builds on this one calls it for the rest.
#[derive(Debug)]
pub struct Middleware;

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let operator = Operator::get();
        let policy = &operator.policy;
        let told = Told::of(&request);
        let headers: Vec<(&str, &[u8])> = told.headers().collect();
        let head = Head {
            method: told.method(),
            upstream: told.upstream(),
            path: told.path(),
            headers: &headers,
        };

        // The provider must not see our tenants.
        if let Some(name) = &policy.tenant_header {
            http::edit_request(&request, slice::from_ref(name), &[]);
        }
        let mut candidate = match reflex_llm::candidate(&head, &operator.rules()) {
            Ok(candidate) => candidate,
            Err(reason) => return bypass(request, reason).await,
        };
        if policy.has_groups {
            let group = http::group_of(&candidate.tenant().0);
            // The host answers with 32 bytes for 32 bytes.
            let group = group.try_into().map_or(candidate.tenant(), Tenant);
            candidate = candidate.as_tenant(group, policy.tenant_header.as_deref());
        }
        let peeked = http::peek(request, policy.request_bytes_max).await?;
        let body = match peeked.body {
            Ok(body) => body,
            Err(why) => return bypass(peeked.request, reason(why)).await,
        };
        let examined = match candidate.examine(&body) {
            Ok(examined) => examined,
            Err(reason) => return bypass(peeked.request, reason).await,
        };
        let batch = are_taken_apart(policy.samples).then(|| Batch::of(&candidate, &body));
        let batch = batch.flatten();
        answer(peeked.request, head.path, examined, batch, policy.samples).await
    }
}

/// The reason of a bypass without a body to look at.
fn reason(why: Unread) -> Bypass {
    match why {
        Unread::TooLong => Bypass::BodyTooLarge,
        Unread::Trailers => Bypass::Trailers,
        Unread::Memory => Bypass::Memory,
    }
}

/// From the cache if it may be and is there; else from the provider, recorded on its way.
async fn answer(
    request: Request,
    path: &str,
    examined: Examined,
    batch: Option<Batch<'_>>,
    samples: u32,
) -> Result<Response, ErrorCode> {
    let Examined { exchange, model } = examined;
    let request_key = cache::Key {
        tenant: exchange.key.tenant.0.to_vec(),
        digest: exchange.key.digest.to_vec(),
    };
    let key = sample(&request_key, samples);
    let flow = Flow::of(&exchange.control);
    // Lazy: a hit does not need it.
    let recording = || Recording {
        key: key.clone(),
        shape: exchange.shape.token().into(),
        path: path.into(),
        model: model.clone(),
        ttl_seconds: exchange.control.ttl_seconds,
    };

    let mut fill = None;
    let mut missing = None;
    for joins in flow.looks() {
        if let Some(response) = look_up(&key, flow) {
            return Ok(response);
        }
        missing = match batch.as_ref().map(|batch| batch.look_up(&exchange.control)) {
            Some(Look::All(response)) => return Ok(response),
            Some(Look::AllBut(missing)) => Some(missing),
            Some(Look::Nothing) | None => None,
        };
        if fill.is_some() || !joins {
            break;
        }
        match http::join(recording()).await {
            Turn::Lead(lead) => fill = Some(lead),
            Turn::Follow(response) => {
                edit(&response, Status::Collapsed);
                return Ok(or_stale(response, &key, batch.as_ref(), flow));
            }
            Turn::Failed(error) => {
                return stale(&key, batch.as_ref(), flow, None).ok_or(error);
            }
            Turn::Again => {}
            Turn::Alone => break,
        }
    }
    if !flow.asks() {
        let others = (1..samples).filter(|_| flow.takes_any_sample());
        let mut found = others.filter_map(|_| look_up(&sample(&request_key, samples), flow));
        return Ok(found.next().unwrap_or_else(|| not_cached(exchange.shape)));
    }

    let recording = recording();
    let edits = flow.edits(missing.is_some());
    let remove: Vec<String> = edits.remove.iter().map(|&name| name.into()).collect();
    let set = edits.set.iter().map(|&(name, value)| header(name, value));
    http::edit_request(&request, &remove, &set.collect::<Vec<_>>());
    let part = match (&batch, &missing) {
        (Some(batch), Some(missing)) => batch.complete(&request, missing, &recording).await,
        _ => Ok(Completed::Apart),
    };
    let asked = match part {
        // The followers find its parts in the cache.
        Ok(Completed::Whole(response)) => return Ok(response),
        Ok(Completed::Failed(response)) => Ok(response),
        Ok(Completed::Apart) => handler::handle(request).await,
        Err(error) => Err(error),
    };
    let response = match asked {
        Ok(response) => response,
        Err(error) => {
            if let Some(fill) = fill {
                http::give_up(fill, &error);
            }
            return stale(&key, batch.as_ref(), flow, None).ok_or(error);
        }
    };
    edit(&response, flow.answered());
    // The followers get a failure as well, whatever this client gets.
    let response = match &batch {
        Some(batch) => embeddings::record_batch(batch.host(), response, &recording, fill),
        None => http::record_response(response, &recording, fill),
    };
    Ok(or_stale(response, &key, batch.as_ref(), flow))
}

/// The key of one of several answers, or of the only one.
fn sample(key: &cache::Key, samples: u32) -> cache::Key {
    match samples {
        0 | 1 => key.clone(),
        _ => http::sample(key),
    }
}

/// The cached answer, if this client accepts it.
fn look_up(key: &cache::Key, flow: Flow) -> Option<Response> {
    let Fresh {
        entry,
        age_seconds,
        ttl_seconds,
    } = http::lookup_fresh(key)?;
    if !flow.accepts(age_seconds, ttl_seconds) {
        return None;
    }
    let headers = headers(Status::Hit { ttl_seconds }, Some(age_seconds));
    // An error of the cache is a miss: the provider can still answer.
    http::replay(entry, &headers).ok()
}

/// The provider's response, or a stale hit in place of its failure.
fn or_stale(
    response: Response,
    key: &cache::Key,
    batch: Option<&Batch<'_>>,
    flow: Flow,
) -> Response {
    let status = response.get_status_code();
    stale(key, batch, flow, Some(status)).unwrap_or(response)
}

/// The expired answer, for a client whose request the provider has failed.
fn stale(
    key: &cache::Key,
    batch: Option<&Batch<'_>>,
    flow: Flow,
    fwd_status: Option<u16>,
) -> Option<Response> {
    if !flow.serves_stale(fwd_status) {
        return None;
    }
    let headers = |expired_seconds, age_seconds| {
        let status = Status::Stale {
            fwd_status,
            expired_seconds,
        };
        headers(status, Some(age_seconds))
    };
    let Some(http::Stale {
        entry,
        expired_seconds,
    }) = http::lookup_stale(key)
    else {
        // A batch is kept text by text, as a rule.
        return batch?.stale(headers);
    };
    let headers = headers(expired_seconds, entry.age_seconds());
    http::replay(entry, &headers).ok()
}

/// Sends the request to the provider unchanged, and marks the response as a bypass.
async fn bypass(request: Request, reason: Bypass) -> Result<Response, ErrorCode> {
    let response = handler::handle(request).await?;
    edit(&response, Status::Bypass(reason));
    Ok(response)
}

fn edit(response: &Response, status: Status) {
    http::edit_response(response, &[], &headers(status, None));
}

/// The headers that tell the client.
fn headers(status: Status, age_seconds: Option<u64>) -> Vec<http::Header> {
    let headers = status.headers(age_seconds);
    headers.map(|(name, value)| header(name, &value)).collect()
}

fn header(name: &str, value: &str) -> http::Header {
    (name.into(), value.as_bytes().to_vec())
}

/// `only-if-cached` and nothing cached: 504 by RFC 9111, in the API's error shape.
fn not_cached(shape: Shape) -> Response {
    let mut headers = headers(Status::Absent, None);
    headers.extend(ERROR_HEADERS.map(|(name, value)| header(name, value)));
    http::respond(
        NOT_CACHED_STATUS,
        &headers,
        shape.not_cached_body().as_bytes(),
    )
}

/// The operator's policy.
struct Operator {
    policy: http::Policy,
    paths: Vec<PathRule>,
    rules: Arc<Rules>,
}

impl Operator {
    /// Asked once: it does not change while the component runs.
    fn get() -> &'static Self {
        static OPERATOR: OnceLock<Operator> = OnceLock::new();
        OPERATOR.get_or_init(|| {
            let mut policy = http::get_policy();
            let rule = |rule: &http::PathRule| PathRule {
                path: rule.path.clone(),
                api: Api::from_name(&rule.api),
            };
            let paths = policy.paths.iter().map(rule).collect();
            let rules = &mut policy.rules;
            let rules = Rules {
                ignored_headers: mem::take(&mut rules.ignored_headers),
                ignored_cookies: mem::take(&mut rules.ignored_cookies),
                ignored_query: mem::take(&mut rules.ignored_query),
                ignored_fields: mem::take(&mut rules.ignored_fields),
                keyed_fields: mem::take(&mut rules.keyed_fields),
                bypass_fields: mem::take(&mut rules.bypass_fields),
                bypass_models: mem::take(&mut rules.bypass_models),
            };
            Self {
                policy,
                paths,
                rules: Arc::new(rules),
            }
        })
    }

    fn rules(&self) -> Policy<'_> {
        let policy = &self.policy;
        Policy {
            anonymous: if policy.share_anonymous {
                Anonymous::Share
            } else {
                Anonymous::Bypass
            },
            tenant_header: policy.tenant_header.as_deref(),
            temperature_max: policy.temperature_max,
            client_control: match policy.client_control {
                http::ClientControl::Obey => ClientControl::Obey,
                http::ClientControl::NoRefresh => ClientControl::NoRefresh,
                http::ClientControl::Ignore => ClientControl::Ignore,
            },
            paths: &self.paths,
            rules: Some(&self.rules),
        }
    }
}
