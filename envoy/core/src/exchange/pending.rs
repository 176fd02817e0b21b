//! A request that may be answered from the cache, on its way.

use std::rc::Rc;

use reflex_llm::{Exchange as Asked, Flow, Key, Life, Traits};

use super::keyed::Keyed;
use super::{Effect, Landing, Lead, Purpose};
use crate::answer::Answer;
use crate::config::Upstream;
use crate::daemon;
use crate::flights::{Id, Name};
use crate::routes::Standing;
use crate::shared::Shared;

/// A request that may be answered from the cache.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) asked: Asked,
    /// What client and operator let it do.
    pub(super) flow: Flow,
    /// The request that the provider must get.
    pub(super) keyed: Rc<Keyed>,
    /// How long its answer is to live.
    pub(super) life: Life,
    /// The model that is asked for, which the daemon has prices for.
    pub(super) model: Option<Rc<str>>,
    /// The provider.
    pub(super) upstream: Rc<Upstream>,
    /// With several answers to one request: which of them this one is about.
    pub(super) turn: Option<Turn>,
    pub(super) since_ms: u64,
    /// What a miss is compared with other misses by.
    pub(super) traits: Option<Rc<Traits>>,
    /// The flight that it leads or follows. Without one, the request asks alone.
    pub(super) flight: Option<Name>,
    /// The name under which the filter leads the fill at the daemon.
    pub(super) fill: Option<String>,
}

/// Which of several answers to a request is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) request: Key,
    /// The next answer to look for, if the client takes any of them.
    pub(super) next: u32,
}

/// Bound of the answers that the daemon is asked for when a client accepts any cached one. They
/// are numbered from 0, and the first come first.
const OTHERS_MAX: u32 = 16;

impl Pending {
    /// Whether the route allows answers of other requests: it is known to change none.
    pub(super) fn is_open(&self, shared: &Shared) -> bool {
        let standing = || shared.routes.standing(&self.upstream, &self.keyed.route);
        self.keyed.by_route || standing() == Standing::Open
    }

    pub(super) fn accepts(&self, answer: &Answer, now_ms: u64) -> bool {
        let age_seconds = answer.age_seconds(now_ms);
        self.flow.accepts(age_seconds, answer.ttl_seconds(now_ms))
    }

    /// Whether this request may follow another one, and lead others.
    pub(super) fn waits(&self, shared: &Shared) -> bool {
        shared.config.fill_wait_ms > 0 && self.flow.joins()
    }

    /// The next follower leads from where this request was.
    pub(super) fn left(mut self, lead: impl FnOnce(Option<String>) -> Lead) -> Vec<Effect> {
        let lead = lead(self.fill.take());
        let flight = self.flight.into_iter();
        flight
            .map(|flight| Effect::HandOver(flight, self.asked.key, lead.clone()))
            .collect()
    }

    /// This request leads no longer. Tells its followers, in this worker and elsewhere.
    pub(super) fn let_go(&mut self, landing: Landing) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(fill) = self.fill.take() {
            let release = daemon::Request::release(&self.asked.key, &fill);
            effects.push(Effect::Call(Purpose::Note, release));
        }
        let flight = self.flight.take();
        effects.extend(flight.map(|flight| Effect::Land(flight, landing)));
        effects
    }

    /// Leaves the flight that it follows.
    pub(super) fn leave(&mut self, shared: &mut Shared, id: Id) {
        if let Some(flight) = self.flight.take() {
            shared.flights.leave(&flight, id);
        }
    }

    /// The keys of all answers that there may be to this request, the one whose turn it is first.
    pub(super) fn keys(&self, samples: u32) -> impl Iterator<Item = Key> {
        let others = self.turn.map_or(0..0, |_| 0..samples);
        let request = self.turn.map_or(self.asked.key, |turn| turn.request);
        std::iter::once(self.asked.key).chain(others.map(move |number| request.sample(number)))
    }

    /// Moves to the next answer that the daemon may have; false after the last.
    pub(super) fn turns_to_next(&mut self, samples: u32) -> bool {
        match &mut self.turn {
            Some(turn) if turn.next < samples.min(OTHERS_MAX) => {
                self.asked.key = turn.request.sample(turn.next);
                turn.next += 1;
                true
            }
            _ => false,
        }
    }
}
