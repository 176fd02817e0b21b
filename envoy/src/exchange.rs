//! One request and its answer, as a state machine: events in, effects out.
//!
//! ```text
//! Reading ─► hot? ─► Answered
//!    │         └► leads ─► Asking ─► Waiting ─► Forwarded ─► stored | given up
//!    │                       └► Answered          ▲
//!    │         └► follows ─► Following ───────────┘ leader gone, or wait over
//!    └► Passing (bypass)           └► Answered
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
use crate::flights::{Id, Role};
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
    /// What the daemon said.
    Reply(Reply),
    /// What became of the request that this one follows.
    Landed(Landing),
    /// The request that this one followed is gone; this one takes its place.
    Lead(Option<String>),
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
    Land([u8; 32], Landing),
    /// Have another exchange lead in place of this one, or give back the fill of that key.
    HandOver(Key, Option<String>),
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
    /// There is an answer; true if it is the provider's and this fresh.
    Answer(Rc<Answer>, bool),
    /// There is none that they could have: each asks for itself.
    LetGo,
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
    /// Whether others of this worker may follow.
    leads: bool,
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

            (Stage::Asking(pending), Event::Reply(reply)) => {
                replied(shared, pending, reply, now_ms)
            }
            (Stage::Waiting(pending), Event::Reply(reply)) => {
                waited(shared, pending, reply, now_ms)
            }

            (Stage::Following(pending), Event::Landed(landing)) => {
                landed(shared, pending, landing, now_ms)
            }
            (Stage::Following(pending), Event::Lead(fill)) => {
                let leads = true;
                forwarded(
                    shared,
                    Pending {
                        leads,
                        fill,
                        ..pending
                    },
                )
            }
            (Stage::Following(pending), Event::WaitOver) => {
                shared.flights.leave(&pending.asked.key.digest, id);
                forwarded(shared, pending)
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
                leads: false,
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
    let Asked { key, control, .. } = pending.asked;
    if !control.no_cache
        && let Some(answer) = shared.hot.get(&key.digest, now_ms)
        && pending.accepts(&answer, now_ms)
    {
        return hit(shared, &pending, &answer, Tier::Hot, now_ms);
    }
    if control.only_if_cached {
        // Such a request never asks the provider, so it can lead nobody.
        return if !control.no_cache && shared.asks_daemon(now_ms) {
            ask(shared, pending)
        } else {
            absent(&pending)
        };
    }
    if control.no_cache || shared.config.fill_wait_ms == 0 {
        return if !control.no_cache && shared.asks_daemon(now_ms) {
            ask(shared, pending)
        } else {
            forwarded(shared, pending)
        };
    }
    match shared.flights.join(&key.digest, id) {
        Role::Follow => return (Stage::Following(pending), Vec::new()),
        Role::Lead => {
            pending.leads = true;
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

fn ask(shared: &Shared, pending: Pending) -> Step {
    let key = pending.asked.key;
    let timeout_ms = shared.config.lookup_timeout_ms;
    let request = daemon::Request::lookup(&key, pending.fill.as_deref(), timeout_ms);
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Asking(pending), vec![call])
}

fn replied(shared: &mut Shared, mut pending: Pending, reply: Reply, now_ms: u64) -> Step {
    match reply {
        Reply::Found(found) => return found_at_daemon(shared, pending, found, now_ms),
        Reply::Lead(epoch) => {
            shared.see_epoch(&epoch);
        }
        Reply::Busy(epoch) => {
            shared.see_epoch(&epoch);
            pending.fill = None;
            if !pending.asked.control.only_if_cached && shared.config.fill_wait_ms > 0 {
                return wait(shared, pending, now_ms);
            }
        }
        Reply::Absent(epoch) => {
            shared.see_epoch(&epoch);
            pending.fill = None;
        }
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

fn found_at_daemon(shared: &mut Shared, mut pending: Pending, found: Found, now_ms: u64) -> Step {
    let Found {
        answer,
        collapsed,
        epoch,
    } = found;
    pending.fill = None;
    let is_current = shared.see_epoch(&epoch);
    let expired = answer.expires_at_ms.is_some_and(|at| now_ms >= at);
    if expired || !pending.accepts(&answer, now_ms) {
        if pending.asked.control.only_if_cached {
            return absent(&pending);
        }
        return forwarded(shared, pending);
    }
    let digest = pending.asked.key.digest;
    if is_current {
        shared.hot.insert(digest, &answer, now_ms);
    }
    let (stage, mut effects) = if collapsed {
        collapsed_into(shared, &pending, &answer)
    } else {
        hit(shared, &pending, &answer, Tier::Daemon, now_ms)
    };
    if pending.leads {
        effects.push(Effect::Land(digest, Landing::Answer(answer, collapsed)));
    }
    (stage, effects)
}

/// Another slice of waiting for somebody else's fill, or an end to it.
fn wait(shared: &mut Shared, pending: Pending, now_ms: u64) -> Step {
    let waited_ms = now_ms.saturating_sub(pending.since_ms);
    let left_ms = shared.config.fill_wait_ms.saturating_sub(waited_ms);
    if left_ms == 0 {
        return forwarded(shared, pending);
    }
    let key = pending.asked.key;
    let request = daemon::Request::wait(&key, left_ms.min(WAIT_SLICE_MS));
    let call = Effect::Call(Purpose::Lookup(key), request);
    (Stage::Waiting(pending), vec![call])
}

fn waited(shared: &mut Shared, pending: Pending, reply: Reply, now_ms: u64) -> Step {
    match reply {
        Reply::Found(found) => found_at_daemon(shared, pending, found, now_ms),
        Reply::Busy(epoch) => {
            shared.see_epoch(&epoch);
            wait(shared, pending, now_ms)
        }
        Reply::Lead(epoch) | Reply::Absent(epoch) => {
            shared.see_epoch(&epoch);
            forwarded(shared, pending)
        }
        Reply::Failed => {
            shared.counts.lookup_failed();
            forwarded(shared, pending)
        }
    }
}

fn landed(shared: &mut Shared, pending: Pending, landing: Landing, now_ms: u64) -> Step {
    match landing {
        Landing::Answer(answer, true) if pending.accepts(&answer, now_ms) => {
            collapsed_into(shared, &pending, &answer)
        }
        Landing::Answer(answer, false) if pending.accepts(&answer, now_ms) => {
            hit(shared, &pending, &answer, Tier::Daemon, now_ms)
        }
        Landing::Answer(..) | Landing::LetGo => forwarded(shared, pending),
    }
}

fn hit(
    shared: &mut Shared,
    pending: &Pending,
    answer: &Rc<Answer>,
    tier: Tier,
    now_ms: u64,
) -> Step {
    shared.counts.hit(tier);
    let ttl_seconds = answer.ttl_seconds(now_ms);
    answered(Served {
        answer: Some(Rc::clone(answer)),
        status: Status::Hit { ttl_seconds },
        age_seconds: Some(answer.age_seconds(now_ms)),
        shape: pending.asked.shape,
    })
}

fn collapsed_into(shared: &mut Shared, pending: &Pending, answer: &Rc<Answer>) -> Step {
    shared.counts.collapsed();
    answered(Served {
        answer: Some(Rc::clone(answer)),
        status: Status::Collapsed,
        age_seconds: None,
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
    // Everyone must be able to read the replay, so what is recorded is not compressed. And the
    // key says who answers, so that one is asked, whatever host the client has named.
    let set = vec![
        ("accept-encoding", "identity".to_owned()),
        (":authority", pending.authority.clone()),
    ];
    let recording = Recording {
        recorder: Recorder::new(pending.asked.shape, shared.config.limits),
        status: if pending.asked.control.no_cache {
            Status::Refresh
        } else {
            Status::Miss
        },
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
    let ttl_seconds = shared.config.ttl_seconds;
    let answer = recorder.finish().and_then(|storable| {
        let expires_at_ms = Some(now_ms.saturating_add(ttl_seconds * 1000));
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
        if !shared.breaker.allows(now_ms) {
            shared.counts.drop(Drop::BreakerOpen);
        } else if !shared.sending().take(bytes) {
            shared.counts.drop(Drop::Busy);
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
    effects.extend(recording.ended(shared, Landing::Answer(answer, true)));
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
            asked, leads, fill, ..
        } = self.pending;
        let mut effects = Vec::new();
        if let Some(fill) = fill {
            let release = daemon::Request::release(&asked.key, &fill);
            effects.push(Effect::Call(Purpose::Note, release));
        }
        if leads {
            effects.push(Effect::Land(asked.key.digest, landing));
        }
        effects
    }
}

impl Pending {
    fn accepts(&self, answer: &Answer, now_ms: u64) -> bool {
        let age_seconds = answer.age_seconds(now_ms);
        let control = &self.asked.control;
        control.accepts(age_seconds, answer.ttl_seconds(now_ms))
    }

    /// Somebody else is to lead.
    fn left(self) -> Vec<Effect> {
        match self.leads {
            true => vec![Effect::HandOver(self.asked.key, self.fill)],
            false => Vec::new(),
        }
    }
}

/// The client has gone, or the answer is at its end.
fn gone(shared: &mut Shared, id: Id, stage: Stage, now_ms: u64) -> Vec<Effect> {
    match stage {
        Stage::Passing(_) | Stage::Reading(_) | Stage::Answered => Vec::new(),
        Stage::Following(pending) => {
            shared.flights.leave(&pending.asked.key.digest, id);
            Vec::new()
        }
        Stage::Asking(pending) | Stage::Waiting(pending) => pending.left(),
        // A client may hang up at the terminal event, before the provider has closed the stream.
        Stage::Forwarded(recording) if recording.recorder.complete().is_some() => {
            finished(shared, *recording, now_ms)
        }
        Stage::Forwarded(recording) => {
            shared.counts.rejected(Rejected::Cut);
            shared.recording().give_back(recording.bytes);
            recording.pending.left()
        }
    }
}
