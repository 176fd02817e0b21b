//! `PUT` of an entry: the answer is judged once more, and stored unless it was purged.

use super::fields::{AGE, END, EPOCH, MODEL, SHAPE, TTL, fill_id, number, text};
use super::refusal::Refusal;
use super::{EdgeApi, Name};
use crate::cache::{CacheKey, InsertError, Mark, NewEntry};
use crate::exchange::answer::{AnswerHead, Notes};
use crate::exchange::body::Gathered;
use crate::exchange::revealed;
use crate::serve::recent::Subject;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use reflex_llm::{
    Limits, MODEL_BYTES_MAX, ProviderControl, Rejected, Shape, Stated, Storable, Term, Validator,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;
use tokio::time::Instant;

/// Payloads over this length are stored on a blocking thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Stores the answer in a request, and wakes its followers. Counts an answer that is not kept.
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
    // The miss before it has not named the model.
    api.metrics.recent().asked(&Subject {
        model: arrival.model.as_deref(),
        ..Subject::default()
    });

    let is_long = arrival.answer.body.len() > INLINE_BYTES_MAX;
    let store = move || {
        let stored = arrival.store();
        drop(fill);
        stored
    };
    match is_long {
        false => store(),
        // To its end, also when the client is gone: no half of it may be left out.
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

/// A leader's promise. Dropping this ends the fill, with or without an answer.
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
    /// How long it lives from now on. `None`: it never expires.
    ttl: Option<Duration>,
    /// How old it is already, in seconds.
    age_seconds: u64,
    shape: Option<Shape>,
    /// In how many seconds it may not be served stale either, by what the edge knows of it.
    ends_seconds: Option<u64>,
    /// For the operator's prices.
    model: Option<String>,
    /// When the answer was asked for, or at least began to arrive. `None` if that is unknown,
    /// because its epoch is not of this daemon.
    since: Option<Mark>,
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
        let age_seconds = number(headers, &AGE)?.unwrap_or(0);
        let ttl = match text(headers, &TTL, "number")? {
            Some("never") => None,
            _ => Some(match number(headers, &TTL)? {
                Some(0) => {
                    let why = "x-reflex-ttl: 0 would store nothing";
                    return Err(Refusal::bad("ttl", why));
                }
                Some(seconds) => Duration::from_secs(seconds),
                // The operator's rule counts from when it was new.
                None => api.ttl.saturating_sub(Duration::from_secs(age_seconds)),
            }),
        };
        let shape = match text(headers, &SHAPE, "shape")? {
            None => None,
            Some(name) => Some(Shape::from_token(name).ok_or_else(|| {
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
            age_seconds,
            shape,
            ends_seconds: number(headers, &END)?,
            model: model(headers)?,
            since: match text(headers, &EPOCH, "epoch")? {
                Some(epoch) => api.epoch.mark(epoch),
                None => Some(api.cache.purges().now()),
            },
            answer: Storable {
                status: 200,
                headers: kept,
                body: Bytes::new(),
                stated: Stated::default(),
            },
        })
    }

    fn store(&self) -> Result<(), Refusal> {
        let Self { api, answer, .. } = self;
        let term = self.term().map_err(|rejected| {
            if let Some(shape) = self.shape {
                revealed::note(shape.api, rejected);
            }
            let why = format!("such an answer is not kept: {rejected}");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, rejected.detail(), why)
        })?;
        let notes = Notes {
            usage: self.shape.and_then(|shape| shape.usage(&answer.body)),
            model: self.model.clone(),
            pace: Vec::new(),
            ends_at_ms: self.ends_at_ms(term),
            shape: self.shape,
            digest: Some(self.name.digest),
        };
        let metadata = AnswerHead::encode_noting(answer.status, &answer.headers, &notes);
        let since = self.since.ok_or_else(Refusal::purged)?;
        let new = NewEntry {
            key: &self.name.key,
            tenant: &self.name.tenant,
            metadata: &metadata,
            payload: &answer.body,
            now_ms: term.stored_at_ms,
            ttl_ms: term.ttl_ms(),
        };
        let digest = &self.name.digest;
        let stored = api.cache.insert_named_now_since(new, digest, since);
        stored.map_err(|error| match error {
            InsertError::PayloadTooLarge(most) => Refusal::too_large(most),
            InsertError::MetadataTooLarge(most) => Refusal::headers_too_large(most),
            InsertError::QueueFull => Refusal::busy(),
            InsertError::Purged => Refusal::purged(),
        })?;
        // Wakes all followers, whichever edge led.
        api.fills.answered(&self.name.key);
        api.cache.share(&self.name.key, &self.name.tenant);
        Ok(())
    }
}

impl Arrival {
    /// From when on the answer is not served stale either. An answer of unknown shape was not judged: it
    /// may end when it expires.
    fn ends_at_ms(&self, term: Term) -> Option<u64> {
        if self.shape.is_none() {
            return term.expires_at_ms;
        }
        let ends = self.ends_seconds.map(|seconds| {
            let ms = seconds.saturating_mul(1000);
            self.api.clock.now_ms().saturating_add(ms)
        });
        [term.ends_at_ms, ends].into_iter().flatten().min()
    }

    /// Judges the answer, if its shape is given, and returns how long it is kept.
    fn term(&self) -> Result<Term, Rejected> {
        let stated = match self.shape {
            Some(shape) => judge(shape, &self.answer, self.api.allow_length)?,
            None => Stated::default(),
        };
        let stated = Stated {
            age_seconds: self.age_seconds,
            ..stated
        };
        // Within counts from when it was new.
        let aged = Duration::from_secs(self.age_seconds);
        let ttl = self.ttl.map(|ttl| ttl.saturating_add(aged));
        stated.within(ttl, self.api.clock.now_ms())
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
    let late = |why| Refusal::new(StatusCode::REQUEST_TIMEOUT, "body", why);
    let deadline = Instant::now() + api.request_max;
    loop {
        let pause_ends = Instant::now() + api.idle_max;
        let next = tokio::time::timeout_at(pause_ends.min(deadline), body.frame());
        let frame = match next.await {
            Ok(_) if Instant::now() >= deadline => Err("the body took too long"),
            Ok(frame) => Ok(frame),
            Err(_) if pause_ends < deadline => Err("the body paused for too long"),
            Err(_) => Err("the body took too long"),
        };
        let frame = frame.map_err(late)?;
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

/// Judges the answer as the edge did: it may have been altered on the way. Returns what it states
/// of its own end.
fn judge(shape: Shape, answer: &Storable<Bytes>, allow_length: bool) -> Result<Stated, Rejected> {
    let limits = Limits {
        body_bytes_max: answer.body.len(),
        allow_length,
        // Of the provider's head, only what clients read is here. The edge has obeyed the rest.
        provider_control: ProviderControl::Ignore,
    };
    let headers: Vec<(&str, &[u8])> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut validator = Validator::new(shape, limits);
    validator.head(answer.status, &headers)?;
    validator.feed(&answer.body);
    validator.finish(&answer.body).map(|answer| answer.stated)
}
