//! An answer on its way to the client, judged as it passes and stored when it proves good. The bytes
//! are in `sharing.rs`: one copy of them, for readers and for the store.

use crate::exchange::body::budget::{Budget, Reservation};
use crate::exchange::fills::{Fill, Fills};
use crate::exchange::observer::{Outcome, RecordingObserver};
use crate::exchange::reply::batch::Texts;
use crate::exchange::reply::pace::{Beat, Pace, Replay};
use crate::exchange::revealed;
use crate::exchange::shared_body::window::Whole;
use crate::exchange::shared_body::{Fed, Record};
use crate::grant::ctx::{NotStored, ReflexCtx};
use reflex_llm::{
    Dropped, Key, Part as HeaderPart, Rejected, Representation, Shape, Storable, Term, Validator,
};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{InsertError, Mark};
use crate::exchange::answer::{AnswerHead, Notes};

/// Payloads up to this length are judged and stored on the thread that polls the body. This ends
/// before the client has the last byte, so that its next request is a hit. Longer payloads would
/// hold up other requests for too long.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// What is being recorded, and where it goes.
pub(crate) struct Recording {
    validator: Validator,
    /// What the validator holds.
    held: Reservation,
    target: Target,
    /// The bytes stored at the terminal event, before the end.
    stored: Option<usize>,
    /// If replays are to keep to it.
    pace: Option<Pace>,
    /// How much has come.
    bytes: usize,
    /// The fill that requests may join, until the answer is stored or known not to be.
    fill: Option<Arc<Fill>>,
}

/// Where a recording goes.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) ctx: ReflexCtx,
    pub(crate) key: Key,
    pub(crate) shape: Shape,
    /// For a batch: the texts that the parts of the answer belong to.
    pub(crate) texts: Option<Texts>,
    /// For the operator's prices.
    pub(crate) model: Option<String>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) observer: Arc<dyn RecordingObserver>,
    /// When the provider was asked, or before.
    pub(crate) since: Mark,
    pub(crate) fills: Arc<Fills>,
}

impl Recording {
    /// `fill` ends with the recording.
    pub(crate) fn new(
        validator: Validator,
        target: Target,
        replay: Replay,
        fill: Option<Arc<Fill>>,
        budget: &Arc<Budget>,
    ) -> Self {
        let is_stream = target.shape.representation == Representation::Sse;
        let has_pace = is_stream && replay == Replay::Paced;
        Self {
            pace: has_pace.then(Pace::begin),
            bytes: 0,
            validator,
            held: budget.reserve(),
            target,
            stored: None,
            fill,
        }
    }

    fn end(self, body: Arc<Whole>) {
        let Self {
            validator,
            target,
            stored,
            pace,
            fill,
            ..
        } = self;
        match (validator.finish(Body(body)), stored) {
            (Ok(answer), Some(length)) if answer.body.0.len() == length => target.share(),
            (Ok(answer), _) => {
                target.store(&answer, answer.body.as_ref(), marks(&pace));
                target.share();
            }
            (Err(rejected), stored) => {
                if stored.is_some() {
                    target.remove();
                }
                target.reject(rejected);
            }
        }
        drop(fill);
    }

    fn give_up(self, tell: impl FnOnce(&Target)) {
        // Data after the end may undo the stored answer.
        if self.stored.is_some() {
            self.target.remove();
        }
        tell(&self.target);
    }
}

impl Record for Recording {
    fn feed(&mut self, data: &[u8]) -> Fed {
        self.validator.feed(data);
        self.bytes += data.len();
        if let Some(pace) = &mut self.pace {
            pace.note(self.bytes);
        }
        match self.validator.rejected() {
            Some(_) => Fed::Rejected,
            None if self.held.fit(self.validator.held_bytes()) => Fed::Good,
            None => Fed::NoMemory,
        }
    }

    /// Stores the answer in `body`, if its terminal event has come.
    ///
    /// A client may hang up there, and its next request may come before the provider has closed the
    /// stream. Later data may still belong to the answer, such as the `[DONE]` that some gateways
    /// add, or undo it.
    fn store_complete(&mut self, body: &[u8]) {
        if self.stored.is_none()
            && self
                .validator
                .complete()
                .is_some_and(|bytes| bytes <= INLINE_BYTES_MAX)
            && let Some(answer) = self.validator.so_far(body)
        {
            self.target.store(&answer, body, marks(&self.pace));
            self.stored = Some(body.len());
        }
    }

    fn finish(self: Box<Self>, body: Arc<Whole>) {
        match body.len() <= INLINE_BYTES_MAX || self.validator.rejected().is_some() {
            true => self.end(body),
            // A long one is also long to judge.
            false => drop(tokio::task::spawn_blocking(move || self.end(body))),
        }
    }

    fn reject(self: Box<Self>) -> bool {
        let rejected = self.validator.rejected().unwrap_or(Rejected::Unexpected);
        self.give_up(|target| target.reject(rejected));
        rejected == Rejected::TooLarge
    }

    fn abandon(self: Box<Self>) {
        self.give_up(|target| target.observer.ended(Outcome::Dropped(Dropped::Memory)));
    }

    fn cut(self: Box<Self>) {
        match self.stored {
            Some(_) => self.target.share(),
            None => self.target.reject(Rejected::Cut),
        }
    }
}

/// A whole body as the store takes it.
struct Body(Arc<Whole>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn marks(pace: &Option<Pace>) -> Vec<Beat> {
    pace.as_ref().map(Pace::beats).unwrap_or_default()
}

/// A part of the answer that is stored as one entry.
struct Part<'a> {
    key: &'a Key,
    body: &'a [u8],
    term: Term,
    shape: Shape,
}

impl Target {
    /// Stores an answer with this body, given beside its head, so that a batch's body is not
    /// copied.
    pub(crate) fn store<B>(&self, answer: &Storable<B>, body: &[u8], pace: Vec<Beat>) {
        let now_ms = self.ctx.clock.now_ms();
        let term = match answer.stated.within(self.ttl, now_ms) {
            Ok(term) => term,
            Err(rejected) => return self.reject(rejected),
        };
        let texts = self.texts.as_ref();
        let outcome = match texts.and_then(|texts| texts.split(body)) {
            Some(mut parts) => {
                // An older entry of the whole batch would be found first.
                self.replace_whole();
                // Headers that describe the whole body do not fit a part of it.
                let headers: Vec<_> = answer
                    .headers
                    .iter()
                    .filter(|(name, _)| HeaderPart::of(name).survives_other_bytes())
                    .cloned()
                    .collect();
                let head = (answer.status, &*headers);
                // A whole batch is more than the queue to the disk may hold.
                let may_wait = body.len() > INLINE_BYTES_MAX;
                let mut put = |(key, body): (Key, Vec<u8>)| {
                    let part = Part {
                        key: &key,
                        body: &body,
                        term,
                        // One vector of the batch.
                        shape: Shape {
                            parts: Some(1),
                            ..self.shape
                        },
                    };
                    let outcome = self.put(head, part, Vec::new(), may_wait);
                    (outcome != Outcome::Stored).then_some(outcome)
                };
                parts.find_map(&mut put).unwrap_or(Outcome::Stored)
            }
            None => {
                let head = (answer.status, &*answer.headers);
                let whole = Part {
                    key: &self.key,
                    body,
                    term,
                    shape: self.shape,
                };
                self.put(head, whole, pace, false)
            }
        };
        if outcome == Outcome::Stored {
            self.fills.answered(&self.ctx.key(&self.key));
        }
        self.observer.ended(outcome);
    }

    /// Stores an answer, or a part of it, unless a purge since its beginning covers it. `may_wait`
    /// is for threads that may wait for room in the queue to the disk.
    fn put(
        &self,
        (status, headers): (u16, &[(String, Vec<u8>)]),
        part: Part<'_>,
        pace: Vec<Beat>,
        may_wait: bool,
    ) -> Outcome {
        let Part {
            key,
            body,
            term,
            shape,
        } = part;
        let notes = Notes {
            usage: self.shape.usage(body),
            model: self.model.clone(),
            pace,
            ends_at_ms: term.ends_at_ms,
            shape: Some(shape),
            digest: Some(key.digest),
        };
        let metadata = AnswerHead::encode_noting(status, headers, &notes);
        let store = || self.ctx.store(key, &metadata, body, term, self.since);
        let mut stored = store();
        if may_wait
            && let Err(NotStored::Cache(InsertError::QueueFull)) = stored
            && self
                .ctx
                .cache
                .wait_for_room((metadata.len() + body.len()) as u64)
        {
            stored = store();
        }
        match stored {
            Ok(()) => Outcome::Stored,
            // Not logged: each purge may cause many of these.
            Err(NotStored::Cache(InsertError::Purged)) => Outcome::Dropped(Dropped::Purged),
            Err(error) => {
                if let NotStored::Refused(refusal) = error {
                    self.ctx.grant.allowance.count(refusal);
                }
                tracing::debug!(%error, "answer not stored");
                error.outcome()
            }
        }
    }

    /// Removes the entry of a whole batch, only if it exists: each removal goes to all edges.
    fn replace_whole(&self) {
        let key = self.ctx.key(&self.key);
        if self.ctx.cache.may_contain(&key, self.ctx.clock.now_ms()) {
            self.remove();
        }
    }

    fn remove(&self) {
        self.ctx.forget(&self.key);
    }

    /// The fleet may have what is stored, now that nothing can undo it. Of a batch, that is nothing.
    fn share(&self) {
        let key = self.ctx.key(&self.key);
        self.ctx.cache.share(&key, &self.key.tenant.0);
    }

    pub(crate) fn reject(&self, reason: Rejected) {
        revealed::note(self.shape.api, reason);
        self.observer.ended(Outcome::Rejected(reason));
    }
}

impl NotStored {
    /// The outcome of a recording that was not stored for this reason.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) => Outcome::Dropped(Dropped::Quota),
            Self::Cache(InsertError::PayloadTooLarge(_)) => Outcome::Rejected(Rejected::TooLarge),
            Self::Cache(InsertError::MetadataTooLarge(_)) => {
                Outcome::Dropped(Dropped::HeadersTooLarge)
            }
            Self::Cache(InsertError::QueueFull) => Outcome::Dropped(Dropped::Busy),
            Self::Cache(InsertError::Purged) => Outcome::Dropped(Dropped::Purged),
        }
    }
}
