//! One LLM request, natively: classified, looked up, joined, asked, recorded, and answered. Read
//! [`NativeFlow::answer`] first.
//!
//! ```text
//! request ─► question.rs ─► hit.rs ─► hit ─► client
//!               └► bypass     └► miss: fills.rs ─► follow ─► client
//!                                        └► lead: miss.rs ─► provider ─► recorded ─► client
//! ```

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod body;
pub(crate) mod boxed;
pub(crate) mod error;
pub(crate) mod fills;
pub(crate) mod hit;
pub(crate) mod miss;
pub(crate) mod observer;
pub(crate) mod outliving;
pub(crate) mod policy;
pub(crate) mod question;
pub(crate) mod recording;
pub(crate) mod reply;
pub(crate) mod revealed;
pub(crate) mod shared_body;
pub(crate) mod watch;

pub use ask::{ResponseFuture, SendRequest};
pub use body::budget::Budget;
pub use boxed::BoxBody;
pub use error::Error;
pub use fills::Fills;
pub use observer::{NoObserver, Outcome, RecordingObserver};
pub use policy::HttpPolicy;
pub use reflex_llm::{
    Api, ClientControl, Life, LifeRule, Lifetimes, PathRule, ProviderControl, Rules,
};
pub use reply::pace::Replay;
pub use reply::samples::Samples;

#[cfg(feature = "middleware")]
use crate::cache::CacheKey;
use crate::cache::Mark;
use crate::grant::ctx::ReflexCtx;
use fills::Turn;
use hit::{Answers, Look, response};
use http::{Request, Response};
use miss::{Miss, Provider, told};
use question::{Question, Read};
use reflex_llm::{Bypass, Status};
use shared_body::Follower;
use std::fmt;
use std::sync::Arc;
use watch::{fails, target};

/// How often the cache is looked at for one request: first, once more as a leader, and again each
/// time a leader ends without an answer. After the last the request asks alone.
const LOOKS_MAX: usize = 4;

/// The way of an LLM request within one grant. A clone is the same.
#[derive(Clone)]
pub(crate) struct NativeFlow {
    answers: Answers,
    provider: Provider,
}

/// What became of a question so far.
pub(crate) enum Found {
    /// From the cache, or from another request's call.
    Answer(Response<BoxBody>),
    /// The provider is to be asked.
    Miss(Miss),
}

impl NativeFlow {
    /// Answers from the cache as the grant allows, and has `sender` ask the provider.
    pub(crate) fn new(
        ctx: ReflexCtx,
        policy: Arc<HttpPolicy>,
        sender: Arc<dyn SendRequest>,
    ) -> Self {
        let answers = Answers { ctx, policy };
        Self {
            provider: Provider {
                answers: answers.clone(),
                sender,
            },
            answers,
        }
    }

    /// The whole way of a request.
    ///
    /// # Errors
    ///
    /// The request's body broke off, or the provider did not answer, and neither did the cache.
    pub(crate) async fn answer(
        &self,
        request: Request<BoxBody>,
    ) -> Result<Response<BoxBody>, Error> {
        let mut question = match self.read(request).await? {
            Read::Question(question) => question,
            Read::Passes(request, why) => return self.pass(request, why).await,
        };
        match self.find(&mut question).await? {
            Found::Answer(response) => Ok(response),
            Found::Miss(miss) => self.ask(&Arc::from(question), miss).await,
        }
    }

    /// Classifies a request, and reads its body for that.
    pub(crate) async fn read(&self, request: Request<BoxBody>) -> Result<Read, Error> {
        Question::read(request, &self.answers.ctx, &self.answers.policy).await
    }

    /// Looks the answer up, and waits for another request that fetches it already.
    pub(crate) async fn find(&self, question: &mut Question) -> Result<Found, Error> {
        let mut miss = Miss {
            lead: None,
            missing: None,
            since: self.answers.ctx.cache.purges().now(),
        };
        let control = *question.control();
        if control.no_cache && !control.only_if_cached {
            return Ok(Found::Miss(miss));
        }
        for _ in 0..LOOKS_MAX {
            if control.no_cache {
                break;
            }
            miss.missing = match self.answers.look_up(question).await {
                Look::Answer(response) => return Ok(Found::Answer(response)),
                Look::AllBut(missing) => Some(missing),
                Look::Nothing => None,
            };
            if control.only_if_cached || miss.lead.is_some() {
                break;
            }
            match self.join(question, miss.since).await {
                Turn::Lead(lead) => miss.lead = Some(lead),
                Turn::Follow(follower) => {
                    let answer = self.follow(question, follower).await;
                    return Ok(Found::Answer(answer));
                }
                Turn::Failed(error) => {
                    let stale = self.answers.stale(question, None).await;
                    return stale.map(Found::Answer).ok_or(error);
                }
                Turn::Again => {}
                Turn::Alone => break,
            }
        }
        match control.only_if_cached {
            true => Ok(Found::Answer(self.answers.any(question).await)),
            false => Ok(Found::Miss(miss)),
        }
    }

    /// For a component that looks up by itself: how its request joins a fill, unless the cache has
    /// the answer. So it need not wait within an instance.
    #[cfg(feature = "middleware")]
    pub(crate) async fn turn(&self, question: &Question) -> Option<Turn> {
        let control = question.control();
        if control.no_cache || control.only_if_cached {
            return None;
        }
        let ctx = &self.answers.ctx;
        let key = self.key(question);
        for _ in 0..LOOKS_MAX {
            let since = ctx.cache.purges().now();
            if ctx.cache.contains_async(&key, ctx.clock.now_ms()).await {
                return None;
            }
            match self.join(question, since).await {
                Turn::Again => {}
                turn => return Some(turn),
            }
        }
        None
    }

    /// The name of a question's answer in the cache.
    #[cfg(feature = "middleware")]
    pub(crate) fn key(&self, question: &Question) -> CacheKey {
        self.answers.ctx.key(question.key())
    }

    /// Joins the fill of an answer, or begins it. An answer that is not to be recorded has none.
    async fn join(&self, question: &Question, since: Mark) -> Turn {
        let Answers { ctx, policy } = &self.answers;
        if target(ctx, policy, since, &question.wanted()).is_none() {
            return Turn::Alone;
        }
        let key = question.key();
        let fills = &policy.fills;
        fills
            .join(ctx.key(key), key.tenant, policy.fill_wait_max)
            .await
    }

    /// The leader's answer, or a stale hit in place of a failure.
    async fn follow(&self, question: &Question, follower: Follower) -> Response<BoxBody> {
        let Follower {
            status,
            headers,
            body,
        } = follower;
        if fails(status)
            && let Some(stale) = self.answers.stale(question, Some(status)).await
        {
            return stale;
        }
        told(response((status, headers, body)), Status::Collapsed)
    }

    /// Asks the provider, and records its answer on its way.
    pub(crate) async fn ask(
        &self,
        question: &Arc<Question>,
        miss: Miss,
    ) -> Result<Response<BoxBody>, Error> {
        self.provider.ask(question, miss).await
    }

    /// Sends a request to the provider unchanged, and marks the response as a bypass.
    pub(crate) async fn pass(
        &self,
        request: Request<BoxBody>,
        why: Bypass,
    ) -> Result<Response<BoxBody>, Error> {
        self.provider.pass(request, why).await
    }
}

impl fmt::Debug for NativeFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeFlow")
            .field("policy", &self.answers.policy)
            .finish_non_exhaustive()
    }
}
