//! Envoy's callbacks to events, and effects to calls into Envoy: the only module that knows
//! proxy-wasm. Entering it costs Envoy more than most of what is done here, and so does each call of
//! Envoy that returns bytes, because Envoy enters once more to ask for memory.
//!
//! No `RefCell` is borrowed while Envoy is called, since Envoy may call back. Effects may concern
//! another request than the one that Envoy is calling for; then that one is made the effective
//! context first. But an answer to one request, given while Envoy is calling for another, stops the
//! other: the last chunk of a leader never left. So effects on other requests wait for a callback
//! of the plugin's own, for which a queue wakes Envoy.

mod answers;
mod chosen;
mod gauges;
mod notes;
mod plugin;
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
use reflex_llm::Bypass;

use gauges::Gauges;
use plugin::{Place, Plugin};
use reflex_envoy_core::config::Config;
use reflex_envoy_core::counts::Counts;
use reflex_envoy_core::exchange::Event;
use reflex_envoy_core::flights::Id;
use reflex_envoy_core::module::Module;
use reflex_envoy_core::pairs;
use reflex_envoy_core::refreshed::Refreshed;
use reflex_envoy_core::routes::Route;
use reflex_envoy_core::worker::Worker;
use request::with_request;

use crate::abi;

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
            plugin.calls.set(plugin.calls.get().saturating_sub(1));
            plugin.replied(self.id, token, headers, body);
            plugin.carry_out_later();
        }
    }
}

/// The configuration is used no longer: its listener has drained. Its memory goes now, and the figures
/// come down.
impl Drop for Root {
    fn drop(&mut self) {
        let _ = hostcalls::set_tick_period(Duration::ZERO);
        if let Some(plugin) = self.plugin.take() {
            self.metrics.hand_over(&mut plugin.worker.borrow_mut());
        }
        MODULE.with(Gauges::tell);
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
        let worker = MODULE.with(|module| Worker::new(Rc::new(config), seed, module));
        self.plugin = Some(Rc::new(Plugin::new(self.id, worker, refreshed, seed)));
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
        self.on_at(event, now_ms(), &[]);
    }

    /// The same at this time, where the answer has these headers.
    fn on_at(&self, event: Event<'_>, now_ms: u64, answer: &[(&str, &[u8])]) {
        let Some(plugin) = &self.plugin else { return };
        let work = plugin.worker.borrow_mut().on(self.id, event, now_ms);
        if !work.is_empty() {
            plugin.carry_out(Place::of_stream(self.id, answer), work);
        }
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
    fn sent(&self, headers: &[u8], route: &Rc<Route>, now_ms: u64) {
        with_request(headers, route, |sent| {
            if !sent.method.is_empty() {
                self.on_at(Event::Sent(sent), now_ms, &[]);
            }
        });
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
}

/// Envoy has ended the request, and says so with this only: `proxy_on_done` comes before, and costs an
/// entry more.
impl Drop for Http {
    fn drop(&mut self) {
        let Some(plugin) = &self.plugin else { return };
        let is_over = plugin.worker.borrow_mut().ends_quietly(self.id);
        if !is_over {
            self.on(Event::Gone);
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let Some(plugin) = &self.plugin else {
            return Action::Continue;
        };
        MODULE.with(stream::heard_from);
        let headers = abi::headers(MapType::HttpRequestHeaders);
        let route = plugin.chosen.route();
        notes::meet(&plugin.worker, &route);
        with_request(&headers, &route, |request| {
            let mut worker = plugin.worker.borrow_mut();
            worker.begin(self.id, &request, end_of_stream);
        });
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
        let Some(plugin) = &self.plugin else {
            return Action::Continue;
        };
        let records = self.ask(Worker::records);
        if !records && !self.ask(Worker::marks) {
            return Action::Continue;
        }
        let now_ms = now_ms();
        if records {
            let sent = abi::headers(MapType::HttpRequestHeaders);
            if sent.is_empty() {
                let is_providers = plugin.chosen.is_providers();
                self.on_at(Event::IsProviders(is_providers), now_ms, &[]);
            } else {
                let (route, is_providers) = plugin.chosen.answered();
                self.on_at(Event::IsProviders(is_providers), now_ms, &[]);
                self.sent(&sent, &route, now_ms);
            }
        }
        // What is only marked may still be a stream, which the counts tell apart.
        let bytes = abi::headers(MapType::HttpResponseHeaders);
        let headers = pairs::headers(&bytes).unwrap_or_default();
        let status = headers
            .iter()
            .find(|(name, _)| *name == ":status")
            .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
        let head = Event::Head(status.unwrap_or(0), &headers);
        self.on_at(head, now_ms, &headers);
        if records && end_of_stream {
            self.on_at(Event::Chunk(b"", true), now_ms, &[]);
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

    /// Envoy is about to end the request.
    fn on_log(&mut self) {
        let Some(plugin) = self.plugin.as_ref().filter(|_| self.ask(Worker::records)) else {
            return;
        };
        let sent = abi::headers(MapType::HttpRequestHeaders);
        if !sent.is_empty() {
            self.sent(&sent, &plugin.chosen.route(), now_ms());
        }
        if self.ask(Worker::records) && stream::has_broken() {
            self.on(Event::Broken);
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

fn log(level: LogLevel, text: &str) {
    // A log that fails cannot be logged.
    let _ = hostcalls::log(level, text);
}

fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since 1970; 0 for a clock before that.
fn now_us() -> u64 {
    let now = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
