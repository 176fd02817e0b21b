//! A simulation of one worker: requests of clients, a daemon and a provider, and a clock that only
//! the test moves. [`Play`] carries out effects as Envoy's filter does, and checks that each client
//! is answered once, and never after it has gone.

mod answers;
mod bypasses;
mod control;
mod daemon;
mod failures;
mod followers;
mod lives;
mod lookups;
mod memo;
mod purges;
mod random;
mod routes;
mod samples;
mod savings;
mod seen;
mod splits;
mod tenants;

use std::collections::BTreeMap;

use reflex_llm::{Bypass, Rejected, Status};

use super::*;
use crate::config::Upstream;
use crate::counts::Counts;
use crate::daemon as api;
use crate::routes::Route;
use daemon::{Daemon, Mood, Said};
use seen::Seen;

/// Two providers. The second has a path of its own in front of each request's.
const CONFIG: &str = r#"{"upstreams": {
    "openai": "https://api.openai.com",
    "gateway": "http://10.0.0.1:8000/openai/"
}}"#;

/// A worker, its clients, its daemon and its provider.
struct Play {
    worker: Worker,
    daemon: Daemon,
    now_ms: u64,
    calls: BTreeMap<u32, Call>,
    clients: BTreeMap<Id, Client>,
    counts: BTreeMap<String, u64>,
    numbers: u32,
    /// The workers' notes about routes.
    noted: BTreeMap<String, Vec<u8>>,
    /// How many turns all workers have taken at each place.
    turns: BTreeMap<u32, u32>,
    /// The digests that other workers are told.
    refreshed: Vec<[u8; 32]>,
}

/// A call to the daemon.
struct Call {
    id: Option<Id>,
    request: api::Request,
    began_ms: u64,
    /// For a wait: the fill that was under way when the call arrived.
    waits_for: Option<String>,
    /// The daemon's reply, once decided.
    said: Option<Said>,
}

/// A client and its request.
struct Client {
    saw: Saw,
    /// Whether the route is asked to ask for an answer that is not compressed.
    is_recorded: bool,
    /// The request that the provider gets.
    sent: Seen,
    /// Our status on the provider's answer.
    marked: Option<Status>,
    /// The headers of a hit that the provider once sent.
    head: Vec<(String, String)>,
}

/// The outcome of a request for its client.
#[derive(Clone, Debug, PartialEq)]
enum Saw {
    /// Nothing yet.
    Held,
    /// The provider has it.
    Provider,
    /// We have answered.
    Ours(Status, String),
}

/// A request to be made.
#[derive(Clone)]
struct Ask {
    cluster: String,
    /// The name of the route that leads there.
    route: String,
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Ask {
    /// A chat's turn, by a client with a key.
    fn chat(prompt: &str) -> Self {
        let body = format!(
            r#"{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "{prompt}"}}]}}"#
        );
        Self {
            cluster: "openai".into(),
            route: "llm".into(),
            method: "POST",
            path: "/v1/chat/completions".into(),
            headers: vec![("authorization".into(), "Bearer sk-a".into())],
            body,
        }
    }

    fn streamed(mut self) -> Self {
        self.body = self.body.replacen('{', r#"{"stream": true, "#, 1);
        self
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn by(mut self, credential: &str) -> Self {
        self.headers[0].1 = format!("Bearer {credential}");
        self
    }

    fn at(mut self, cluster: &str) -> Self {
        self.cluster = cluster.into();
        self
    }

    /// By the route of that name.
    fn by_route(mut self, name: &str) -> Self {
        self.route = name.into();
        self
    }

    /// The request that the provider gets if the route does what `upstreams` says.
    fn sent(&self, upstreams: &BTreeMap<String, Rc<Upstream>>) -> Seen {
        let mut request = self.head();
        if let Some(upstream) = upstreams.get(&self.cluster) {
            request.authority.clone_from(&upstream.authority);
            request.path.insert_str(0, &upstream.prefix);
        }
        request
    }

    fn head(&self) -> Seen {
        let headers = self.headers.iter();
        Seen {
            method: self.method.into(),
            path: self.path.clone(),
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
            authority: "gateway.test".into(),
            route: Route {
                cluster: self.cluster.clone(),
                listener: "10000".into(),
                virtual_host: "llm".into(),
                name: self.route.clone(),
            },
            length: Some(self.body.len() as u64),
        }
    }
}

/// A whole answer in one piece.
fn json(text: &str) -> String {
    format!(
        r#"{{"object": "chat.completion", "choices": [{{"index": 0, "finish_reason": "stop",
        "message": {{"role": "assistant", "content": "{text}"}}}}]}}"#
    )
}

/// A whole answer as a stream: up to the terminal event, and that.
fn sse(text: &str) -> [String; 2] {
    let chunk = |delta: &str, reason: &str| {
        format!(
            "data: {{\"object\": \"chat.completion.chunk\", \"choices\": [{{\"index\": 0, \
             \"delta\": {delta}, \"finish_reason\": {reason}}}]}}\n\n"
        )
    };
    let content = format!("{{\"content\": \"{text}\"}}");
    let said = chunk(&content, "null") + &chunk("{}", "\"stop\"");
    [said, "data: [DONE]\n\n".into()]
}

/// The test's clock, not the real one.
const START_MS: u64 = 1_000_000_000;

impl Play {
    fn new() -> Self {
        Self::configured(CONFIG)
    }

    /// The usual configuration with more fields.
    fn with(fields: &str) -> Self {
        let upstreams = CONFIG.strip_suffix('}').expect("an object");
        Self::configured(&format!("{upstreams}, {fields}}}"))
    }

    fn configured(json: &str) -> Self {
        let config = Config::parse(json.as_bytes()).expect("valid");
        Self {
            worker: Worker::new(Rc::new(config), 7, &Module::default()),
            daemon: Daemon::default(),
            now_ms: START_MS,
            calls: BTreeMap::new(),
            clients: BTreeMap::new(),
            counts: BTreeMap::new(),
            numbers: 0,
            noted: BTreeMap::new(),
            turns: BTreeMap::new(),
            refreshed: Vec::new(),
        }
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    // Actions of clients.

    /// A request whose head has arrived.
    fn begins(&mut self, ask: &Ask) -> Id {
        let id = self.number();
        let client = Client {
            saw: Saw::Held,
            is_recorded: false,
            sent: ask.sent(&self.worker.config().upstreams),
            marked: None,
            head: Vec::new(),
        };
        self.clients.insert(id, client);
        self.meets(&ask.head().route);
        let ends = ask.body.is_empty();
        ask.head().with(|head| self.worker.begin(id, head, ends));
        if !self.worker.holds(id) {
            self.saw(id, Saw::Provider);
        }
        id
    }

    /// A request that bypasses, and the first tick. From then on the worker asks for the epoch.
    fn starts(&mut self) {
        let id = self.begins(&Ask::chat("other").at("unknown"));
        self.leaves(id);
        self.tick();
        self.settle();
    }

    /// A request that has arrived in full.
    fn asks(&mut self, ask: &Ask) -> Id {
        let id = self.begins(ask);
        if self.worker.reads(id) {
            self.on(id, Event::Body(ask.body.as_bytes()));
        }
        id
    }

    /// The same, and the daemon has replied.
    fn asked(&mut self, ask: &Ask) -> Id {
        let id = self.asks(ask);
        self.settle();
        id
    }

    /// The client hangs up, or the exchange is at its end.
    fn leaves(&mut self, id: Id) {
        self.sent(id);
        self.clients.remove(&id);
        // Envoy ends the lookups of a request along with it.
        let is_its = |call: &Call| call.id == Some(id);
        self.calls.retain(|_, call| !is_its(call));
        if !self.worker.ends_quietly(id) {
            self.on(id, Event::Gone);
        }
    }

    // Actions of the provider.

    fn head(&mut self, id: Id, status: u16, content_type: &str) {
        let headers: [(&str, &[u8]); 2] = [
            ("content-type", content_type.as_bytes()),
            ("x-request-id", b"req_1"),
        ];
        if self.worker.records(id) || self.worker.marks(id) {
            self.on(id, Event::IsProviders(true));
            self.on(id, Event::Head(status, &headers));
        }
    }

    /// Envoy shows the request that the provider got.
    fn sent(&mut self, id: Id) {
        if self.worker.records(id) {
            let sent = self.clients[&id].sent.clone();
            sent.with(|sent| self.on(id, Event::Sent(*sent)));
        }
    }

    fn chunk(&mut self, id: Id, bytes: &str, end: bool) {
        if self.worker.records(id) {
            self.on(id, Event::Chunk(bytes.as_bytes(), end));
        }
        if end {
            self.sent(id);
        }
    }

    /// The provider answers in one piece.
    fn answers(&mut self, id: Id, body: &str) {
        self.head(id, 200, "application/json");
        self.chunk(id, body, true);
    }

    /// The same as a stream.
    fn streams(&mut self, id: Id, text: &str) {
        self.head(id, 200, "text/event-stream");
        for part in sse(text) {
            self.chunk(id, &part, false);
        }
        self.chunk(id, "", true);
    }

    // Actions of the daemon.

    /// All calls arrive and are answered, except waits.
    fn settle(&mut self) {
        loop {
            self.arrive();
            let said = |call: &Call| call.said.is_some();
            let Some(token) = self.calls.iter().find(|(_, call)| said(call)) else {
                return;
            };
            let token = *token.0;
            self.deliver(token);
        }
    }

    /// All calls arrive at the daemon, which decides its replies where it can.
    fn arrive(&mut self) {
        let tokens: Vec<u32> = self.calls.keys().copied().collect();
        for token in tokens {
            self.arrives(token);
        }
    }

    /// A call is at the daemon.
    fn arrives(&mut self, token: u32) {
        let call = self.calls.get_mut(&token).expect("a call");
        if call.said.is_none() {
            let (began_ms, now_ms) = (call.began_ms, self.now_ms);
            call.said = self
                .daemon
                .hear(began_ms, &mut call.waits_for, &call.request, now_ms);
        }
    }

    /// Envoy reports that a call has failed.
    fn fails(&mut self, token: u32) {
        self.calls.remove(&token);
        let now_us = self.now_ms * 1000;
        let work = self.worker.replied(token, &[], now_us, || None);
        self.carry_out(work);
    }

    /// A reply arrives.
    fn deliver(&mut self, token: u32) {
        let call = self.calls.remove(&token).expect("a call");
        let said = call.said.expect("a reply");
        let now_us = self.now_ms * 1000;
        let headers = seen::borrowed(&said.headers);
        let work = self.worker.replied(token, &headers, now_us, || said.body);
        self.carry_out(work);
    }

    /// The calls under way, as requests to the daemon.
    fn under_way(&self) -> Vec<String> {
        let of = |call: &Call| daemon::summary(&call.request);
        self.calls.values().map(of).collect()
    }

    // Time.

    /// Time passes, and the filter's timer with it. Calls that have taken too long have failed.
    fn passes(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + TICK_MS);
            self.settle();
            self.time_out();
            self.tick();
        }
    }

    fn time_out(&mut self) {
        if self.daemon.mood == Mood::Silent {
            return;
        }
        let late = |call: &Call| self.now_ms.abs_diff(call.began_ms) >= call.request.timeout_ms;
        let late: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| call.said.is_none() && late(call))
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            self.fails(token);
        }
    }

    fn tick(&mut self) {
        let work = self.worker.tick(self.now_ms * 1000);
        self.carry_out(work);
        self.count();
    }

    // Effects of the filter.

    fn meets(&mut self, route: &Route) {
        let config = Rc::clone(self.worker.config());
        if let Some(upstream) = config.upstreams.get(&route.cluster) {
            let url = upstream.url();
            let noted = self.noted.entry(url.clone()).or_default();
            if let Some(more) = self.worker.shared().routes.meet(&url, route, noted) {
                *noted = more;
            }
        }
    }

    fn on(&mut self, id: Id, event: Event<'_>) {
        let work = self.worker.on(id, event, self.now_ms);
        self.carry_out(work);
    }

    fn carry_out(&mut self, work: Work) {
        let mut due = VecDeque::from(work);
        while let Some((id, effect)) = due.pop_front() {
            match effect {
                Effect::Forward(is_recorded) => {
                    let id = id.expect("a request's");
                    self.saw(id, Saw::Provider);
                    self.client(id).is_recorded = is_recorded;
                }
                Effect::Answer(served) => {
                    let body = served.answer.as_ref().map(|answer| answer.body.clone());
                    let body = String::from_utf8(body.unwrap_or_default()).expect("text");
                    assert_eq!(
                        matches!(served.status, Status::Hit { .. }),
                        served.age_seconds.is_some()
                    );
                    let id = id.expect("a request's");
                    let head = served.answer.map(|answer| answer.headers.clone());
                    self.client(id).head = head.unwrap_or_default();
                    self.saw(id, Saw::Ours(served.status, body));
                }
                Effect::Mark(status) => {
                    let client = self.client(id.expect("a request's"));
                    assert_eq!(client.saw, Saw::Provider);
                    assert_eq!(client.marked.replace(status), None);
                }
                Effect::Turn(place) => {
                    let turns = self.turns.entry(place).or_default();
                    let turn = Event::Turn(*turns);
                    *turns += 1;
                    due.extend(self.worker.on(id.expect("a request's"), turn, self.now_ms));
                }
                Effect::Refreshed(digest) => self.refreshed.push(digest),
                Effect::Call(purpose, request) => due.extend(self.call(id, purpose, request)),
                other => panic!("the worker's own business: {other:?}"),
            }
        }
        for (id, client) in &self.clients {
            assert_eq!(self.worker.holds(*id), client.saw != Saw::Provider);
        }
    }

    fn call(&mut self, id: Option<Id>, purpose: Purpose, request: api::Request) -> Work {
        assert!(self.worker.config().daemon_cluster.is_some());
        self.daemon.calls += 1;
        if self.daemon.mood == Mood::Unknown {
            return self.worker.not_called(id, purpose, self.now_ms);
        }
        let token = self.number();
        let now_us = self.now_ms * 1000;
        self.worker
            .called(token, id, purpose, request.timeout_ms, now_us);
        let of_request = matches!(purpose, Purpose::Lookup(_));
        let call = Call {
            id: id.filter(|_| of_request),
            request,
            began_ms: self.now_ms,
            waits_for: None,
            said: None,
        };
        self.calls.insert(token, call);
        Work::new()
    }

    fn saw(&mut self, id: Id, saw: Saw) {
        let client = self.client(id);
        assert_eq!(client.saw, Saw::Held, "answered twice: {saw:?}");
        client.saw = saw;
    }

    fn client(&mut self, id: Id) -> &mut Client {
        self.clients
            .get_mut(&id)
            .expect("a client that has not gone")
    }

    // Observations.

    fn seen(&self, id: Id) -> &Saw {
        &self.clients[&id].saw
    }

    /// The request waits.
    fn held(&self, id: Id) {
        assert_eq!(self.seen(id), &Saw::Held);
    }

    /// The provider has the request.
    fn provider(&self, id: Id) {
        assert_eq!(self.seen(id), &Saw::Provider);
    }

    /// The client has an answer of the cache.
    fn hit(&self, id: Id, body: &str) {
        match self.seen(id) {
            Saw::Ours(Status::Hit { .. }, found) => assert_eq!(found, body),
            saw => panic!("{saw:?}"),
        }
    }

    /// The client has the answer to another one's request.
    fn collapsed(&self, id: Id, body: &str) {
        assert_eq!(self.seen(id), &Saw::Ours(Status::Collapsed, body.into()));
    }

    /// The client was told that nothing is cached.
    fn absent(&self, id: Id) {
        assert_eq!(self.seen(id), &Saw::Ours(Status::Absent, String::new()));
    }

    /// How often something was counted.
    fn counted(&mut self, name: &str) -> u64 {
        self.count();
        let name = format!("reflex_{name}");
        assert!(Counts::names().contains(&name), "no counter {name}");
        self.counts.get(&name).copied().unwrap_or(0)
    }

    fn count(&mut self) {
        let names = Counts::names();
        let (changed, _) = self.worker.shared().counts.take();
        for (at, count) in changed {
            *self.counts.entry(names[at].clone()).or_default() += count;
        }
    }

    fn rejected(&mut self, why: Rejected) -> u64 {
        self.counted(&format!("not_kept_total.{}", why.detail()))
    }

    fn bypassed(&mut self, why: Bypass) -> u64 {
        self.counted(&format!("bypasses_total.{}", why.detail()))
    }

    /// All clients have gone, and no state of theirs is left.
    fn ends(mut self) {
        self.daemon.mood = Mood::Works;
        self.settle();
        let ids: Vec<Id> = self.clients.keys().copied().collect();
        for id in ids {
            self.leaves(id);
        }
        self.settle();
        assert_eq!(self.worker.exchanges(), 0);
        assert_eq!(self.worker.calls(), 0);
        let shared = self.worker.shared();
        assert!(shared.flights.is_empty());
        assert!(shared.recording().is_whole() && shared.sending().is_whole());
    }
}

/// As the filter's.
const TICK_MS: u64 = 50;
