//! Requests that were hits before, by their bytes, and what examining them gave.
//!
//! A repeated request is recognised before it is understood: reading its JSON and hashing its canonical
//! form takes several times as long. The memo compares each byte, so that a hash that two requests
//! share is a miss and never a wrong answer.
//!
//! It holds no answers: the key leads to the hot tier, or does not, and purges, expiry and newer answers
//! have one path. It holds requests as they were sent, prompts included, as long as they are asked for,
//! but no credential (`llm/src/request/identity.rs`). One memo is for one configuration: what is known
//! under one policy is not true under another.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::rc::Rc;

use reflex_llm::{Examined, Key, Prepared, Shape};

use crate::daemon::Purged;
use crate::hashes::{HashedMap, Seeded};
use crate::module::Budget;

/// Upper bound of the bytes of one memo: some 5,000 requests of a kilobyte.
const MEMO_BYTES_MAX: usize = 8 << 20;

/// A request longer than this share of the bound is not taken in: it would evict as many others.
const SHARE: usize = 16;

/// Memory of a request beside its bytes: its places in the map and the queue, and the allocator's share.
const OVERHEAD_BYTES: usize = 256;

/// Places of requests that are gone may make up so much of the queue before it is swept.
const GONE_SHARE: usize = 2;

/// What examining a request gave. The client's instructions to the cache are not in it: each request
/// has its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Under which the answer is stored.
    pub key: Key,
    /// The answer's API and representation.
    pub shape: Shape,
    /// The model that is asked for.
    pub model: Option<Rc<str>>,
}

impl From<Examined> for Known {
    fn from(examined: Examined) -> Self {
        Self {
            key: examined.exchange.key,
            shape: examined.exchange.shape,
            model: examined.model.map(Rc::from),
        }
    }
}

/// Requests within a bound of bytes. Evicts by CLOCK, as the hot tier does.
pub struct Memo {
    seed: Seeded,
    requests: HashedMap<Request>,
    /// The hash of each request, and of some that are gone.
    clock: VecDeque<u64>,
    budget: Budget,
    bytes: usize,
    /// The head of the request that is looked for.
    head: Vec<u8>,
}

struct Request {
    /// The head's bytes, then the body's.
    bytes: Box<[u8]>,
    head_bytes: usize,
    known: Known,
    used: bool,
}

impl Request {
    fn is(&self, head: &[u8], body: &[u8]) -> bool {
        self.head_bytes == head.len() && {
            let (own_head, own_body) = self.bytes.split_at(self.head_bytes);
            own_head == head && own_body == body
        }
    }

    fn weight(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }
}

impl Memo {
    /// An empty memo. `seed` is to be hard to guess.
    pub fn new(seed: u64, budget: Budget) -> Self {
        Self {
            seed: Seeded::new(seed),
            requests: HashedMap::default(),
            clock: VecDeque::new(),
            budget,
            bytes: 0,
            head: Vec::new(),
        }
    }

    /// What is known of the request with that head and this body.
    pub fn get(&mut self, prepared: &Prepared, body: &[u8]) -> Option<Known> {
        if self.requests.is_empty() {
            return None;
        }
        let hash = self.hash(prepared, body);
        let request = self.requests.get_mut(&hash)?;
        if !request.is(&self.head, body) {
            return None;
        }
        request.used = true;
        Some(request.known.clone())
    }

    /// Takes in a request that was a hit, in place of others. Does nothing if it is too long, or if other
    /// configurations have used up the room.
    pub fn insert(&mut self, prepared: &Prepared, body: &[u8], known: Known) {
        let hash = self.hash(prepared, body);
        let request = Request {
            bytes: [self.head.as_slice(), body].concat().into(),
            head_bytes: self.head.len(),
            known,
            used: false,
        };
        let weight = request.weight();
        if weight > MEMO_BYTES_MAX / SHARE {
            return;
        }
        self.remove(hash);
        while self.bytes + weight > MEMO_BYTES_MAX || !self.budget.take(weight) {
            if !self.evict() {
                return;
            }
        }
        self.bytes += weight;
        self.requests.insert(hash, request);
        self.clock.push_back(hash);
        self.sweep();
    }

    /// Drops requests of which a purge leaves no answer. The purge of one answer leaves its request: it
    /// leads to nothing until there is an answer again.
    pub fn purge(&mut self, purged: &Purged) {
        match purged {
            Purged::All => self.retain(|_| false),
            Purged::Tenant(tenant) => self.retain(|known| known.key.tenant.0 != *tenant),
            Purged::Digest(_) => {}
        }
    }

    /// The memory of all requests.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Leaves the head in its place.
    fn hash(&mut self, prepared: &Prepared, body: &[u8]) -> u64 {
        self.head.clear();
        prepared.write_identity(&mut self.head);
        let mut hasher = self.seed.build_hasher();
        hasher.write(&self.head);
        hasher.write(body);
        hasher.finish()
    }

    fn retain(&mut self, is_kept: impl Fn(&Known) -> bool) {
        let gone: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| !is_kept(&request.known))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in gone {
            self.remove(hash);
        }
        self.sweep();
    }

    fn remove(&mut self, hash: u64) {
        if let Some(request) = self.requests.remove(&hash) {
            let weight = request.weight();
            self.bytes -= weight;
            self.budget.give_back(weight);
        }
    }

    /// Evicts one request, or removes the place of one that is gone; false if there was neither.
    fn evict(&mut self) -> bool {
        let Some(hash) = self.clock.pop_front() else {
            return false;
        };
        match self.requests.get_mut(&hash) {
            Some(request) if request.used => {
                request.used = false;
                self.clock.push_back(hash);
            }
            Some(_) => self.remove(hash),
            None => {}
        }
        true
    }

    /// Takes places of requests that are gone out of the queue, when they are many.
    fn sweep(&mut self) {
        if self.requests.is_empty() {
            // The memory of the map and the queue goes, too.
            self.requests = HashedMap::default();
            self.clock = VecDeque::new();
        } else if self.clock.len() > GONE_SHARE * self.requests.len() {
            let mut seen = HashedMap::default();
            let requests = &self.requests;
            self.clock
                .retain(|hash| requests.contains_key(hash) && seen.insert(*hash, ()).is_none());
        }
    }
}

/// Without the requests.
impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memo")
            .field("requests", &self.requests.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use reflex_llm::{Head, Policy, Tenant};

    use super::*;
    use crate::module::Module;

    const BODY: &[u8] = br#"{"model": "m", "messages": []}"#;

    fn memo() -> Memo {
        Memo::new(7, Module::default().memo())
    }

    fn head_with(credential: &str, more: (&str, &str)) -> Prepared {
        let headers: [(&str, &[u8]); 2] = [
            ("authorization", credential.as_bytes()),
            (more.0, more.1.as_bytes()),
        ];
        let head = Head {
            method: "POST",
            upstream: "https://api.openai.com",
            path: "/v1/chat/completions",
            headers: &headers,
        };
        let candidate = reflex_llm::candidate(&head, &Policy::default());
        candidate.expect("a candidate").prepare()
    }

    fn head() -> Prepared {
        head_with("Bearer sk-a", ("x-request-id", "1"))
    }

    fn known(number: u8) -> Known {
        Known {
            key: Key {
                tenant: Tenant([number % 2; 32]),
                digest: [number; 32],
            },
            shape: Shape::from_token("chat-completions").expect("a shape"),
            model: Some("m".into()),
        }
    }

    fn body_of(number: u32, bytes: usize) -> Vec<u8> {
        let mut body = vec![b' '; bytes];
        body[..4].copy_from_slice(&number.to_le_bytes());
        body
    }

    #[test]
    fn only_the_very_same_request_is_known() {
        let mut memo = memo();
        memo.insert(&head(), BODY, known(1));
        assert_eq!(memo.get(&head(), BODY), Some(known(1)));
        // Neither is in the key.
        let other_id = head_with("Bearer sk-a", ("x-request-id", "2"));
        assert_eq!(memo.get(&other_id, BODY), Some(known(1)));
        for at in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[at] ^= 1;
            assert_eq!(memo.get(&head(), &body), None, "{at}");
            assert_eq!(memo.get(&head(), &BODY[..at]), None, "{at}");
        }
        for other in [
            head_with("Bearer sk-b", ("x-request-id", "1")),
            head_with("Bearer sk-a", ("openai-beta", "1")),
            head_with("Bearer sk-a", ("cookie", "a=1")),
        ] {
            assert_eq!(memo.get(&other, BODY), None);
        }
    }

    /// Two requests with one hash: each byte is compared.
    #[test]
    fn a_request_that_shares_the_hash_of_another_is_not_known() {
        let mut memo = memo();
        memo.insert(&head(), BODY, known(1));
        let (hash, other) = (memo.hash(&head(), b"{}"), memo.hash(&head(), BODY));
        let request = memo.requests.remove(&other).expect("taken in");
        memo.requests.insert(hash, request);
        assert_eq!(memo.get(&head(), b"{}"), None);
    }

    #[test]
    fn the_bytes_stay_within_the_bound_and_what_is_used_stays() {
        let mut memo = memo();
        for number in 0..20_000 {
            memo.insert(&head(), &body_of(number, 1000), known(number as u8));
            assert!(memo.bytes() <= MEMO_BYTES_MAX);
            let first = memo.get(&head(), &body_of(0, 1000));
            assert_eq!(first, Some(known(0)), "{number}");
        }
        assert!(memo.bytes() > MEMO_BYTES_MAX - 2000);
        assert_eq!(memo.get(&head(), &body_of(100, 1000)), None);
        assert!(memo.clock.len() <= GONE_SHARE * memo.requests.len() + 1);
    }

    #[test]
    fn a_long_request_is_not_taken_in_and_evicts_none() {
        let mut memo = memo();
        memo.insert(&head(), BODY, known(1));
        memo.insert(&head(), &body_of(1, MEMO_BYTES_MAX / SHARE), known(2));
        assert_eq!(memo.get(&head(), BODY), Some(known(1)));
        assert_eq!(memo.requests.len(), 1);
    }

    #[test]
    fn the_same_request_taken_in_again_counts_once() {
        let mut memo = memo();
        for number in 0..100 {
            memo.insert(&head(), BODY, known(number));
        }
        let bytes = memo.bytes();
        assert_eq!(memo.get(&head(), BODY), Some(known(99)));
        memo.purge(&Purged::All);
        memo.insert(&head(), BODY, known(1));
        assert_eq!(memo.bytes(), bytes);
        assert!(memo.clock.len() <= GONE_SHARE + 1);
    }

    #[test]
    fn a_purge_drops_what_it_covers_and_gives_the_memory_back() {
        let module = Module::default();
        let mut memo = Memo::new(7, module.memo());
        let mut check = |purged: Purged, left: &[u32]| {
            for number in 0..4 {
                memo.insert(&head(), &body_of(number, 100), known(number as u8));
            }
            memo.purge(&purged);
            let there = |number: &u32| memo.get(&head(), &body_of(*number, 100)).is_some();
            assert_eq!((0..4).filter(there).collect::<Vec<_>>(), left, "{purged:?}");
        };
        check(Purged::Digest([1; 32]), &[0, 1, 2, 3]);
        check(Purged::Tenant([1; 32]), &[0, 2]);
        check(Purged::All, &[]);
        assert_eq!(memo.bytes(), 0);
        assert!(memo.budget.is_whole());
    }

    /// Configurations of one module share the room. One that finds none left goes without.
    #[test]
    fn all_memos_of_a_module_stay_within_its_bound() {
        let module = Module::default();
        let room = module.memo().left();
        let mut memos = Vec::new();
        for seed in 0..8 {
            let mut memo = Memo::new(seed, module.memo());
            for number in 0..7000 {
                memo.insert(&head(), &body_of(number, 1000), known(1));
            }
            memos.push(memo);
        }
        let bytes: usize = memos.iter().map(Memo::bytes).sum();
        assert!(bytes <= room && bytes > room - 4000, "{bytes}");
        drop(memos);
        assert_eq!(module.memo().left(), room);
    }

    #[test]
    fn no_credential_is_held() {
        let mut memo = memo();
        let secret = head_with("Bearer sk-secret", ("cookie", "session=secret"));
        memo.insert(&secret, BODY, known(1));
        for request in memo.requests.values() {
            let holds = |what: &[u8]| request.bytes.windows(what.len()).any(|it| it == what);
            assert!(holds(BODY) && !holds(b"secret"));
        }
        assert!(!format!("{memo:?}").contains("model"));
    }
}
