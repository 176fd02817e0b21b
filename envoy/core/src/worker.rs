//! All exchanges of one Envoy worker, and the calls to the daemon that they have under way.
//!
//! The driver brings events and carries out effects. Effects of one exchange on others (a leader
//! has landed, or left) are carried out here.

use std::collections::VecDeque;
use std::rc::Rc;

use reflex_llm::{Dropped, Key};

use crate::config::Config;
use crate::daemon::{self, Headers, Reply};
use crate::exchange::{Effect, Event, Exchange, Landing, Lead, Purpose, Request};
use crate::flights::{Id, Name};
use crate::hashes::CountedMap;
use crate::module::Module;
use crate::shared::Shared;

/// An effect, and the exchange that it concerns; none for what concerns the worker.
pub type Work = Vec<(Option<Id>, Effect)>;

/// A call counts as failed this long after its timeout. Envoy brings no reply to a call whose
/// request has ended.
const FORGOTTEN_AFTER_MS: u64 = 100;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    shared: Shared,
    exchanges: CountedMap<Id, Exchange>,
    calls: CountedMap<u32, Call>,
    /// Whether there ever was a request. The module of Envoy's main thread has none, and asks and
    /// shows nothing.
    has_begun: bool,
    polled_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Call {
    /// Whose call it is.
    id: Option<Id>,
    purpose: Purpose,
    /// Its place in the order in which calls were made.
    number: u64,
    began_us: u64,
    /// Counted from its begin, also if the clock is set back.
    forgotten_after_ms: u64,
}

impl Worker {
    /// A worker without exchanges, in a module that may have others. `seed` is to differ between
    /// all workers.
    pub fn new(config: Rc<Config>, seed: u64, module: &Module) -> Self {
        Self {
            shared: Shared::new(config, seed, module),
            exchanges: CountedMap::default(),
            calls: CountedMap::default(),
            has_begun: false,
            polled_at_ms: None,
        }
    }

    /// The operator's settings.
    pub fn config(&self) -> &Rc<Config> {
        &self.shared.config
    }

    /// The state that all exchanges share, for statistics.
    pub fn shared(&mut self) -> &mut Shared {
        &mut self.shared
    }

    /// A request has begun; `ends` says that it has no body.
    pub fn begin(&mut self, id: Id, request: &Request<'_>, ends: bool) {
        self.has_begun = true;
        let exchange = Exchange::begin(&mut self.shared, request, ends);
        self.exchanges.insert(id, exchange);
    }

    /// Whether the request's body is to be held back and read.
    pub fn reads(&self, id: Id) -> bool {
        self.exchanges.get(&id).is_some_and(Exchange::reads)
    }

    /// Whether the request waits for the filter.
    pub fn holds(&self, id: Id) -> bool {
        self.exchanges.get(&id).is_some_and(Exchange::holds)
    }

    /// Whether the provider's answer is watched.
    pub fn records(&self, id: Id) -> bool {
        self.exchanges.get(&id).is_some_and(Exchange::records)
    }

    /// Whether the provider's answer is only to be marked.
    pub fn marks(&self, id: Id) -> bool {
        self.exchanges.get(&id).is_some_and(Exchange::marks)
    }

    /// Ends an exchange of which nothing remains to be done, or that is not there; false for any other,
    /// which [`Event::Gone`] ends.
    pub fn ends_quietly(&mut self, id: Id) -> bool {
        let is_quiet = self.exchanges.get(&id).is_none_or(Exchange::ends_quietly);
        if is_quiet {
            self.exchanges.remove(&id);
            self.forget_lookups(id);
        }
        is_quiet
    }

    /// Takes in an event of an exchange.
    pub fn on(&mut self, id: Id, event: Event<'_>, now_ms: u64) -> Work {
        let is_end = matches!(event, Event::Gone);
        let mut work = Work::new();
        let mut due = VecDeque::new();
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let effects = exchange.on(&mut self.shared, id, event, now_ms);
            due.extend(effects.into_iter().map(|effect| (id, effect)));
        }
        if is_end {
            self.exchanges.remove(&id);
            self.forget_lookups(id);
        }
        while let Some((id, effect)) = due.pop_front() {
            match effect {
                Effect::Land(name, landing) => {
                    let followers = match landing {
                        Landing::Offer(..) => self.shared.flights.followers(&name, id),
                        Landing::Answer(_) | Landing::LetGo => self.shared.flights.land(&name, id),
                    };
                    for follower in followers {
                        let landing = Event::Landed(landing.clone());
                        due.extend(self.step(follower, landing, now_ms));
                    }
                }
                Effect::HandOver(name, key, lead) => {
                    due.extend(self.hand_over(id, &name, &key, lead, now_ms));
                }
                effect => work.push((Some(id), effect)),
            }
        }
        work
    }

    /// A call of an exchange is under way.
    pub fn called(
        &mut self,
        token: u32,
        id: Option<Id>,
        purpose: Purpose,
        timeout_ms: u64,
        now_us: u64,
    ) {
        let call = Call {
            id,
            purpose,
            number: self.shared.next_call(),
            began_us: now_us,
            forgotten_after_ms: timeout_ms.saturating_add(FORGOTTEN_AFTER_MS),
        };
        self.calls.insert(token, call);
    }

    /// A call could not be made, or got no reply in time.
    pub fn not_called(&mut self, id: Option<Id>, purpose: Purpose, now_ms: u64) -> Work {
        self.shared.breaker.failed(now_ms);
        match purpose {
            Purpose::Lookup(_) => match id {
                Some(id) => self.on(id, Event::Reply(Reply::Failed, false), now_ms),
                None => Work::new(),
            },
            Purpose::Insert(bytes) => {
                self.shared.sending().give_back(bytes);
                self.shared.counts.dropped(Dropped::Failed);
                Work::new()
            }
            Purpose::Note | Purpose::Epoch => Work::new(),
        }
    }

    /// The daemon has replied to a call. No headers are no reply.
    pub fn replied(
        &mut self,
        token: u32,
        headers: &Headers<'_>,
        now_us: u64,
        body: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Work {
        let now_ms = now_us / 1000;
        let Some(call) = self.calls.remove(&token) else {
            return Work::new();
        };
        let shared = &mut self.shared;
        // Every reply of the daemon tells an epoch. A reply without one comes from elsewhere.
        let told = daemon::told(headers);
        let key = match &call.purpose {
            Purpose::Lookup(key) => Some(key),
            Purpose::Insert(_) | Purpose::Note | Purpose::Epoch => None,
        };
        let is_current = told
            .as_ref()
            .is_some_and(|told| shared.see_epoch(told, call.number, key));
        let mut answered = told.is_some();
        let mut reply = None;
        match call.purpose {
            Purpose::Lookup(key) => {
                let said = daemon::reply(&key, headers, now_ms, body);
                answered = !matches!(said, Reply::Failed);
                if answered {
                    let took_us = now_us.saturating_sub(call.began_us);
                    shared.counts.looked_up(took_us);
                }
                reply = call.id.map(|id| (id, said));
            }
            Purpose::Insert(bytes) => {
                shared.sending().give_back(bytes);
                match answered {
                    true if daemon::is_done(headers) => shared.counts.insert(),
                    true => shared.counts.dropped(Dropped::Refused),
                    false => shared.counts.dropped(Dropped::Failed),
                }
            }
            Purpose::Note | Purpose::Epoch => {}
        }
        match answered {
            true => shared.breaker.answered(),
            false => shared.breaker.failed(now_ms),
        }
        match reply {
            Some((id, reply)) => self.on(id, Event::Reply(reply, is_current), now_ms),
            None => Work::new(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_us: u64) -> Work {
        let now_ms = now_us / 1000;
        let wait_ms = self.shared.config.fill_wait_ms;
        // A clock that was set back counts as waiting, so that the wait ends.
        let over = |exchange: &Exchange| {
            let since = exchange.follows_since();
            since.is_some_and(|since| now_ms.abs_diff(since) >= wait_ms)
        };
        let mut work = Work::new();
        for id in self.those(over) {
            work.extend(self.on(id, Event::WaitOver, now_ms));
        }
        for id in self.those(|exchange| exchange.has_stalled(now_ms)) {
            work.extend(self.on(id, Event::Stalled, now_ms));
        }
        work.extend(self.forget(now_ms));
        work.extend(self.poll(now_ms));
        self.shared.show_breaker();
        work
    }

    /// The exchanges that satisfy a condition, in the order in which they came.
    fn those(&self, is_so: impl Fn(&Exchange) -> bool) -> Vec<Id> {
        let exchanges = self.exchanges.iter();
        let meant = exchanges.filter(|(_, exchange)| is_so(exchange));
        let mut ids: Vec<Id> = meant.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    fn step(&mut self, id: Id, event: Event<'_>, now_ms: u64) -> Vec<(Id, Effect)> {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return Vec::new();
        };
        let effects = exchange.on(&mut self.shared, id, event, now_ms);
        effects.into_iter().map(|effect| (id, effect)).collect()
    }

    /// Makes the first follower the leader. Without followers, the fill is given back to the
    /// daemon.
    fn hand_over(
        &mut self,
        id: Id,
        name: &Name,
        key: &Key,
        lead: Lead,
        now_ms: u64,
    ) -> Vec<(Id, Effect)> {
        match self.shared.flights.hand_over(name, id) {
            Some(next) => self.step(next, Event::Lead(lead), now_ms),
            None => {
                let release = lead.fill().map(|fill| daemon::Request::release(key, &fill));
                let call = release.map(|release| (id, Effect::Call(Purpose::Note, release)));
                call.into_iter().collect()
            }
        }
    }

    fn poll(&mut self, now_ms: u64) -> Work {
        let every_ms = self.shared.config.epoch_poll_ms;
        if !self.has_begun {
            return Work::new();
        }
        let is_due = self
            .polled_at_ms
            .is_none_or(|at| now_ms.abs_diff(at) >= every_ms);
        let in_doubt = self.shared.take_epoch_doubt();
        if !(is_due || in_doubt) || !self.shared.asks_daemon(now_ms) {
            return Work::new();
        }
        self.polled_at_ms = Some(now_ms);
        // A daemon that is in time for lookups is in time for this.
        let timeout_ms = every_ms.max(self.shared.config.lookup_timeout_ms);
        let request = daemon::Request::epoch(self.shared.epoch(), timeout_ms);
        vec![(None, Effect::Call(Purpose::Epoch, request))]
    }

    fn forget_lookups(&mut self, id: Id) {
        let is_its =
            |call: &Call| call.id == Some(id) && matches!(call.purpose, Purpose::Lookup(_));
        self.calls.retain(|_, call| !is_its(call));
    }

    /// Fails the calls whose timeout is long over, so that they hold no request and keep no room.
    fn forget(&mut self, now_ms: u64) -> Work {
        let over = |call: &Call| {
            let since_ms = now_ms.abs_diff(call.began_us / 1000);
            since_ms >= call.forgotten_after_ms
        };
        let mut tokens: Vec<u32> = self
            .calls
            .iter()
            .filter(|(_, call)| over(call))
            .map(|(token, _)| *token)
            .collect();
        tokens.sort_unstable();
        let mut work = Work::new();
        for token in tokens {
            if let Some(call) = self.calls.remove(&token) {
                work.extend(self.not_called(call.id, call.purpose, now_ms));
            }
        }
        work
    }
}

/// Numbers for tests and figures.
impl Worker {
    /// Exchanges that have not ended.
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Calls without a reply.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }
}

#[cfg(test)]
mod tests;
