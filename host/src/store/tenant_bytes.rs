//! How many records and bytes of a segment belong to each tenant, so that a purge looks at no record.
//!
//! A segment numbers its tenants in the order of their first records, and a place knows the number. A
//! purge ends the number: readers find none of its records any more, and the tenant's next record
//! gets a new one. A tenant with a bound gets further numbers, one for each part of its bound. Then the
//! oldest part can be evicted by itself, as a purge would, but for as long as the process lives.

use super::shares::{Account, Shares};
use std::collections::{HashMap, VecDeque};
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

/// The live records of one number.
#[derive(Debug)]
struct Part {
    live: Live,
    account: Arc<Account>,
}

/// The live bytes of each tenant in one segment.
#[derive(Debug)]
pub(super) struct TenantBytes {
    /// Of the segment.
    id: u64,
    shares: Arc<Shares>,
    hasher: RandomState,
    /// Numbers by a hash of the tenant, with secrets of its own: 16 bytes where the tenant takes 40. Of
    /// a million tenants in a segment, two have the same hash once in 30 million times; a purge of one
    /// then costs the other's entries in this segment.
    numbers: HashMap<u64, u32>,
    /// Of tenants with several numbers, those before the last one, the oldest first.
    earlier: HashMap<u64, VecDeque<u32>>,
    /// By number.
    parts: Vec<Part>,
    purged: Arc<Purged>,
    /// Of the purged numbers, those that were only evicted: after a restart they count again. A bit for
    /// each number.
    evicted: Vec<u64>,
    /// Below this number, all that belongs to the account of several tenants was evicted.
    others_from: u32,
}

impl TenantBytes {
    pub(super) fn new(id: u64, shares: &Arc<Shares>) -> Self {
        Self {
            id,
            shares: Arc::clone(shares),
            hasher: RandomState::new(),
            numbers: HashMap::new(),
            earlier: HashMap::new(),
            parts: Vec::new(),
            purged: Arc::default(),
            evicted: Vec::new(),
            others_from: 0,
        }
    }

    /// Counts a new record, of so many units, and returns its tenant's number.
    pub(super) fn add(&mut self, tenant: &[u8; 32], units: u64) -> u32 {
        let number = self.number(tenant);
        // No segment has 2^32 units.
        let Part { live, account } = &mut self.parts[number as usize];
        live.records += 1;
        live.units += units as u32;
        self.shares.add(account, units);
        number
    }

    fn number(&mut self, tenant: &[u8; 32]) -> u32 {
        let hash = self.hasher.hash_one(tenant);
        let known = self.numbers.get(&hash).copied();
        let known = known.filter(|number| !self.purged.has(*number));
        let account = match known {
            Some(number) => {
                let Part { live, account } = &self.parts[number as usize];
                if !account.is_part(live.records, live.units) {
                    return number;
                }
                self.earlier.entry(hash).or_default().push_back(number);
                Arc::clone(account)
            }
            None => self.shares.account(tenant),
        };
        account.is_in(self.id);
        let number = self.parts.len() as u32;
        self.parts.push(Part {
            live: Live::default(),
            account,
        });
        self.numbers.insert(hash, number);
        number
    }

    /// A record is dead; returns how many units became dead by that: none if it was purged before.
    pub(super) fn remove(&mut self, number: u32, units: u64) -> u64 {
        match self.parts.get_mut(number as usize) {
            Some(Part { live, account }) if !self.purged.has(number) => {
                let (records, counted) = (live.records.min(1), live.units.min(units as u32));
                live.records -= records;
                live.units -= counted;
                account.subtract(records, counted);
                units
            }
            _ => 0,
        }
    }

    /// The live records of one tenant or of all.
    pub(super) fn live(&self, tenant: Option<&[u8; 32]>) -> impl Iterator<Item = Live> {
        let hash = tenant.map(|tenant| self.hasher.hash_one(tenant));
        let one = hash.and_then(|hash| self.numbers.get(&hash));
        let earlier = hash.and_then(|hash| self.earlier.get(&hash));
        let of_one = one.into_iter().chain(earlier.into_iter().flatten());
        let of_one = of_one.map(|number| &self.parts[*number as usize]);
        let all = tenant.is_none().then_some(&self.parts);
        of_one
            .chain(all.into_iter().flatten())
            .map(|part| part.live)
            .filter(|live| *live != Live::default())
    }

    /// Purges the records of one tenant or of all; returns how many units became dead.
    pub(super) fn purge(&mut self, tenant: Option<&[u8; 32]>) -> u64 {
        let numbers: Vec<u32> = match tenant {
            Some(tenant) => {
                let hash = self.hasher.hash_one(tenant);
                let last = self.numbers.remove(&hash);
                let earlier = self.earlier.remove(&hash).unwrap_or_default();
                earlier.into_iter().chain(last).collect()
            }
            None => {
                self.numbers.clear();
                self.earlier.clear();
                self.evicted.clear();
                (0..self.parts.len() as u32).collect()
            }
        };
        let ended = numbers.into_iter().map(|number| self.end(number));
        ended.map(|live| u64::from(live.units)).sum()
    }

    /// Evicts the oldest part that an account has here; `None` without one.
    pub(super) fn evict_oldest(&mut self, account: &Arc<Account>) -> Option<Live> {
        loop {
            let number = match account.tenant() {
                Some(tenant) => self.oldest_of(tenant),
                None => self.oldest_of_others(account),
            }?;
            self.set_evicted(number);
            let live = self.end(number);
            if live.records > 0 {
                return Some(live);
            }
        }
    }

    fn oldest_of(&mut self, tenant: &[u8; 32]) -> Option<u32> {
        let hash = self.hasher.hash_one(tenant);
        if let Some(earlier) = self.earlier.get_mut(&hash) {
            if let Some(number) = earlier.pop_front() {
                return Some(number);
            }
            self.earlier.remove(&hash);
        }
        let last = self.numbers.get(&hash).copied();
        last.filter(|number| !self.purged.has(*number))
    }

    /// Ended in the order of their numbers, each is looked at once.
    fn oldest_of_others(&mut self, account: &Arc<Account>) -> Option<u32> {
        while let Some(part) = self.parts.get(self.others_from as usize) {
            let number = self.others_from;
            self.others_from += 1;
            if Arc::ptr_eq(&part.account, account) && !self.purged.has(number) {
                return Some(number);
            }
        }
        None
    }

    /// Whether the records of a number were evicted, and not purged.
    pub(super) fn is_evicted(&self, number: u32) -> bool {
        let (word, bit) = Purged::at(number);
        self.evicted.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set_evicted(&mut self, number: u32) {
        let (word, bit) = Purged::at(number);
        let words = self.evicted.len().max(word + 1);
        self.evicted.resize(words, 0);
        self.evicted[word] |= bit;
    }

    /// The account that a number counts for.
    pub(super) fn account(&self, number: u32) -> Option<&Arc<Account>> {
        self.parts.get(number as usize).map(|part| &part.account)
    }

    /// The units of the live records for whose account `is_meant`.
    pub(super) fn units_of(&self, is_meant: impl Fn(&Account) -> bool) -> u64 {
        let live = self.parts.iter().filter(|part| part.live.units > 0);
        let meant = live.filter(|part| is_meant(&part.account));
        meant.map(|part| u64::from(part.live.units)).sum()
    }

    /// The numbers that were purged. Another one after a purge that found no room in this one.
    pub(super) fn purged(&self) -> Arc<Purged> {
        Arc::clone(&self.purged)
    }

    /// The segment is gone: nothing of it counts any more.
    pub(super) fn close(&mut self) {
        for Part { live, account } in &mut self.parts {
            let Live { records, units } = std::mem::take(live);
            account.subtract(records, units);
        }
    }

    /// No reader finds its records any more; what was live of them.
    fn end(&mut self, number: u32) -> Live {
        let Part { live, account } = &mut self.parts[number as usize];
        let live = std::mem::take(live);
        account.subtract(live.records, live.units);
        if !self.purged.set(number) {
            self.purged = Arc::new(self.purged.with_room_for(number));
            self.purged.set(number);
        }
        live
    }
}

impl Drop for TenantBytes {
    fn drop(&mut self) {
        self.close();
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
    use super::super::shares::{StoredMax, TenantBounds};
    use super::*;

    fn tenant(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn a_purge_kills_what_a_tenant_has_and_later_records_live() {
        let mut tenants = TenantBytes::new(1, &Arc::default());
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

    /// A tenant that may store `entries`, of ten units each.
    fn bounded(entries: u64) -> Arc<Shares> {
        let each = StoredMax {
            entries,
            ..StoredMax::default()
        };
        Shares::new(TenantBounds {
            each,
            ..TenantBounds::default()
        })
    }

    #[test]
    fn a_bounded_tenant_loses_its_oldest_part_first_and_no_other_tenant_does() {
        let shares = bounded(64);
        let mut tenants = TenantBytes::new(1, &shares);
        let (one, other) = (tenant(1), tenant(2));
        let mut numbers = Vec::new();
        for _ in 0..64 {
            numbers.push(tenants.add(&one, 10));
            tenants.add(&other, 10);
        }
        // A sixteenth each.
        assert!(numbers.chunks(4).all(|part| part == [part[0]; 4]));
        assert_ne!(numbers[3], numbers[4]);
        let account = shares.account(&one);
        assert!(!account.is_over());
        let records = |tenants: &TenantBytes, it| {
            let whose = tenant(it);
            let live = tenants.live(Some(&whose));
            live.map(|live| live.records).sum::<u32>()
        };
        for part in numbers.chunks(4) {
            let live = tenants.evict_oldest(&account).expect("a part");
            assert_eq!((live.records, live.units), (4, 40));
            assert!(tenants.is_evicted(part[0]) && tenants.purged().has(part[0]));
            assert_eq!(tenants.remove(part[0], 10), 0);
        }
        assert_eq!(tenants.evict_oldest(&account), None);
        assert_eq!((records(&tenants, 1), records(&tenants, 2)), (0, 64));
        assert_eq!(account.stored().entries, 0);
        // The next record is found.
        let later = tenants.add(&one, 10);
        assert!(!tenants.purged().has(later) && !tenants.is_evicted(later));
        assert_eq!(records(&tenants, 1), 1);
        // A purge covers each part.
        for _ in 0..20 {
            tenants.add(&one, 10);
        }
        assert_eq!(tenants.purge(Some(&one)), 210);
        assert_eq!((records(&tenants, 1), account.stored().entries), (0, 0));
        drop(tenants);
        assert_eq!(shares.stored(Some(&other)).entries, 0);
    }

    #[test]
    fn tenants_that_count_as_one_lose_the_oldest_of_all() {
        let bounds = TenantBounds {
            apart: Some([tenant(0)].into()),
            ..TenantBounds::default()
        };
        let shares = Shares::new(bounds);
        let mut tenants = TenantBytes::new(1, &shares);
        let numbers: Vec<u32> = (0..10).map(|it| tenants.add(&tenant(it), 1)).collect();
        let others = shares.account(&tenant(1));
        assert!(others.tenant().is_none());
        assert_eq!(shares.stored(None).entries, 9);
        for number in &numbers[1..5] {
            assert!(tenants.evict_oldest(&others).is_some());
            assert!(tenants.is_evicted(*number));
        }
        // One that comes back has a new number, behind the others.
        let again = tenants.add(&tenant(2), 1);
        for number in numbers[5..].iter().chain([&again]) {
            assert!(tenants.evict_oldest(&others).is_some());
            assert!(tenants.is_evicted(*number), "{number}");
        }
        assert_eq!(tenants.evict_oldest(&others), None);
        assert_eq!(shares.stored(None).entries, 0);
        assert_eq!(shares.stored(Some(&tenant(0))).entries, 1);
    }
}
