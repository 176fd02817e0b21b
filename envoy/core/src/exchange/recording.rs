//! The provider's answer to an exchange. It is recorded as it passes by; a good answer goes to the
//! hot tier, to the daemon and to the followers.

use std::rc::Rc;
use std::time::Duration;

use reflex_llm::{
    Dropped, Exchange as Asked, Life, Recorder, Rejected, Shape, Status, Storable, Term, status,
};

use super::keyed::Difference;
use super::pending::Pending;
use super::{Effect, Landing, Lead, Purpose, Request, Stage, Step};
use crate::answer::Answer;
use crate::daemon::{self, Epoch};
use crate::routes::Tell;
use crate::shared::{Mark, Shared};

/// A leader whose answer stands still for this long is replaced by its first follower, which asks
/// again. Models rarely pause for longer; such a pause costs one call.
const STALL_MS: u64 = 1000;

/// A shorter part of an answer stands still only because the model does: Envoy's smallest buffers
/// are as large, and a slow client cannot hold up the answer before they are full.
const STALL_BYTES_MIN: usize = 32 << 10;

/// An answer of the provider that is watched.
#[derive(Debug)]
pub(super) struct Recording {
    pending: Pending,
    recorder: Recorder,
    status: Status,
    /// What was known of purges when the provider was asked.
    epoch: Option<Epoch>,
    since: Mark,
    /// Taken from the budget for recordings.
    bytes: usize,
    /// Of these, for the most that the recorder has held beside the body.
    held: usize,
    /// Whether the provider has answered, and not Envoy or another filter.
    pub(super) is_providers: bool,
    /// Whether the provider was seen to have got the request that is keyed.
    is_keyed: bool,
    /// The answer is whole; only the request that the provider got is not known yet.
    has_ended: bool,
    /// When the last part of it came.
    came_at_ms: u64,
}

/// Sends the request to the provider, and its answer to the recorder.
pub(super) fn forwarded(shared: &mut Shared, pending: Pending) -> Step {
    shared.counts.miss();
    if let Some(traits) = &pending.traits {
        shared.missed(traits);
    }
    let status = pending.flow.answered();
    let wants_identity = pending.flow.wants_identity();
    if !pending.flow.keeps() {
        shared.counts.dropped(Dropped::Ttl);
        let stage = Stage::Passing(Some(status));
        return (stage, vec![Effect::Forward(wants_identity)]);
    }
    if let Some(flight) = &pending.flight {
        shared.flights.open(flight);
    }
    let recording = Recording {
        recorder: Recorder::new(pending.asked.shape, shared.config.limits),
        status,
        epoch: shared.epoch().cloned(),
        since: shared.mark(),
        bytes: 0,
        is_providers: false,
        is_keyed: false,
        has_ended: false,
        held: 0,
        came_at_ms: 0,
        pending,
    };
    let stage = Stage::Forwarded(Box::new(recording));
    (stage, vec![Effect::Forward(wants_identity)])
}

pub(super) fn head(
    shared: &mut Shared,
    mut recording: Box<Recording>,
    status: u16,
    headers: &[(&str, &[u8])],
) -> Step {
    shared.counts.controlled(recording.status, headers);
    let mark = Effect::Mark(recording.status);
    match recording.recorder.head(status, headers) {
        Ok(()) if recording.is_providers => (Stage::Forwarded(recording), vec![mark]),
        Ok(()) => {
            let mut effects = dropped(shared, *recording, Dropped::Local);
            effects.push(mark);
            (Stage::Passing(None), effects)
        }
        Err(rejected) => {
            if rejected == Rejected::ContentEncoding {
                let route = &recording.pending.keyed.route;
                shared.routes.tell(route, Tell::Compressed, COMPRESSED);
            }
            let mut effects = given_up(shared, *recording, rejected);
            effects.push(mark);
            (Stage::Passing(None), effects)
        }
    }
}

pub(super) fn chunk(
    shared: &mut Shared,
    mut recording: Box<Recording>,
    bytes: &[u8],
    end: bool,
    now_ms: u64,
) -> Step {
    if !shared.recording().take(bytes.len()) {
        let effects = dropped(shared, *recording, Dropped::Memory);
        return (Stage::Passing(None), effects);
    }
    recording.bytes += bytes.len();
    recording.came_at_ms = now_ms;
    recording.recorder.feed(bytes);
    let held = recording.recorder.held_bytes();
    let more = held.saturating_sub(recording.held);
    let has_room = shared.recording().take(more);
    if has_room {
        recording.bytes += more;
        recording.held += more;
    }
    let effects = match recording.recorder.rejected() {
        Some(rejected) => given_up(shared, *recording, rejected),
        None if !has_room => dropped(shared, *recording, Dropped::Memory),
        None if end && !recording.is_keyed => {
            recording.has_ended = true;
            return (Stage::Forwarded(recording), Vec::new());
        }
        None if end => finished(shared, *recording, now_ms),
        None => return (Stage::Forwarded(recording), Vec::new()),
    };
    (Stage::Passing(None), effects)
}

/// The answer has come to its end.
fn finished(shared: &mut Shared, mut recording: Recording, now_ms: u64) -> Vec<Effect> {
    let empty = Recorder::new(recording.pending.asked.shape, shared.config.limits);
    let recorder = std::mem::replace(&mut recording.recorder, empty);
    let ttl = match recording.pending.life {
        // Such an answer is not recorded; it does not come here.
        Life::NotKept => Some(Duration::ZERO),
        Life::For(ttl) => Some(ttl),
        Life::Forever => None,
    };
    let answer = recorder.finish().and_then(|storable| {
        let term = storable.stated.within(ttl, now_ms)?;
        let ends_ms = term.ends_at_ms.map(|end| end.saturating_sub(now_ms));
        let answer = answer_of(recording.pending.asked.shape, storable, term)?;
        Ok((answer, ends_ms.map(|ms| ms / 1000)))
    });
    // The daemon takes whole seconds, and one at least.
    let answer = answer.and_then(|(answer, end)| match answer.ttl_seconds(now_ms) {
        Some(0) => Err(Rejected::Expired),
        ttl_seconds => Ok((answer, ttl_seconds, end)),
    });
    let (answer, ttl_seconds, end_seconds) = match answer {
        Ok((answer, ttl_seconds, end)) => (Rc::new(answer), ttl_seconds, end),
        Err(rejected) => return given_up(shared, recording, rejected),
    };
    let Asked { key, shape, .. } = recording.pending.asked;
    // A purge since the request covers its answer, too.
    let is_current = !shared.was_purged(&key, recording.since);
    let mut effects = Vec::new();
    if is_current {
        shared.hot.insert(&key, &answer, now_ms);
        if recording.status == Status::Refresh && shared.config.daemon_cluster.is_none() {
            effects.push(Effect::Refreshed(key.digest));
        }
    }
    if shared.config.daemon_cluster.is_some() {
        let bytes = answer.body.len();
        // Without an epoch, the daemon cannot tell that the answer was purged since.
        if !is_current || recording.epoch.is_none() {
            shared.counts.dropped(Dropped::Purged);
        } else if !shared.sending().take(bytes) {
            shared.counts.dropped(Dropped::Busy);
        } else if !shared.breaker.allows(now_ms) {
            // Asked last: an open breaker lets one call through, which must then be made.
            shared.sending().give_back(bytes);
            shared.counts.dropped(Dropped::BreakerOpen);
        } else {
            // The insert ends the fill, so it is not given back.
            let fill = recording.pending.fill.take();
            let insert = daemon::Insert {
                key: &key,
                shape,
                model: recording.pending.model.as_deref(),
                ttl_seconds,
                end_seconds,
                age_seconds: answer.age_seconds(now_ms),
                epoch: recording.epoch.as_ref(),
                fill: fill.as_deref(),
            };
            let timeout_ms = shared.config.insert_timeout_ms;
            let request = daemon::Request::insert(&insert, &answer, timeout_ms);
            effects.push(Effect::Call(Purpose::Insert(bytes), request));
        }
    }
    effects.extend(recording.ended(shared, Landing::Answer(answer)));
    effects
}

/// The answer with the header that says what its hits save. Envoy takes only headers that are text.
fn answer_of(shape: Shape, storable: Storable, term: Term) -> Result<Answer, Rejected> {
    let text = |(name, value): (String, Vec<u8>)| {
        let value = String::from_utf8(value).map_err(|_| Rejected::Unexpected)?;
        Ok((name, value))
    };
    let headers = storable.headers.into_iter().map(text);
    let mut headers = headers.collect::<Result<Vec<_>, _>>()?;
    if let Some(usage) = shape.usage(&storable.body) {
        let tokens = usage.total_tokens.to_string();
        headers.push((status::X_REFLEX_SAVED_TOKENS.into(), tokens));
    }
    Ok(Answer {
        headers,
        body: storable.body,
        stored_at_ms: term.stored_at_ms,
        expires_at_ms: term.expires_at_ms,
    })
}

/// The answer must not be served again.
pub(super) fn given_up(shared: &mut Shared, recording: Recording, why: Rejected) -> Vec<Effect> {
    shared.rejected(recording.pending.asked.shape.api, why);
    recording.ended(shared, Landing::LetGo)
}

/// The remedy for compressed answers, for the log.
const COMPRESSED: &str = "the provider compresses its answers, which are not kept then; have the \
                          route ask for `accept-encoding: identity`";

/// The remedy for tenant headers that reach the provider, for the log.
const TENANT: &str = "the provider gets the header of `tenant_header`; have the route remove it";

/// Compares the request that the provider got with the one that is keyed.
pub(super) fn sent(
    shared: &mut Shared,
    mut recording: Box<Recording>,
    sent: &Request<'_>,
    now_ms: u64,
) -> Step {
    // The answer of another filter proves nothing about the provider's request.
    if recording.is_providers && !recording.is_keyed {
        if let Err(why) = recording.check(shared, sent) {
            return (Stage::Passing(None), dropped(shared, *recording, why));
        }
        recording.is_keyed = true;
    }
    match recording.has_ended && recording.is_keyed {
        true => (Stage::Passing(None), finished(shared, *recording, now_ms)),
        false => (Stage::Forwarded(recording), Vec::new()),
    }
}

/// The answer is good, but not to be kept.
fn dropped(shared: &mut Shared, recording: Recording, why: Dropped) -> Vec<Effect> {
    shared.counts.dropped(why);
    recording.ended(shared, Landing::LetGo)
}

impl Recording {
    fn check(&self, shared: &mut Shared, sent: &Request<'_>) -> Result<(), Dropped> {
        let Pending {
            keyed, upstream, ..
        } = &self.pending;
        if keyed.tells_tenant(sent) {
            shared.routes.tell(&keyed.route, Tell::Tenant, TENANT);
        }
        let (why, text) = match keyed.check(&shared.config, upstream, sent) {
            Ok(()) => {
                shared.routes.proven(&keyed.route);
                return Ok(());
            }
            Err(Difference::Route(by)) => {
                let (cluster, by) = (&by.cluster, by.describe());
                let text = format!(
                    "it was chosen when the filter looked, but cluster `{cluster}` answered, by \
                     {by}; a filter in front clears the route"
                );
                (Dropped::Rerouted, text)
            }
            Err(Difference::Part(part)) => {
                let text =
                    format!("the provider gets another request than the filter: {part} differs");
                (Dropped::Rewritten, text)
            }
        };
        if !keyed.by_route {
            shared.routes.refuse(&upstream.url(), &keyed.route, &text);
        }
        Err(why)
    }

    /// Envoy has ended the request before the answer's end.
    pub(super) fn gone(self, shared: &mut Shared, now_ms: u64) -> Vec<Effect> {
        // A client may hang up at the terminal event, before the provider has closed the stream.
        if self.recorder.complete().is_some() && self.is_keyed {
            return finished(shared, self, now_ms);
        }
        shared.counts.rejected(Rejected::Cut);
        shared.recording().give_back(self.bytes);
        self.pending.left(Lead::Fetch)
    }

    /// The provider has broken the answer off. It might do so for each further leader as well, so
    /// the followers ask for themselves, at once, as they would without a cache.
    pub(super) fn broken(self, shared: &mut Shared, now_ms: u64) -> Vec<Effect> {
        // The terminal event has come: the answer is whole.
        if self.recorder.complete().is_some() && self.is_keyed {
            return finished(shared, self, now_ms);
        }
        given_up(shared, self, Rejected::Cut)
    }

    /// Whether the leader has stalled for longer than its followers wait.
    pub(super) fn has_stalled(&self, now_ms: u64) -> bool {
        // A clock that was set back counts as standing still.
        let still_ms = now_ms.abs_diff(self.came_at_ms);
        self.pending.flight.is_some() && self.bytes >= STALL_BYTES_MIN && still_ms >= STALL_MS
    }

    /// The first follower leads from now on. The answer of the old leader may still be stored.
    pub(super) fn steps_back(&mut self) -> Vec<Effect> {
        let lead = Lead::Fetch(self.pending.fill.take());
        let flight = self.pending.flight.take().into_iter();
        flight
            .map(|flight| Effect::HandOver(flight, self.pending.asked.key, lead.clone()))
            .collect()
    }

    /// Tells the followers, in this worker and elsewhere.
    fn ended(mut self, shared: &mut Shared, landing: Landing) -> Vec<Effect> {
        shared.recording().give_back(self.bytes);
        self.pending.let_go(landing)
    }
}
