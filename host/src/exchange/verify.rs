//! Asks the provider again for a share of the hits, and compares: so an operator sees how stale the
//! cache is.
//!
//! It runs in the background, with the client's own request and credential, and after the client
//! has its answer from the cache. It is never the client's time, and never counted as a client's
//! request. What the provider says is compared and dropped.

mod sameness;

use crate::exchange::ask::SendRequest;
use crate::exchange::body::Gathered;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::hit::{Answers, Look};
use crate::exchange::observer::{NoObserver, RecordingObserver};
use crate::exchange::policy::HttpPolicy;
use crate::exchange::question::Question;
use crate::exchange::reply::pace::Replay;
use crate::exchange::reply::samples::Samples;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt as _;
use reflex_llm::Representation;
use sameness::{Sameness, compare};
use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Verifications at once. More hits than these can check are skipped, and counted as that.
const VERIFICATIONS_MAX: usize = 4;
/// The longest answer that is compared; both sides are held in memory, within the budget of all
/// requests.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The longest that one verification takes: as long as slow models take for an answer.
const VERIFY_MAX: Duration = Duration::from_secs(300);

/// Verifies a share of the hits.
pub(crate) struct Verifier {
    /// Of the same cache, but nothing is counted, and nothing keeps a pace.
    answers: Answers,
    sender: Arc<dyn SendRequest>,
    observer: Arc<dyn RecordingObserver>,
    fraction: f64,
    running: Arc<Semaphore>,
}

impl Verifier {
    /// None if no hits are verified.
    pub(crate) fn of(answers: &Answers, sender: &Arc<dyn SendRequest>) -> Option<Arc<Self>> {
        let policy = &answers.policy;
        if policy.verify_fraction <= 0.0 {
            return None;
        }
        let quiet = HttpPolicy {
            allow_length: policy.allow_length,
            client_control: policy.client_control,
            provider_control: policy.provider_control,
            replay: Replay::Instant,
            samples: Samples::default(),
            fill_wait_max: policy.fill_wait_max,
            stale_if_error_max: Duration::ZERO,
            renewals: Arc::default(),
            fills: Arc::clone(&policy.fills),
            budget: Arc::clone(&policy.budget),
            l1_bytes_max: policy.l1_bytes_max,
            is_shadow: false,
            verify_fraction: 0.0,
            observer: Arc::new(NoObserver),
        };
        Some(Arc::new(Self {
            answers: Answers {
                policy: Arc::new(quiet),
                ..answers.clone()
            },
            sender: Arc::clone(sender),
            observer: Arc::clone(&policy.observer),
            fraction: policy.verify_fraction,
            running: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
        }))
    }

    /// A request was answered from the cache. Takes some nanoseconds for those that are not chosen.
    pub(crate) fn note_hit(self: &Arc<Self>, question: &Question) {
        if draw() >= self.fraction {
            return;
        }
        let route = question.shape().api.name();
        let model = question.model().cloned();
        // A client that wants only a cached answer has the provider asked nothing.
        if !question.flow(&self.answers.ctx).asks() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() else {
            self.observer.verified("skipped", model.as_deref(), route);
            return;
        };
        let (this, mut question) = (Arc::clone(self), question.again());
        tokio::spawn(async move {
            let verified = tokio::time::timeout(VERIFY_MAX, this.verify(&mut question)).await;
            let result = match verified {
                Ok(Some(Sameness::Identical)) => "identical",
                Ok(Some(Sameness::Equal)) => "equal",
                Ok(Some(Sameness::Different)) => "different",
                Ok(None) | Err(_) => "failed",
            };
            this.observer.verified(result, model.as_deref(), route);
            drop(permit);
        });
    }

    /// None if one of the two answers is not there, or not to be compared.
    async fn verify(&self, question: &mut Question) -> Option<Sameness> {
        let budget = &self.answers.policy.budget;
        let Look::Answer(kept) = self.answers.look_up(question).await else {
            return None;
        };
        let kept = whole(kept.into_body(), budget).await?;
        let ctx = &self.answers.ctx;
        let flow = question.flow(ctx);
        let request = question.for_provider(&ctx.grant, flow.edits(true));
        let fresh = self.sender.send(request).await.ok()?;
        if fresh.status() != StatusCode::OK || fresh.headers().contains_key(CONTENT_ENCODING) {
            return None;
        }
        let fresh = whole(fresh.into_body(), budget).await?;
        let is_stream = question.shape().representation == Representation::Sse;
        Some(compare(is_stream, &kept, &fresh))
    }
}

/// A whole body, if it is within its bound and the budget has room for it.
async fn whole(mut body: BoxBody, budget: &Arc<Budget>) -> Option<Bytes> {
    let mut read = Gathered::new(budget);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data()
            && (read.len() + data.len() > ANSWER_BYTES_MAX || !read.push(&data))
        {
            return None;
        }
    }
    Some(read.into_bytes())
}

/// A number from 0 up to 1, evenly spread: xorshift, without a lock.
fn draw() -> f64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8) | 1);
    }
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        // The upper 53 bits are exact in an f64.
        (next >> 11) as f64 / (1_u64 << 53) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_evenly() {
        let count = 10_000;
        let below = (0..count).filter(|_| draw() < 0.1).count();
        assert!((700..1300).contains(&below), "{below} of {count}");
        assert!((0..count).all(|_| (0.0..1.0).contains(&draw())));
    }
}
