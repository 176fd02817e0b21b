//! The middleware component: a `wasi:http` handler in front of another one.
//!
//! It reads as the flow does: classify, look up, then replay or forward and record. What a
//! request means is `reflex-llm`'s business; bodies stay with the host, except that of a request
//! that may be answered from the cache, which has to be read to know its key.

mod batch;
pub mod bindings;

use batch::{Batch, Look};
use bindings::exports::wasi::http::handler::Guest;
use bindings::reflex::cache::cache::{self, Entry, Name};
use bindings::reflex::cache::embeddings::{self, Completed};
use bindings::reflex::cache::http::{self, Recording, Turn};
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Request, Response};
use reflex_llm::status::{self, Status};
use reflex_llm::{
    Anonymous, Api, Bypass, ClientControl, Control, Examined, Head, PathRule, Policy, Shape,
    Tenant, X_REFLEX_TTL,
};
use std::slice;

/// The handler; what a crate that builds on this one calls for the rest.
#[derive(Debug)]
pub struct Middleware;

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let policy = http::get_policy();
        let head = http::inspect(&request);
        let headers: Vec<(&str, &[u8])> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let head = Head {
            method: &head.method,
            upstream: &head.upstream,
            path: &head.path,
            headers: &headers,
        };

        // The provider learns nothing of our tenants.
        if let Some(name) = &policy.tenant_header {
            http::edit_request(&request, slice::from_ref(name), &[]);
        }
        let paths = path_rules(&policy);
        let mut candidate = match reflex_llm::candidate(&head, &rules(&policy, &paths)) {
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
        let Some(body) = peeked.body else {
            return bypass(peeked.request, Bypass::BodyTooLarge).await;
        };
        let examined = match candidate.examine(&body) {
            Ok(examined) => examined,
            Err(reason) => return bypass(peeked.request, reason).await,
        };
        // Of several answers to one request, each is an answer to the whole.
        let batch = match policy.samples {
            0 | 1 => Batch::of(&candidate, &body),
            _ => None,
        };
        answer(peeked.request, head.path, examined, batch, policy.samples).await
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
    let control = &exchange.control;
    let recording = Recording {
        key: key.clone(),
        shape: exchange.shape.name().into(),
        path: path.into(),
        model,
        ttl_seconds: control.ttl_seconds,
    };

    let mut fill = None;
    let mut missing = None;
    if !control.no_cache {
        for _ in 0..LOOKS_MAX {
            if let Some(response) = look_up(&key, control) {
                return Ok(response);
            }
            missing = match batch.as_ref().map(|batch| batch.look_up(control)) {
                Some(Look::All(response)) => return Ok(response),
                Some(Look::AllBut(missing)) => Some(missing),
                Some(Look::Nothing) | None => None,
            };
            // The second look is what a leader owes those who wait for it.
            if control.only_if_cached || fill.is_some() {
                break;
            }
            match http::join(recording.clone()).await {
                Turn::Lead(lead) => fill = Some(lead),
                Turn::Follow(response) => {
                    edit(&response, Status::Collapsed);
                    return Ok(or_stale(response, &key, control));
                }
                Turn::Failed(error) => return stale(&key, control, None).ok_or(error),
                Turn::Again => {}
                Turn::Alone => break,
            }
        }
    }
    if control.only_if_cached {
        // Any of them will do.
        let others = (1..samples).map(|_| sample(&request_key, samples));
        let mut found = others.filter_map(|key| look_up(&key, control));
        return Ok(found.next().unwrap_or_else(|| not_cached(exchange.shape)));
    }

    // Everyone must be able to read the replay, so what is recorded is not compressed.
    http::edit_request(
        &request,
        &[X_REFLEX_TTL.into()],
        &[("accept-encoding".into(), b"identity".to_vec())],
    );
    let part = match (&batch, &missing) {
        (Some(batch), Some(missing)) => batch.complete(&request, missing, &recording).await,
        _ => Ok(Completed::Apart),
    };
    let asked = match part {
        // Those who wait find its parts in the cache.
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
            return stale(&key, control, None).ok_or(error);
        }
    };
    let status = if control.no_cache {
        Status::Refresh
    } else {
        Status::Miss
    };
    edit(&response, status);
    // A failure goes to those who wait as well, whatever this client gets.
    let response = match batch {
        Some(batch) => embeddings::record_batch(batch.host(), response, &recording, fill),
        None => http::record_response(response, &recording, fill),
    };
    Ok(or_stale(response, &key, control))
}

/// The key of one of several answers, or of the only one.
fn sample(key: &cache::Key, samples: u32) -> cache::Key {
    match samples {
        0 | 1 => key.clone(),
        _ => http::sample(key),
    }
}

/// How often the cache is looked at for one request: at first, as a leader once more, and again
/// when a leader has gone without an answer. Whoever has bad luck more often asks alone.
const LOOKS_MAX: usize = 4;

/// What the cache has for this client.
fn look_up(key: &cache::Key, control: &Control) -> Option<Response> {
    // An error of the cache is a miss: the provider can still answer.
    let entry = cache::lookup(&Name::Key(key.clone())).unwrap_or_default()?;
    let accepted = control.accepts(entry.age_seconds(), entry.ttl_seconds());
    accepted.then(|| replay(&entry).ok()).flatten()
}

/// What the provider says, or what there is in place of its failure.
fn or_stale(response: Response, key: &cache::Key, control: &Control) -> Response {
    let status = response.get_status_code();
    if !matches!(status, 429 | 500..=599) {
        return response;
    }
    stale(key, control, Some(status)).unwrap_or(response)
}

/// What the cache has that has expired, for a client whose request the provider has failed.
fn stale(key: &cache::Key, control: &Control, fwd_status: Option<u16>) -> Option<Response> {
    if !control.accepts_stale() {
        return None;
    }
    let http::Stale {
        entry,
        expired_seconds,
    } = http::lookup_stale(key)?;
    let mut headers = status_headers(Status::Stale {
        fwd_status,
        expired_seconds,
    });
    headers.push(age(entry.age_seconds()));
    http::replay(&entry, &headers).ok()
}

fn replay(entry: &Entry) -> Result<Response, cache::Error> {
    http::replay(
        entry,
        &hit_headers(entry.age_seconds(), entry.ttl_seconds()),
    )
}

fn hit_headers(age_seconds: u64, ttl_seconds: Option<u64>) -> Vec<http::Header> {
    let mut headers = status_headers(Status::Hit { ttl_seconds });
    headers.push(age(age_seconds));
    headers
}

fn age(seconds: u64) -> http::Header {
    (status::AGE.into(), seconds.to_string().into_bytes())
}

/// To the provider as if we were not there, but for the header that says so.
async fn bypass(request: Request, reason: Bypass) -> Result<Response, ErrorCode> {
    let response = handler::handle(request).await?;
    edit(&response, Status::Bypass(reason));
    Ok(response)
}

fn edit(response: &Response, status: Status) {
    http::edit_response(response, &[], &status_headers(status));
}

fn status_headers(status: Status) -> Vec<http::Header> {
    vec![
        (
            status::X_REFLEX_STATUS.into(),
            status.x_reflex_status().as_bytes().to_vec(),
        ),
        (
            status::CACHE_STATUS.into(),
            status.cache_status().into_owned().into_bytes(),
        ),
    ]
}

/// `only-if-cached` and nothing cached: 504, as RFC 9111 wants it, in the API's error shape.
fn not_cached(shape: Shape) -> Response {
    let mut headers = status_headers(Status::Absent);
    headers.push(("content-type".into(), b"application/json".to_vec()));
    let error = shape.error_body(504, status::NOT_CACHED);
    http::respond(504, &headers, error.as_bytes())
}

fn rules<'a>(policy: &'a http::Policy, paths: &'a [PathRule]) -> Policy<'a> {
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
        paths,
    }
}

fn path_rules(policy: &http::Policy) -> Vec<PathRule> {
    let rule = |rule: &http::PathRule| PathRule {
        path: rule.path.clone(),
        api: Api::from_name(&rule.api),
    };
    policy.paths.iter().map(rule).collect()
}
