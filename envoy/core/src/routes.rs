//! Envoy's routes: which of them hand the provider the request that is keyed.
//!
//! A route may rewrite the path or the host and add headers, and Envoy does not show that to a
//! filter beforehand. What the provider really got is only seen with its answer. So each route has
//! a [`Standing`] in each worker: it is refused once it was seen to change a request. A route that
//! is the only one to its upstream is trusted until then, because the operator's `upstreams` says
//! what that upstream gets. As soon as a second one leads there, each has to be proven by an answer
//! first. A second one may be another route, another listener, or the same route after a change of
//! the filter's configuration.
//!
//! All workers of an Envoy note the routes that they have met in one place of Envoy's shared data
//! per upstream. `filter` carries the notes there and back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use crate::config::{Proof, Upstream};

/// Upper bound of the routes that one worker knows. Requests by further routes bypass.
const ROUTES_MAX: usize = 4096;

/// Notes in one place. Past it the place only says that the routes are many.
const NOTES_MAX: usize = 512;

/// A route as Envoy names it. Routes without a name look the same in their virtual host, so they
/// are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// The cluster that it leads to.
    pub cluster: String,
    /// By which listener and filter chain requests come to it.
    pub listener: String,
    /// The virtual host that it belongs to.
    pub virtual_host: String,
    /// Its name; may be empty.
    pub name: String,
}

/// What is known of a route, and so what becomes of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The provider gets what is keyed, as far as is known.
    Open,
    /// Not known yet: the provider is asked, and its answer proves the route.
    Unproven,
    /// The provider gets something else.
    Refused,
}

/// What one worker knows of routes.
#[derive(Debug)]
pub struct Routes {
    proof: Proof,
    /// The number of this configuration among those that this module has had.
    generation: u64,
    known: HashMap<Route, Known>,
    /// What is noted of each upstream, as last seen.
    places: HashMap<String, Notes>,
    /// Routes that were refused here, which other workers are to know.
    news: Vec<(String, Route)>,
    /// Lines for the log. Each route has one of each kind at most.
    lines: Vec<String>,
    /// The route that was asked about last, as long as nothing new is known: most requests come by the
    /// same one, and each is asked about several times.
    last: RefCell<Option<Last>>,
}

/// What is known of the route that was asked about last.
#[derive(Debug)]
struct Last {
    route: Rc<Route>,
    asks_others: bool,
    /// None: not asked for.
    standing: Option<Standing>,
}

#[derive(Debug, Default)]
struct Known {
    is_proven: bool,
    is_refused: bool,
    has_told: [bool; TELL_KINDS],
}

/// Warnings about a route that is not refused; each is logged once.
#[derive(Clone, Copy, Debug)]
pub enum Tell {
    /// The header of the tenant reached the provider.
    Tenant,
    /// The answer is compressed.
    Compressed,
}

const TELL_KINDS: usize = 2;

/// What all workers have noted of the routes to one upstream: a hash and whether it is refused.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Notes(Vec<(u64, bool)>);

/// As [`Notes`] lie in Envoy's shared data.
const NOTE_BYTES: usize = 9;

impl Route {
    /// For the log.
    pub fn describe(&self) -> String {
        let Self {
            virtual_host, name, ..
        } = self;
        match name.as_str() {
            "" => format!("a route without a name in virtual host `{virtual_host}`"),
            name => format!("route `{name}` of virtual host `{virtual_host}`"),
        }
    }
}

impl Routes {
    /// Knows no route yet. `generation` counts the configurations that this module has had.
    pub fn new(proof: Proof, generation: u64) -> Self {
        Self {
            proof,
            generation,
            known: HashMap::new(),
            places: HashMap::new(),
            news: Vec::new(),
            lines: Vec::new(),
            last: RefCell::default(),
        }
    }

    /// What is known of a route to its upstream. A route has one: that of its cluster.
    pub fn standing(&self, upstream: &Upstream, route: &Rc<Route>) -> Standing {
        let find = || self.find_standing(&upstream.url(), route);
        self.last(route, |last| *last.standing.get_or_insert_with(find))
    }

    /// Whether the notes of other workers may change what becomes of this route's requests.
    pub fn asks_others(&self, route: &Rc<Route>) -> bool {
        self.last(route, |last| last.asks_others)
    }

    fn last<T>(&self, route: &Rc<Route>, ask: impl FnOnce(&mut Last) -> T) -> T {
        let mut last = self.last.borrow_mut();
        let is_it = |last: &mut Last| Rc::ptr_eq(&last.route, route);
        if !last.as_mut().is_some_and(is_it) {
            *last = None;
        }
        ask(last.get_or_insert_with(|| Last {
            route: Rc::clone(route),
            asks_others: !self.known.get(&**route).is_some_and(|it| it.is_proven),
            standing: None,
        }))
    }

    fn find_standing(&self, upstream: &str, route: &Route) -> Standing {
        let known = self.known.get(route);
        let note = self.hash(route);
        let notes = self.places.get(upstream);
        let is_refused = known.is_some_and(|known| known.is_refused)
            || notes.is_some_and(|notes| notes.0.contains(&(note, true)));
        if is_refused || (known.is_none() && self.known.len() >= ROUTES_MAX) {
            return Standing::Refused;
        }
        // Such a route looks like others of its virtual host, which may lead elsewhere.
        if route.name.is_empty() {
            return Standing::Refused;
        }
        if known.is_some_and(|known| known.is_proven) {
            return Standing::Open;
        }
        let has_company =
            notes.is_some_and(|notes| notes.0.iter().any(|(other, _)| *other != note));
        match self.proof {
            Proof::InDoubt if !has_company => Standing::Open,
            Proof::InDoubt | Proof::Always => Standing::Unproven,
        }
    }

    /// Takes in the notes of all workers about an upstream, and adds this route and what this worker
    /// knows of it. Returns the new notes if that adds something.
    pub fn meet(&mut self, upstream: &str, route: &Route, noted: &[u8]) -> Option<Vec<u8>> {
        if route.name.is_empty() {
            self.refuse(
                upstream,
                route,
                "it cannot be told from other routes: give it a name",
            );
        }
        let hash = self.hash(route);
        let is_refused = self.known.get(route).is_some_and(|known| known.is_refused);
        let mut notes = Notes::read(noted);
        let is_new = notes.add(hash, is_refused);
        let text = is_new.then(|| notes.write());
        self.take_in(upstream, notes);
        text
    }

    /// Takes in what all workers have noted of an upstream.
    pub fn heard(&mut self, upstream: &str, noted: &[u8]) {
        if self.places.contains_key(upstream) {
            self.take_in(upstream, Notes::read(noted));
        }
    }

    fn take_in(&mut self, upstream: &str, notes: Notes) {
        if self.places.get(upstream) != Some(&notes) {
            self.last = RefCell::default();
            self.places.insert(upstream.to_owned(), notes);
        }
    }

    /// Upstreams that this worker has met routes to.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// An answer has shown that the provider gets what is keyed.
    pub fn proven(&mut self, route: &Route) {
        if let Some(known) = self.knows(route) {
            let is_new = !std::mem::replace(&mut known.is_proven, true);
            if is_new {
                self.last = RefCell::default();
            }
        }
    }

    /// An answer has shown that it does not. `why` ends a sentence about the route.
    pub fn refuse(&mut self, upstream: &str, route: &Route, why: &str) {
        self.last = RefCell::default();
        let hash = self.hash(route);
        if let Some(notes) = self.places.get_mut(upstream) {
            notes.add(hash, true);
        }
        let Some(known) = self.knows(route) else {
            return;
        };
        let is_new = !std::mem::replace(&mut known.is_refused, true);
        if is_new {
            self.news.push((upstream.to_owned(), route.clone()));
            let route = route.describe();
            self.lines.push(format!(
                "{route}: {why}; its requests bypass the cache from now on (docs/envoy.md)"
            ));
        }
    }

    /// Routes that were refused since the last time, with their upstreams.
    pub fn take_news(&mut self) -> Vec<(String, Route)> {
        std::mem::take(&mut self.news)
    }

    /// Logs a warning about a route, once.
    pub fn tell(&mut self, route: &Route, kind: Tell, what: &str) {
        let Some(known) = self.knows(route) else {
            return;
        };
        if !std::mem::replace(&mut known.has_told[kind as usize], true) {
            let route = route.describe();
            self.lines.push(format!("{route}: {what} (docs/envoy.md)"));
        }
    }

    /// Lines for the log, since the last time.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Identifies a route in this Envoy, the same for all workers.
    pub fn hash(&self, route: &Route) -> u64 {
        // Without a seed: all workers must compute the same.
        let mut hasher = DefaultHasher::new();
        self.generation.hash(&mut hasher);
        route.hash(&mut hasher);
        hasher.finish()
    }

    fn knows(&mut self, route: &Route) -> Option<&mut Known> {
        if !self.known.contains_key(route) {
            if self.known.len() >= ROUTES_MAX {
                return None;
            }
            // The last one that fits changes what becomes of those that are not known.
            self.last = RefCell::default();
            self.known.insert(route.clone(), Known::default());
        }
        self.known.get_mut(route)
    }
}

impl Notes {
    /// Malformed notes are left out.
    fn read(bytes: &[u8]) -> Self {
        let notes = bytes.chunks_exact(NOTE_BYTES).filter_map(|note| {
            let (hash, refused) = note.split_first_chunk()?;
            Some((u64::from_le_bytes(*hash), refused == [1]))
        });
        Self(notes.take(NOTES_MAX).collect())
    }

    fn write(&self) -> Vec<u8> {
        let notes = self.0.iter();
        notes
            .flat_map(|(hash, refused)| {
                let hash = hash.to_le_bytes().into_iter();
                hash.chain([u8::from(*refused)])
            })
            .collect()
    }

    /// Adds a note; true if that changes the notes. A full place takes none: it stands for many
    /// routes already.
    fn add(&mut self, hash: u64, is_refused: bool) -> bool {
        let has_room = self.0.len() < NOTES_MAX;
        match self.0.iter_mut().find(|(other, _)| *other == hash) {
            Some((_, refused)) => is_refused && !std::mem::replace(refused, true),
            None if has_room => {
                self.0.push((hash, is_refused));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: &str = "https://api.openai.com";

    fn up() -> Upstream {
        Upstream {
            origin: UP.into(),
            authority: "api.openai.com".into(),
            prefix: String::new(),
        }
    }

    fn route(name: &str) -> Route {
        Route {
            cluster: "openai".into(),
            listener: "10000".into(),
            virtual_host: "llm".into(),
            name: name.into(),
        }
    }

    /// Workers of one Envoy and what they have noted together.
    struct Envoy {
        workers: Vec<Routes>,
        noted: Vec<u8>,
    }

    impl Envoy {
        fn new(generations: &[u64]) -> Self {
            let worker = |generation: &u64| Routes::new(Proof::InDoubt, *generation);
            Self {
                workers: generations.iter().map(worker).collect(),
                noted: Vec::new(),
            }
        }

        /// A request by this route.
        fn asks(&mut self, worker: usize, name: &str) -> Standing {
            self.notes(worker, name);
            self.workers[worker].standing(&up(), &Rc::new(route(name)))
        }

        fn notes(&mut self, worker: usize, name: &str) {
            let noted = self.workers[worker].meet(UP, &route(name), &self.noted);
            self.noted = noted.unwrap_or(std::mem::take(&mut self.noted));
        }
    }

    #[test]
    fn the_only_route_is_trusted_in_every_worker() {
        let mut envoy = Envoy::new(&[1, 1]);
        for worker in [0, 1, 0] {
            assert_eq!(envoy.asks(worker, "a"), Standing::Open);
        }
    }

    #[test]
    fn of_several_each_is_proven_in_each_worker() {
        let mut envoy = Envoy::new(&[1, 1]);
        assert_eq!(envoy.asks(0, "a"), Standing::Open);
        assert_eq!(envoy.asks(1, "b"), Standing::Unproven);
        assert_eq!(envoy.asks(0, "a"), Standing::Unproven);
        envoy.workers[0].proven(&route("a"));
        assert_eq!(envoy.asks(0, "a"), Standing::Open);
        assert_eq!(envoy.asks(0, "b"), Standing::Unproven);
        assert_eq!(envoy.asks(1, "a"), Standing::Unproven);
    }

    #[test]
    fn a_route_is_another_one_after_a_change_of_the_configuration() {
        let mut envoy = Envoy::new(&[1, 2]);
        assert_eq!(envoy.asks(0, "a"), Standing::Open);
        envoy.workers[0].proven(&route("a"));
        assert_eq!(envoy.asks(1, "a"), Standing::Unproven);
    }

    #[test]
    fn a_route_is_another_one_at_another_listener() {
        let mut routes = Routes::new(Proof::InDoubt, 1);
        let here = route("a");
        let there = Route {
            listener: "10001".into(),
            ..here.clone()
        };
        let noted = routes.meet(UP, &here, b"").expect("a note");
        routes.proven(&here);
        routes.meet(UP, &there, &noted);
        assert_eq!(
            routes.standing(&up(), &Rc::new(here.clone())),
            Standing::Open
        );
        assert_eq!(
            routes.standing(&up(), &Rc::new(there.clone())),
            Standing::Unproven
        );
    }

    #[test]
    fn what_one_worker_refuses_all_do_and_the_log_tells_it_once() {
        let mut envoy = Envoy::new(&[1, 1]);
        envoy.asks(0, "a");
        envoy.asks(1, "a");
        envoy.workers[1].proven(&route("a"));
        for _ in 0..2 {
            envoy.workers[0].refuse(UP, &route("a"), "the path differs");
            assert_eq!(
                envoy.workers[0].standing(&up(), &Rc::new(route("a"))),
                Standing::Refused
            );
        }
        let lines = envoy.workers[0].take_lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("route `a` of virtual host `llm`: the path differs"));
        envoy.notes(0, "a");
        let noted = envoy.noted.clone();
        envoy.workers[1].heard(UP, &noted);
        assert_eq!(
            envoy.workers[1].standing(&up(), &Rc::new(route("a"))),
            Standing::Refused
        );
    }

    #[test]
    fn a_route_without_a_name_is_refused_and_told_once() {
        for proof in [Proof::InDoubt, Proof::Always] {
            let mut routes = Routes::new(proof, 1);
            for _ in 0..2 {
                let _ = routes.meet(UP, &route(""), b"");
                routes.proven(&route(""));
                assert_eq!(
                    routes.standing(&up(), &Rc::new(route(""))),
                    Standing::Refused
                );
            }
            let lines = routes.take_lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains("give it a name"), "{lines:?}");
        }
    }

    #[test]
    fn always_wants_a_proof() {
        let mut routes = Routes::new(Proof::Always, 1);
        assert_eq!(
            routes.standing(&up(), &Rc::new(route("a"))),
            Standing::Unproven
        );
        routes.proven(&route("a"));
        assert_eq!(routes.standing(&up(), &Rc::new(route("a"))), Standing::Open);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_rest_passes_by() {
        let mut routes = Routes::new(Proof::InDoubt, 1);
        let mut noted = Vec::new();
        for number in 0..=ROUTES_MAX {
            let route = route(&number.to_string());
            noted = routes.meet(UP, &route, &noted).unwrap_or(noted);
            routes.proven(&route);
        }
        assert_eq!(noted.len(), NOTES_MAX * NOTE_BYTES);
        assert_eq!(routes.known.len(), ROUTES_MAX);
        assert_eq!(
            routes.standing(&up(), &Rc::new(route("4095"))),
            Standing::Open
        );
        assert_eq!(
            routes.standing(&up(), &Rc::new(route("4096"))),
            Standing::Refused
        );
        // A route without a note still counts as one of several.
        let mut other = Routes::new(Proof::InDoubt, 1);
        assert_eq!(other.meet(UP, &route("4095"), &noted), None);
        assert_eq!(
            other.standing(&up(), &Rc::new(route("4095"))),
            Standing::Unproven
        );
    }

    #[test]
    fn notes_that_make_no_sense_are_none() {
        let mut routes = Routes::new(Proof::InDoubt, 1);
        assert!(routes.meet(UP, &route("a"), b"nonsense").is_some());
        assert_eq!(routes.standing(&up(), &Rc::new(route("a"))), Standing::Open);
    }

    /// What was remembered of a route outlived the news about it.
    #[test]
    fn what_is_remembered_of_a_route_gives_way_to_each_piece_of_news() {
        let asked = |routes: &Routes, route: &Rc<Route>| {
            let first = (routes.standing(&up(), route), routes.asks_others(route));
            // From memory now.
            assert_eq!(first.0, routes.standing(&up(), route));
            assert_eq!(first.1, routes.asks_others(route));
            first
        };
        let (a, b) = (Rc::new(route("a")), Rc::new(route("b")));
        let mut routes = Routes::new(Proof::InDoubt, 1);
        let noted = routes.meet(UP, &a, b"").expect("a note");
        assert_eq!(asked(&routes, &a), (Standing::Open, true));
        let noted = routes.meet(UP, &b, &noted).expect("a note");
        assert_eq!(asked(&routes, &a), (Standing::Unproven, true));
        routes.proven(&a);
        assert_eq!(asked(&routes, &a), (Standing::Open, false));
        assert_eq!(asked(&routes, &b), (Standing::Unproven, true));
        assert_eq!(asked(&routes, &a), (Standing::Open, false));
        let mut other = Routes::new(Proof::InDoubt, 1);
        other.meet(UP, &a, &noted);
        other.refuse(UP, &a, "the path differs");
        let noted = other.meet(UP, &a, &noted).expect("a note");
        routes.heard(UP, &noted);
        assert_eq!(asked(&routes, &a), (Standing::Refused, false));
        assert_eq!(asked(&routes, &b), (Standing::Unproven, true));
        routes.refuse(UP, &b, "the path differs");
        assert_eq!(asked(&routes, &b).0, Standing::Refused);
    }

    #[test]
    fn the_last_route_that_there_is_room_for_changes_what_is_remembered() {
        let mut routes = Routes::new(Proof::InDoubt, 1);
        for number in 1..ROUTES_MAX {
            routes.proven(&route(&number.to_string()));
        }
        let unknown = Rc::new(route("unknown"));
        assert_eq!(routes.standing(&up(), &unknown), Standing::Open);
        routes.proven(&route("last"));
        assert_eq!(routes.standing(&up(), &unknown), Standing::Refused);
    }
}
