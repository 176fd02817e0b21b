//! One request and its answer, on the worker that Envoy runs it on.
//!
//! ```text
//! New ─► Reading ─► in memory? ─► Answered
//!   │       │          └► Deciding (a future) ─► Answered
//!   │       │                  └► Forwarded: recorded ─► kept | given up
//!   └► Passing (bypass)
//! ```

use crate::abi::{Body as BodyOf, Envoy, Map, Scheduler};
use crate::home::Home;
use crate::lookup::{self, Deciding, Decision, Hit, Wanted, now_ms};
use crate::panics::Hook;
use crate::plugin::Plugin;
use crate::recording::{Asked, Go, Recording};
use crate::reply::{Reply, mark};
use crate::request;
use reflex_envoy_core::keyed::{Inspected, inspect};
use reflex_envoy_core::routes::Standing;
use reflex_envoy_core::unread::Unread;
use reflex_llm::{Bypass, Dropped, Examined, Exchange, Flow, Life, Status};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A client that does not say how long its body is can bring as much at once as a connection's buffer
/// takes, on top of what is held, and a read of up to this many bytes more.
const READ_BYTES_MAX: u64 = 128 << 10;

thread_local! {
    /// Long answers of this worker that clients may still have to read.
    static UNREAD: RefCell<Unread> = RefCell::default();
}

/// What Envoy is to do with a head or trailers, as it numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Head {
    Continue = 0,
    Stop = 1,
}

/// What Envoy is to do with a part of a body, as it numbers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    Continue = 0,
    Hold = 1,
    /// The request was answered.
    Drop = 3,
}

/// What follows a hook, once no stream is borrowed any more.
#[derive(Debug)]
pub(crate) enum After {
    Nothing,
    /// Envoy holds the request from now on.
    Hold,
    /// The request that Envoy holds goes on.
    GoOn,
    /// The client is answered.
    Answer(Box<Reply>),
}

/// A stream as Envoy has it: hooks that run within each other share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stream: RefCell<Stream>,
    /// Whether Envoy holds the request until the module says otherwise.
    pub(crate) is_held: Cell<bool>,
}

impl Shared {
    pub(crate) fn new(plugin: Arc<Plugin>) -> Self {
        Self {
            stream: RefCell::new(Stream {
                plugin,
                stage: Stage::New,
                scheduler: None,
                #[cfg(feature = "planted")]
                planted: None,
            }),
            is_held: Cell::new(false),
        }
    }

    /// After a panic: the request is left alone from now on.
    pub(crate) fn gives_up(&self) {
        if let Ok(mut stream) = self.stream.try_borrow_mut() {
            stream.stage = Stage::Passing(None);
        }
    }

    /// The hook that is to panic, in tests.
    pub(crate) fn planted(&self) -> Option<Hook> {
        #[cfg(feature = "planted")]
        if let Ok(stream) = self.stream.try_borrow() {
            return stream.planted;
        }
        None
    }

    /// Envoy has let go of it.
    pub(crate) fn destroyed(&self) {
        if let Ok(mut stream) = self.stream.try_borrow_mut() {
            stream.ends();
        }
    }
}

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Stream {
    plugin: Arc<Plugin>,
    stage: Stage,
    /// Once something is waited for.
    scheduler: Option<Arc<Scheduler>>,
    /// The hook that is to panic.
    #[cfg(feature = "planted")]
    planted: Option<Hook>,
}

enum Stage {
    New,
    /// The provider answers and is not recorded; the status is set in the answer's head.
    Passing(Option<Status>),
    /// The head was looked at; the body decides.
    Reading(Box<Reading>),
    /// The disk, or another request, is waited for.
    Deciding(Box<(Deciding, Asked)>),
    /// The provider was asked.
    Forwarded(Box<Recording>),
    /// The module has answered.
    Answered,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::New => "New",
            Self::Passing(_) => "Passing",
            Self::Reading(_) => "Reading",
            Self::Deciding(_) => "Deciding",
            Self::Forwarded(_) => "Forwarded",
            Self::Answered => "Answered",
        })
    }
}

/// What is kept of a request while its body is awaited.
struct Reading {
    inspected: Inspected,
    home: Arc<Home>,
    /// Whether the route allows answers of other requests: it is known to change none.
    is_open: bool,
}

/// What a request turns out to be.
enum Thought {
    Bypass(Bypass),
    /// The cache has it in memory.
    Hit(Hit, Flow),
    /// Nothing has to be looked at.
    Decided(Decision, Box<Asked>),
    /// The cache has to be looked at, and other requests.
    Decide(Box<(Deciding, Asked)>),
}

/// What becomes of a request whose body has come.
enum Next {
    /// It goes on to the provider.
    On,
    /// It waits.
    Wait,
    Answer(Box<Reply>),
}

impl Stream {
    /// The head has come. `end`: there is no body.
    pub(crate) fn request_headers(&mut self, envoy: &mut Envoy<'_>, end: bool) -> (Head, After) {
        heard_from(envoy);
        match self.look(envoy) {
            Ok(_) if end => self.bypass(Bypass::NotJson),
            Ok(reading) => {
                // The body is held, without an error past a limit that is meant for other bodies.
                let limit = envoy.buffer_limit();
                let most = self.plugin.settings.filter.request_bytes_max as u64;
                envoy.set_buffer_limit(limit.saturating_add(most + READ_BYTES_MAX));
                self.stage = Stage::Reading(Box::new(reading));
                return (Head::Stop, After::Hold);
            }
            Err(why) => self.bypass(why),
        }
        (Head::Continue, After::Nothing)
    }

    fn look(&mut self, envoy: &Envoy<'_>) -> Result<Reading, Bypass> {
        let plugin = &self.plugin;
        let home = plugin.home.as_ref().ok_or(Bypass::Unavailable)?;
        let config = &plugin.settings.filter;
        let route = request::route(envoy);
        let upstream = config.upstreams.get(&route.cluster).map(|it| &**it);
        #[cfg(feature = "planted")]
        let planted = &mut self.planted;
        plugin.routes.look(upstream, route, |routes, route| {
            request::with_request(envoy, route, |request| {
                #[cfg(feature = "planted")]
                crate::panics::sow(request.headers, planted);
                let inspected = inspect(config, routes, request)?;
                let is_open = inspected.keyed.by_route
                    || routes.standing(&inspected.upstream, route) == Standing::Open;
                Ok(Reading {
                    inspected,
                    home: Arc::clone(home),
                    is_open,
                })
            })
        })
    }

    fn bypass(&mut self, why: Bypass) {
        self.plugin.counts.bypass(why);
        self.stage = Stage::Passing(Some(Status::Bypass(why)));
    }

    /// A part of the body has come.
    pub(crate) fn request_body(&mut self, envoy: &mut Envoy<'_>, end: bool) -> (Body, After) {
        match &self.stage {
            Stage::Reading(_) => {}
            Stage::Deciding(_) => return (Body::Hold, After::Hold),
            Stage::Answered => return (Body::Drop, After::Nothing),
            Stage::New | Stage::Passing(_) | Stage::Forwarded(_) => {
                return (Body::Continue, After::Nothing);
            }
        }
        let received = envoy.body_bytes(BodyOf::ReceivedRequest);
        let held = match envoy.received_is_buffered() {
            true => 0,
            false => envoy.body_bytes(BodyOf::BufferedRequest),
        };
        let bytes = received + held;
        if bytes > self.plugin.settings.filter.request_bytes_max {
            self.bypass(Bypass::BodyTooLarge);
            return (Body::Continue, After::Nothing);
        }
        if !end {
            return (Body::Hold, After::Hold);
        }
        let mut pieces = match held {
            0 => Vec::new(),
            _ => envoy.body(BodyOf::BufferedRequest),
        };
        pieces.extend(envoy.body(BodyOf::ReceivedRequest));
        let thought = self.think(whole(&pieces, bytes).as_deref());
        match self.act(envoy, thought) {
            Next::On => (Body::Continue, After::Nothing),
            Next::Wait => (Body::Hold, After::Hold),
            Next::Answer(reply) => (Body::Drop, After::Answer(reply)),
        }
    }

    /// The body has ended without a part that says so.
    pub(crate) fn request_trailers(&mut self, envoy: &mut Envoy<'_>) -> (Head, After) {
        match &self.stage {
            Stage::Reading(_) => {}
            Stage::Deciding(_) => return (Head::Stop, After::Hold),
            Stage::Answered => return (Head::Stop, After::Nothing),
            Stage::New | Stage::Passing(_) | Stage::Forwarded(_) => {
                return (Head::Continue, After::Nothing);
            }
        }
        if !request::trailers_say_nothing(envoy) {
            self.bypass(Bypass::Trailers);
            return (Head::Continue, After::Nothing);
        }
        let bytes = envoy.body_bytes(BodyOf::BufferedRequest);
        let pieces = envoy.body(BodyOf::BufferedRequest);
        let thought = self.think(whole(&pieces, bytes).as_deref());
        match self.act(envoy, thought) {
            Next::On => (Head::Continue, After::Nothing),
            Next::Wait => (Head::Stop, After::Hold),
            Next::Answer(reply) => (Head::Stop, After::Answer(reply)),
        }
    }

    /// The body is there: finds out what the request is and what is in memory, and changes nothing at
    /// Envoy. Without a body, Envoy has lost a part of it.
    fn think(&mut self, body: Option<&[u8]>) -> Thought {
        let stage = std::mem::replace(&mut self.stage, Stage::Passing(None));
        let (Stage::Reading(reading), Some(body)) = (stage, body) else {
            return Thought::Bypass(Bypass::Unavailable);
        };
        let Reading {
            inspected,
            home,
            is_open,
        } = *reading;
        let plugin = &self.plugin;
        let config = &plugin.settings.filter;
        let since = home.cache.purges().now();
        let control = inspected.keyed.prepared.control();
        let is_known = is_open && config.samples == 1;
        let prepared = &inspected.keyed.prepared;
        let probe = plugin.l1.probe(|head| prepared.write_identity(head), body);
        if let Some(known) = is_known.then(|| plugin.l1.get(&probe, body)).flatten()
            && let Some(hit) = lookup::now(&home, &known, &Flow::of(&control))
        {
            return Thought::Hit(hit, Flow::of(&control));
        }

        let Examined { exchange, model } = match inspected.keyed.prepared.examine(body) {
            Ok(examined) => examined,
            Err(why) => return Thought::Bypass(why),
        };
        let Exchange {
            key: request,
            shape,
            control,
        } = exchange;
        let lifetimes = &config.lifetimes;
        let life = lifetimes.of(&inspected.path, model.as_deref(), control.ttl_seconds);
        let flow = Flow::of(&control).kept_if(life != Life::NotKept);
        let key = match config.samples {
            1 => request,
            samples => request.sample(home.turn(&request) % samples),
        };
        if is_open && let Some(hit) = lookup::now(&home, &key, &flow) {
            if is_known {
                plugin.l1.insert(&probe, body, &key.tenant.0, key);
            }
            return Thought::Hit(hit, flow);
        }
        let asked = Asked {
            keyed: inspected.keyed,
            upstream: inspected.upstream,
            key,
            shape,
            flow,
            life,
            model,
            since,
        };
        if !is_open {
            // The route has to be proven first, by this very request.
            let decision = match flow.asks() {
                true => Decision::Ask(None),
                false => Decision::Absent,
            };
            return Thought::Decided(decision, Box::new(asked));
        }
        let wanted = Wanted {
            key,
            request,
            samples: config.samples,
            flow,
            wait: Duration::from_millis(config.fill_wait_ms),
        };
        Thought::Decide(Box::new((Box::pin(lookup::decide(home, wanted)), asked)))
    }

    /// Answers, lets the request go on, or begins to wait.
    fn act(&mut self, envoy: &mut Envoy<'_>, thought: Thought) -> Next {
        match thought {
            Thought::Bypass(why) => {
                self.bypass(why);
                Next::On
            }
            Thought::Hit(hit, flow) => self.answer(envoy, hit, flow),
            Thought::Decided(decision, asked) => self.settle(envoy, decision, *asked),
            Thought::Decide(waits) => {
                self.stage = Stage::Deciding(waits);
                self.poll(envoy)
            }
        }
    }

    /// Goes on with what is waited for.
    fn poll(&mut self, envoy: &mut Envoy<'_>) -> Next {
        let waker = self.waker(envoy);
        let Stage::Deciding(waits) = &mut self.stage else {
            return Next::On;
        };
        let polled = waits.0.as_mut().poll(&mut Context::from_waker(&waker));
        let Poll::Ready(decision) = polled else {
            return Next::Wait;
        };
        match std::mem::replace(&mut self.stage, Stage::Passing(None)) {
            Stage::Deciding(waits) => self.settle(envoy, decision, waits.1),
            _ => Next::On,
        }
    }

    fn settle(&mut self, envoy: &mut Envoy<'_>, decision: Decision, asked: Asked) -> Next {
        let lead = match decision {
            Decision::Hit(hit) => return self.answer(envoy, hit, asked.flow),
            Decision::Absent => {
                self.stage = Stage::Answered;
                return Next::Answer(Box::new(Reply::Absent(asked.shape)));
            }
            Decision::Ask(lead) => lead,
        };
        let counts = &self.plugin.counts;
        counts.miss();
        let Some(home) = self.plugin.home.as_ref().filter(|_| asked.flow.keeps()) else {
            counts.dropped(Dropped::Ttl);
            self.stage = Stage::Passing(Some(asked.flow.answered()));
            return Next::On;
        };
        let edits = asked.flow.edits(false);
        for name in edits.remove {
            envoy.set_header(Map::Request, name, None);
        }
        for (name, value) in edits.set {
            envoy.set_header(Map::Request, name, Some(value.as_bytes()));
        }
        let recording = Recording::new(&self.plugin, home, asked, lead);
        self.stage = Stage::Forwarded(recording);
        Next::On
    }

    fn answer(&mut self, envoy: &Envoy<'_>, hit: Hit, flow: Flow) -> Next {
        if !is_handed_over(envoy, hit.entry.payload_bytes()) && flow.asks() {
            self.bypass(Bypass::Memory);
            return Next::On;
        }
        match hit.is_fetched {
            true => self.plugin.counts.collapsed(),
            false => self.plugin.counts.hit(hit.entry.tier().name()),
        }
        self.stage = Stage::Answered;
        Next::Answer(Box::new(Reply::Hit(hit)))
    }

    fn waker(&mut self, envoy: &Envoy<'_>) -> Waker {
        let scheduler = self.scheduler.get_or_insert_with(|| envoy.scheduler());
        Waker::from(Arc::clone(scheduler))
    }

    /// What was waited for may have come.
    pub(crate) fn scheduled(&mut self, envoy: &mut Envoy<'_>) -> After {
        match &mut self.stage {
            Stage::Deciding(_) => match self.poll(envoy) {
                Next::On => After::GoOn,
                Next::Wait => After::Nothing,
                Next::Answer(reply) => After::Answer(reply),
            },
            Stage::Forwarded(_) => {
                self.watch(envoy);
                After::Nothing
            }
            _ => After::Nothing,
        }
    }

    fn watch(&mut self, envoy: &Envoy<'_>) {
        let waker = self.waker(envoy);
        if let Stage::Forwarded(recording) = &mut self.stage {
            recording.watch(&mut Context::from_waker(&waker));
        }
    }

    /// The head of an answer has come.
    pub(crate) fn response_headers(&mut self, envoy: &mut Envoy<'_>, end: bool) {
        let status = match &self.stage {
            Stage::Passing(status) => *status,
            Stage::Forwarded(recording) => Some(recording.status()),
            _ => None,
        };
        let Some(status) = status else { return };
        match std::mem::replace(&mut self.stage, Stage::Passing(None)) {
            Stage::Forwarded(recording) => self.goes(recording.head(envoy)),
            _ => self.controlled(envoy, status),
        }
        mark(envoy, status);
        if end {
            self.response_ends(envoy);
        }
    }

    fn controlled(&self, envoy: &Envoy<'_>, status: Status) {
        if status.directive().is_none() {
            return;
        }
        let headers = envoy.headers(Map::Response);
        let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (text(name), *value))
            .collect();
        self.plugin.counts.controlled(status, &headers);
    }

    /// A part of an answer has come.
    pub(crate) fn response_body(&mut self, envoy: &mut Envoy<'_>, end: bool) {
        self.recording(|recording| recording.body(envoy, end));
        if let Stage::Forwarded(recording) = &self.stage
            && recording.is_to_be_watched()
        {
            self.watch(envoy);
        }
    }

    /// The answer is at its end.
    pub(crate) fn response_ends(&mut self, envoy: &Envoy<'_>) {
        self.recording(|recording| recording.ended(envoy));
    }

    fn recording(&mut self, what: impl FnOnce(Box<Recording>) -> Go) {
        match std::mem::replace(&mut self.stage, Stage::Passing(None)) {
            Stage::Forwarded(recording) => self.goes(what(recording)),
            stage => self.stage = stage,
        }
    }

    fn goes(&mut self, go: Go) {
        self.stage = match go {
            Go::On(recording) => Stage::Forwarded(recording),
            Go::Over => Stage::Passing(None),
        };
    }

    /// Envoy has ended the request, at its end or before.
    pub(crate) fn complete(&mut self, envoy: &Envoy<'_>) {
        self.recording(|recording| {
            recording.gone(envoy);
            Go::Over
        });
        self.ends();
    }

    /// Nothing is waited for any more, and nobody is woken.
    fn ends(&mut self) {
        self.stage = Stage::Passing(None);
        if let Some(scheduler) = self.scheduler.take() {
            scheduler.end();
        }
    }
}

/// A body in one piece; none if Envoy has less: a part of a request has another key.
fn whole<'b>(pieces: &[&'b [u8]], bytes: usize) -> Option<Cow<'b, [u8]>> {
    let body = match pieces {
        [] => Cow::Borrowed(&[][..]),
        [piece] => Cow::Borrowed(*piece),
        pieces => Cow::Owned(pieces.concat()),
    };
    (body.len() == bytes).then_some(body)
}

/// A request has begun: its client has read the answer to its last one.
fn heard_from(envoy: &Envoy<'_>) {
    UNREAD.with_borrow_mut(|unread| {
        if !unread.is_empty()
            && let Some(connection) = request::connection(envoy)
        {
            unread.heard_from(connection);
        }
    });
}

/// Whether an answer of that length may be handed to a client, so that those that clients do not read
/// stay within their bound.
fn is_handed_over(envoy: &Envoy<'_>, bytes: u64) -> bool {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    UNREAD.with_borrow_mut(|unread| match unread.hand_over(bytes, now_ms()) {
        Ok(Some(ticket)) => {
            if let Some(connection) = request::connection(envoy) {
                unread.goes_to(ticket, connection);
            }
            true
        }
        Ok(None) => true,
        Err(_full) => false,
    })
}
