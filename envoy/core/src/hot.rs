//! The hot tier: answers in the memory of one Envoy worker, bounded in bytes.
//!
//! All configurations of one module share that memory and its bound; none is served from the tier
//! of another. Evicts by CLOCK: answers stand in a queue, and the one at its head goes unless it
//! was asked for since it was last there. An answer in use stays, at the cost of one flag per hit.
//! So the answers of a configuration that is being drained go first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use reflex_llm::Key;

use crate::answer::Answer;
use crate::daemon::Purged;
use crate::hashes::{ChosenMap, CountedMap, Seeded};

/// The tier of one configuration. When it is dropped, its answers leave the memory.
#[derive(Debug)]
pub struct Hot {
    memory: Rc<RefCell<HotMemory>>,
    tier: u32,
    bytes_max: usize,
    entry_bytes_max: usize,
    ttl_ms: u64,
}

/// The memory of all tiers of one module. It is at most as large as the largest tier may be.
#[derive(Debug, Default)]
pub struct HotMemory {
    /// How many tiers there ever were.
    count: u32,
    /// What each tier may take, and takes.
    tiers: CountedMap<u32, Tier>,
    bytes: usize,
    entries: ChosenMap<Name, Entry>,
    /// Every entry once, oldest or least recently spared first; and some that are gone.
    clock: VecDeque<(Name, u64)>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Tier {
    bytes_max: usize,
    bytes: usize,
}

/// An answer's digest, and the tier that it is in.
type Name = (u32, [u8; 32]);

#[derive(Debug)]
struct Entry {
    answer: Rc<Answer>,
    tenant: [u8; 32],
    leaves_at_ms: u64,
    used: bool,
    /// Which of the places in the queue is this entry's: a key may have been there before.
    number: u64,
}

/// Places of entries that are gone may make up so much of the queue before it is swept.
const GONE_SHARE: usize = 2;

impl Hot {
    /// An empty tier in this memory, of at most `bytes_max` bytes; bodies over `entry_bytes_max`
    /// are not taken, and nothing stays longer than `ttl_ms`.
    pub fn new(
        memory: &Rc<RefCell<HotMemory>>,
        bytes_max: usize,
        entry_bytes_max: usize,
        ttl_ms: u64,
    ) -> Self {
        Self {
            tier: memory.borrow_mut().begin(bytes_max),
            memory: Rc::clone(memory),
            bytes_max,
            entry_bytes_max,
            ttl_ms,
        }
    }

    /// The answer under a digest, if it is still one.
    pub fn get(&mut self, digest: &[u8; 32], now_ms: u64) -> Option<Rc<Answer>> {
        let name = (self.tier, *digest);
        let mut memory = self.memory.borrow_mut();
        let entry = memory.entries.get_mut(&name)?;
        let expired = entry.answer.expires_at_ms.is_some_and(|at| now_ms >= at);
        // More time left than at first, or stored later than now: the clock was set back, and the
        // age is unknown.
        let left_ms = entry.leaves_at_ms.saturating_sub(now_ms);
        let is_set_back = left_ms > self.ttl_ms || entry.answer.stored_at_ms > now_ms;
        if expired || left_ms == 0 || is_set_back {
            memory.remove(&name);
            return None;
        }
        entry.used = true;
        Some(Rc::clone(&entry.answer))
    }

    /// Keeps an answer in place of the one before, and evicts others for it.
    pub fn insert(&mut self, key: &Key, answer: &Rc<Answer>, now_ms: u64) {
        let name = (self.tier, key.digest);
        let mut memory = self.memory.borrow_mut();
        memory.remove(&name);
        let bytes = answer.bytes();
        if answer.body.len() > self.entry_bytes_max || bytes > self.bytes_max {
            return;
        }
        memory.make_room(bytes);
        memory.next += 1;
        let entry = Entry {
            answer: Rc::clone(answer),
            tenant: key.tenant.0,
            leaves_at_ms: now_ms.saturating_add(self.ttl_ms),
            used: false,
            number: memory.next,
        };
        memory.insert(name, entry);
    }

    /// Drops an answer.
    pub fn remove(&mut self, digest: &[u8; 32]) {
        self.memory.borrow_mut().remove(&(self.tier, *digest));
    }

    /// Drops what a purge covers.
    pub fn purge(&mut self, purged: &Purged) {
        match purged {
            Purged::All => self.clear(),
            Purged::Digest(digest) => self.remove(digest),
            Purged::Tenant(tenant) => {
                let mut memory = self.memory.borrow_mut();
                memory.remove_where(|name, entry| name.0 == self.tier && entry.tenant == *tenant);
            }
        }
    }

    /// Drops all answers.
    pub fn clear(&mut self) {
        let mut memory = self.memory.borrow_mut();
        memory.remove_where(|name, _| name.0 == self.tier);
    }

    /// What its answers take.
    pub fn bytes(&self) -> usize {
        let memory = self.memory.borrow();
        memory.tiers.get(&self.tier).map_or(0, |tier| tier.bytes)
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        self.clear();
        self.memory.borrow_mut().end(self.tier);
    }
}

impl HotMemory {
    /// What the answers of all tiers take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the seed of the map, if nothing is in it.
    pub fn seed(&mut self, seed: u64) {
        if self.entries.is_empty() {
            self.entries = ChosenMap::with_hasher(Seeded::new(seed));
        }
    }

    fn begin(&mut self, bytes_max: usize) -> u32 {
        self.count += 1;
        let tier = Tier {
            bytes_max,
            bytes: 0,
        };
        self.tiers.insert(self.count, tier);
        self.count
    }

    /// Removes a tier; the remaining ones may allow less memory.
    fn end(&mut self, tier: u32) {
        self.tiers.remove(&tier);
        self.make_room(0);
    }

    fn bytes_max(&self) -> usize {
        let tiers = self.tiers.values().map(|tier| tier.bytes_max);
        tiers.max().unwrap_or(0)
    }

    fn make_room(&mut self, bytes: usize) {
        let most = self.bytes_max();
        while self.bytes + bytes > most && self.evict() {}
    }

    fn insert(&mut self, name: Name, entry: Entry) {
        let bytes = entry.answer.bytes();
        self.bytes += bytes;
        if let Some(tier) = self.tiers.get_mut(&name.0) {
            tier.bytes += bytes;
        }
        self.clock.push_back((name, entry.number));
        self.entries.insert(name, entry);
    }

    fn take(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        let bytes = entry.answer.bytes();
        self.bytes -= bytes;
        if let Some(tier) = self.tiers.get_mut(&name.0) {
            tier.bytes -= bytes;
        }
        Some(entry)
    }

    fn remove(&mut self, name: &Name) {
        if self.take(name).is_some() {
            self.sweep();
        }
    }

    fn remove_where(&mut self, is_meant: impl Fn(&Name, &Entry) -> bool) {
        let named = |(name, entry): (&Name, &Entry)| is_meant(name, entry).then_some(*name);
        let meant: Vec<_> = self.entries.iter().filter_map(named).collect();
        for name in &meant {
            self.take(name);
        }
        self.sweep();
    }

    /// Takes places of entries that are gone out of the queue, when they are many.
    fn sweep(&mut self) {
        if self.entries.is_empty() {
            // The memory of the map and the queue goes, too.
            self.entries = ChosenMap::with_hasher(self.entries.hasher().clone());
            self.clock = VecDeque::new();
        } else if self.clock.len() > GONE_SHARE * self.entries.len() {
            let entries = &self.entries;
            let is_there = |(name, number): &(Name, u64)| {
                entries.get(name).is_some_and(|it| it.number == *number)
            };
            self.clock.retain(is_there);
        }
    }

    /// Evicts one answer, or removes one place of an answer that is gone; false if there was
    /// neither.
    fn evict(&mut self) -> bool {
        let Some((name, number)) = self.clock.pop_front() else {
            return false;
        };
        match self.entries.get_mut(&name) {
            Some(entry) if entry.number == number && entry.used => {
                entry.used = false;
                self.clock.push_back((name, number));
            }
            Some(entry) if entry.number == number => drop(self.take(&name)),
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only tier of a module.
    fn tier(bytes_max: usize, entry_bytes_max: usize, ttl_ms: u64) -> Hot {
        Hot::new(&Rc::default(), bytes_max, entry_bytes_max, ttl_ms)
    }

    fn answer(bytes: usize, expires_at_ms: Option<u64>) -> Rc<Answer> {
        Rc::new(Answer {
            headers: vec![("content-type".into(), "application/json".into())],
            body: vec![b'x'; bytes],
            stored_at_ms: 0,
            expires_at_ms,
        })
    }

    /// Of one of two tenants.
    fn key(number: u32) -> Key {
        Key {
            tenant: reflex_llm::Tenant([(number % 2) as u8; 32]),
            digest: digest(number),
        }
    }

    fn digest(number: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn the_bytes_stay_within_the_bound_and_what_is_used_stays() {
        let each = answer(1000, None).bytes();
        let mut hot = tier(10 * each, 1 << 20, 1000);
        for number in 0..1000 {
            hot.insert(&key(number), &answer(1000, None), 0);
            assert!(hot.bytes() <= 10 * each);
            assert!(number == 0 || hot.get(&digest(0), 0).is_some(), "{number}");
        }
        assert_eq!(hot.memory.borrow().entries.len(), 10);
        assert_eq!(hot.bytes(), 10 * each);
        assert!(hot.get(&digest(500), 0).is_none());
    }

    #[test]
    fn the_queue_does_not_grow_with_what_is_gone() {
        let mut hot = tier(1 << 20, 1 << 20, 1000);
        for round in 0..1000 {
            for number in 0..10 {
                hot.insert(&key(number), &answer(10, None), round);
            }
        }
        let places = hot.memory.borrow().clock.len();
        assert!(places <= GONE_SHARE * 10 + 1, "{places}");
        assert_eq!(hot.memory.borrow().entries.len(), 10);
    }

    #[test]
    fn nothing_is_served_past_its_time() {
        let mut hot = tier(1 << 20, 1 << 20, 1000);
        hot.insert(&key(1), &answer(1, Some(500)), 0);
        hot.insert(&key(2), &answer(1, None), 0);
        assert!(hot.get(&digest(1), 499).is_some());
        assert!(hot.get(&digest(1), 500).is_none());
        assert!(hot.get(&digest(2), 999).is_some());
        assert!(hot.get(&digest(2), 1000).is_none());
        assert_eq!(hot.bytes(), 0);
        hot.insert(&key(3), &answer(1, None), 100);
        assert!(hot.get(&digest(3), 100).is_some());
        assert!(hot.get(&digest(3), 99).is_none(), "the clock was set back");
        // By less than it was here: what it was stored at tells.
        let stored_at = |stored_at_ms| Answer {
            stored_at_ms,
            ..Answer::clone(&answer(1, None))
        };
        hot.insert(&key(4), &Rc::new(stored_at(1000)), 1000);
        assert!(hot.get(&digest(4), 1500).is_some());
        assert!(hot.get(&digest(4), 999).is_none(), "from the future");
    }

    #[test]
    fn what_is_purged_goes_and_nothing_else() {
        let mut hot = tier(1 << 20, 1 << 20, 1000);
        let mut check = |purged: Purged, left: &[u32]| {
            for number in 0..4 {
                hot.insert(&key(number), &answer(1, None), 0);
            }
            hot.purge(&purged);
            let there = (0..4).filter(|number| hot.get(&digest(*number), 0).is_some());
            assert_eq!(there.collect::<Vec<_>>(), left, "{purged:?}");
            assert_eq!(hot.bytes(), left.len() * answer(1, None).bytes());
        };
        check(Purged::Digest(digest(2)), &[0, 1, 3]);
        check(Purged::Digest(digest(9)), &[0, 1, 2, 3]);
        check(Purged::Tenant([1; 32]), &[0, 2]);
        check(Purged::Tenant([9; 32]), &[0, 1, 2, 3]);
        check(Purged::All, &[]);
    }

    #[test]
    fn what_is_too_long_is_not_taken_and_what_was_there_is_gone() {
        let mut hot = tier(1 << 20, 100, 1000);
        hot.insert(&key(1), &answer(100, None), 0);
        assert!(hot.get(&digest(1), 0).is_some());
        hot.insert(&key(1), &answer(101, None), 0);
        assert!(hot.get(&digest(1), 0).is_none());
        let mut none = tier(0, 100, 1000);
        none.insert(&key(1), &answer(1, None), 0);
        assert!(none.get(&digest(1), 0).is_none());
    }

    #[test]
    fn clearing_leaves_nothing() {
        let mut hot = tier(1 << 20, 1 << 20, 1000);
        hot.insert(&key(1), &answer(1, None), 0);
        hot.clear();
        assert_eq!(hot.bytes(), 0);
        assert!(hot.get(&digest(1), 0).is_none());
    }

    /// Fourteen updates of a listener, whose connections have not drained: their tiers together
    /// took more than a module has.
    #[test]
    fn all_tiers_of_a_module_take_no_more_than_the_largest_may() {
        let each = answer(1000, None).bytes();
        let memory = Rc::new(RefCell::new(HotMemory::default()));
        let mut all = Vec::new();
        for round in 0..14 {
            let mut hot = Hot::new(&memory, 10 * each, 1 << 20, 1000);
            for number in 0..20 {
                hot.insert(&key(number), &answer(1000, None), round);
            }
            assert_eq!(hot.bytes(), 10 * each, "the newest has all of it");
            all.push(hot);
            assert_eq!(memory.borrow().bytes(), 10 * each);
        }
        drop(all);
        assert_eq!(memory.borrow().bytes(), 0);
        assert_eq!(memory.borrow().entries.capacity(), 0);
    }

    #[test]
    fn what_is_used_in_one_tier_stays_whatever_another_takes_in() {
        let each = answer(1000, None).bytes();
        let memory = Rc::new(RefCell::new(HotMemory::default()));
        let mut one = Hot::new(&memory, 10 * each, 1 << 20, 1000);
        let mut other = Hot::new(&memory, 10 * each, 1 << 20, 1000);
        one.insert(&key(0), &answer(1000, None), 0);
        for number in 1..100 {
            assert!(one.get(&digest(0), 0).is_some(), "{number}");
            other.insert(&key(number), &answer(1000, None), 0);
        }
        assert_eq!(one.bytes() + other.bytes(), 10 * each);
    }

    #[test]
    fn no_tier_serves_or_purges_what_is_in_another() {
        let memory = Rc::new(RefCell::new(HotMemory::default()));
        let mut one = Hot::new(&memory, 1 << 20, 1 << 20, 1000);
        let mut other = Hot::new(&memory, 1 << 20, 1 << 20, 1000);
        one.insert(&key(1), &answer(1, None), 0);
        assert!(other.get(&digest(1), 0).is_none());
        for purged in [
            Purged::All,
            Purged::Tenant([1; 32]),
            Purged::Digest(digest(1)),
        ] {
            other.purge(&purged);
            assert!(one.get(&digest(1), 0).is_some(), "{purged:?}");
        }
        drop(other);
        assert!(one.get(&digest(1), 0).is_some());
    }

    #[test]
    fn the_bound_comes_down_with_the_tier_that_had_it() {
        let each = answer(1000, None).bytes();
        let memory = Rc::new(RefCell::new(HotMemory::default()));
        let mut small = Hot::new(&memory, 2 * each, 1 << 20, 1000);
        let large = Hot::new(&memory, 10 * each, 1 << 20, 1000);
        for number in 0..20 {
            small.insert(&key(number), &answer(1000, None), 0);
        }
        assert_eq!(memory.borrow().bytes(), 10 * each);
        drop(large);
        assert_eq!(memory.borrow().bytes(), 2 * each);
        assert!(small.get(&digest(19), 0).is_some());
    }
}
