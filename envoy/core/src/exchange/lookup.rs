//! Where an exchange looks for an answer: the hot tier, another request that fetches it, the
//! daemon. If none has it, the provider is asked, and `recording` goes on.

use std::rc::Rc;

use reflex_llm::{Bypass, Status};

use super::pending::Pending;
use super::recording::forwarded;
use super::{Effect, Landing, Lead, Purpose, Served, Source, Stage, Step, passed};
use crate::answer::Answer;
use crate::counts::Tier;
use crate::daemon::{self, Found, Reply};
use crate::flights::{Id, Role};
use crate::shared::Shared;

/// Upper bound of one wait at the daemon for the fill of another process. Short, so that the filter
/// notices a daemon that stops meanwhile.
const WAIT_SLICE_MS: u64 = 500;

pub(super) const HOT: Source = Source::Stored(Tier::Hot);

/// Looks in the hot tier, joins a request that fetches the answer, then asks the daemon.
pub(super) fn look_up(shared: &mut Shared, id: Id, mut pending: Pending, now_ms: u64) -> Step {
    let is_open = pending.is_open(shared);
    if let Some(answer) = hot(shared, &pending, now_ms) {
        return have(shared, pending, &answer, HOT, now_ms);
    }
    if pending.waits(shared) {
        // A route changes equal requests equally, so those by one route may share an answer.
        let route = match is_open {
            true => 0,
            false => shared.routes.hash(&pending.keyed.route),
        };
        match shared.flights.join(&pending.asked.key, route, id) {
            Role::Follow(flight) => {
                pending.flight = Some(flight);
                return (Stage::Following(pending), Vec::new());
            }
            Role::Lead(flight) => {
                pending.flight = Some(flight);
                pending.fill = is_open.then(|| shared.next_fill());
            }
            Role::Alone => {}
        }
    }
    if pending.flow.looks_up() && is_open && shared.asks_daemon(now_ms) {
        return ask(shared, pending);
    }
    pending.fill = None;
    missed(shared, pending)
}

/// The cache has nothing for this request.
fn missed(shared: &mut Shared, pending: Pending) -> Step {
    match pending.flow.asks() {
        true => forwarded(shared, pending),
        false => absent(&pending),
    }
}

/// The hot answer, if the client accepts one.
pub(super) fn hot(shared: &mut Shared, pending: &Pending, now_ms: u64) -> Option<Rc<Answer>> {
    if !pending.is_open(shared) {
        return None;
    }
    if !pending.flow.takes_any_sample() {
        let answer = shared.hot.get(&pending.asked.key.digest, now_ms)?;
        return pending.accepts(&answer, now_ms).then_some(answer);
    }
    // Any of its answers will do.
    let mut keys = pending.keys(shared.config.samples);
    keys.find_map(|key| {
        let answer = shared.hot.get(&key.digest, now_ms)?;
        pending.accepts(&answer, now_ms).then_some(answer)
    })
}

fn ask(shared: &Shared, pending: Pending) -> Step {
    let key = pending.asked.key;
    let timeout_ms = shared.config.lookup_timeout_ms;
    let request =
        daemon::Request::lookup(&key, pending.fill.as_deref(), shared.epoch(), timeout_ms);
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Asking(pending), vec![call])
}

pub(super) fn replied(
    shared: &mut Shared,
    mut pending: Pending,
    reply: Reply,
    is_current: bool,
    now_ms: u64,
) -> Step {
    match reply {
        Reply::Found(found) => return found_at_daemon(shared, pending, found, is_current, now_ms),
        Reply::Lead => {}
        Reply::Busy => {
            pending.fill = None;
            if pending.waits(shared) {
                return wait(shared, pending, now_ms);
            }
        }
        Reply::Absent => pending.fill = None,
        Reply::Failed => {
            shared.counts.lookup_failed();
            // The daemon may have the name of the fill, so the name stays, to be given back later.
        }
    }
    other(shared, pending, now_ms)
}

/// Not this one: perhaps another, for a client that takes any cached one.
fn other(shared: &mut Shared, mut pending: Pending, now_ms: u64) -> Step {
    let has_next = pending.flow.takes_any_sample() && pending.turns_to_next(shared.config.samples);
    if has_next && shared.asks_daemon(now_ms) {
        return ask(shared, pending);
    }
    missed(shared, pending)
}

fn found_at_daemon(
    shared: &mut Shared,
    mut pending: Pending,
    found: Found,
    is_current: bool,
    now_ms: u64,
) -> Step {
    let Found { answer, collapsed } = found;
    // A lookup with an answer begins no fill.
    pending.fill = None;
    let source = match collapsed {
        true => Source::Fetched,
        false => Source::Stored(Tier::Daemon),
    };
    let expired = answer.expires_at_ms.is_some_and(|at| now_ms >= at);
    if !expired && is_current {
        shared.hot.insert(&pending.asked.key, &answer, now_ms);
    }
    if !expired && pending.accepts(&answer, now_ms) {
        return have(shared, pending, &answer, source, now_ms);
    }
    let offer = pending
        .flight
        .filter(|_| !expired)
        .map(|flight| Effect::Land(flight, Landing::Offer(answer, source)));
    let (stage, mut effects) = other(shared, pending, now_ms);
    effects.extend(offer);
    (stage, effects)
}

/// Answers this request and its followers that accept the answer. One of the other followers leads
/// on, because their answer must come from the provider.
pub(super) fn have(
    shared: &mut Shared,
    pending: Pending,
    answer: &Rc<Answer>,
    source: Source,
    now_ms: u64,
) -> Step {
    let (stage, mut effects) = answered_from(shared, &pending, answer, source, now_ms);
    if let Some(flight) = pending.flight {
        let landing = Landing::Offer(Rc::clone(answer), source);
        effects.push(Effect::Land(flight, landing));
        effects.extend(pending.left(Lead::Fetch));
    }
    (stage, effects)
}

/// Waits for the fill of another process for a further slice, or ends the wait.
fn wait(shared: &mut Shared, pending: Pending, now_ms: u64) -> Step {
    // A clock that was set back counts as waiting, so that the wait ends.
    let waited_ms = now_ms.abs_diff(pending.since_ms);
    let left_ms = shared.config.fill_wait_ms.saturating_sub(waited_ms);
    if left_ms == 0 {
        return forwarded(shared, pending);
    }
    let key = pending.asked.key;
    let request = daemon::Request::wait(&key, shared.epoch(), left_ms.min(WAIT_SLICE_MS));
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Waiting(pending), vec![call])
}

pub(super) fn waited(
    shared: &mut Shared,
    pending: Pending,
    reply: Reply,
    is_current: bool,
    now_ms: u64,
) -> Step {
    match reply {
        Reply::Found(found) => found_at_daemon(shared, pending, found, is_current, now_ms),
        Reply::Busy => wait(shared, pending, now_ms),
        Reply::Lead | Reply::Absent => forwarded(shared, pending),
        Reply::Failed => {
            shared.counts.lookup_failed();
            forwarded(shared, pending)
        }
    }
}

pub(super) fn landed(
    shared: &mut Shared,
    id: Id,
    mut pending: Pending,
    landing: Landing,
    now_ms: u64,
) -> Step {
    match landing {
        Landing::Offer(answer, source) if pending.accepts(&answer, now_ms) => {
            pending.leave(shared, id);
            answered_from(shared, &pending, &answer, source, now_ms)
        }
        Landing::Offer(..) => (Stage::Following(pending), Vec::new()),
        Landing::Answer(answer) if pending.accepts(&answer, now_ms) => {
            answered_from(shared, &pending, &answer, Source::Fetched, now_ms)
        }
        // The provider has just sent this answer; the next one would be no fresher.
        Landing::Answer(_) | Landing::LetGo => {
            pending.flight = None;
            forwarded(shared, pending)
        }
    }
}

/// The leader has left, and this request leads from now on.
pub(super) fn takes_over(
    shared: &mut Shared,
    mut pending: Pending,
    lead: Lead,
    now_ms: u64,
) -> Step {
    // Requests that go alone may have brought an answer in the meantime.
    let hot = hot(shared, &pending, now_ms);
    let waits = matches!(lead, Lead::Wait);
    let asks = matches!(lead, Lead::Ask(_));
    pending.fill = lead.fill();
    match hot {
        Some(answer) => have(shared, pending, &answer, HOT, now_ms),
        None if waits => wait(shared, pending, now_ms),
        // The daemon answers a name that it knows as it did before.
        None if asks && pending.is_open(shared) && shared.asks_daemon(now_ms) => {
            ask(shared, pending)
        }
        None => forwarded(shared, pending),
    }
}

fn answered_from(
    shared: &mut Shared,
    pending: &Pending,
    answer: &Rc<Answer>,
    source: Source,
    now_ms: u64,
) -> Step {
    let Ok(unread) = shared.hand_over(answer.body.len(), now_ms) else {
        // An answer of the provider takes no more of Envoy's memory than the buffers.
        return match pending.flow.asks() {
            true => passed(shared, Bypass::Memory),
            false => absent(pending),
        };
    };
    let (status, age_seconds) = match source {
        Source::Stored(tier) => {
            shared.counts.hit(tier);
            let ttl_seconds = answer.ttl_seconds(now_ms);
            let age_seconds = answer.age_seconds(now_ms);
            (Status::Hit { ttl_seconds }, Some(age_seconds))
        }
        Source::Fetched => {
            shared.counts.collapsed();
            (Status::Collapsed, None)
        }
    };
    answered(Served {
        answer: Some(Rc::clone(answer)),
        status,
        age_seconds,
        shape: pending.asked.shape,
        unread,
    })
}

/// The 504 for `only-if-cached` where nothing is cached.
fn absent(pending: &Pending) -> Step {
    answered(Served {
        answer: None,
        status: Status::Absent,
        age_seconds: None,
        shape: pending.asked.shape,
        unread: None,
    })
}

fn answered(served: Served) -> Step {
    (Stage::Answered, vec![Effect::Answer(served)])
}
