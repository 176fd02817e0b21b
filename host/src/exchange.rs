//! One LLM request, natively: classified, looked up, joined, asked, recorded, and answered. Read
//! `NativeFlow::answer` first.
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
pub(crate) mod limits;
pub(crate) mod miss;
pub(crate) mod observer;
pub(crate) mod outliving;
pub(crate) mod policy;
pub(crate) mod question;
pub(crate) mod recording;
pub(crate) mod renew;
pub(crate) mod reply;
pub(crate) mod revealed;
pub(crate) mod shared_body;
#[cfg(feature = "serve")]
pub(crate) mod verify;
pub(crate) mod watch;

pub use ask::{ResponseFuture, SendRequest};
pub use body::budget::Budget;
pub use boxed::BoxBody;
pub use error::Error;
pub use fills::Fills;
pub use observer::{NoObserver, Outcome, RecordingObserver};
pub use policy::HttpPolicy;
pub use reflex_llm::{
    Api, ClientControl, Life, LifeRule, Lifetimes, PathRule, ProviderControl, RenewRule, Renewal,
    Renewals, Rules,
};
pub use reply::pace::Replay;
pub use reply::samples::Samples;

#[cfg(feature = "middleware")]
use crate::cache::CacheKey;
use crate::cache::{L1, Mark};
use crate::grant::ctx::ReflexCtx;
use body::ahead::Reading;
use bytes::Bytes;
use fills::Turn;
use hit::{Answers, Look, response};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use limits::Over;
use miss::{Miss, Provider, told};
use question::{Begun, Question, Read};
use reflex_llm::{Bypass, Flow, Status};
use renew::Renewer;
use shared_body::Follower;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use watch::target;

/// The path of an LLM request within one grant. A clone is the same.
#[derive(Clone)]
pub(crate) struct NativeFlow {
    provider: Provider,
    verifying: Verifying,
    /// None if nothing is renewed.
    renewer: Option<Arc<Renewer>>,
}

/// Who verifies hits, if they are verified.
#[cfg(feature = "serve")]
type Verifying = Option<Arc<verify::Verifier>>;
#[cfg(not(feature = "serve"))]
type Verifying = ();

/// What became of a question so far.
pub(crate) enum Found {
    /// From the cache, or from another request's call.
    Answer(Response<BoxBody>),
    /// Nothing yet: the provider has it.
    Miss(Miss),
    /// Nothing, and the tenant has asked for more than it may.
    Over(Over),
}

impl NativeFlow {
    /// Answers from the cache as the grant allows, and has `sender` ask the provider.
    pub(crate) fn new(
        ctx: ReflexCtx,
        policy: Arc<HttpPolicy>,
        sender: Arc<dyn SendRequest>,
    ) -> Self {
        let l1 = L1::of(&ctx.cache, policy.l1_bytes_max);
        let answers = Answers { ctx, policy, l1 };
        #[cfg(feature = "serve")]
        let verifying = verify::Verifier::of(&answers, &sender);
        #[cfg(not(feature = "serve"))]
        let verifying = ();
        let provider = Provider { answers, sender };
        let renewer = Renewer::of(&provider);
        Self {
            provider,
            verifying,
            renewer,
        }
    }

    /// The whole path of a request.
    ///
    /// # Errors
    ///
    /// The request's body broke off, or the provider did not answer, and neither did the cache.
    #[cfg_attr(
        not(feature = "http"),
        allow(dead_code, reason = "the daemon adds a step")
    )]
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
            Found::Over(over) => self.pass(question.request(), over.into()).await,
        }
    }

    /// Classifies a request, and reads its body for that.
    pub(crate) async fn read<B>(&self, request: Request<B>) -> Result<Read, Error>
    where
        B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    {
        let mut request = Some(request);
        let begun = poll_fn(|cx| match request.take() {
            Some(request) => Poll::Ready(self.begin(request, cx)),
            // It is ready at once.
            None => Poll::Pending,
        });
        match begun.await? {
            Begun::Read(read) => Ok(read),
            Begun::Waits(waits) => self.go_on(waits).await,
        }
    }

    /// The same as far as that goes without waiting.
    pub(crate) fn begin<B>(
        &self,
        request: Request<B>,
        cx: &mut Context<'_>,
    ) -> Result<Begun<B>, Error>
    where
        B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    {
        Question::begin(request, self.provider.answers.by(), cx)
    }

    /// The rest of that.
    pub(crate) async fn go_on<B>(&self, waits: Box<(Parts, Reading<B>)>) -> Result<Read, Error>
    where
        B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    {
        let (parts, reading) = *waits;
        Question::go_on(parts, reading, self.provider.answers.by()).await
    }

    /// The answer to a question, if it is in the cache and at hand. [`find`](Self::find) finds it as well, and
    /// everything else; this does not wait, so that a hit is made without a future for each of its steps.
    #[cfg(feature = "serve")]
    pub(crate) fn find_now(&self, question: &mut Question) -> Option<Response<BoxBody>> {
        let answers = &self.provider.answers;
        if answers.policy.is_shadow || !Flow::of(question.control()).looks_up() {
            return None;
        }
        let response = answers.look_up_now(question)?;
        self.after_hit(question);
        Some(response)
    }

    /// Looks the answer up, and waits for another request that fetches it already.
    ///
    /// What comes after a hit that was not there is boxed, here and in the daemon: a future is as
    /// large as its largest part, and each hit would move that through all layers of its service.
    pub(crate) async fn find(&self, question: &mut Question) -> Result<Found, Error> {
        let mut miss = Miss {
            lead: None,
            missing: None,
            since: self.now(),
            would_be: None,
        };
        let flow = question.flow(&self.provider.answers.ctx);
        if self.provider.answers.policy.is_shadow {
            miss.would_be = Some(Box::pin(self.shadow(question, flow)).await);
            return Ok(Found::Miss(miss));
        }
        let mut is_taken = false;
        for joins in flow.looks() {
            miss.missing = match self.provider.answers.look_up(question).await {
                Look::Answer(response) => {
                    self.after_hit(question);
                    return Ok(Found::Answer(response));
                }
                Look::AllBut(missing) => Some(missing),
                Look::Nothing => None,
            };
            if let Some(renewer) = self.renewer.as_ref().filter(|_| miss.lead.is_none())
                && let Some(response) = Box::pin(self.provider.answers.overdue(question)).await
            {
                renewer.renew(question);
                return Ok(Found::Answer(response));
            }
            if miss.lead.is_some() || !joins {
                break;
            }
            if !std::mem::replace(&mut is_taken, true)
                && let Err(over) = self.takes(question)
            {
                return Ok(Found::Over(over));
            }
            let turn = Box::pin(self.join(question, miss.since)).await;
            let (since, missing) = (miss.since, miss.missing.take());
            match Box::pin(self.take_turn(question, turn, missing, since)).await? {
                Some(Found::Miss(taken)) if taken.lead.is_some() => miss = taken,
                Some(found) => return Ok(found),
                None => {}
            }
        }
        if flow.asks()
            && !is_taken
            && let Err(over) = self.takes(question)
        {
            return Ok(Found::Over(over));
        }
        match flow.asks() {
            true => Ok(Found::Miss(miss)),
            false => Ok(Found::Answer(
                Box::pin(self.provider.answers.any(question, flow)).await,
            )),
        }
    }

    /// Whether the cache takes a miss, as far as its tenant's rate goes.
    fn takes(&self, question: &Question) -> Result<(), Over> {
        let limits = self.provider.answers.policy.fills.limits();
        limits.ask(&question.request_key().tenant.0, Instant::now())
    }

    /// The status that a request would have, and how long it took to tell. Nothing is joined:
    /// followers would get the leader's answer.
    async fn shadow(&self, question: &mut Question, flow: Flow) -> (Status, Duration) {
        let began = Instant::now();
        let look = match flow.looks_up() {
            true => self.provider.answers.look_up(question).await,
            false => Look::Nothing,
        };
        let status = match look {
            Look::Answer(_) => {
                self.verify(question);
                Status::Hit { ttl_seconds: None }
            }
            Look::AllBut(_) => Status::Partial,
            Look::Nothing if !flow.asks() => Status::Absent,
            Look::Nothing => flow.answered(),
        };
        (status, began.elapsed())
    }

    /// What is done once a hit is on its way to its client.
    fn after_hit(&self, question: &Question) {
        self.verify(question);
        if let Some(renewer) = self.renewer.as_ref().filter(|_| question.renews()) {
            renewer.renew(question);
        }
    }

    /// Compares a share of the hits with what the provider says now.
    pub(crate) fn verify(&self, question: &Question) {
        #[cfg(feature = "serve")]
        if let Some(verifier) = &self.verifying {
            verifier.note_hit(question);
        }
        #[cfg(not(feature = "serve"))]
        let _ = question;
    }

    /// What a turn in a fill means for its request; none if it is to look again.
    pub(crate) async fn take_turn(
        &self,
        question: &Question,
        turn: Turn,
        missing: Option<Vec<u32>>,
        since: Mark,
    ) -> Result<Option<Found>, Error> {
        let flow = question.flow(&self.provider.answers.ctx);
        let miss = |lead| Miss {
            lead,
            missing,
            since,
            would_be: None,
        };
        Ok(Some(match turn {
            Turn::Lead(lead) => Found::Miss(miss(Some(lead))),
            Turn::Alone => Found::Miss(miss(None)),
            Turn::Follow(follower) => Found::Answer(self.follow(question, flow, follower).await),
            Turn::Failed(error) => {
                let stale = self.provider.answers.stale(question, flow, None).await;
                Found::Answer(stale.ok_or(error)?)
            }
            Turn::Again => return Ok(None),
            Turn::Over => Found::Over(Over::Fills),
        }))
    }

    /// Drops what is known of requests by their bytes: another configuration holds.
    #[cfg(feature = "serve")]
    pub(crate) fn forget(&self) {
        self.provider.answers.l1.clear();
    }

    /// Now, among purges.
    pub(crate) fn now(&self) -> Mark {
        self.provider.answers.ctx.cache.purges().now()
    }

    /// For a component that looks up by itself: how its request joins a fill, unless the cache has
    /// the answer. So it need not wait within an instance.
    ///
    /// # Errors
    ///
    /// The cache has no answer, and the tenant has asked for more than it may.
    #[cfg(feature = "middleware")]
    pub(crate) async fn turn(&self, question: &Question) -> Result<Option<Turn>, Over> {
        let ctx = &self.provider.answers.ctx;
        let key = self.key(question);
        let flow = question.flow(ctx);
        let is_there = async || ctx.cache.contains_async(&key, ctx.clock.now_ms()).await;
        let mut is_taken = false;
        for _ in flow.looks().filter(|joins| *joins) {
            let since = self.now();
            if is_there().await {
                return Ok(None);
            }
            if !std::mem::replace(&mut is_taken, true) {
                self.takes(question)?;
            }
            match self.join(question, since).await {
                Turn::Again => {}
                // Between look and join, another request may have stored the answer and be done.
                Turn::Lead(_) if is_there().await => return Ok(None),
                Turn::Over => return Err(Over::Fills),
                turn => return Ok(Some(turn)),
            }
        }
        // What joins no fill may be there.
        let looks_only = !is_taken && flow.looks_up() && is_there().await;
        if !is_taken && flow.asks() && !looks_only {
            self.takes(question)?;
        }
        Ok(None)
    }

    /// The name of a question's answer in the cache.
    #[cfg(feature = "middleware")]
    pub(crate) fn key(&self, question: &Question) -> CacheKey {
        question.entry_key(&self.provider.answers.ctx)
    }

    /// Joins the fill of an answer, or begins it. An answer that is not to be recorded has none.
    async fn join(&self, question: &Question, since: Mark) -> Turn {
        let Answers { ctx, policy, .. } = &self.provider.answers;
        if target(ctx, policy, since, &question.wanted()).is_none() {
            return Turn::Alone;
        }
        let key = question.key();
        let fills = &policy.fills;
        fills
            .join(question.entry_key(ctx), key.tenant, policy.fill_wait_max)
            .await
    }

    /// The leader's answer, or a stale hit in place of a failure.
    async fn follow(
        &self,
        question: &Question,
        flow: Flow,
        follower: Follower,
    ) -> Response<BoxBody> {
        let Follower {
            status,
            headers,
            body,
        } = follower;
        let stale = self
            .provider
            .answers
            .stale(question, flow, Some(status))
            .await;
        stale.unwrap_or_else(|| told(response((status, headers, body)), Status::Collapsed))
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
            .field("policy", &self.provider.answers.policy)
            .finish_non_exhaustive()
    }
}
