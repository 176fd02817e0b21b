//! Answers from the cache: fresh ones, those put together of a batch's texts, and expired ones where
//! the provider fails.

use crate::cache::{CacheKey, Entry, L1, Tier};
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::policy::HttpPolicy;
use crate::exchange::question::{By, Meaning, Question};
use crate::exchange::reply::head::{apply, status_headers, tell};
use crate::exchange::reply::replayed;
use crate::grant::ctx::ReflexCtx;
use http::header::HeaderMap;
use http::{Response, StatusCode};
use reflex_llm::embeddings::Found;
use reflex_llm::status::{NOT_CACHED_STATUS, Status};
use reflex_llm::{ERROR_HEADERS, Flow, Shape};
use std::sync::Arc;

/// The answers that one namespace of a cache has. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) ctx: ReflexCtx,
    pub(crate) policy: Arc<HttpPolicy>,
    pub(crate) l1: Arc<L1<Meaning>>,
}

/// What the cache has for a question.
pub(crate) enum Look {
    Answer(Response<BoxBody>),
    /// Parts of a batch: all but these elements, by number.
    AllBut(Vec<u32>),
    Nothing,
}

impl Answers {
    /// By what requests to it are understood.
    pub(crate) fn by(&self) -> By<'_> {
        By {
            ctx: &self.ctx,
            policy: &self.policy,
            l1: &self.l1,
        }
    }

    /// The cached answer, if this client accepts it, and if that is known without waiting. None says nothing
    /// about the answer.
    #[cfg(feature = "serve")]
    pub(crate) fn look_up_now(&self, question: &mut Question) -> Option<Response<BoxBody>> {
        let key = question.entry_key(&self.ctx);
        let now_ms = self.ctx.clock.now_ms();
        let entry = self.ctx.cache.lookup_now(&key, now_ms)?.hit()?;
        let (response, tier) = self.answer(question, &entry, now_ms)?;
        question.was_hit(&self.l1, tier);
        Some(response)
    }

    /// The cached answer, if this client accepts it.
    pub(crate) async fn look_up(&self, question: &mut Question) -> Look {
        let key = question.entry_key(&self.ctx);
        if let Some((response, tier)) = self.entry(question, &key).await {
            question.was_hit(&self.l1, tier);
            return Look::Answer(response);
        }
        match question.batch() {
            Some(_) => Box::pin(self.texts(question)).await,
            None => Look::Nothing,
        }
    }

    async fn entry(
        &self,
        question: &mut Question,
        key: &CacheKey,
    ) -> Option<(Response<BoxBody>, Tier)> {
        let now_ms = self.ctx.clock.now_ms();
        let entry = self.ctx.find_at(key, now_ms).await?;
        self.answer(question, &entry, now_ms)
    }

    /// An entry as an answer, if this client accepts it.
    fn answer(
        &self,
        question: &mut Question,
        entry: &Entry,
        now_ms: u64,
    ) -> Option<(Response<BoxBody>, Tier)> {
        let (age, ttl) = (entry.age_seconds(now_ms), entry.ttl_seconds(now_ms));
        if !question.control().accepts(age, ttl) {
            return None;
        }
        let status = match ttl.filter(|_| self.is_ahead(question, entry, now_ms)) {
            Some(ttl_seconds) => {
                question.is_to_be_renewed();
                Status::Ahead { ttl_seconds }
            }
            None => Status::Hit { ttl_seconds: ttl },
        };
        let response = self.replay(entry, age, status)?;
        Some((response, entry.tier()))
    }

    async fn texts(&self, question: &mut Question) -> Look {
        let control = *question.control();
        let Some(batch) = question.batch_mut() else {
            return Look::Nothing;
        };
        let now_ms = self.ctx.clock.now_ms();
        let mut tier = Tier::Memory;
        let mut life = |entry: &Entry| {
            if entry.tier() == Tier::Disk {
                tier = Tier::Disk;
            }
            (entry.age_seconds(now_ms), entry.ttl_seconds(now_ms))
        };
        let answers = batch.find(&self.ctx, &self.policy.budget).await;
        let (age, ttl_seconds) =
            match Found::of(&control, answers.map(|found| found.map(&mut life))) {
                Found::All {
                    age_seconds,
                    ttl_seconds,
                } => (age_seconds, ttl_seconds),
                Found::AllBut(missing) => return Look::AllBut(missing),
                Found::Nothing => return Look::Nothing,
            };
        let Some(made) = batch.replay() else {
            return Look::Nothing;
        };
        let set = status_headers(Status::Hit { ttl_seconds }, Some(age));
        let made = response(made.replayed(&set, &self.policy));
        question.was_made(tier);
        Look::Answer(made)
    }

    /// For a client that accepts only a cached answer: any of the request's answers will do.
    pub(crate) async fn any(&self, question: &mut Question, flow: Flow) -> Response<BoxBody> {
        let samples = &self.policy.samples;
        for _ in (1..samples.count()).filter(|_| flow.takes_any_sample()) {
            let key = self.ctx.key(&samples.next(question.request_key()));
            if let Some((response, tier)) = self.entry(question, &key).await {
                question.was_made(tier);
                return response;
            }
        }
        not_cached(question.shape())
    }

    /// The expired answer, for a client whose request the provider has failed.
    pub(crate) async fn stale(
        &self,
        question: &Question,
        flow: Flow,
        fwd_status: Option<StatusCode>,
    ) -> Option<Response<BoxBody>> {
        let fwd_status = fwd_status.map(|status| status.as_u16());
        if self.policy.is_shadow {
            return None;
        }
        if !flow.serves_stale(fwd_status) {
            return None;
        }
        let most = self.policy.stale_if_error_max;
        let key = question.entry_key(&self.ctx);
        let status = |expired_seconds| Status::Stale {
            fwd_status,
            expired_seconds,
        };
        if let Some((entry, expired_seconds)) = self.ctx.find_stale(&key, most).await {
            let age = entry.age_seconds(self.ctx.clock.now_ms());
            return self.replay(&entry, age, status(expired_seconds));
        }
        // A batch is kept text by text, as a rule.
        let mut batch = question.batch()?.clone();
        let found = batch.find_stale(&self.ctx, most).await?;
        let set = status_headers(status(found.expired_seconds), Some(found.age_seconds));
        Some(response(batch.replay()?.replayed(&set, &self.policy)))
    }

    pub(crate) fn replay(
        &self,
        entry: &Entry,
        age: u64,
        status: Status,
    ) -> Option<Response<BoxBody>> {
        let tell = |headers: &mut HeaderMap| tell(headers, status, Some(age));
        replayed(entry, &self.policy, tell).map(response)
    }
}

/// A response of its parts.
pub(crate) fn response(
    (status, headers, body): (StatusCode, HeaderMap, BoxBody),
) -> Response<BoxBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// `only-if-cached` and nothing cached: 504, in the API's error shape.
fn not_cached(shape: Shape) -> Response<BoxBody> {
    let mut headers = HeaderMap::new();
    let mut set = status_headers(Status::Absent, None);
    let header = |(name, value): (&str, &str)| (name.into(), value.as_bytes().to_vec());
    set.extend(ERROR_HEADERS.map(header));
    apply(&mut headers, &[], &set);
    let status = StatusCode::from_u16(NOT_CACHED_STATUS).unwrap_or(StatusCode::GATEWAY_TIMEOUT);
    response((status, headers, full(shape.not_cached_body())))
}
