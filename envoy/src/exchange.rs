//! One request and its answer, as a state machine: events in, effects out.
//!
//! ```text
//! Reading ─► hot? ─► Answered
//!    │         └► leads ─► Asking ─► Waiting ─► Forwarded ─► stored | given up
//!    │                       └► Answered          ▲
//!    │         └► follows ─► Following ───────────┘ let go, or wait over
//!    └► Passing (bypass)           ├► Answered
//!                                  └► leads, from where the leader was that is gone
//! ```
//!
//! It makes no calls and knows no clock. What it does to other exchanges (the leader of a flight
//! lands, or leaves) are effects too, which `worker` passes on.

use std::rc::Rc;

use reflex_llm::{
    Bypass, Classified, Exchange as Asked, Head, Key, Recorder, Rejected, Shape, Status, Storable,
};

use crate::counts::{Drop, Tier};
use crate::daemon::{self, Epoch, Found, Reply};
use crate::flights::{Id, Name, Role};
use crate::hot::Answer;
use crate::shared::Shared;

/// How long one call to the daemon waits for somebody else's fill. Short, so that a daemon that
/// stops in the middle of it is noticed.
const WAIT_SLICE_MS: u64 = 500;

/// A request as Envoy has it.
#[derive(Debug)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// Without those of HTTP/2; names in lower case, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The cluster that Envoy has chosen.
    pub cluster: String,
    /// What `content-length` says.
    pub length: Option<u64>,
}

/// What happens to a request after its head is there.
#[derive(Debug)]
pub enum Event<'e> {
    /// Its whole body.
    Body(&'e [u8]),
    /// Its body cannot be looked at, for this reason.
    NoBody(Bypass),
    /// What the daemon said, and whether an answer that it brought may be hot.
    Reply(Reply, bool),
    /// What became of the request that this one follows.
    Landed(Landing),
    /// The request that this one followed leads no longer; this one takes its place.
    Lead(Lead),
    /// It has waited for another one for as long as it may.
    WaitOver,
    /// The head of the provider's answer.
    Head(u16, &'e [(&'e str, &'e [u8])]),
    /// A part of the provider's answer, and whether it is the last.
    Chunk(&'e [u8], bool),
    /// A part of the provider's answer could not be read.
    Unread,
    /// Envoy is done with it, at its end or before.
    Gone,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Let the request go on to the provider, with these headers set.
    Forward(Vec<(&'static str, String)>),
    /// Answer the client.
    Answer(Served),
    /// Set these headers of the provider's answer.
    Mark(Status),
    /// Call the daemon.
    Call(Purpose, daemon::Request),
    /// Tell those who follow this exchange.
    Land(Name, Landing),
    /// Have another exchange lead in place of this one, or give back the fill of that key.
    HandOver(Name, Key, Lead),
}

/// An answer of ours.
#[derive(Debug)]
pub struct Served {
    /// Nothing means that there is none, and the client wanted none of the provider's: 504.
    pub answer: Option<Rc<Answer>>,
    /// For the status headers.
    pub status: Status,
    /// For the header `age`; a miss has none.
    pub age_seconds: Option<u64>,
    /// For the shape of an error.
    pub shape: Shape,
}

/// Why the daemon is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its reply is an event of the exchange.
    Lookup(Key),
    /// So many bytes are on their way to it.
    Insert(usize),
    /// Nobody waits for its reply.
    Note,
    /// Its reply tells the epoch.
    Epoch,
}

/// What becomes of those who follow.
#[derive(Clone, Debug)]
pub enum Landing {
    /// The provider's answer to who leads.
    Answer(Rc<Answer>),
    /// An answer that was there already, and whence. Those who do not accept it, because it is too
    /// old for them, go on following.
    Offer(Rc<Answer>, Source),
    /// There is none that they could have: each asks for itself.
    LetGo,
}

/// Where an answer of ours comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was stored before it was asked for.
    Stored(Tier),
    /// It was fetched for another request at the same time.
    Fetched,
}

/// How far a leader has come that leaves. The next one goes on from there.
#[derive(Clone, Debug)]
pub enum Lead {
    /// It was asking the daemon, to lead the fill of that name.
    Ask(Option<String>),
    /// It was waiting for somebody else's fill.
    Wait,
    /// It was asking the provider, and leads the fill of that name.
    Fetch(Option<String>),
}

impl Lead {
    /// What is to be given back if there is no next one.
    pub fn fill(self) -> Option<String> {
        match self {
            Self::Ask(fill) | Self::Fetch(fill) => fill,
            Self::Wait => None,
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange(Stage);

#[derive(Debug)]
enum Stage {
    /// The provider answers, and we only say what we are not doing.
    Passing(Option<Status>),
    /// The head was looked at; the body decides.
    Reading(Request),
    /// Another request of this worker fetches the answer.
    Following(Pending),
    /// The daemon looks for it.
    Asking(Pending),
    /// Somebody else, elsewhere, fetches it.
    Waiting(Pending),
    /// The provider was asked.
    Forwarded(Box<Recording>),
    /// We have answered.
    Answered,
}

/// A request that may be answered from the cache.
#[derive(Clone, Debug)]
struct Pending {
    asked: Asked,
    /// Whom the provider is asked as.
    authority: String,
    since_ms: u64,
    /// The flight that it leads, or while it is following the one that it follows. Without one it
    /// goes alone.
    flight: Option<Name>,
    /// The name under which we lead the fill at the daemon.
    fill: Option<String>,
}

/// An answer of the provider that is watched.
#[derive(Debug)]
struct Recording {
    pending: Pending,
    recorder: Recorder,
    status: Status,
    /// What was known of purges when the provider was asked.
    epoch: Option<Epoch>,
    /// Taken from the budget for recordings.
    bytes: usize,
}

impl Exchange {
    /// Looks at a request's head. `ends` says that there is no body.
    pub fn begin(shared: &mut Shared, mut request: Request, ends: bool) -> Self {
        match inspect(shared, &mut request) {
            Ok(()) if !ends => Self(Stage::Reading(request)),
            Ok(()) => Self::bypass(shared, Bypass::NotJson),
            Err(why) => Self::bypass(shared, why),
        }
    }

    fn bypass(shared: &mut Shared, why: Bypass) -> Self {
        shared.counts.bypass(why);
        Self(Stage::Passing(Some(Status::Bypass(why))))
    }

    /// Whether the request's body is to be held back and read.
    pub fn reads(&self) -> bool {
        matches!(self.0, Stage::Reading(_))
    }

    /// Whether the request waits for us.
    pub fn holds(&self) -> bool {
        match self.0 {
            Stage::Reading(_) | Stage::Following(_) | Stage::Asking(_) | Stage::Waiting(_) => true,
            // Envoy has its answer; the request is at its end.
            Stage::Answered => true,
            Stage::Passing(_) | Stage::Forwarded(_) => false,
        }
    }

    /// Whether the provider's answer is watched.
    pub fn records(&self) -> bool {
        matches!(self.0, Stage::Forwarded(_))
    }

    /// Whether the provider's answer is only to be marked.
    pub fn marks(&self) -> bool {
        matches!(self.0, Stage::Passing(Some(_)))
    }

    /// Since when it has followed another one, if it does.
    pub fn follows_since(&self) -> Option<u64> {
        match &self.0 {
            Stage::Following(pending) => Some(pending.since_ms),
            _ => None,
        }
    }

    /// Takes in an event. One that does not fit the stage changes nothing: the daemon may reply
    /// when the client has gone.
    pub fn on(
        &mut self,
        shared: &mut Shared,
        id: Id,
        event: Event<'_>,
        now_ms: u64,
    ) -> Vec<Effect> {
        let stage = std::mem::replace(&mut self.0, Stage::Passing(None));
        let (stage, effects) = match (stage, event) {
            (Stage::Reading(request), Event::Body(body)) => {
                classified(shared, id, &request, body, now_ms)
            }
            (Stage::Reading(_), Event::NoBody(why)) => passed(shared, why),

            (Stage::Asking(pending), Event::Reply(reply, is_current)) => {
                replied(shared, pending, reply, is_current, now_ms)
            }
            (Stage::Waiting(pending), Event::Reply(reply, is_current)) => {
                waited(shared, pending, reply, is_current, now_ms)
            }

            (Stage::Following(pending), Event::Landed(landing)) => {
                landed(shared, id, pending, landing, now_ms)
            }
            (Stage::Following(pending), Event::Lead(lead)) => {
                takes_over(shared, pending, lead, now_ms)
            }
            (Stage::Following(mut pending), Event::WaitOver) => {
                pending.leave(shared, id);
                match hot(shared, &pending, now_ms) {
                    Some(answer) => have(shared, pending, &answer, HOT, now_ms),
                    None => forwarded(shared, pending),
                }
            }

            (Stage::Forwarded(recording), Event::Head(status, headers)) => {
                head(shared, recording, status, headers)
            }
            (Stage::Forwarded(recording), Event::Chunk(bytes, end)) => {
                chunk(shared, recording, bytes, end, now_ms)
            }
            (Stage::Forwarded(recording), Event::Unread) => {
                let effects = given_up(shared, *recording, Rejected::Cut);
                (Stage::Passing(None), effects)
            }
            (Stage::Passing(Some(status)), Event::Head(..)) => {
                (Stage::Passing(None), vec![Effect::Mark(status)])
            }

            (stage, Event::Gone) => (Stage::Answered, gone(shared, id, stage, now_ms)),
            (stage, _) => (stage, Vec::new()),
        };
        self.0 = stage;
        effects
    }
}

type Step = (Stage, Vec<Effect>);

const HOT: Source = Source::Stored(Tier::Hot);

/// What can be decided before the body is there. Turns the path into the provider's.
fn inspect(shared: &Shared, request: &mut Request) -> Result<(), Bypass> {
    let config = &shared.config;
    let upstream = config
        .upstreams
        .get(&request.cluster)
        .ok_or(Bypass::Upstream)?;
    if !config.looks_at(&request.path) {
        return Err(Bypass::Path);
    }
    request.path.insert_str(0, &upstream.prefix);
    with_head(shared, request, |head| {
        reflex_llm::candidate(head, &config.policy()).map(drop)
    })?;
    match request.length {
        Some(length) if length > config.request_bytes_max as u64 => Err(Bypass::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Shows a request to `reflex-llm`, which borrows all of it.
fn with_head<T>(shared: &Shared, request: &Request, look: impl FnOnce(&Head<'_>) -> T) -> T {
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let upstream = shared.config.upstreams.get(&request.cluster);
    look(&Head {
        method: &request.method,
        upstream: upstream.map_or("", |upstream| &upstream.origin),
        path: &request.path,
        headers: &headers,
    })
}

fn classified(shared: &mut Shared, id: Id, request: &Request, body: &[u8], now_ms: u64) -> Step {
    let policy = shared.config.policy();
    let classified = with_head(shared, request, |head| {
        reflex_llm::classify(head, &policy, body)
    });
    let upstream = shared.config.upstreams.get(&request.cluster);
    match (classified, upstream) {
        (Classified::Cacheable(asked), Some(upstream)) => {
            let pending = Pending {
                asked,
                authority: upstream.authority.clone(),
                since_ms: now_ms,
                flight: None,
                fill: None,
            };
            look_up(shared, id, pending, now_ms)
        }
        (Classified::Bypass(why), _) => passed(shared, why),
        (Classified::Cacheable(_), None) => passed(shared, Bypass::Upstream),
    }
}

fn passed(shared: &mut Shared, why: Bypass) -> Step {
    let Exchange(stage) = Exchange::bypass(shared, why);
    (stage, vec![Effect::Forward(Vec::new())])
}

/// Hot tier, then whoever fetches the same already, then the daemon.
fn look_up(shared: &mut Shared, id: Id, mut pending: Pending, now_ms: u64) -> Step {
    let control = pending.asked.control;
    if let Some(answer) = hot(shared, &pending, now_ms) {
        return have(shared, pending, &answer, HOT, now_ms);
    }
    if control.only_if_cached {
        // Such a request never asks the provider, so it can lead nobody.
        return if !control.no_cache && shared.asks_daemon(now_ms) {
            ask(shared, pending)
        } else {
            absent(&pending)
        };
    }
    if control.no_cache || !pending.waits(shared) {
        return if !control.no_cache && shared.asks_daemon(now_ms) {
            ask(shared, pending)
        } else {
            forwarded(shared, pending)
        };
    }
    match shared.flights.join(&pending.asked.key.digest, id) {
        Role::Follow(flight) => {
            pending.flight = Some(flight);
            return (Stage::Following(pending), Vec::new());
        }
        Role::Lead(flight) => {
            pending.flight = Some(flight);
            pending.fill = Some(shared.next_fill());
        }
        Role::Alone => {}
    }
    if shared.asks_daemon(now_ms) {
        ask(shared, pending)
    } else {
        pending.fill = None;
        forwarded(shared, pending)
    }
}

/// The answer that is hot, if there is one that the client accepts.
fn hot(shared: &mut Shared, pending: &Pending, now_ms: u64) -> Option<Rc<Answer>> {
    let answer = shared.hot.get(&pending.asked.key.digest, now_ms)?;
    pending.accepts(&answer, now_ms).then_some(answer)
}

fn ask(shared: &Shared, pending: Pending) -> Step {
    let key = pending.asked.key;
    let timeout_ms = shared.config.lookup_timeout_ms;
    let request = daemon::Request::lookup(&key, pending.fill.as_deref(), timeout_ms);
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Asking(pending), vec![call])
}

fn replied(
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
            // It may have heard us: then it is told that we do not lead.
        }
    }
    if pending.asked.control.only_if_cached {
        return absent(&pending);
    }
    forwarded(shared, pending)
}

fn found_at_daemon(
    shared: &mut Shared,
    mut pending: Pending,
    found: Found,
    is_current: bool,
    now_ms: u64,
) -> Step {
    let Found { answer, collapsed } = found;
    // With an answer nobody leads.
    pending.fill = None;
    let source = match collapsed {
        true => Source::Fetched,
        false => Source::Stored(Tier::Daemon),
    };
    let expired = answer.expires_at_ms.is_some_and(|at| now_ms >= at);
    if !expired && is_current {
        shared.hot.insert(pending.asked.key.digest, &answer, now_ms);
    }
    if !expired && pending.accepts(&answer, now_ms) {
        return have(shared, pending, &answer, source, now_ms);
    }
    if pending.asked.control.only_if_cached {
        return absent(&pending);
    }
    let offer = pending
        .flight
        .filter(|_| !expired)
        .map(|flight| Effect::Land(flight, Landing::Offer(answer, source)));
    let (stage, mut effects) = forwarded(shared, pending);
    effects.extend(offer);
    (stage, effects)
}

/// There is an answer for this request, and for those who follow it and accept it. Of the others
/// one leads: what they want must come from the provider.
fn have(
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

/// Another slice of waiting for somebody else's fill, or an end to it.
fn wait(shared: &mut Shared, pending: Pending, now_ms: u64) -> Step {
    // The clock may have been set back: then that was waiting, too.
    let waited_ms = now_ms.abs_diff(pending.since_ms);
    let left_ms = shared.config.fill_wait_ms.saturating_sub(waited_ms);
    if left_ms == 0 {
        return forwarded(shared, pending);
    }
    let key = pending.asked.key;
    let request = daemon::Request::wait(&key, left_ms.min(WAIT_SLICE_MS));
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Waiting(pending), vec![call])
}

fn waited(
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

fn landed(
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
        // Nothing is fresher than what has just come, so the next answer would not do either.
        Landing::Answer(_) | Landing::LetGo => {
            pending.flight = None;
            forwarded(shared, pending)
        }
    }
}

/// Who has led has left, and this one leads from now on.
fn takes_over(shared: &mut Shared, mut pending: Pending, lead: Lead, now_ms: u64) -> Step {
    // Requests that go alone may have brought an answer in the meantime.
    let hot = hot(shared, &pending, now_ms);
    let waits = matches!(lead, Lead::Wait);
    let asks = matches!(lead, Lead::Ask(_));
    pending.fill = lead.fill();
    match hot {
        Some(answer) => have(shared, pending, &answer, HOT, now_ms),
        None if waits => wait(shared, pending, now_ms),
        // To a name that the daemon may know already it says the same once more.
        None if asks && shared.asks_daemon(now_ms) => ask(shared, pending),
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
    })
}

/// `only-if-cached`, and nothing is.
fn absent(pending: &Pending) -> Step {
    answered(Served {
        answer: None,
        status: Status::Absent,
        age_seconds: None,
        shape: pending.asked.shape,
    })
}

fn answered(served: Served) -> Step {
    (Stage::Answered, vec![Effect::Answer(served)])
}

/// To the provider, and its answer to the recorder.
fn forwarded(shared: &mut Shared, pending: Pending) -> Step {
    shared.counts.miss();
    let status = match pending.asked.control.no_cache {
        true => Status::Refresh,
        false => Status::Miss,
    };
    // The key says who answers, so that one is asked, whatever host the client has named.
    let mut set = vec![(":authority", pending.authority.clone())];
    if !pending.asked.control.keeps() {
        let stage = Stage::Passing(Some(status));
        return (stage, vec![Effect::Forward(set)]);
    }
    if let Some(flight) = &pending.flight {
        shared.flights.open(flight);
    }
    // Everyone must be able to read the replay, so what is recorded is not compressed.
    set.push(("accept-encoding", "identity".to_owned()));
    let recording = Recording {
        recorder: Recorder::new(pending.asked.shape, shared.config.limits),
        status,
        epoch: shared.epoch().cloned(),
        bytes: 0,
        pending,
    };
    let stage = Stage::Forwarded(Box::new(recording));
    (stage, vec![Effect::Forward(set)])
}

fn head(
    shared: &mut Shared,
    mut recording: Box<Recording>,
    status: u16,
    headers: &[(&str, &[u8])],
) -> Step {
    let mark = Effect::Mark(recording.status);
    match recording.recorder.head(status, headers) {
        Ok(()) => (Stage::Forwarded(recording), vec![mark]),
        Err(rejected) => {
            let mut effects = given_up(shared, *recording, rejected);
            effects.push(mark);
            (Stage::Passing(None), effects)
        }
    }
}

fn chunk(
    shared: &mut Shared,
    mut recording: Box<Recording>,
    bytes: &[u8],
    end: bool,
    now_ms: u64,
) -> Step {
    if !shared.recording().take(bytes.len()) {
        shared.counts.drop(Drop::Memory);
        let effects = recording.ended(shared, Landing::LetGo);
        return (Stage::Passing(None), effects);
    }
    recording.bytes += bytes.len();
    recording.recorder.feed(bytes);
    let effects = match recording.recorder.rejected() {
        Some(rejected) => given_up(shared, *recording, rejected),
        None if end => finished(shared, *recording, now_ms),
        None => return (Stage::Forwarded(recording), Vec::new()),
    };
    (Stage::Passing(None), effects)
}

/// The answer has come to its end.
fn finished(shared: &mut Shared, mut recording: Recording, now_ms: u64) -> Vec<Effect> {
    let empty = Recorder::new(recording.pending.asked.shape, shared.config.limits);
    let recorder = std::mem::replace(&mut recording.recorder, empty);
    let most = shared.config.ttl_seconds;
    let wish = recording.pending.asked.control.ttl_seconds;
    let ttl_seconds = wish.map_or(most, |wish| wish.min(most));
    let answer = recorder.finish().and_then(|storable| {
        let expires_at_ms = Some(now_ms.saturating_add(ttl_seconds.saturating_mul(1000)));
        answer_of(storable, now_ms, expires_at_ms)
    });
    let answer = match answer {
        Ok(answer) => Rc::new(answer),
        Err(rejected) => return given_up(shared, recording, rejected),
    };
    let Asked { key, shape, .. } = recording.pending.asked;
    // After a purge, what was asked before it is not to be kept.
    let is_current = recording.epoch.as_ref() == shared.epoch();
    if is_current {
        shared.hot.insert(key.digest, &answer, now_ms);
    }
    let mut effects = Vec::new();
    if shared.config.daemon_cluster.is_some() {
        let bytes = answer.body.len();
        // Without an epoch the daemon would store it whatever was purged since it was asked for.
        if !is_current || recording.epoch.is_none() {
            shared.counts.drop(Drop::Purged);
        } else if !shared.sending().take(bytes) {
            shared.counts.drop(Drop::Busy);
        } else if !shared.breaker.allows(now_ms) {
            // Asked last: it may be the one call that finds out how the daemon is.
            shared.sending().give_back(bytes);
            shared.counts.drop(Drop::BreakerOpen);
        } else {
            // With the answer the fill is at its end, so it need not be given back.
            let fill = recording.pending.fill.take();
            let timeout_ms = shared.config.insert_timeout_ms;
            let request = daemon::Request::insert(
                &key,
                shape,
                &answer,
                ttl_seconds,
                recording.epoch.as_ref(),
                fill.as_deref(),
                timeout_ms,
            );
            effects.push(Effect::Call(Purpose::Insert(bytes), request));
        }
    }
    effects.extend(recording.ended(shared, Landing::Answer(answer)));
    effects
}

/// Headers that are no text cannot be handed to Envoy.
fn answer_of(
    storable: Storable,
    stored_at_ms: u64,
    expires_at_ms: Option<u64>,
) -> Result<Answer, Rejected> {
    let text = |(name, value): (String, Vec<u8>)| {
        let value = String::from_utf8(value).map_err(|_| Rejected::Unexpected)?;
        Ok((name, value))
    };
    Ok(Answer {
        headers: storable
            .headers
            .into_iter()
            .map(text)
            .collect::<Result<_, _>>()?,
        body: storable.body,
        stored_at_ms,
        expires_at_ms,
    })
}

/// The answer must not be served again.
fn given_up(shared: &mut Shared, recording: Recording, why: Rejected) -> Vec<Effect> {
    shared.counts.rejected(why);
    recording.ended(shared, Landing::LetGo)
}

impl Recording {
    /// Tells those who wait for it, here and elsewhere.
    fn ended(self, shared: &mut Shared, landing: Landing) -> Vec<Effect> {
        shared.recording().give_back(self.bytes);
        let Pending {
            asked,
            flight,
            fill,
            ..
        } = self.pending;
        let mut effects = Vec::new();
        if let Some(fill) = fill {
            let release = daemon::Request::release(&asked.key, &fill);
            effects.push(Effect::Call(Purpose::Note, release));
        }
        effects.extend(flight.map(|flight| Effect::Land(flight, landing)));
        effects
    }
}

impl Pending {
    fn accepts(&self, answer: &Answer, now_ms: u64) -> bool {
        let age_seconds = answer.age_seconds(now_ms);
        let control = &self.asked.control;
        control.accepts(age_seconds, answer.ttl_seconds(now_ms))
    }

    /// Whether it may wait for another one's answer, and another one for its. An answer that is
    /// not to be kept is for this client alone, so whoever waited for it would wait for nothing.
    fn waits(&self, shared: &Shared) -> bool {
        let control = &self.asked.control;
        shared.config.fill_wait_ms > 0 && !control.only_if_cached && control.keeps()
    }

    /// Somebody else is to lead from where this one was.
    fn left(mut self, lead: impl FnOnce(Option<String>) -> Lead) -> Vec<Effect> {
        let lead = lead(self.fill.take());
        let flight = self.flight.into_iter();
        flight
            .map(|flight| Effect::HandOver(flight, self.asked.key, lead.clone()))
            .collect()
    }

    /// It follows no longer.
    fn leave(&mut self, shared: &mut Shared, id: Id) {
        if let Some(flight) = self.flight.take() {
            shared.flights.leave(&flight, id);
        }
    }
}

/// The client has gone, or the answer is at its end.
fn gone(shared: &mut Shared, id: Id, stage: Stage, now_ms: u64) -> Vec<Effect> {
    match stage {
        Stage::Passing(_) | Stage::Reading(_) | Stage::Answered => Vec::new(),
        Stage::Following(mut pending) => {
            pending.leave(shared, id);
            Vec::new()
        }
        Stage::Asking(pending) => pending.left(Lead::Ask),
        Stage::Waiting(pending) => pending.left(|_| Lead::Wait),
        // A client may hang up at the terminal event, before the provider has closed the stream.
        Stage::Forwarded(recording) if recording.recorder.complete().is_some() => {
            finished(shared, *recording, now_ms)
        }
        Stage::Forwarded(recording) => {
            shared.counts.rejected(Rejected::Cut);
            shared.recording().give_back(recording.bytes);
            recording.pending.left(Lead::Fetch)
        }
    }
}
