//! What was purged in the fleet, as every edge is to know it. Two ledgers merge into one that knows what
//! both do, in any order and however often: so edges that overwrite each other, and a Redis that was
//! restored from an older state, lose nothing that an edge still knows.
//!
//! ```text
//! version u8 = 1 | all 24 | season 24 | cleared below u64 | forgotten at u64
//!     | tenants u16, each: tenant 32, generation 24, under u64
//!     | removals u16, each: key 32, at u64 | proof 32
//! ```
//!
//! Purges of everything and of tenants have a generation each. Removals of single keys have a time, and only
//! the latest ones are remembered: up to `forgotten at`, none is. An edge that has not listened since then
//! may have missed one, and drops everything.
//!
//! `season` changes when the contents of Redis cannot be relied on any more. Then shared entries get other
//! names, and no edge drops anything of its own.

use super::generation::{GENERATION_BYTES, Generation};
use super::secret::{Name, PROOF_BYTES, Secret};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 2 * GENERATION_BYTES + 8 + 8 + 2 + 2;
const TENANT_BYTES: usize = 32 + GENERATION_BYTES + 8;
const REMOVAL_BYTES: usize = 32 + 8;

/// Tenants whose purges are told apart: 64 KiB. The purge of one more purges everything.
pub(super) const TENANTS_MAX: usize = 1024;

/// Removals after which older ones are forgotten: 40 KiB.
pub(super) const REMOVALS_KEPT: usize = 1024;

/// More removals than this within [`FORGOTTEN_AFTER_MS`] purge everything.
pub(super) const REMOVALS_MAX: usize = 4096;

/// A removal is remembered for so long at least. An edge that listens has heard of it by then.
pub(super) const FORGOTTEN_AFTER_MS: u64 = 180_000;

/// How far the clocks of two edges may differ.
pub(super) const CLOCKS_DIFFER_MS_MAX: u64 = 60_000;

/// Upper bound of the bytes of a ledger: a longer value is none.
pub(super) const BYTES_MAX: usize =
    HEAD_BYTES + 2 * TENANTS_MAX * TENANT_BYTES + 2 * REMOVALS_MAX * REMOVAL_BYTES + PROOF_BYTES;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Of purges of everything.
    pub(super) all: Generation,
    /// Of the contents of Redis.
    pub(super) season: Generation,
    /// Purges of tenants under an earlier version of `all` are covered by that one.
    cleared_below: u64,
    /// Removals up to then are not remembered.
    forgotten_at_ms: u64,
    tenants: BTreeMap<[u8; 32], TenantMark>,
    /// When each key was removed last, in milliseconds since 1970.
    removals: BTreeMap<[u8; 32], u64>,
}

/// The latest purge of a tenant, and the version of `all` under which it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TenantMark {
    generation: Generation,
    under: u64,
}

/// What an edge has to drop to catch up with a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) all: bool,
    pub(super) tenants: Vec<[u8; 32]>,
    pub(super) keys: Vec<[u8; 32]>,
}

#[cfg(test)]
impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.tenants.is_empty() && self.keys.is_empty()
    }
}

impl Ledger {
    /// The generation of a tenant's entries.
    pub(super) fn tenant(&self, tenant: &[u8; 32]) -> Generation {
        let mark = self.tenants.get(tenant);
        mark.map_or_else(Generation::default, |mark| mark.generation)
    }

    /// Everything was purged. Covers all earlier purges of tenants and keys.
    pub(super) fn purge_all(&mut self, now_ms: u64) {
        self.all = self.all.next();
        self.cleared_below = self.all.version;
        self.forgotten_at_ms = self.forgotten_at_ms.max(now_ms);
        self.tidy();
    }

    /// A tenant was purged.
    pub(super) fn purge_tenant(&mut self, tenant: &[u8; 32], now_ms: u64) {
        let mark = TenantMark {
            generation: self.tenant(tenant).next(),
            under: self.all.version,
        };
        self.tenants.insert(*tenant, mark);
        if self.tenants.len() > TENANTS_MAX {
            self.purge_all(now_ms);
        }
    }

    /// A key was removed now. Returns the time that is noted, which is later than any other of that key: so
    /// each edge sees a removal, whatever its clock and the others' say.
    pub(super) fn remove(&mut self, key: &[u8; 32], now_ms: u64) -> u64 {
        let known = self.removals.get(key).copied().unwrap_or_default();
        let least = known.max(self.forgotten_at_ms).saturating_add(1);
        let now_ms = now_ms.max(least);
        self.removals.insert(*key, now_ms);
        self.forget_old(now_ms);
        now_ms
    }

    /// When a key was removed last, as far as that is remembered.
    pub(super) fn removed_at(&self, key: &[u8; 32]) -> Option<u64> {
        self.removals.get(key).copied()
    }

    fn forget_old(&mut self, now_ms: u64) {
        if self.removals.len() <= REMOVALS_KEPT {
            return;
        }
        let old = now_ms.saturating_sub(FORGOTTEN_AFTER_MS);
        let mut times: Vec<u64> = self.removals.values().copied().collect();
        times.sort_unstable();
        // Half of them at once, so that this is rare.
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        if middle.min(old) >= times.first().copied().unwrap_or_default() {
            self.forgotten_at_ms = self.forgotten_at_ms.max(middle.min(old));
            self.tidy();
        }
        if self.removals.len() > REMOVALS_MAX {
            self.purge_all(now_ms);
        }
    }

    /// The contents of Redis are not those that they were.
    pub(super) fn begin_season(&mut self) {
        self.season = self.season.next();
    }

    /// Learns what the other one knows, and returns what is to be dropped for that. `heard_at_ms` is when
    /// this edge has last heard of the fleet; `None` if it never was a member, and has nothing to drop.
    pub(super) fn merge(&mut self, other: &Self, heard_at_ms: Option<u64>) -> Changes {
        let mut changes = Changes::default();
        let is_new = heard_at_ms.is_none();
        let has_missed = heard_at_ms.is_some_and(|heard| {
            other.forgotten_at_ms > self.forgotten_at_ms
                && other.forgotten_at_ms.saturating_add(CLOCKS_DIFFER_MS_MAX) >= heard
        });
        changes.all = !is_new && (other.all > self.all || has_missed);
        self.all = self.all.max(other.all);
        self.season = self.season.max(other.season);
        self.cleared_below = self.cleared_below.max(other.cleared_below);
        self.forgotten_at_ms = self.forgotten_at_ms.max(other.forgotten_at_ms);
        // What a purge of everything covers that holds here already is nothing new.
        let below = self.cleared_below;
        let is_open = |mark: &TenantMark| mark.under >= below;
        for (tenant, mark) in other.tenants.iter().filter(|(_, mark)| is_open(mark)) {
            let known = self.tenants.entry(*tenant).or_insert(TenantMark {
                generation: Generation::default(),
                under: 0,
            });
            if *mark > *known {
                *known = *mark;
                changes.tenants.push(*tenant);
            }
        }
        let until = self.forgotten_at_ms;
        for (key, at) in other.removals.iter().filter(|(_, at)| **at > until) {
            let known = self.removals.entry(*key).or_insert(0);
            if *at > *known {
                *known = *at;
                changes.keys.push(*key);
            }
        }
        self.tidy();
        match is_new {
            true => Changes::default(),
            false => changes,
        }
    }

    /// Makes a purge of a tenant anew, unless this is its latest one: another edge has purged it at the same
    /// time, and there may be edges that have heard of that one only, before this one was made.
    pub(super) fn insist(&mut self, tenant: &[u8; 32], generation: Generation, now_ms: u64) {
        if self.tenant(tenant) != generation {
            self.purge_tenant(tenant, now_ms);
        }
    }

    /// Whether more is known than is told apart: only what several ledgers know together can be so much.
    pub(super) fn is_over(&self) -> bool {
        self.tenants.len() > TENANTS_MAX || self.removals.len() > REMOVALS_MAX
    }

    fn tidy(&mut self) {
        let (below, until) = (self.cleared_below, self.forgotten_at_ms);
        self.tenants.retain(|_, mark| mark.under >= below);
        self.removals.retain(|_, at| *at > until);
    }
}

impl Ledger {
    /// The same bytes for the same contents. The last ones are the proof, which stands for all.
    pub(super) fn encode(&self, secret: &Secret, name: &Name) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.all.to_bytes());
        bytes.extend(self.season.to_bytes());
        bytes.extend(self.cleared_below.to_le_bytes());
        bytes.extend(self.forgotten_at_ms.to_le_bytes());
        // What two ledgers know together may exceed the bounds of each, and is below twice that.
        bytes.extend((self.tenants.len() as u16).to_le_bytes());
        bytes.extend((self.removals.len() as u16).to_le_bytes());
        for (tenant, mark) in &self.tenants {
            bytes.extend(tenant);
            bytes.extend(mark.generation.to_bytes());
            bytes.extend(mark.under.to_le_bytes());
        }
        for (key, at) in &self.removals {
            bytes.extend(key);
            bytes.extend(at.to_le_bytes());
        }
        let proof = secret.proof(name, &bytes);
        bytes.extend(proof);
        bytes
    }

    /// `None` if no member of the fleet has written these bytes.
    pub(super) fn decode(secret: &Secret, name: &Name, bytes: &[u8]) -> Option<Self> {
        let (bytes, proof) = bytes.split_last_chunk()?;
        if bytes.len() > BYTES_MAX || !secret.proves(name, bytes, proof) {
            return None;
        }
        let rest = &mut &*bytes;
        let [version] = take(rest)?;
        if version != VERSION {
            return None;
        }
        let mut ledger = Self {
            all: Generation::from_bytes(take(rest)?),
            season: Generation::from_bytes(take(rest)?),
            cleared_below: number(rest)?,
            forgotten_at_ms: number(rest)?,
            ..Self::default()
        };
        let tenants = u16::from_le_bytes(take(rest)?);
        let removals = u16::from_le_bytes(take(rest)?);
        for _ in 0..tenants {
            let tenant = take(rest)?;
            let mark = TenantMark {
                generation: Generation::from_bytes(take(rest)?),
                under: number(rest)?,
            };
            ledger.tenants.insert(tenant, mark);
        }
        for _ in 0..removals {
            let key = take(rest)?;
            ledger.removals.insert(key, number(rest)?);
        }
        rest.is_empty().then_some(ledger)
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
