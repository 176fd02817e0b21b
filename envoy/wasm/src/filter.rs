//! Envoy's callbacks to events, and effects to calls into Envoy: the only file that knows
//! proxy-wasm.
//!
//! No `RefCell` is borrowed while Envoy is called, since Envoy may call back. Effects may concern
//! another request than the one that Envoy is calling for; then that one is made the effective
//! context first. But an answer to one request, given while Envoy is calling for another, stops the
//! other: the last chunk of a leader never left. So effects on other requests wait for a callback
//! of the plugin's own, for which a queue wakes Envoy.

mod answers;
mod gauges;
mod notes;
mod refreshes;
mod request;
mod stream;
mod trailers;
mod turns;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType, MetricType};
use reflex_llm::{Bypass, status};

use answers::{answer, mark};
use gauges::Gauges;
use reflex_envoy_core::config::Config;
use reflex_envoy_core::counts::Counts;
use reflex_envoy_core::daemon;
use reflex_envoy_core::exchange::{Effect, Event, Purpose};
use reflex_envoy_core::flights::Id;
use reflex_envoy_core::module::Module;
use reflex_envoy_core::refreshed::Refreshed;
use reflex_envoy_core::worker::{Work, Worker};
use request::{is_providers, request};

/// How often waits are looked at and statistics handed over.
const TICK: Duration = Duration::from_millis(50);

thread_local! {
    /// Envoy runs a module in one thread, so this is the module's.
    static MODULE: Module = Module::default();
}

/// What Envoy calls first.
#[cfg(all(feature = "module", target_arch = "wasm32"))]
mod module {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
        proxy_wasm::set_root_context(|id| Box::new(super::Root::new(id)));
    }}
}

/// The plugin in one worker.
pub struct Root {
    id: u32,
    plugin: Option<Rc<Plugin>>,
    metrics: Metrics,
    /// Whether turns can be counted by all workers together.
    has_turns: bool,
}

/// What the root context and those of requests share.
struct Plugin {
    root: u32,
    worker: RefCell<Worker>,
    /// What other workers have told, if no daemon is configured; none with a daemon.
    refreshed: Option<RefCell<Refreshed>>,
    /// Effects that wait for a callback of the plugin's own.
    later: RefCell<Work>,
    /// The queue by which Envoy calls the plugin. Without it, the next tick carries them out.
    wake: Option<u32>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Envoy's numbers of our statistics.
#[derive(Default)]
struct Metrics {
    /// In the order of [`Counts::names`].
    counters: Vec<Option<u32>>,
    lookup_us: Option<u32>,
}

impl Root {
    /// A plugin that is not configured yet.
    pub fn new(id: u32) -> Self {
        Self {
            id,
            plugin: None,
            metrics: Metrics::default(),
            has_turns: false,
        }
    }

    /// The context of one request.
    pub fn http(&self, id: u32) -> Http {
        Http {
            id,
            plugin: self.plugin.clone(),
            held_bytes: 0,
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
        if let Some(plugin) = &self.plugin {
            plugin.replied(self.id, token, headers, body);
        }
    }

    /// The configuration is used no longer: its listener has drained. Its memory goes now, and the
    /// figures come down.
    fn on_done(&mut self) -> bool {
        let _ = hostcalls::set_tick_period(Duration::ZERO);
        if let Some(plugin) = self.plugin.take() {
            self.metrics.hand_over(&mut plugin.worker.borrow_mut());
        }
        MODULE.with(Gauges::tell);
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let json = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        let config = match Config::parse(&json.ok().flatten().unwrap_or_default()) {
            Ok(config) => config,
            Err(why) => {
                log(LogLevel::Critical, &format!("reflex: configuration: {why}"));
                return false;
            }
        };
        self.metrics = Metrics::define();
        Gauges::define();
        // Root contexts of the workers have numbers of their own; the time does the rest.
        let seed = now_us() ^ u64::from(self.id) << 56;
        let refreshed = config.daemon_cluster.is_none().then(|| {
            refreshes::prepare();
            let mut refreshed = Refreshed::default();
            // The hot tier is empty: earlier refreshes do not matter.
            refreshes::hear(&mut refreshed);
            RefCell::new(refreshed)
        });
        self.plugin = Some(Rc::new(Plugin {
            root: self.id,
            worker: RefCell::new(MODULE.with(|module| Worker::new(Rc::new(config), seed, module))),
            refreshed,
            later: RefCell::default(),
            wake: hostcalls::register_shared_queue(&format!("reflex-{seed:x}")).ok(),
        }));
        hostcalls::set_tick_period(TICK).is_ok()
    }

    fn on_queue_ready(&mut self, queue: u32) {
        // The content of the queue has no meaning.
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        if let Some(plugin) = &self.plugin {
            plugin.carry_out_later();
        }
    }

    fn on_tick(&mut self) {
        let Some(plugin) = &self.plugin else { return };
        if plugin.worker.borrow().config().samples > 1 && !self.has_turns {
            self.has_turns = true;
            turns::prepare();
        }
        plugin.carry_out_later();
        if let Some(refreshed) = &plugin.refreshed {
            let gone = refreshes::hear(&mut refreshed.borrow_mut());
            plugin.worker.borrow_mut().shared().let_go(&gone);
        }
        notes::hear(&plugin.worker);
        let work = plugin.worker.borrow_mut().tick(now_us());
        plugin.carry_out(Place::own(self.id), work);
        self.metrics.hand_over(&mut plugin.worker.borrow_mut());
        MODULE.with(Gauges::tell);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(self.http(id)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Metrics {
    fn define() -> Self {
        let define = |kind, name: &str| hostcalls::define_metric(kind, name).ok();
        Self {
            counters: Counts::names()
                .iter()
                .map(|name| define(MetricType::Counter, name))
                .collect(),
            lookup_us: define(MetricType::Histogram, "reflex_lookup_us"),
        }
    }

    fn hand_over(&self, worker: &mut Worker) {
        let shared = worker.shared();
        for line in shared.take_lines() {
            log(LogLevel::Warn, &format!("reflex: {line}"));
        }
        let (counts, times) = shared.counts.take();
        // The filter works without a statistic that Envoy refuses.
        for (at, count) in counts {
            if let Some(Some(metric)) = self.counters.get(at) {
                let _ = hostcalls::increment_metric(*metric, count as i64);
            }
        }
        if let Some(metric) = self.lookup_us {
            for time in times {
                let _ = hostcalls::record_metric(metric, time);
            }
        }
    }
}

/// One request.
pub struct Http {
    id: Id,
    plugin: Option<Rc<Plugin>>,
    /// How much of the request's body Envoy holds.
    held_bytes: usize,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// An event of this request, and what comes of it.
    fn on(&self, event: Event<'_>) {
        let Some(plugin) = &self.plugin else { return };
        let work = plugin
            .worker
            .borrow_mut()
            .on(self.id, event, now_us() / 1000);
        plugin.carry_out(Place::of_stream(self.id), work);
    }

    /// The same within one of the request's own callbacks, whose return says whether the request
    /// goes on.
    fn on_request(&self, event: Event<'_>) -> Action {
        self.on(event);
        self.action()
    }

    fn ask(&self, question: impl Fn(&Worker, Id) -> bool) -> bool {
        let plugin = self.plugin.as_ref();
        plugin.is_some_and(|plugin| question(&plugin.worker.borrow(), self.id))
    }

    /// The request that the provider got, after all filters and the route: by now Envoy's map of
    /// the request holds that. If the request has waited for the daemon, the map is missing at the
    /// answer's head, but present at its end.
    fn sent(&self) {
        let sent = request();
        if sent.method.is_empty() {
            return;
        }
        self.on(Event::Sent(sent));
        // Other workers are told of routes that were refused just now.
        if let Some(plugin) = &self.plugin {
            notes::tell(&plugin.worker);
        }
    }

    fn action(&self) -> Action {
        match self.ask(Worker::holds) {
            true => Action::Pause,
            false => Action::Continue,
        }
    }
}

impl Context for Http {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body: usize, _: usize) {
        if let Some(plugin) = &self.plugin {
            plugin.replied(self.id, token, headers, body);
        }
    }

    fn on_done(&mut self) -> bool {
        if self.ask(Worker::records) && stream::has_broken() {
            self.on(Event::Broken);
        }
        self.on(Event::Gone);
        true
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(plugin) = &self.plugin else {
            return Action::Continue;
        };
        MODULE.with(stream::heard_from);
        let request = request();
        notes::meet(&plugin.worker, &request.route);
        let mut worker = plugin.worker.borrow_mut();
        worker.begin(self.id, request, end_of_stream);
        drop(worker);
        self.action()
    }

    fn on_http_request_body(&mut self, buffered: usize, end_of_stream: bool) -> Action {
        let Some(plugin) = self.plugin.as_ref().filter(|_| self.ask(Worker::reads)) else {
            return self.action();
        };
        self.held_bytes = buffered;
        let most = plugin.worker.borrow().config().request_bytes_max;
        if buffered > most {
            return self.on_request(Event::NoBody(Bypass::BodyTooLarge));
        }
        if !end_of_stream {
            return Action::Pause;
        }
        match read(BufferType::HttpRequestBody, buffered) {
            Some(body) => self.on_request(Event::Body(&body)),
            None => self.on_request(Event::NoBody(Bypass::Unavailable)),
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        if !self.ask(Worker::reads) || !trailers::say_nothing() {
            return self.on_request(Event::NoBody(Bypass::Trailers));
        }
        // The body has ended without a callback that says so.
        match read(BufferType::HttpRequestBody, self.held_bytes) {
            Some(body) => self.on_request(Event::Body(&body)),
            None => self.on_request(Event::NoBody(Bypass::Unavailable)),
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let records = self.ask(Worker::records);
        // What is only marked may still be a stream, which the counts tell apart.
        if records {
            self.on(Event::IsProviders(is_providers()));
            self.sent();
        }
        if records || self.ask(Worker::marks) {
            let map = hostcalls::get_map_bytes(MapType::HttpResponseHeaders).unwrap_or_default();
            let headers: Vec<(&str, &[u8])> = map
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect();
            let status = headers
                .iter()
                .find(|(name, _)| *name == ":status")
                .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
            self.on(Event::Head(status.unwrap_or(0), &headers));
            if records && end_of_stream {
                self.on(Event::Chunk(b"", true));
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.ask(Worker::records) {
            match read(BufferType::HttpResponseBody, size) {
                Some(chunk) => self.on(Event::Chunk(&chunk, end_of_stream)),
                None => self.on(Event::Unread),
            }
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if self.ask(Worker::records) {
            self.sent();
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        if self.ask(Worker::records) {
            self.on(Event::Chunk(b"", true));
        }
        Action::Continue
    }
}

/// A whole body of this many bytes; none if Envoy has less. A part of a request has another key,
/// and a part of an answer is no answer.
fn read(buffer: BufferType, bytes: usize) -> Option<Vec<u8>> {
    let read = match bytes {
        0 => Vec::new(),
        _ => hostcalls::get_buffer(buffer, 0, bytes).ok().flatten()?,
    };
    (read.len() == bytes).then_some(read)
}

/// Where in Envoy we are.
#[derive(Clone, Copy)]
struct Place {
    /// The context that Envoy is calling for.
    current: u32,
    /// Whether it is calling for a request's headers, body or end. What the callback returns then
    /// says whether that request goes on, and nothing may be done to others.
    is_stream: bool,
}

impl Place {
    fn of_stream(current: u32) -> Self {
        Self {
            current,
            is_stream: true,
        }
    }

    fn own(current: u32) -> Self {
        Self {
            current,
            is_stream: false,
        }
    }
}

/// Lookups end with their request. Everything else is to outlive it, so it is the plugin's.
fn is_of_request(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Lookup(_))
}

impl Plugin {
    fn replied(&self, current: u32, token: u32, headers: usize, body: usize) {
        // A reply without headers is none, and asking for them would panic.
        let map = match headers {
            0 => Vec::new(),
            _ => hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap_or_default(),
        };
        // Before the worker is borrowed, like everything of Envoy's.
        let read = read(BufferType::HttpCallResponseBody, body);
        let mut worker = self.worker.borrow_mut();
        let work = worker.replied(token, &map, now_us(), || read);
        drop(worker);
        self.carry_out(Place::own(current), work);
    }

    fn carry_out_later(&self) {
        let work = self.later.take();
        self.carry_out(Place::own(self.root), work);
    }

    /// Carries out effects on this request, and postpones effects on others.
    fn carry_out(&self, place: Place, mut work: Work) {
        let mut effective = place.current;
        while !work.is_empty() {
            let mut more = Work::new();
            for (id, effect) in work {
                let wanted = match &effect {
                    Effect::Call(purpose, _) if !is_of_request(*purpose) => self.root,
                    _ => id.unwrap_or(self.root),
                };
                // The SDK brings a reply to the context that was effective when the call was made,
                // or drops it once that context is gone. So the plugin makes its calls as itself.
                let is_roots = wanted == self.root;
                if wanted != place.current && (place.is_stream || is_roots) {
                    self.put_off(id, effect);
                    continue;
                }
                if wanted != effective {
                    if hostcalls::set_effective_context(wanted).is_err() {
                        // The request is gone, and its end is known or about to be.
                        continue;
                    }
                    effective = wanted;
                }
                match effect {
                    Effect::Forward(is_recorded) => forward(is_recorded, place.is_stream),
                    Effect::Answer(served) => {
                        if let Some(ticket) = served.unread {
                            MODULE.with(|module| stream::goes_to(module, ticket));
                        }
                        answer(&served);
                    }
                    Effect::Turn(at) => {
                        let before = turns::take(at);
                        if let Some(id) = id {
                            let turn = Event::Turn(before);
                            let now_ms = now_us() / 1000;
                            more.extend(self.worker.borrow_mut().on(id, turn, now_ms));
                        }
                    }
                    Effect::Refreshed(digest) => {
                        if let Some(refreshed) = &self.refreshed {
                            let gone = refreshes::tell(&mut refreshed.borrow_mut(), &digest);
                            self.worker.borrow_mut().shared().let_go(&gone);
                        }
                    }
                    Effect::Mark(status) => mark(status),
                    Effect::Call(purpose, request) => {
                        more.extend(self.call(id, purpose, &request));
                    }
                    // The worker has carried these out.
                    Effect::Land(..) | Effect::HandOver(..) => {}
                }
            }
            work = more;
        }
        if effective != place.current {
            let _ = hostcalls::set_effective_context(place.current);
        }
    }

    fn put_off(&self, id: Option<Id>, effect: Effect) {
        let mut later = self.later.borrow_mut();
        let is_first = later.is_empty();
        later.push((id, effect));
        drop(later);
        if let Some(queue) = self.wake
            && is_first
        {
            // If this fails, the next tick carries them out.
            let _ = hostcalls::enqueue_shared_queue(queue, Some(b"1"));
        }
    }

    fn call(&self, id: Option<Id>, purpose: Purpose, request: &daemon::Request) -> Work {
        let cluster = self.worker.borrow().config().daemon_cluster.clone();
        let mut headers: Vec<(&str, &str)> = vec![
            (":method", request.method),
            (":path", &request.path),
            (":authority", "reflex-edge"),
            (":scheme", "http"),
        ];
        let own = request.headers.iter();
        headers.extend(own.map(|(name, value)| (*name, value.as_str())));
        let body = request.body.as_ref().map(|answer| answer.body.as_slice());
        if let Some(answer) = &request.body {
            // What it saves the daemon reads from it itself.
            let kept = answer.headers.iter();
            let kept = kept.filter(|(name, _)| name != status::X_REFLEX_SAVED_TOKENS);
            headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let timeout = Duration::from_millis(request.timeout_ms);
        let called = cluster.map(|cluster| {
            hostcalls::dispatch_http_call(&cluster, headers, body, Vec::new(), timeout)
        });
        let now = now_us();
        let mut worker = self.worker.borrow_mut();
        match called {
            Some(Ok(token)) => {
                worker.called(token, id, purpose, request.timeout_ms, now);
                Work::new()
            }
            Some(Err(_)) | None => worker.not_called(id, purpose, now / 1000),
        }
    }
}

/// What the route may put into `accept-encoding`, as `%FILTER_STATE(wasm.…:PLAIN)%`. A header that
/// is set by a filter makes Envoy choose the route anew, and perhaps another one.
const ACCEPT_ENCODING: &str = "reflex_accept_encoding";

/// Lets a request go on. In its own callback that is what the callback's return does.
fn forward(is_recorded: bool, by_return: bool) {
    if is_recorded {
        let _ = hostcalls::set_property(vec![ACCEPT_ENCODING], Some(b"identity"));
    }
    if !by_return {
        let _ = hostcalls::resume_http_request();
    }
}

fn log(level: LogLevel, text: &str) {
    // A log that fails cannot be logged.
    let _ = hostcalls::log(level, text);
}

/// Microseconds since 1970; 0 for a clock before that.
fn now_us() -> u64 {
    let now = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
