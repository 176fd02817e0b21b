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
//! It makes no calls and reads no clock. What it does to other exchanges (the leader of a flight
//! lands, or leaves) is an effect too, which `worker` passes on.

mod keyed;
mod lookup;
mod pending;
mod recording;
mod turns;

use std::rc::Rc;

use reflex_llm::{Bypass, Exchange as Asked, Flow, Key, Life, Prepared, Rejected, Shape, Status};

use crate::answer::Answer;
use crate::config::Upstream;
use crate::counts::Tier;
use crate::daemon::{self, Reply};
use crate::flights::{Id, Name};
use crate::memo::Known;
use crate::routes::{Route, Standing};
use crate::shared::Shared;
use crate::unread::Ticket;
use keyed::Keyed;
use lookup::HOT;
use pending::Pending;
use recording::Recording;
pub use turns::PLACES;

/// A request as Envoy has it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// As sent.
    pub method: &'r str,
    /// Path and query, as sent.
    pub path: &'r str,
    /// Without those of HTTP/2; names in lower case, in order.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// The host: `:authority`.
    pub authority: &'r str,
    /// The route that Envoy has chosen, and the cluster that it leads to.
    pub route: &'r Rc<Route>,
    /// What `content-length` says.
    pub length: Option<u64>,
}

impl Request<'_> {
    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| *other == name)
    }
}

/// What happens to a request after its head is there.
#[derive(Debug)]
pub enum Event<'e> {
    /// Its whole body.
    Body(&'e [u8]),
    /// The number of requests that have had their turn.
    Turn(u32),
    /// Its body cannot be read, for this reason.
    NoBody(Bypass),
    /// The daemon's reply, and whether an answer in it may enter the hot tier.
    Reply(Reply, bool),
    /// The outcome of the request that this one follows.
    Landed(Landing),
    /// The request that this one followed leads no longer; this one takes its place.
    Lead(Lead),
    /// It has waited for another one for as long as it may.
    WaitOver,
    /// Whether the answer whose head follows is a provider's: Envoy and other filters answer too.
    IsProviders(bool),
    /// The request as the provider got it. Envoy shows it with the answer's head, or at its end.
    /// Without it, the answer is not kept.
    Sent(Request<'e>),
    /// The head of the provider's answer.
    Head(u16, &'e [(&'e str, &'e [u8])]),
    /// A part of the provider's answer, and whether it is the last.
    Chunk(&'e [u8], bool),
    /// A part of the provider's answer could not be read.
    Unread,
    /// The provider's answer has broken off.
    Broken,
    /// The provider's answer has stood still for too long: see [`Exchange::has_stalled`].
    Stalled,
    /// Envoy has ended the request, at its end or before.
    Gone,
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Effect {
    /// Let the request go on to the provider, as it is: Envoy chooses the route anew if a filter
    /// changes headers. True asks the route to ask for an answer that is not compressed.
    Forward(bool),
    /// Report how many turns were taken at this one of [`PLACES`], and count one more.
    Turn(u32),
    /// Answer the client.
    Answer(Served),
    /// Set these headers of the provider's answer.
    Mark(Status),
    /// Call the daemon.
    Call(Purpose, daemon::Request),
    /// Tell the other workers that there is a newer answer under that digest; without a daemon, no
    /// epoch tells them.
    Refreshed([u8; 32]),
    /// Tell the followers of this exchange.
    Land(Name, Landing),
    /// Make another exchange the leader, or give back the fill of that key.
    HandOver(Name, Key, Lead),
}

/// An answer of the filter.
#[derive(Debug)]
pub struct Served {
    /// None is a 504: nothing is cached, and the client does not want the provider asked.
    pub answer: Option<Rc<Answer>>,
    /// For the status headers.
    pub status: Status,
    /// For the header `age`; a miss has no age.
    pub age_seconds: Option<u64>,
    /// For the shape of an error.
    pub shape: Shape,
    /// If it counts among the answers that clients may still have to read.
    pub unread: Option<Ticket>,
}

/// Why the daemon is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its reply is an event of the exchange.
    Lookup(Key),
    /// So many bytes are on their way to it.
    Insert(usize),
    /// The reply is ignored.
    Note,
    /// Its reply tells the epoch.
    Epoch,
}

/// What becomes of the followers.
#[derive(Clone, Debug)]
pub enum Landing {
    /// The provider's answer to the leader.
    Answer(Rc<Answer>),
    /// An answer that was stored already, and where it was. Followers that do not accept it,
    /// because it is too old for them, go on following.
    Offer(Rc<Answer>, Source),
    /// The leader has no answer for them: each asks for itself.
    LetGo,
}

/// Where an answer of the filter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was stored before it was asked for.
    Stored(Tier),
    /// It was fetched for another request at the same time.
    Fetched,
}

/// How far a leader had come when it left. The next leader goes on from there.
#[derive(Clone, Debug)]
pub enum Lead {
    /// It was asking the daemon, to lead the fill of that name.
    Ask(Option<String>),
    /// It was waiting for a fill that another worker or process leads.
    Wait,
    /// It was asking the provider, and leads the fill of that name.
    Fetch(Option<String>),
}

impl Lead {
    /// The name of the fill to give back without a next leader.
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
    /// The provider answers and is not recorded; the status is set in the answer's head.
    Passing(Option<Status>),
    /// The head was looked at; the body decides.
    Reading(Box<Reading>),
    /// The request has several answers; its turn among them is being asked for.
    Turning(Pending),
    /// Another request of this worker fetches the answer.
    Following(Pending),
    /// The daemon looks for it.
    Asking(Pending),
    /// Another worker or process fetches the answer.
    Waiting(Pending),
    /// The provider was asked.
    Forwarded(Box<Recording>),
    /// The filter has answered.
    Answered,
}

/// What is kept of a request while its body is awaited.
#[derive(Debug)]
struct Reading {
    keyed: Keyed,
    /// The path that the provider gets, for the operator's rules.
    path: String,
    upstream: Rc<Upstream>,
}

impl Exchange {
    /// Looks at a request's head. `ends`: it has no body.
    pub fn begin(shared: &mut Shared, request: &Request<'_>, ends: bool) -> Self {
        match inspect(shared, request) {
            Ok(reading) if !ends => Self(Stage::Reading(Box::new(reading))),
            Ok(_) => Self::bypass(shared, Bypass::NotJson),
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

    /// Whether the request waits for the filter.
    pub fn holds(&self) -> bool {
        match self.0 {
            Stage::Reading(_) | Stage::Turning(_) => true,
            Stage::Following(_) | Stage::Asking(_) | Stage::Waiting(_) => true,
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

    /// Since when the request has followed another one; none if it does not.
    pub fn follows_since(&self) -> Option<u64> {
        match &self.0 {
            Stage::Following(pending) => Some(pending.since_ms),
            _ => None,
        }
    }

    /// Whether the provider's answer stands still while followers wait for it. The leader's client
    /// may read slowly, and Envoy then reads no faster from the provider.
    pub fn has_stalled(&self, now_ms: u64) -> bool {
        match &self.0 {
            Stage::Forwarded(recording) => recording.has_stalled(now_ms),
            _ => false,
        }
    }

    /// Whether its end changes nothing beside it.
    pub fn ends_quietly(&self) -> bool {
        match self.0 {
            Stage::Passing(_) | Stage::Reading(_) | Stage::Turning(_) | Stage::Answered => true,
            Stage::Following(_) | Stage::Asking(_) | Stage::Waiting(_) => false,
            Stage::Forwarded(_) => false,
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
            (Stage::Reading(reading), Event::Body(body)) => {
                examined(shared, id, *reading, body, now_ms)
            }
            (Stage::Turning(pending), Event::Turn(before)) => {
                turns::turned(shared, id, pending, before, now_ms)
            }
            (Stage::Reading(_), Event::NoBody(why)) => passed(shared, why),

            (Stage::Asking(pending), Event::Reply(reply, is_current)) => {
                lookup::replied(shared, pending, reply, is_current, now_ms)
            }
            (Stage::Waiting(pending), Event::Reply(reply, is_current)) => {
                lookup::waited(shared, pending, reply, is_current, now_ms)
            }

            (Stage::Following(pending), Event::Landed(landing)) => {
                lookup::landed(shared, id, pending, landing, now_ms)
            }
            (Stage::Following(pending), Event::Lead(lead)) => {
                lookup::takes_over(shared, pending, lead, now_ms)
            }
            (Stage::Following(mut pending), Event::WaitOver) => {
                pending.leave(shared, id);
                match lookup::hot(shared, &pending, now_ms) {
                    Some(answer) => lookup::have(shared, pending, &answer, HOT, now_ms),
                    None => recording::forwarded(shared, pending),
                }
            }

            (Stage::Forwarded(mut recording), Event::IsProviders(is_providers)) => {
                recording.is_providers = is_providers;
                (Stage::Forwarded(recording), Vec::new())
            }
            (Stage::Forwarded(recording), Event::Sent(sent)) => {
                recording::sent(shared, recording, &sent, now_ms)
            }
            (Stage::Forwarded(recording), Event::Head(status, headers)) => {
                recording::head(shared, recording, status, headers)
            }
            (Stage::Forwarded(recording), Event::Chunk(bytes, end)) => {
                recording::chunk(shared, recording, bytes, end, now_ms)
            }
            (Stage::Forwarded(recording), Event::Unread) => {
                let effects = recording::given_up(shared, *recording, Rejected::Cut);
                (Stage::Passing(None), effects)
            }
            (Stage::Forwarded(recording), Event::Broken) => {
                let effects = recording.broken(shared, now_ms);
                (Stage::Passing(None), effects)
            }
            (Stage::Forwarded(mut recording), Event::Stalled) => {
                let effects = recording.steps_back();
                (Stage::Forwarded(recording), effects)
            }
            (Stage::Passing(Some(status)), Event::Head(_, headers)) => {
                shared.counts.controlled(status, headers);
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

/// What can be decided before the body is there.
fn inspect(shared: &Shared, request: &Request<'_>) -> Result<Reading, Bypass> {
    let config = &shared.config;
    let upstream = config
        .upstreams
        .get(&request.route.cluster)
        .ok_or(Bypass::Upstream)?;
    // Envoy leaves this header only on a connection that becomes a tunnel, whose body has no end.
    if request.has("upgrade") {
        return Err(Bypass::Upgrade);
    }
    if !config.looks_at(request.path) {
        return Err(Bypass::Path);
    }
    let mut types = request
        .headers
        .iter()
        .filter(|(name, _)| *name == "content-type");
    if types.any(|(_, value)| value.starts_with(b"application/grpc")) {
        return Err(Bypass::Grpc);
    }
    let by_route = config.keys_route(&request.route.name);
    let path = upstream.path(request.path);
    let keyed = Keyed::of(config, upstream, by_route, &path, request)?;
    // Envoy asks the client for the body and removes this header, unless `proxy_100_continue`
    // leaves both to the provider. Then the client sends its body only after the provider has the
    // head.
    if request.has("expect") {
        return Err(Bypass::Expect);
    }
    if !by_route && shared.routes.standing(upstream, request.route) == Standing::Refused {
        return Err(Bypass::Route);
    }
    if request
        .length
        .is_some_and(|length| length > config.request_bytes_max as u64)
    {
        return Err(Bypass::BodyTooLarge);
    }
    Ok(Reading {
        keyed,
        path,
        upstream: Rc::clone(upstream),
    })
}

fn examined(shared: &mut Shared, id: Id, reading: Reading, body: &[u8], now_ms: u64) -> Step {
    let prepared = &reading.keyed.prepared;
    let remembered = shared.memo.get(prepared, body);
    let is_new = remembered.is_none();
    let known = match remembered.map_or_else(|| prepared.examine(body).map(Known::from), Ok) {
        Ok(known) => known,
        Err(why) => return passed(shared, why),
    };
    let control = prepared.control();
    let lifetimes = &shared.config.lifetimes;
    let life = lifetimes.of(&reading.path, known.model.as_deref(), control.ttl_seconds);
    let keyed = Rc::new(reading.keyed);
    let pending = Pending {
        flow: Flow::of(&control).kept_if(life != Life::NotKept),
        keyed: Rc::clone(&keyed),
        life,
        model: known.model.clone(),
        asked: Asked {
            key: known.key,
            shape: known.shape,
            control,
        },
        upstream: reading.upstream,
        turn: None,
        since_ms: now_ms,
        traits: None,
        flight: None,
        fill: None,
    };
    let (mut stage, effects) = turns::take_turn(shared, id, pending, now_ms);
    let is_hit = |effect: &Effect| match effect {
        Effect::Answer(served) => served.answer.is_some(),
        _ => false,
    };
    if is_new && effects.iter().any(is_hit) {
        shared.memo.insert(&keyed.prepared, body, known);
    }
    note_traits(shared, &mut stage, &keyed.prepared, body);
    (stage, effects)
}

/// Notes what a miss is compared with other misses by, unless the answer was hot.
fn note_traits(shared: &mut Shared, stage: &mut Stage, prepared: &Prepared, body: &[u8]) {
    match stage {
        Stage::Turning(pending)
        | Stage::Following(pending)
        | Stage::Asking(pending)
        | Stage::Waiting(pending) => {
            pending.traits = shared.splits().traits(prepared, body).map(Rc::new);
        }
        // It is a miss already.
        Stage::Forwarded(_) | Stage::Passing(Some(Status::Miss)) => {
            if let Some(traits) = shared.splits().traits(prepared, body) {
                shared.missed(&traits);
            }
        }
        Stage::Passing(_) | Stage::Reading(_) | Stage::Answered => {}
    }
}

fn passed(shared: &mut Shared, why: Bypass) -> Step {
    let Exchange(stage) = Exchange::bypass(shared, why);
    (stage, vec![Effect::Forward(false)])
}

/// The client has gone, or the answer is at its end.
fn gone(shared: &mut Shared, id: Id, stage: Stage, now_ms: u64) -> Vec<Effect> {
    match stage {
        Stage::Passing(_) | Stage::Reading(_) | Stage::Turning(_) | Stage::Answered => Vec::new(),
        Stage::Following(mut pending) => {
            pending.leave(shared, id);
            Vec::new()
        }
        Stage::Asking(pending) => pending.left(Lead::Ask),
        Stage::Waiting(pending) => pending.left(|_| Lead::Wait),
        Stage::Forwarded(recording) => recording.gone(shared, now_ms),
    }
}
