//! `PUT` of an entry: an answer is judged once more, and stored unless there was a purge.

use super::fields::{EPOCH, SHAPE, TTL, fill_id, number, text};
use super::refusal::Refusal;
use super::{EdgeApi, Name};
use crate::answer::AnswerHead;
use crate::cache::{CacheKey, InsertError, NewEntry};
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use reflex_llm::{Limits, Recorder, Rejected, Shape, Storable};
use std::sync::Arc;
use std::time::Duration;

/// Payloads over this length are stored on a blocking thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Stores the answer that a request brings, and lets go on who has waited for it.
pub(super) async fn insert(
    api: &Arc<EdgeApi>,
    name: &Name,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let fill = fill_id(&parts.headers)?.map(str::to_owned);
    let stored = body_of(api, name, &parts.headers, body).await;
    // Whatever became of it: nobody need wait for it any longer.
    if let Some(fill) = fill {
        api.fills.end(&name.key, &fill);
    }
    stored
}

async fn body_of(
    api: &Arc<EdgeApi>,
    name: &Name,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let ttl = match number(headers, &TTL)? {
        Some(0) => {
            let why = "x-reflex-ttl: 0 would store nothing";
            return Err(Refusal::bad("ttl", why));
        }
        Some(seconds) => Duration::from_secs(seconds),
        None => api.ttl,
    };
    let known = text(headers, &EPOCH).map(str::to_owned);
    let shape = match text(headers, &SHAPE) {
        None => None,
        Some(name) => Some(Shape::from_name(name).ok_or_else(|| {
            let why = "x-reflex-shape is none that is known here";
            Refusal::bad("shape", why)
        })?),
    };
    let kept: Vec<(String, Vec<u8>)> = headers
        .iter()
        .filter(|(name, _)| reflex_llm::is_kept(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();

    let most = usize::try_from(api.cache.entry_bytes_max()).unwrap_or(usize::MAX);
    let body = match Limited::new(body, most).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Refusal::too_large(most as u64));
        }
        Err(_) => {
            let why = "the body came to no proper end";
            return Err(Refusal::bad("body", why));
        }
    };
    let answer = Storable {
        status: 200,
        headers: kept,
        body: body.to_vec(),
    };
    if let Some(shape) = shape {
        judge(shape, &answer, api.allow_length).map_err(|rejected| {
            let why = format!("such an answer is not kept: {rejected}");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, rejected.detail(), why)
        })?;
    }
    let is_current = || known.as_ref().is_none_or(|known| *known == api.epoch.now());
    if !is_current() {
        return Err(Refusal::purged());
    }
    let is_long = answer.body.len() > INLINE_BYTES_MAX;
    let insert = {
        let (api, key, tenant) = (Arc::clone(api), name.key, name.tenant);
        move || keep(&api, &key, &tenant, &answer, ttl)
    };
    let inserted = match is_long {
        false => insert(),
        true => tokio::task::spawn_blocking(insert).await.map_err(|_| {
            let why = "storing failed";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "store", why)
        })?,
    };
    inserted.map_err(|error| match error {
        InsertError::PayloadTooLarge(most) | InsertError::MetadataTooLarge(most) => {
            Refusal::too_large(most)
        }
    })?;
    // A purge that came between the look and the insert may have missed it.
    if !is_current() {
        api.cache.remove(&name.key);
        return Err(Refusal::purged());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

fn keep(
    api: &EdgeApi,
    key: &CacheKey,
    tenant: &[u8; 32],
    answer: &Storable,
    ttl: Duration,
) -> Result<(), InsertError> {
    api.cache.insert(NewEntry {
        key,
        tenant,
        metadata: &AnswerHead::encode(answer.status, &answer.headers),
        payload: &answer.body,
        now_ms: api.clock.now_ms(),
        ttl_ms: Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
    })?;
    Ok(())
}

/// The same judgement that the edge has made: what arrives here may have been altered on the way.
fn judge(shape: Shape, answer: &Storable, allow_length: bool) -> Result<(), Rejected> {
    let limits = Limits {
        body_bytes_max: answer.body.len(),
        allow_length,
    };
    let headers: Vec<(&str, &[u8])> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut recorder = Recorder::new(shape, limits);
    recorder.head(answer.status, &headers)?;
    recorder.feed(&answer.body);
    recorder.finish().map(drop)
}
