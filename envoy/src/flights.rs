//! Which answers are under way in this worker, who fetches each, and who waits for it.
//!
//! One request leads, those for the same answer follow: the daemon and the provider are asked
//! once. This knows who waits for whom; what then becomes of them is `exchange`'s business.

use std::collections::{HashMap, VecDeque};

/// A request, by the number that Envoy gives it.
pub type Id = u32;

/// Answers under way at once. Past it requests go alone.
const FLIGHTS_MAX: usize = 10_000;

/// Requests that wait for one answer. Past it they go alone.
const FOLLOWERS_MAX: usize = 1000;

/// What a request is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// Fetch the answer, and say what became of it.
    Lead,
    /// Wait for who leads.
    Follow,
    /// Fetch the answer for itself: there is no room to wait in.
    Alone,
}

/// The answers under way.
#[derive(Debug, Default)]
pub struct Flights {
    flights: HashMap<[u8; 32], Flight>,
}

#[derive(Debug)]
struct Flight {
    leader: Id,
    followers: VecDeque<Id>,
}

impl Flights {
    /// Adds a request for an answer.
    pub fn join(&mut self, digest: &[u8; 32], id: Id) -> Role {
        let is_full = self.flights.len() == FLIGHTS_MAX;
        match self.flights.get_mut(digest) {
            Some(flight) if flight.followers.len() == FOLLOWERS_MAX => Role::Alone,
            Some(flight) => {
                flight.followers.push_back(id);
                Role::Follow
            }
            None if is_full => Role::Alone,
            None => {
                let followers = VecDeque::new();
                let flight = Flight {
                    leader: id,
                    followers,
                };
                self.flights.insert(*digest, flight);
                Role::Lead
            }
        }
    }

    /// The leader is at its end, well or not. Returns who has waited for it, in order.
    pub fn land(&mut self, digest: &[u8; 32], leader: Id) -> VecDeque<Id> {
        match self.flights.get(digest) {
            Some(flight) if flight.leader == leader => {}
            _ => return VecDeque::new(),
        }
        let landed = self.flights.remove(digest);
        landed.map(|flight| flight.followers).unwrap_or_default()
    }

    /// The leader's client has gone. Returns who leads now: the first of those who wait.
    pub fn hand_over(&mut self, digest: &[u8; 32], leader: Id) -> Option<Id> {
        let flight = self.flights.get_mut(digest)?;
        if flight.leader != leader {
            return None;
        }
        match flight.followers.pop_front() {
            Some(next) => {
                flight.leader = next;
                Some(next)
            }
            None => {
                self.flights.remove(digest);
                None
            }
        }
    }

    /// A follower does not wait any longer.
    pub fn leave(&mut self, digest: &[u8; 32], id: Id) {
        if let Some(flight) = self.flights.get_mut(digest) {
            flight.followers.retain(|follower| *follower != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];

    #[test]
    fn the_first_leads_and_those_after_it_follow_until_it_lands() {
        let mut flights = Flights::default();
        assert_eq!(flights.join(&A, 1), Role::Lead);
        assert_eq!(flights.join(&A, 2), Role::Follow);
        assert_eq!(flights.join(&B, 3), Role::Lead);
        assert_eq!(flights.join(&A, 4), Role::Follow);
        assert_eq!(flights.land(&A, 1), [2, 4]);
        assert!(flights.land(&A, 1).is_empty());
        assert_eq!(flights.join(&A, 5), Role::Lead);
    }

    #[test]
    fn only_the_leader_lands_or_hands_over() {
        let mut flights = Flights::default();
        flights.join(&A, 1);
        flights.join(&A, 2);
        flights.join(&A, 3);
        assert!(flights.land(&A, 2).is_empty());
        assert_eq!(flights.hand_over(&A, 2), None);
        assert_eq!(flights.hand_over(&A, 1), Some(2));
        assert!(flights.land(&A, 1).is_empty());
        flights.leave(&A, 3);
        assert_eq!(flights.hand_over(&A, 2), None);
        assert_eq!(flights.join(&A, 4), Role::Lead);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut flights = Flights::default();
        flights.join(&A, 0);
        for id in 1..=FOLLOWERS_MAX as u32 {
            assert_eq!(flights.join(&A, id), Role::Follow);
        }
        assert_eq!(flights.join(&A, 9999), Role::Alone);
        for number in 0..FLIGHTS_MAX as u32 {
            let mut digest = [9; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            flights.join(&digest, number);
        }
        assert_eq!(flights.join(&B, 1), Role::Alone);
    }
}
