//! Renews answers in the background shortly before or after their end, so that no client waits for
//! the next one.
//!
//! The provider is asked with the request and the credential of the client that has just been served.
//! What it says is recorded as an answer to any miss is: an answer that may not be kept changes
//! nothing. Each answer is renewed once at a time, as the leader of its fill: requests that find
//! nothing to serve meanwhile follow it.

use crate::cache::{CacheKey, Entry};
use crate::exchange::boxed::BoxBody;
use crate::exchange::fills::Begun;
use crate::exchange::hit::Answers;
use crate::exchange::miss::{Miss, Provider};
use crate::exchange::question::Question;
use crate::exchange::watch::target;
use http::Response;
use http_body_util::BodyExt as _;
use moka::sync::Cache as Map;
use reflex_llm::{Renewal, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Answers that are renewed at once. More are skipped, and counted as that; a later request may
/// begin again.
const RENEWALS_MAX: usize = 32;
/// The longest that one takes: as long as slow models take for an answer.
const RENEW_MAX: Duration = Duration::from_secs(300);
/// How long an answer is left alone that could not be renewed. Each of its hits would ask a provider
/// that fails.
const PAUSE: Duration = Duration::from_secs(10);
/// The answers that are left alone, at most. Past it, those are forgotten that have not been asked
/// for.
const PAUSED_MAX: u64 = 4096;

/// In the extensions of an answer that had expired.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "serve"),
    allow(dead_code, reason = "for the daemon's metrics")
)]
pub(crate) struct Overdue;

impl Answers {
    /// When the answer to this question is renewed.
    fn renewal(&self, question: &Question) -> Renewal {
        let flow = question.flow(&self.ctx);
        // A batch is kept text by text, each with an end of its own.
        if !flow.asks() || !flow.keeps() || question.batch().is_some() {
            return Renewal::default();
        }
        question.renewal(&self.policy.renewals)
    }

    /// Whether this answer is to be renewed, although it has not expired.
    pub(crate) fn is_ahead(&self, question: &Question, entry: &Entry, now_ms: u64) -> bool {
        let Some(end_ms) = entry.expires_at_ms() else {
            return false;
        };
        let life_ms = end_ms.saturating_sub(entry.stored_at_ms());
        let left_ms = end_ms.saturating_sub(now_ms);
        // Most hits end here, without a look at the rules.
        self.policy.renewals.most().is_ahead(left_ms, life_ms)
            && self.renewal(question).is_ahead(left_ms, life_ms)
    }

    /// The answer that has expired, if it may be served while it is renewed.
    pub(crate) async fn overdue(&self, question: &mut Question) -> Option<Response<BoxBody>> {
        if self.policy.renewals.most().stale.is_zero() || !question.control().accepts_stale() {
            return None;
        }
        let most = self.renewal(question).stale;
        let key = question.entry_key(&self.ctx);
        let (entry, expired_seconds) = self.ctx.find_stale(&key, most).await?;
        let age = entry.age_seconds(self.ctx.clock.now_ms());
        let mut response = self.replay(&entry, age, Status::Overdue { expired_seconds })?;
        response.extensions_mut().insert(Overdue);
        question.was_made(entry.tier());
        question.is_to_be_renewed();
        Some(response)
    }
}

/// Renews what was just served.
pub(crate) struct Renewer {
    provider: Provider,
    running: Arc<Semaphore>,
    paused: Map<CacheKey, ()>,
}

impl Renewer {
    /// None if nothing is renewed.
    pub(crate) fn of(provider: &Provider) -> Option<Arc<Self>> {
        let paused = Map::builder()
            .max_capacity(PAUSED_MAX)
            .time_to_live(PAUSE)
            .build();
        let most = provider.answers.policy.renewals.most();
        (!most.is_never()).then(|| {
            Arc::new(Self {
                provider: provider.clone(),
                running: Arc::new(Semaphore::new(RENEWALS_MAX)),
                paused,
            })
        })
    }

    /// Begins to renew the answer to this question, unless that is under way.
    pub(crate) fn renew(self: &Arc<Self>, question: &Question) {
        let Answers { ctx, policy, .. } = &self.provider.answers;
        let key = question.entry_key(ctx);
        let since = ctx.cache.purges().now();
        if self.paused.contains_key(&key)
            || target(ctx, policy, since, &question.wanted()).is_none()
        {
            return;
        }
        let lead = match policy.fills.begin(key, question.key().tenant) {
            Begun::Lead(lead) => Some(lead),
            Begun::ByAnother => return,
            Begun::NoRoom => None,
        };
        let permit = Arc::clone(&self.running).try_acquire_owned().ok();
        let tenant = &question.request_key().tenant.0;
        let (Some(lead), Some(permit), Ok(())) = (
            lead,
            permit,
            policy.fills.limits().ask(tenant, Instant::now()),
        ) else {
            return policy.observer.renewed("skipped");
        };
        let miss = Miss {
            lead: Some(lead),
            missing: None,
            since,
            would_be: None,
        };
        let (this, question) = (Arc::clone(self), Arc::new(question.again()));
        tokio::spawn(async move {
            let fetch = tokio::time::timeout(RENEW_MAX, this.fetch(&question, miss)).await;
            let is_renewed = fetch.unwrap_or(false);
            if !is_renewed {
                this.paused.insert(key, ());
            }
            let observer = &this.provider.answers.policy.observer;
            observer.renewed(if is_renewed { "renewed" } else { "failed" });
            drop(permit);
        });
    }

    /// Reads the provider's answer to its end, and tells whether it is in the cache.
    async fn fetch(&self, question: &Arc<Question>, miss: Miss) -> bool {
        let ctx = &self.provider.answers.ctx;
        let began_ms = ctx.clock.now_ms();
        let Ok(response) = self.provider.ask(question, miss).await else {
            return false;
        };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        drop(body);
        let key = question.entry_key(ctx);
        let found = ctx.find_at(&key, ctx.clock.now_ms()).await;
        found.is_some_and(|entry| entry.stored_at_ms() >= began_ms)
    }
}
