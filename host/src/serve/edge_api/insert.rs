//! `PUT` of an entry: an answer is judged once more, and stored unless there was a purge.

use super::fields::{EPOCH, MODEL, SHAPE, TTL, fill_id, number, text};
use super::refusal::Refusal;
use super::{EdgeApi, Name};
use crate::answer::{AnswerHead, Notes};
use crate::cache::{CacheKey, InsertError, NewEntry};
use crate::runtime::Gathered;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use reflex_llm::{Limits, MODEL_BYTES_MAX, Rejected, Shape, Storable, Validator};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;

/// Payloads over this length are stored on a blocking thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Stores the answer that a request brings, and lets go on who has waited for it. One that is not
/// kept is counted.
pub(super) async fn insert(
    api: &Arc<EdgeApi>,
    name: Name,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Refusal> {
    let inserted = try_insert(api, name, headers, body).await;
    if let Some(reason) = inserted.as_ref().err().and_then(Refusal::not_kept) {
        api.metrics.not_kept(reason);
    }
    inserted
}

async fn try_insert(
    api: &Arc<EdgeApi>,
    name: Name,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Refusal> {
    let fill = fill_id(headers)?.map(|id| Leading {
        api: Arc::clone(api),
        key: name.key,
        id: id.to_owned(),
    });
    let mut arrival = Arrival::announced(api, name, headers)?;
    arrival.answer.body = collect(body, api).await?;

    let is_long = arrival.answer.body.len() > INLINE_BYTES_MAX;
    let store = move || {
        let stored = arrival.store();
        drop(fill);
        stored
    };
    match is_long {
        false => store(),
        // To its end, also when nobody waits for it any more: half of it must not be left out.
        true => tokio::task::spawn_blocking(store).await.map_err(failed)?,
    }?;
    if api.cache.has_to_be_durable() {
        let cache = api.cache.clone();
        let wait = tokio::task::spawn_blocking(move || cache.wait_until_durable());
        wait.await.map_err(failed)?;
    }
    Ok(StatusCode::CREATED.into_response())
}

fn failed(_: JoinError) -> Refusal {
    let why = "storing failed";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "store", why)
}

/// A leader's promise. It ends with this, whatever became of it: nobody need wait any longer.
struct Leading {
    api: Arc<EdgeApi>,
    key: CacheKey,
    id: String,
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.api.fills.end_claim(&self.key, &self.id);
    }
}

/// An answer on its way into the cache.
struct Arrival {
    api: Arc<EdgeApi>,
    name: Name,
    /// None is for ever.
    ttl: Option<Duration>,
    shape: Option<Shape>,
    /// For the operator's prices.
    model: Option<String>,
    /// The epoch that the answer is of.
    epoch: Option<String>,
    answer: Storable<Bytes>,
}

impl Arrival {
    /// As the headers say; the body is still to come.
    fn announced(api: &Arc<EdgeApi>, name: Name, headers: &HeaderMap) -> Result<Self, Refusal> {
        let identity = |coding: &HeaderValue| {
            let coding = coding.as_bytes().trim_ascii();
            coding.eq_ignore_ascii_case(b"identity")
        };
        if !headers.get_all(CONTENT_ENCODING).iter().all(identity) {
            let why = "bodies are kept as they are read, not compressed";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::new(
                status,
                Rejected::ContentEncoding.detail(),
                why,
            ));
        }
        let ttl = match text(headers, &TTL, "number")? {
            Some("never") => None,
            _ => Some(match number(headers, &TTL)? {
                Some(0) => {
                    let why = "x-reflex-ttl: 0 would store nothing";
                    return Err(Refusal::bad("ttl", why));
                }
                Some(seconds) => Duration::from_secs(seconds),
                None => api.ttl,
            }),
        };
        let shape = match text(headers, &SHAPE, "shape")? {
            None => None,
            Some(name) => Some(Shape::from_name(name).ok_or_else(|| {
                let why = "x-reflex-shape is none that is known here";
                Refusal::bad("shape", why)
            })?),
        };
        let kept = headers
            .iter()
            .filter(|(name, _)| reflex_llm::is_kept(name.as_str()))
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        Ok(Self {
            api: Arc::clone(api),
            name,
            ttl,
            shape,
            model: model(headers)?,
            epoch: text(headers, &EPOCH, "epoch")?.map(str::to_owned),
            answer: Storable {
                status: 200,
                headers: kept,
                body: Bytes::new(),
            },
        })
    }

    fn store(&self) -> Result<(), Refusal> {
        let Self { api, answer, .. } = self;
        if let Some(shape) = self.shape {
            judge(shape, answer, api.allow_length).map_err(|rejected| {
                let why = format!("such an answer is not kept: {rejected}");
                Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, rejected.detail(), why)
            })?;
        }
        let notes = Notes {
            usage: self.shape.and_then(|shape| shape.usage(&answer.body)),
            model: self.model.clone(),
            pace: Vec::new(),
        };
        let metadata = AnswerHead::encode_noting(answer.status, &answer.headers, &notes);
        // No purge begins between the look and the insert.
        let held = api.cache.purges().hold();
        let current = api.epoch.of(held.count());
        if self.epoch.as_ref().is_some_and(|known| *known != current) {
            return Err(Refusal::purged());
        }
        let stored = api.cache.insert_now(NewEntry {
            key: &self.name.key,
            tenant: &self.name.tenant,
            metadata: &metadata,
            payload: &answer.body,
            now_ms: api.clock.now_ms(),
            ttl_ms: self
                .ttl
                .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        });
        drop(held);
        stored.map_err(|error| match error {
            InsertError::PayloadTooLarge(most) => Refusal::too_large(most),
            InsertError::MetadataTooLarge(most) => Refusal::headers_too_large(most),
            InsertError::QueueFull => Refusal::busy(),
        })?;
        // Whoever brought it: this is what all have waited for.
        api.fills.answered(&self.name.key);
        Ok(())
    }
}

fn model(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let model = text(headers, &MODEL, "model")?;
    if model.is_some_and(|model| model.len() > MODEL_BYTES_MAX) {
        let why = format!("x-reflex-model is longer than {MODEL_BYTES_MAX} characters");
        return Err(Refusal::bad("model", why));
    }
    Ok(model.map(str::to_owned))
}

/// The whole body.
async fn collect(body: &mut Body, api: &EdgeApi) -> Result<Bytes, Refusal> {
    let most = api.cache.entry_bytes_max();
    let mut bytes = Gathered::new(&api.budget);
    loop {
        let Ok(frame) = tokio::time::timeout(api.idle_max, body.frame()).await else {
            let why = "the body paused for too long";
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body", why));
        };
        match frame {
            None => return Ok(bytes.into_bytes()),
            Some(Err(_)) => {
                let why = "the body came to no proper end";
                return Err(Refusal::bad("body", why));
            }
            Some(Ok(frame)) => {
                let part = frame.into_data().unwrap_or_default();
                if part.len() as u64 > most - bytes.len() as u64 {
                    return Err(Refusal::too_large(most));
                }
                if !bytes.push(&part) {
                    return Err(Refusal::no_memory());
                }
            }
        }
    }
}

/// The same judgement that the edge has made: what arrives here may have been altered on the way.
fn judge(shape: Shape, answer: &Storable<Bytes>, allow_length: bool) -> Result<(), Rejected> {
    let limits = Limits {
        body_bytes_max: answer.body.len(),
        allow_length,
    };
    let headers: Vec<(&str, &[u8])> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut validator = Validator::new(shape, limits);
    validator.head(answer.status, &headers)?;
    validator.feed(&answer.body);
    validator.finish(&answer.body).map(drop)
}
