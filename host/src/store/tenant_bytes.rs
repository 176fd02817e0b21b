//! How many records and bytes of a segment belong to each tenant, so that a purge looks at no record.
//!
//! A segment numbers its tenants in the order of their first records, and a place knows the number. A
//! purge ends the number: readers find none of its records any more, and the tenant's next record
//! gets a new one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Live records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) records: u32,
    /// Their bytes in units of [`ALIGN`](super::format::ALIGN).
    pub(super) units: u32,
}

/// The live bytes of each tenant in one segment.
#[derive(Debug, Default)]
pub(super) struct TenantBytes {
    hasher: RandomState,
    /// Numbers by a hash of the tenant, with secrets of its own: 16 bytes where the tenant takes 40. Of
    /// a million tenants in a segment, two have the same hash once in 30 million times; a purge of one
    /// then costs the other's entries in this segment.
    numbers: HashMap<u64, u32>,
    /// By number.
    live: Vec<Live>,
    purged: Arc<Purged>,
}

impl TenantBytes {
    /// Counts a new record, of so many units, and returns its tenant's number.
    pub(super) fn add(&mut self, tenant: &[u8; 32], units: u64) -> u32 {
        let next = self.live.len() as u32;
        let number = *self
            .numbers
            .entry(self.hasher.hash_one(tenant))
            .or_insert(next);
        if number == next {
            self.live.push(Live::default());
        }
        // No segment has 2^32 units.
        let live = &mut self.live[number as usize];
        live.records += 1;
        live.units += units as u32;
        number
    }

    /// A record is dead; returns how many units became dead by that: none if it was purged before.
    pub(super) fn remove(&mut self, number: u32, units: u64) -> u64 {
        match self.live.get_mut(number as usize) {
            Some(live) if !self.purged.has(number) => {
                live.records = live.records.saturating_sub(1);
                live.units = live.units.saturating_sub(units as u32);
                units
            }
            _ => 0,
        }
    }

    /// The live records of one tenant or of all.
    pub(super) fn live(&self, tenant: Option<&[u8; 32]>) -> impl Iterator<Item = Live> {
        let one = tenant.and_then(|tenant| self.numbers.get(&self.hasher.hash_one(tenant)));
        let all = tenant.is_none().then(|| self.numbers.values());
        let numbers = one.into_iter().chain(all.into_iter().flatten());
        numbers.map(|number| self.live[*number as usize])
    }

    /// Purges the records of one tenant or of all; returns how many units became dead.
    pub(super) fn purge(&mut self, tenant: Option<&[u8; 32]>) -> u64 {
        let numbers: Vec<u32> = match tenant {
            Some(tenant) => {
                let hash = self.hasher.hash_one(tenant);
                self.numbers.remove(&hash).into_iter().collect()
            }
            None => self.numbers.drain().map(|(_, number)| number).collect(),
        };
        let mut dead = 0;
        for number in numbers {
            dead += u64::from(std::mem::take(&mut self.live[number as usize]).units);
            self.set_purged(number);
        }
        dead
    }

    /// The numbers that were purged. Another one after a purge that found no room in this one.
    pub(super) fn purged(&self) -> Arc<Purged> {
        Arc::clone(&self.purged)
    }

    fn set_purged(&mut self, number: u32) {
        if !self.purged.set(number) {
            self.purged = Arc::new(self.purged.with_room_for(number));
            self.purged.set(number);
        }
    }
}

/// Numbers of tenants, for readers that take no lock on them.
#[derive(Debug, Default)]
pub(super) struct Purged(Box<[AtomicU64]>);

impl Purged {
    pub(super) fn has(&self, number: u32) -> bool {
        let (word, bit) = Self::at(number);
        let word = self.0.get(word);
        word.is_some_and(|word| word.load(Relaxed) & bit != 0)
    }

    /// False: it has no room.
    fn set(&self, number: u32) -> bool {
        let (word, bit) = Self::at(number);
        let word = self.0.get(word);
        word.map(|word| word.fetch_or(bit, Relaxed)).is_some()
    }

    /// A copy at least twice as long.
    fn with_room_for(&self, number: u32) -> Self {
        let words = (Self::at(number).0 + 1).max(2 * self.0.len());
        let word = |at| {
            let word = self.0.get(at).map(|word: &AtomicU64| word.load(Relaxed));
            AtomicU64::new(word.unwrap_or_default())
        };
        Self((0..words).map(word).collect())
    }

    fn at(number: u32) -> (usize, u64) {
        (number as usize / 64, 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn a_purge_kills_what_a_tenant_has_and_later_records_live() {
        let mut tenants = TenantBytes::default();
        let numbers: Vec<u32> = (0..300).map(|it| tenants.add(&tenant(it), 10)).collect();
        assert_eq!(tenants.add(&tenant(7), 5), numbers[7]);
        let live = Live {
            records: 2,
            units: 15,
        };
        assert_eq!(tenants.live(Some(&tenant(7))).collect::<Vec<_>>(), [live]);
        assert_eq!(tenants.remove(numbers[7], 5), 5);
        let all = tenants.live(None);
        assert_eq!(all.map(|live| live.records).sum::<u32>(), 300);
        for purged in [7, 299, 0] {
            assert_eq!(tenants.purge(Some(&tenant(purged))), 10);
            assert_eq!(tenants.purge(Some(&tenant(purged))), 0);
            assert_eq!(tenants.live(Some(&tenant(purged))).next(), None);
            assert_eq!(tenants.remove(numbers[purged as usize], 10), 0);
        }
        let is_purged = |tenants: &TenantBytes, it: u64| {
            let purged = tenants.purged();
            purged.has(numbers[it as usize])
        };
        for it in 0..300 {
            assert_eq!(is_purged(&tenants, it), [0, 7, 299].contains(&it), "{it}");
        }
        let later = tenants.add(&tenant(7), 3);
        assert!(later != numbers[7] && !tenants.purged().has(later));
        assert_eq!(tenants.purge(None), 297 * 10 + 3);
        assert!((0..300).all(|it| is_purged(&tenants, it)));
        assert_eq!(tenants.purge(None), 0);
    }
}
