//! What is known of Envoy's routes, for all workers together; `envoy/core` decides what that means.

use crate::abi::{Level, log};
use reflex_envoy_core::config::{Proof, Upstream};
use reflex_envoy_core::routes::{Route, Routes, Tell};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of configurations so far: a route of another one may do something else to requests.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// What is noted of the routes to each upstream, by all configurations: bounded by `envoy/core` for
/// each of the operator's upstreams.
static NOTES: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);

/// How often [`NOTES`] has changed.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Routes that a configuration remembers to have noted. Past it, it notes all again, which changes
/// nothing.
const MET_MAX: usize = 4096;

/// What one configuration knows of routes.
#[derive(Debug)]
pub(crate) struct KnownRoutes(Mutex<Known>);

#[derive(Debug)]
struct Known {
    routes: Routes,
    /// Routes that are noted.
    met: HashSet<Route>,
    /// The last one: most requests come by the same.
    last: Option<Arc<Route>>,
    /// As of this change of the notes.
    changes: u64,
}

impl KnownRoutes {
    /// Knows no route yet.
    pub(crate) fn new(proof: Proof) -> Self {
        let generation = GENERATIONS.fetch_add(1, SeqCst) + 1;
        Self(Mutex::new(Known {
            routes: Routes::new(proof, generation),
            met: HashSet::new(),
            last: None,
            changes: 0,
        }))
    }

    /// Looks at what is known, once a request has come by this route.
    pub(crate) fn look<T>(
        &self,
        upstream: Option<&Upstream>,
        route: Route,
        what: impl FnOnce(&Routes, &Arc<Route>) -> T,
    ) -> T {
        let mut known = self.known();
        let is_current = known.changes == CHANGES.load(SeqCst);
        let last = known
            .last
            .as_ref()
            .filter(|last| is_current && ***last == route);
        if let Some(last) = last {
            return what(&known.routes, last);
        }
        let route = Arc::new(route);
        if let Some(upstream) = upstream {
            if !is_current {
                known.hear();
            }
            if !known.met.contains(&*route) {
                known.meet(&upstream.url(), &route);
                known.tell();
            }
            known.last = Some(Arc::clone(&route));
        }
        what(&known.routes, &route)
    }

    /// An answer has shown that the provider gets what is keyed.
    pub(crate) fn proven(&self, route: &Route) {
        self.known().routes.proven(route);
    }

    /// An answer has shown that it does not. `why` ends a sentence about the route.
    pub(crate) fn refuse(&self, upstream: &Upstream, route: &Route, why: &str) {
        let mut known = self.known();
        known.routes.refuse(&upstream.url(), route, why);
        for (upstream, route) in known.routes.take_news() {
            known.meet(&upstream, &route);
        }
        known.tell();
    }

    /// Logs a warning about a route, once.
    pub(crate) fn warn(&self, route: &Route, kind: Tell, what: &str) {
        let mut known = self.known();
        known.routes.tell(route, kind, what);
        known.tell();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic under the lock leaves a route that is not noted, at most.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Takes in what other configurations have noted.
    fn hear(&mut self) {
        let notes = notes();
        let upstreams: Vec<String> = self.routes.upstreams().map(str::to_owned).collect();
        for upstream in upstreams {
            if let Some(noted) = notes.as_ref().and_then(|notes| notes.get(&upstream)) {
                self.routes.heard(&upstream, noted);
            }
        }
        // Changes are made under the same lock.
        self.changes = CHANGES.load(SeqCst);
    }

    /// Notes a route, and what is known of it.
    fn meet(&mut self, upstream: &str, route: &Route) {
        let mut notes = notes();
        let places = notes.get_or_insert_default();
        let noted = places.entry(upstream.to_owned()).or_default();
        if let Some(more) = self.routes.meet(upstream, route, noted) {
            *noted = more;
            // It is known here already, unless another configuration's change is not.
            if CHANGES.fetch_add(1, SeqCst) == self.changes {
                self.changes += 1;
            }
        }
        if self.met.len() >= MET_MAX {
            self.met.clear();
        }
        self.met.insert(route.clone());
    }

    fn tell(&mut self) {
        // A route without a name is refused when it is met, which is no news to anybody else.
        for line in self.routes.take_lines() {
            log(Level::Warn, &format!("reflex: {line}"));
        }
    }
}

fn notes() -> MutexGuard<'static, Option<HashMap<String, Vec<u8>>>> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}
