//! Which edges live, and how far each has followed the others: for operators who wait for a purge, and for
//! finding out that the engine has lost what was written.
//!
//! ```text
//! beat of an edge:  count u64 | proof of its ledger 32 | proof 32
//! roster:           edges u16, each: id 16, seen at u64, name u8 + text | proof 32
//! ```
//!
//! Each edge writes its own beat, so a beat that is behind what this edge has written before shows that the
//! engine has been restored. All write the roster, and may overwrite each other: each remembers what it has
//! read.

use super::secret::{Name, PROOF_BYTES, Secret};
use std::collections::BTreeMap;

/// An edge that has not been seen for so long is gone. Clocks may differ by half of it.
const GONE_AFTER_MS: u64 = 120_000;

/// Edges that are told apart.
const EDGES_MAX: usize = 4096;

/// Length of an edge's name.
pub(super) const NAME_BYTES_MAX: usize = 64;

pub(super) type Id = [u8; 16];

/// What an edge says of itself each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) count: u64,
    pub(super) ledger: [u8; PROOF_BYTES],
}

impl Beat {
    pub(super) fn encode(&self, secret: &Secret, name: &Name) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend(self.ledger);
        let proof = secret.proof(name, &bytes);
        bytes.extend(proof);
        bytes
    }

    /// `None` if no member has written these bytes there.
    pub(super) fn decode(secret: &Secret, name: &Name, bytes: &[u8]) -> Option<Self> {
        let (bytes, proof) = bytes.split_last_chunk()?;
        let (count, ledger) = bytes.split_first_chunk()?;
        secret.proves(name, bytes, proof).then_some(())?;
        Some(Self {
            count: u64::from_le_bytes(*count),
            ledger: ledger.try_into().ok()?,
        })
    }
}

/// The edges that live, and when each was seen last, in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster(BTreeMap<Id, Member>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    seen_ms: u64,
    name: String,
}

impl Roster {
    /// An edge lives.
    pub(super) fn see(&mut self, id: Id, name: &str, now_ms: u64) {
        let end = name.floor_char_boundary(NAME_BYTES_MAX);
        let name = name.get(..end).unwrap_or_default().to_owned();
        let seen_ms = now_ms;
        self.0.insert(id, Member { seen_ms, name });
    }

    /// It has ended.
    pub(super) fn leave(&mut self, id: &Id) {
        self.0.remove(id);
    }

    /// What both have seen, without those that are gone by now.
    pub(super) fn merge(&mut self, other: Self, now_ms: u64) {
        for (id, member) in other.0 {
            let known = self.0.entry(id).or_insert_with(|| member.clone());
            if member.seen_ms > known.seen_ms {
                *known = member;
            }
        }
        let lives = |member: &Member| member.seen_ms.saturating_add(GONE_AFTER_MS) > now_ms;
        self.0.retain(|_, member| lives(member));
        while self.0.len() > EDGES_MAX {
            self.0.pop_last();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Ids and names.
    pub(super) fn members(&self) -> Vec<(Id, String)> {
        let members = self.0.iter();
        members
            .map(|(id, member)| (*id, member.name.clone()))
            .collect()
    }

    pub(super) fn encode(&self, secret: &Secret, name: &Name) -> Vec<u8> {
        // At most `EDGES_MAX` and `NAME_BYTES_MAX`.
        let mut bytes = (self.0.len() as u16).to_le_bytes().to_vec();
        for (id, member) in &self.0 {
            bytes.extend(id);
            bytes.extend(member.seen_ms.to_le_bytes());
            bytes.push(member.name.len() as u8);
            bytes.extend(member.name.as_bytes());
        }
        let proof = secret.proof(name, &bytes);
        bytes.extend(proof);
        bytes
    }

    /// `None` if no member has written these bytes.
    pub(super) fn decode(secret: &Secret, name: &Name, bytes: &[u8]) -> Option<Self> {
        let (bytes, proof): (_, &[u8; PROOF_BYTES]) = bytes.split_last_chunk()?;
        secret.proves(name, bytes, proof).then_some(())?;
        let (count, mut rest) = bytes.split_first_chunk()?;
        let mut roster = Self::default();
        for _ in 0..u16::from_le_bytes(*count) {
            let (id, after) = rest.split_first_chunk()?;
            let (seen_ms, after) = after.split_first_chunk()?;
            let (length, after) = after.split_first()?;
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            let name = str::from_utf8(text).ok()?;
            roster.see(*id, name, u64::from_le_bytes(*seen_ms));
            rest = after;
        }
        rest.is_empty().then_some(roster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (Secret, Name) {
        let secret = Secret::of(b"fleet");
        let name = secret.name(&[b"roster"]);
        (secret, name)
    }

    #[test]
    fn what_is_written_comes_back_and_every_damage_is_refused() {
        let (secret, name) = keys();
        let mut roster = Roster::default();
        roster.see([1; 16], "edge-1:7", 5);
        roster.see([2; 16], &"é".repeat(NAME_BYTES_MAX), 6);
        let beat = Beat {
            count: 3,
            ledger: [4; PROOF_BYTES],
        };
        let (rosters, beats) = (roster.encode(&secret, &name), beat.encode(&secret, &name));
        assert_eq!(Roster::decode(&secret, &name, &rosters), Some(roster));
        assert_eq!(Beat::decode(&secret, &name, &beats), Some(beat));
        for whole in [rosters, beats] {
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x40;
                for bytes in [&bytes[..], &whole[..at]] {
                    assert_eq!(Roster::decode(&secret, &name, bytes), None);
                    assert_eq!(Beat::decode(&secret, &name, bytes), None);
                }
            }
        }
    }

    #[test]
    fn edges_are_remembered_for_two_minutes_and_within_a_bound() {
        let mut roster = Roster::default();
        roster.see([1; 16], "one", 0);
        let mut other = Roster::default();
        other.see([2; 16], "two", 60_000);
        // Another one has written the roster without the first.
        roster.merge(other.clone(), 60_000);
        assert_eq!(roster.len(), 2);
        roster.merge(other, GONE_AFTER_MS);
        assert_eq!(roster.members(), [([2; 16], "two".to_owned())]);
        roster.leave(&[2; 16]);
        assert_eq!(roster.len(), 0);
        let mut many = Roster::default();
        for number in 0..=EDGES_MAX as u128 {
            many.see(number.to_le_bytes(), "edge", 1);
        }
        roster.merge(many, 1);
        assert_eq!(roster.len(), EDGES_MAX);
    }
}
