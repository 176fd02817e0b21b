//! Which answers are under way in this worker, with the leader and the followers of each.
//!
//! One request leads, and requests for the same answer follow it: the daemon and the provider are
//! asked once. This module knows the followers of each leader; `exchange` decides what they get.

use std::collections::VecDeque;

use reflex_llm::Key;

use crate::daemon::Purged;
use crate::hashes::{ChosenMap, CountedMap, Seeded};

/// A request, by the number that Envoy gives it.
pub type Id = u32;

/// Upper bound of the answers under way. Requests past it ask alone.
const FLIGHTS_MAX: usize = 10_000;

/// Upper bound of the followers of one answer. Requests past it ask alone.
const FOLLOWERS_MAX: usize = 1000;

/// The name of a flight, which no other flight of this worker ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    key: Key,
    route: u64,
    number: u64,
}

/// What a request is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// Fetch the answer, and say what became of it.
    Lead(Name),
    /// Wait for the leader.
    Follow(Name),
    /// Fetch the answer for itself: no flight has room for a follower.
    Alone,
}

/// The answers under way.
#[derive(Debug, Default)]
pub struct Flights {
    flights: CountedMap<u64, Flight>,
    /// Flights that requests may join, by digest and route.
    open: ChosenMap<Wanted, (u64, Key)>,
    /// The number of flights so far.
    count: u64,
}

/// An answer, and by which route it is wanted.
type Wanted = ([u8; 32], u64);

#[derive(Debug)]
struct Flight {
    leader: Id,
    followers: VecDeque<Id>,
}

impl Name {
    fn wanted(&self) -> Wanted {
        (self.key.digest, self.route)
    }
}

impl Flights {
    /// No flight. `seed` is to be hard to guess.
    pub fn new(seed: u64) -> Self {
        Self {
            open: ChosenMap::with_hasher(Seeded::new(seed)),
            ..Self::default()
        }
    }

    /// Adds a request for an answer. Where `route` is not 0, it must come by that route.
    pub fn join(&mut self, key: &Key, route: u64, id: Id) -> Role {
        let open = self
            .open
            .get(&(key.digest, route))
            .map(|(number, _)| *number);
        let under_way = open.and_then(|number| Some((number, self.flights.get_mut(&number)?)));
        if let Some((number, flight)) = under_way {
            if flight.followers.len() == FOLLOWERS_MAX {
                return Role::Alone;
            }
            flight.followers.push_back(id);
            let key = *key;
            return Role::Follow(Name { key, route, number });
        }
        if self.flights.len() == FLIGHTS_MAX {
            return Role::Alone;
        }
        self.count += 1;
        let name = Name {
            key: *key,
            route,
            number: self.count,
        };
        let flight = Flight {
            leader: id,
            followers: VecDeque::new(),
        };
        self.flights.insert(name.number, flight);
        self.open.insert(name.wanted(), (name.number, *key));
        Role::Lead(name)
    }

    /// Closes the flights that a purge covers. No later request may have an answer that was asked
    /// for before the purge, so none joins them; they go on for the followers that they have.
    pub fn close(&mut self, purged: &Purged) {
        match purged {
            Purged::Digest(digest) => self.open.retain(|(open, _), _| open != digest),
            Purged::All | Purged::Tenant(_) => self.open.retain(|_, (_, key)| !purged.covers(key)),
        }
    }

    /// Opens a flight again, because the leader asks the provider only now: later requests may have
    /// that answer, whenever the flight began.
    pub fn open(&mut self, name: &Name) {
        if self.flights.contains_key(&name.number) {
            self.open
                .entry(name.wanted())
                .or_insert((name.number, name.key));
        }
    }

    /// Ends the flight, whether it has an answer or not. Returns its followers, in order.
    pub fn land(&mut self, name: &Name, leader: Id) -> VecDeque<Id> {
        let followers = self.followers(name, leader);
        if self.leads(name, leader) {
            self.remove(name);
        }
        followers
    }

    /// The followers of a leader, in order.
    pub fn followers(&self, name: &Name, leader: Id) -> VecDeque<Id> {
        let flight = self.flights.get(&name.number);
        let flight = flight.filter(|flight| flight.leader == leader);
        flight
            .map(|flight| flight.followers.clone())
            .unwrap_or_default()
    }

    /// The leader leads no longer. Returns the new leader: the first follower.
    pub fn hand_over(&mut self, name: &Name, leader: Id) -> Option<Id> {
        let flight = self.flights.get_mut(&name.number)?;
        if flight.leader != leader {
            return None;
        }
        let next = flight.followers.pop_front();
        match next {
            Some(next) => flight.leader = next,
            None => self.remove(name),
        }
        next
    }

    /// A follower does not wait any longer.
    pub fn leave(&mut self, name: &Name, id: Id) {
        if let Some(flight) = self.flights.get_mut(&name.number) {
            flight.followers.retain(|follower| *follower != id);
        }
    }

    /// The number of answers under way.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.open.is_empty()
    }

    fn leads(&self, name: &Name, id: Id) -> bool {
        let flight = self.flights.get(&name.number);
        flight.is_some_and(|flight| flight.leader == id)
    }

    fn remove(&mut self, name: &Name) {
        self.flights.remove(&name.number);
        let open = self.open.get(&name.wanted());
        if open.is_some_and(|(number, _)| *number == name.number) {
            self.open.remove(&name.wanted());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = of([1; 32], 1);
    const B: Key = of([2; 32], 2);

    const fn of(digest: [u8; 32], tenant: u8) -> Key {
        let tenant = reflex_llm::Tenant([tenant; 32]);
        Key { tenant, digest }
    }

    fn leads(flights: &mut Flights, key: &Key, id: Id) -> Name {
        match flights.join(key, 0, id) {
            Role::Lead(name) => name,
            role => panic!("{role:?}"),
        }
    }

    #[test]
    fn the_first_leads_and_those_after_it_follow_until_it_lands() {
        let mut flights = Flights::default();
        let a = leads(&mut flights, &A, 1);
        assert_eq!(flights.join(&A, 0, 2), Role::Follow(a));
        let b = leads(&mut flights, &B, 3);
        assert_eq!(flights.join(&A, 0, 4), Role::Follow(a));
        assert_eq!(flights.land(&a, 1), [2, 4]);
        assert!(flights.land(&a, 1).is_empty());
        assert_ne!(leads(&mut flights, &A, 5), a);
        assert!(flights.land(&b, 3).is_empty());
        assert_eq!(flights.len(), 1);
    }

    #[test]
    fn those_of_a_route_follow_each_other_only() {
        let mut flights = Flights::default();
        let any = leads(&mut flights, &A, 1);
        let Role::Lead(seven) = flights.join(&A, 7, 2) else {
            panic!("route 7 has none yet");
        };
        assert_eq!(flights.join(&A, 7, 3), Role::Follow(seven));
        assert_eq!(flights.join(&A, 0, 4), Role::Follow(any));
        assert_eq!(flights.land(&seven, 2), [3]);
        flights.close(&Purged::Digest(A.digest));
        assert_eq!(flights.land(&any, 1), [4]);
        assert!(flights.is_empty());
    }

    #[test]
    fn only_the_leader_lands_or_hands_over() {
        let mut flights = Flights::default();
        let a = leads(&mut flights, &A, 1);
        flights.join(&A, 0, 2);
        flights.join(&A, 0, 3);
        assert!(flights.land(&a, 2).is_empty());
        assert_eq!(flights.hand_over(&a, 2), None);
        assert_eq!(flights.hand_over(&a, 1), Some(2));
        assert!(flights.land(&a, 1).is_empty());
        flights.leave(&a, 3);
        assert_eq!(flights.hand_over(&a, 2), None);
        assert!(flights.is_empty());
        leads(&mut flights, &A, 4);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut flights = Flights::default();
        let a = leads(&mut flights, &A, 0);
        for id in 1..=FOLLOWERS_MAX as u32 {
            assert_eq!(flights.join(&A, 0, id), Role::Follow(a));
        }
        assert_eq!(flights.join(&A, 0, 9999), Role::Alone);
        for number in 0..FLIGHTS_MAX as u32 {
            let mut digest = [9; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            flights.join(&of(digest, 1), 0, number);
        }
        assert_eq!(flights.join(&B, 0, 1), Role::Alone);
    }

    #[test]
    fn after_a_purge_no_request_joins_a_flight_from_before_it() {
        let mut flights = Flights::default();
        let before = leads(&mut flights, &A, 1);
        assert_eq!(flights.join(&A, 0, 2), Role::Follow(before));
        flights.close(&Purged::All);
        let after = leads(&mut flights, &A, 3);
        assert_eq!(flights.join(&A, 0, 4), Role::Follow(after));
        // The provider is asked only now, but a newer flight exists.
        flights.open(&before);
        assert_eq!(flights.join(&A, 0, 5), Role::Follow(after));
        assert_eq!(flights.land(&before, 1), [2]);
        assert_eq!(flights.join(&A, 0, 6), Role::Follow(after));
        assert_eq!(flights.land(&after, 3), [4, 5, 6]);
        flights.open(&after);
        assert!(flights.is_empty());
    }

    #[test]
    fn what_is_asked_for_after_a_purge_may_be_joined() {
        let mut flights = Flights::default();
        let a = leads(&mut flights, &A, 1);
        flights.close(&Purged::All);
        flights.open(&a);
        assert_eq!(flights.join(&A, 0, 2), Role::Follow(a));
    }

    #[test]
    fn a_purge_of_others_lets_requests_join() {
        let mut flights = Flights::default();
        let (a, b) = (leads(&mut flights, &A, 1), leads(&mut flights, &B, 2));
        flights.close(&Purged::Digest([9; 32]));
        flights.close(&Purged::Tenant([9; 32]));
        assert_eq!(flights.join(&A, 0, 3), Role::Follow(a));
        flights.close(&Purged::Digest(A.digest));
        assert_ne!(leads(&mut flights, &A, 4), a);
        assert_eq!(flights.join(&B, 0, 5), Role::Follow(b));
        flights.close(&Purged::Tenant(B.tenant.0));
        assert_ne!(leads(&mut flights, &B, 6), b);
        assert!(matches!(flights.join(&A, 0, 7), Role::Follow(_)));
    }
}
