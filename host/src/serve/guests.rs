//! The daemon's component: what it is asked, and what becomes of a request when it fails.

use super::config::{Hits, OnComponentFailure};
use super::held::{Held, hold};
use super::own_error::ErrorVoice;
use crate::cache::Mark;
use crate::component::{Done, Failure, Handler, Lost};
use crate::exchange::body::budget::Budget;
use crate::exchange::body::lent::{NotHeld, lend_whole};
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::fills::Turn;
use crate::exchange::limits::Over;
use crate::exchange::miss::{Miss, told};
use crate::exchange::observer::RecordingObserver as _;
use crate::exchange::question::Question;
use crate::exchange::{Found, NativeFlow};
use crate::serve::metrics::Metrics;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use reflex_llm::{Bypass, Status};
use std::sync::Arc;

/// A component for the requests that the native flow does not answer by itself.
#[derive(Debug)]
pub(crate) struct Guests {
    pub(crate) handler: Handler,
    /// Whether the component decides as the native flow does.
    pub(crate) is_built_in: bool,
    pub(crate) hits: Hits,
    /// Nothing is answered from the cache: the native flow alone has the requests.
    pub(crate) is_shadow: bool,
    pub(crate) on_failure: OnComponentFailure,
    /// How much of a request is kept that the host has not read, so that it can go to the provider.
    pub(crate) held_bytes_max: u64,
    /// The memory budget of all requests.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What answers a question.
pub(crate) enum Outcome {
    Answered(Response<BoxBody>),
    /// The provider failed, and no expired answer is stored.
    Unanswered(Error),
    /// The native flow answers.
    Native,
    /// The native flow asks the provider.
    Ask(Miss),
    /// The provider gets the request past the cache.
    Pass,
    /// The tenant has asked for more than it may.
    Over(Over),
}

/// The assumed length of a request that does not state one. Most are shorter.
const UNKNOWN_BYTES: u64 = 64 << 10;

impl Guests {
    /// Answers a question: a hit natively, if the operator has not decided otherwise, and the rest by
    /// the component. While the question waits for another request's answer, it has no instance.
    pub(crate) async fn answer(
        &self,
        question: &mut Question,
        flow: &NativeFlow,
        voice: &ErrorVoice,
    ) -> Outcome {
        if self.is_shadow {
            return Outcome::Native;
        }
        let since = flow.now();
        let (turn, missing) = match self.hits {
            Hits::Native => match flow.find(question).await {
                Ok(Found::Answer(response)) => return Outcome::Answered(response),
                Ok(Found::Miss(miss)) => {
                    let turn = miss.lead.map_or(Turn::Alone, Turn::Lead);
                    (Some(turn), miss.missing)
                }
                Ok(Found::Over(over)) => return Outcome::Over(over),
                Err(error) => return Outcome::Unanswered(error),
            },
            Hits::Component => match Box::pin(flow.turn(question)).await {
                Ok(turn) => (turn, None),
                Err(over) => return Outcome::Over(over),
            },
        };
        Box::pin(self.by_component(question, flow, voice, (turn, missing, since))).await
    }

    /// Has the component answer a question whose turn in a fill has come, and which lacks these
    /// elements of its batch since then.
    async fn by_component(
        &self,
        question: &Question,
        flow: &NativeFlow,
        voice: &ErrorVoice,
        (turn, missing, since): (Option<Turn>, Option<Vec<u32>>, Mark),
    ) -> Outcome {
        let mut done = Some(Done {
            sample: Some((*question.request_key(), *question.key())),
            turn: turn.map(|turn| (flow.key(question), turn)),
        });
        let (lender, lent) = lend_whole(question.whole(), &self.budget);
        let request = Request::from_parts(question.parts().clone(), lent);
        let handled = self.handler.handle_lent(request, lender, &mut done);
        let failure = match handled.await {
            Ok(response) => return Outcome::Answered(response),
            Err(failure) => failure,
        };
        let outcome = self.after(failure, voice).await;
        let turn = done.and_then(|done| done.turn);
        let turn = match (outcome, turn) {
            (Outcome::Native, Some((_, turn))) => turn,
            (outcome, _) => return outcome,
        };
        // What the component has not used is the native flow's.
        match flow.take_turn(question, turn, missing, since).await {
            Ok(Some(Found::Answer(response))) => Outcome::Answered(response),
            Ok(Some(Found::Miss(miss))) => Outcome::Ask(miss),
            Ok(Some(Found::Over(over))) => Outcome::Over(over),
            Ok(None) => Outcome::Native,
            Err(error) => Outcome::Unanswered(error),
        }
    }

    /// Has the component answer a request that is no question to the native flow. It reads the body
    /// as that comes.
    ///
    /// # Errors
    ///
    /// What answers in its place, and the request, if it is still there.
    pub(crate) async fn stream(
        &self,
        request: Request<BoxBody>,
        voice: &ErrorVoice,
    ) -> Result<(Response<BoxBody>, Held), Unhandled> {
        if !self.has_room(&request) {
            // Without the component, no byte of it is held.
            return Err(Unhandled::Pass(request, Bypass::Memory));
        }
        let (held, lent) = hold(request, self.held_bytes_max, &self.budget);
        let lender = held.lender().clone();
        let failure = match self.handler.handle_lent(lent, lender, &mut None).await {
            Ok(response) => return Ok((response, held)),
            Err(failure) => failure,
        };
        match self.after(failure, voice).await {
            Outcome::Answered(response) => Err(Unhandled::Answered(response)),
            Outcome::Unanswered(error) => Err(Unhandled::Answered(voice.gateway_error(&error))),
            Outcome::Native | Outcome::Ask(_) | Outcome::Pass | Outcome::Over(_) => {
                match held.take_back() {
                    Ok(request) => Err(Unhandled::Pass(request, Bypass::Unavailable)),
                    Err(why) => Err(Unhandled::Answered(gone(why, voice))),
                }
            }
        }
    }

    /// What becomes of a request whose component has failed.
    async fn after(&self, failure: Failure, voice: &ErrorVoice) -> Outcome {
        self.metrics.guest_failed(failure.detail());
        log(&failure);
        if let Failure::Refused {
            error,
            upstream_called: true,
        } = failure
        {
            return Outcome::Unanswered(error);
        }
        let in_its_place = match self.on_failure {
            OnComponentFailure::Refuse => {
                return Outcome::Answered(voice.error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the component did not answer (on_component_failure)",
                ));
            }
            OnComponentFailure::Pass => Outcome::Pass,
            OnComponentFailure::Native => Outcome::Native,
        };
        let Failure::AfterSending { rest, .. } = failure else {
            return in_its_place;
        };
        // The provider is asked once: it may have acted already.
        match rest.answer().await {
            Ok(response) => Outcome::Answered(told(response, Status::Bypass(Bypass::Unavailable))),
            Err(Lost::NotSent) => in_its_place,
            Err(Lost::TimedOut) => Outcome::Unanswered(Error::HttpResponseTimeout),
            Err(Lost::Closed) => Outcome::Unanswered(Error::ConnectionTerminated),
            Err(_) => Outcome::Answered(voice.error(
                StatusCode::BAD_GATEWAY,
                "the component failed after it had sent the request",
            )),
        }
    }

    /// Whether the budget has memory for the bytes that the request will hold, as far as known.
    fn has_room(&self, request: &Request<BoxBody>) -> bool {
        let body = request.body();
        let expected = match body.size_hint().exact() {
            _ if body.is_end_stream() => return true,
            // Once to be sent again, and once for the guest to read.
            Some(length) => 2 * length.min(self.held_bytes_max),
            None => 2 * UNKNOWN_BYTES,
        };
        self.budget.has_room(expected)
    }
}

/// A request that the component has not answered.
pub(crate) enum Unhandled {
    Answered(Response<BoxBody>),
    Pass(Request<BoxBody>, Bypass),
}

/// The answer to a request that can neither be handled nor be given to the provider.
fn gone(why: NotHeld, voice: &ErrorVoice) -> Response<BoxBody> {
    match why {
        NotHeld::Broken => voice.cut_off(),
        NotHeld::TooLong | NotHeld::Gone => voice.gateway_error(&Error::InternalError(None)),
        NotHeld::NoMemory => voice.error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the requests under way hold all the memory that they may (inflight_bytes_max)",
        ),
    }
}

impl Failure {
    /// Its name in metrics.
    fn detail(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Instantiate(_) => "instantiate",
            Self::Trapped(_) => "trap",
            Self::TimedOut => "timeout",
            Self::Refused { .. } => "refused",
            Self::AfterSending { cause, .. } => cause.detail(),
        }
    }
}

fn log(failure: &Failure) {
    match failure {
        Failure::Busy | Failure::Refused { .. } => {
            tracing::debug!(?failure, "not handled by the guest")
        }
        Failure::AfterSending { cause, .. } => tracing::warn!(
            failure = ?cause,
            "guest failed after it had sent the request: the provider's answer goes to the client \
             without it"
        ),
        failure => tracing::warn!(?failure, "guest failed: the request goes on without it"),
    }
}
