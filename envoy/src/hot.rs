//! The hot tier: answers in the memory of one Envoy worker, bounded in bytes.
//!
//! Evicts by CLOCK: answers stand in a queue, and the one at its head goes unless it was asked
//! for since it was last there. What is used stays, at the cost of one flag per hit.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use reflex_llm::Key;

use crate::daemon::Purged;

/// An answer as it is served again.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Those that go along with it ([`reflex_llm::is_kept`]), and `x-reflex-saved-tokens`; names in
    /// lower case.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// From when on it is no answer any more; none is never.
    pub expires_at_ms: Option<u64>,
}

impl Answer {
    /// Whole seconds since it was stored; 0 when the clock was set back.
    pub fn age_seconds(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.stored_at_ms) / 1000
    }

    /// Whole seconds until it expires; none is never.
    pub fn ttl_seconds(&self, now_ms: u64) -> Option<u64> {
        let at = self.expires_at_ms?;
        Some(at.saturating_sub(now_ms) / 1000)
    }

    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + headers + OVERHEAD_BYTES
    }
}

/// What an answer takes beside its bytes: its place in map and queue, and the allocator's share.
const OVERHEAD_BYTES: usize = 512;

/// The tier.
#[derive(Debug)]
pub struct Hot {
    bytes_max: usize,
    entry_bytes_max: usize,
    ttl_ms: u64,
    bytes: usize,
    entries: HashMap<[u8; 32], Entry>,
    /// Every entry once, oldest or least recently spared first; and some that are gone.
    clock: VecDeque<([u8; 32], u64)>,
    next: u64,
}

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
    /// An empty tier of at most `bytes_max` bytes; bodies over `entry_bytes_max` are not taken,
    /// and nothing stays longer than `ttl_ms`.
    pub fn new(bytes_max: usize, entry_bytes_max: usize, ttl_ms: u64) -> Self {
        Self {
            bytes_max,
            entry_bytes_max,
            ttl_ms,
            bytes: 0,
            entries: HashMap::new(),
            clock: VecDeque::new(),
            next: 0,
        }
    }

    /// The answer under a digest, if it is still one.
    pub fn get(&mut self, digest: &[u8; 32], now_ms: u64) -> Option<Rc<Answer>> {
        let entry = self.entries.get_mut(digest)?;
        let expired = entry.answer.expires_at_ms.is_some_and(|at| now_ms >= at);
        // More left than it had at first, or stored later than now: the clock was set back, and its
        // time cannot be told.
        let left_ms = entry.leaves_at_ms.saturating_sub(now_ms);
        let is_set_back = left_ms > self.ttl_ms || entry.answer.stored_at_ms > now_ms;
        if expired || left_ms == 0 || is_set_back {
            self.remove(digest);
            return None;
        }
        entry.used = true;
        Some(Rc::clone(&entry.answer))
    }

    /// Keeps an answer, in place of the one before, and lets others go for it.
    pub fn insert(&mut self, key: &Key, answer: &Rc<Answer>, now_ms: u64) {
        let digest = key.digest;
        self.remove(&digest);
        let bytes = answer.bytes();
        if answer.body.len() > self.entry_bytes_max || bytes > self.bytes_max {
            return;
        }
        while self.bytes + bytes > self.bytes_max && self.evict() {}
        self.next += 1;
        self.bytes += bytes;
        self.clock.push_back((digest, self.next));
        let entry = Entry {
            answer: Rc::clone(answer),
            tenant: key.tenant.0,
            leaves_at_ms: now_ms.saturating_add(self.ttl_ms),
            used: false,
            number: self.next,
        };
        self.entries.insert(digest, entry);
    }

    /// Lets an answer go.
    pub fn remove(&mut self, digest: &[u8; 32]) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.bytes -= entry.answer.bytes();
        if self.clock.len() > GONE_SHARE * self.entries.len() {
            let entries = &self.entries;
            let is_there = |(digest, number): &([u8; 32], u64)| {
                entries.get(digest).is_some_and(|it| it.number == *number)
            };
            self.clock.retain(is_there);
        }
    }

    /// Lets go what was purged.
    pub fn purge(&mut self, purged: &Purged) {
        match purged {
            Purged::All => self.clear(),
            Purged::Digest(digest) => self.remove(digest),
            Purged::Tenant(tenant) => {
                let is_its = |(digest, entry): (&[u8; 32], &Entry)| {
                    (entry.tenant == *tenant).then_some(*digest)
                };
                let theirs: Vec<_> = self.entries.iter().filter_map(is_its).collect();
                for digest in theirs {
                    self.remove(&digest);
                }
            }
        }
    }

    /// Lets everything go, and the memory with it.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.entries = HashMap::new();
        self.clock = VecDeque::new();
    }

    /// What the answers take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets one answer go, or does away with one place of one that is gone; false if there was
    /// neither.
    fn evict(&mut self) -> bool {
        let Some((digest, number)) = self.clock.pop_front() else {
            return false;
        };
        match self.entries.get_mut(&digest) {
            Some(entry) if entry.number == number && entry.used => {
                entry.used = false;
                self.clock.push_back((digest, number));
            }
            Some(entry) if entry.number == number => {
                self.bytes -= entry.answer.bytes();
                self.entries.remove(&digest);
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut hot = Hot::new(10 * each, 1 << 20, 1000);
        for number in 0..1000 {
            hot.insert(&key(number), &answer(1000, None), 0);
            assert!(hot.bytes() <= 10 * each);
            assert!(number == 0 || hot.get(&digest(0), 0).is_some(), "{number}");
        }
        assert_eq!(hot.entries.len(), 10);
        assert_eq!(hot.bytes(), 10 * each);
        assert!(hot.get(&digest(500), 0).is_none());
    }

    #[test]
    fn the_queue_does_not_grow_with_what_is_gone() {
        let mut hot = Hot::new(1 << 20, 1 << 20, 1000);
        for round in 0..1000 {
            for number in 0..10 {
                hot.insert(&key(number), &answer(10, None), round);
            }
        }
        assert!(
            hot.clock.len() <= GONE_SHARE * 10 + 1,
            "{}",
            hot.clock.len()
        );
        assert_eq!(hot.entries.len(), 10);
    }

    #[test]
    fn nothing_is_served_past_its_time() {
        let mut hot = Hot::new(1 << 20, 1 << 20, 1000);
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
        let mut hot = Hot::new(1 << 20, 1 << 20, 1000);
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
        let mut hot = Hot::new(1 << 20, 100, 1000);
        hot.insert(&key(1), &answer(100, None), 0);
        assert!(hot.get(&digest(1), 0).is_some());
        hot.insert(&key(1), &answer(101, None), 0);
        assert!(hot.get(&digest(1), 0).is_none());
        let mut none = Hot::new(0, 100, 1000);
        none.insert(&key(1), &answer(1, None), 0);
        assert!(none.get(&digest(1), 0).is_none());
    }

    #[test]
    fn clearing_leaves_nothing() {
        let mut hot = Hot::new(1 << 20, 1 << 20, 1000);
        hot.insert(&key(1), &answer(1, None), 0);
        hot.clear();
        assert_eq!(hot.bytes(), 0);
        assert!(hot.get(&digest(1), 0).is_none());
    }
}
