//! The plugin in one worker: what its contexts share, and how effects are carried out.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};
use reflex_llm::status;

use reflex_envoy_core::daemon;
use reflex_envoy_core::exchange::{Effect, Event, Purpose};
use reflex_envoy_core::flights::Id;
use reflex_envoy_core::pairs;
use reflex_envoy_core::refreshed::Refreshed;
use reflex_envoy_core::worker::{Work, Worker};

use super::answers::{answer, mark};
use super::chosen::Chosen;
use super::{MODULE, now_ms, now_us, read, refreshes, stream, turns};
use crate::abi;

/// What the root context and those of requests share.
pub(super) struct Plugin {
    root: u32,
    pub(super) worker: RefCell<Worker>,
    pub(super) chosen: Chosen,
    /// What other workers have told, if no daemon is configured; none with a daemon.
    pub(super) refreshed: Option<RefCell<Refreshed>>,
    /// Effects that wait for a callback of the plugin's own.
    later: RefCell<Work>,
    /// The queue by which Envoy calls the plugin. Without it, the next tick carries them out.
    wake: Option<u32>,
    /// Whether Envoy is about to call the plugin for them.
    is_woken: Cell<bool>,
    /// The plugin's own calls under way. Each reply is a callback of its own.
    pub(super) calls: Cell<usize>,
}

/// Where in Envoy we are.
#[derive(Clone, Copy)]
pub(super) struct Place<'h> {
    /// The context that Envoy is calling for.
    current: u32,
    /// Whether it is calling for a request's headers, body or end. What the callback returns then
    /// says whether that request goes on, and nothing may be done to others.
    is_stream: bool,
    /// The headers of the answer, if Envoy is calling for these.
    answer: &'h [(&'h str, &'h [u8])],
}

impl<'h> Place<'h> {
    pub(super) fn of_stream(current: u32, answer: &'h [(&'h str, &'h [u8])]) -> Self {
        Self {
            current,
            is_stream: true,
            answer,
        }
    }

    pub(super) fn own(current: u32) -> Self {
        Self {
            current,
            is_stream: false,
            answer: &[],
        }
    }
}

/// Lookups end with their request. Everything else is to outlive it, so it is the plugin's.
fn is_of_request(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Lookup(_))
}

impl Plugin {
    /// For the configuration that Envoy is calling for, in the root context of that number.
    pub(super) fn new(
        root: u32,
        worker: Worker,
        refreshed: Option<RefCell<Refreshed>>,
        seed: u64,
    ) -> Self {
        Self {
            root,
            worker: RefCell::new(worker),
            chosen: Chosen::new(),
            refreshed,
            later: RefCell::default(),
            wake: hostcalls::register_shared_queue(&format!("reflex-{seed:x}")).ok(),
            is_woken: Cell::new(false),
            calls: Cell::new(0),
        }
    }

    /// The daemon has replied to a call.
    pub(super) fn replied(&self, current: u32, token: u32, headers: usize, body: usize) {
        // A reply without headers is none, and asking for them would panic.
        let bytes = match headers {
            0 => Vec::new(),
            _ => abi::headers(MapType::HttpCallResponseHeaders),
        };
        let headers = pairs::headers(&bytes).unwrap_or_default();
        // Before the worker is borrowed, like everything of Envoy's.
        let read = read(BufferType::HttpCallResponseBody, body);
        let now_us = now_us();
        let mut worker = self.worker.borrow_mut();
        let work = worker.replied(token, &headers, now_us, || read);
        drop(worker);
        self.carry_out(Place::own(current), work);
    }

    /// Carries out what was postponed, in a callback of the plugin's own.
    pub(super) fn carry_out_later(&self) {
        self.is_woken.set(false);
        let work = self.later.take();
        if !work.is_empty() {
            self.carry_out(Place::own(self.root), work);
        }
    }

    /// Carries out effects on this request, and postpones effects on others.
    pub(super) fn carry_out(&self, place: Place<'_>, mut work: Work) {
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
                            more.extend(self.worker.borrow_mut().on(id, turn, now_ms()));
                        }
                    }
                    Effect::Refreshed(digest) => {
                        if let Some(refreshed) = &self.refreshed {
                            let gone = refreshes::tell(&mut refreshed.borrow_mut(), &digest);
                            self.worker.borrow_mut().shared().let_go(&gone);
                        }
                    }
                    Effect::Mark(status) => mark(status, place.answer),
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
        // No client waits for a call of the plugin's own. So it waits for the reply to an earlier one,
        // which comes within a millisecond, or for the next tick: to be woken costs as much as the call.
        let is_awaited = match &effect {
            Effect::Call(purpose, _) => is_of_request(*purpose) || self.calls.get() == 0,
            _ => true,
        };
        self.later.borrow_mut().push((id, effect));
        if let Some(queue) = self.wake.filter(|_| is_awaited)
            && !self.is_woken.replace(true)
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
                if !is_of_request(purpose) {
                    self.calls.set(self.calls.get() + 1);
                }
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
