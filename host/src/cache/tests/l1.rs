//! The L1 knows a request by its bytes alone, stays within its bound, and forgets requests with a
//! purge.

use super::*;
use crate::cache::l1::{L1, Probe};
use crate::sync::atomic::AtomicBool;
use reflex_llm::{Anonymous, Control, Examined, Head, Policy, Rules, candidate};
use std::cell::RefCell;

const OTHER: [u8; 32] = [8; 32];

fn probe(l1: &L1<u64>, head: &[u8], body: &[u8]) -> Probe {
    l1.probe(|out| out.extend_from_slice(head), body)
}

/// Of one of two tenants.
fn tenant_of(number: u64) -> [u8; 32] {
    if number.is_multiple_of(2) {
        TENANT
    } else {
        OTHER
    }
}

fn insert(l1: &L1<u64>, head: &[u8], body: &[u8], known: u64) {
    l1.insert(&probe(l1, head, body), body, &TENANT, known);
}

fn get(l1: &L1<u64>, head: &[u8], body: &[u8]) -> Option<u64> {
    l1.get(&probe(l1, head, body), body)
}

#[test]
fn a_request_is_known_by_every_byte_of_it() {
    let l1 = L1::new(1 << 20);
    let (head, body) = (&b"POST /v1"[..], &b"{\"model\":\"m\"}"[..]);
    assert_eq!(get(&l1, head, body), None);
    insert(&l1, head, body, 1);
    assert_eq!(get(&l1, head, body), Some(1));
    let whole = [head, body].concat();
    for at in 0..whole.len() {
        let mut other = whole.clone();
        other[at] ^= 1;
        let (other_head, other_body) = other.split_at(head.len());
        assert_eq!(get(&l1, other_head, other_body), None, "{at}");
        assert_eq!(
            get(&l1, &whole[..at], &whole[at..]).is_some(),
            at == head.len()
        );
    }
    assert_eq!(get(&l1, head, &body[..body.len() - 1]), None);
    assert_eq!(get(&l1, b"", b""), None);
    insert(&l1, head, body, 2);
    assert_eq!(get(&l1, head, body), Some(2));
    assert_eq!(l1.stats().requests, 1);
}

#[test]
fn two_requests_of_one_hash_are_a_miss_and_never_one_request() {
    let l1 = L1::new(1 << 20);
    insert(&l1, b"head", b"one", 1);
    let one = probe(&l1, b"head", b"one");
    let others: [(&[u8], &[u8]); 3] = [(b"head", b"two"), (b"headone", b""), (b"hea", b"done")];
    for (head, body) in others {
        let other = probe(&l1, head, body).colliding_with(&one);
        assert_eq!(l1.get(&other, body), None);
        assert_eq!(l1.get(&one, b"one"), Some(1));
        l1.insert(&other, body, &TENANT, 2);
        assert_eq!(l1.get(&other, body), Some(2));
        assert_eq!(l1.get(&one, b"one"), None, "one of them has room");
        l1.insert(&one, b"one", &TENANT, 1);
    }
    // Another body than the one it was made for.
    assert_eq!(l1.get(&one, b"two"), None);
    assert_eq!(l1.stats().requests, 1);
}

#[test]
fn the_memory_stays_within_the_bound_whatever_comes() {
    const BYTES_MAX: u64 = 256 << 10;
    let l1 = L1::new(BYTES_MAX);
    let mut random = Random(1);
    let body = vec![b'x'; 1 << 20];
    for number in 0..5000u64 {
        let length = match random.below(10) {
            0 => random.below(1 << 20),
            1..4 => random.below(20_000),
            _ => random.below(2000),
        };
        let head = number.to_le_bytes();
        insert(&l1, &head, &body[..length as usize], number);
        let stats = l1.stats();
        assert!(stats.bytes <= BYTES_MAX, "{stats:?}");
        assert!(stats.requests * 400 <= stats.bytes, "{stats:?}");
    }
    let stats = l1.stats();
    assert!(stats.bytes > BYTES_MAX / 2, "{stats:?}");
    assert!(stats.evictions > 1000, "{stats:?}");
    l1.clear();
    assert_eq!((l1.stats().requests, l1.stats().bytes), (0, 0));
}

#[test]
fn a_request_longer_than_its_share_is_not_taken_in() {
    let l1 = L1::new(64 << 10);
    let body = vec![b'x'; 4096];
    insert(&l1, b"", &body, 1);
    assert_eq!(get(&l1, b"", &body), None);
    insert(&l1, b"", &body[..3000], 1);
    assert_eq!(get(&l1, b"", &body[..3000]), Some(1));
}

#[test]
fn a_bound_of_nothing_switches_it_off() {
    let l1 = L1::new(0);
    assert!(!l1.is_on());
    insert(&l1, b"", b"", 1);
    assert_eq!(get(&l1, b"", b""), None);
    assert_eq!(l1.stats(), Default::default());
}

#[test]
fn requests_that_repeat_stay_through_a_run_of_those_that_do_not() {
    // More than half of the room: moka counts from then on.
    const HOT: u64 = 150;
    let l1 = L1::new(128 << 10);
    let ask = |number: u64| {
        let head = number.to_le_bytes();
        let is_known = get(&l1, &head, b"{}").is_some();
        if !is_known {
            insert(&l1, &head, b"{}", number);
        }
        is_known
    };
    for _ in 0..200 {
        (0..HOT).for_each(|number| {
            ask(number);
        });
    }
    // Each comes once, ten times as many as have room.
    for number in 0..3000 {
        ask(1 << 32 | number);
    }
    let stayed = (0..HOT).filter(|number| ask(*number)).count();
    assert!(stayed as u64 >= HOT * 9 / 10, "{stayed} of {HOT}");
}

#[test]
fn a_purge_drops_the_tenants_requests_and_no_others() {
    let cache = Cache::in_memory(&CacheOptions::default());
    let l1 = L1::of(&cache, 1 << 20);
    let fill = || {
        for number in 0..100u64 {
            let tenant = tenant_of(number);
            let probe = probe(&l1, &number.to_le_bytes(), b"{}");
            l1.insert(&probe, b"{}", &tenant, number);
        }
    };
    let known = || {
        let numbers = 0..100u64;
        let known = numbers.filter(|number| get(&l1, &number.to_le_bytes(), b"{}").is_some());
        known.collect::<Vec<_>>()
    };
    fill();
    assert_eq!(known().len(), 100);
    cache.remove(&key(1));
    assert_eq!(known().len(), 100);
    cache.purge_tenant(&TENANT).unwrap();
    assert_eq!(
        known(),
        (0..100).filter(|it| it % 2 == 1).collect::<Vec<_>>()
    );
    cache.purge_all().unwrap();
    assert_eq!(known(), []);
    assert_eq!((l1.stats().requests, l1.stats().bytes), (0, 0));
    fill();
    assert_eq!(known().len(), 100, "the next ones come in again");
}

#[test]
fn a_request_answered_before_a_purge_is_not_taken_in_after_it() {
    let cache = Cache::in_memory(&CacheOptions::default());
    let l1 = L1::of(&cache, 1 << 20);
    let before = probe(&l1, b"head", b"body");
    cache.purge_tenant(&TENANT).unwrap();
    l1.insert(&before, b"body", &TENANT, 1);
    assert_eq!(l1.stats().requests, 0);
    insert(&l1, b"head", b"body", 1);
    assert_eq!(l1.stats().requests, 1);
}

#[test]
fn nothing_of_a_request_is_in_debug() {
    let l1 = L1::new(1 << 20);
    insert(&l1, b"a secret head", b"a secret body", 1);
    let probe = probe(&l1, b"a secret head", b"a secret body");
    let shown = format!("{l1:?} {probe:?} {:?}", l1.stats());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("requests: 1"), "{shown}");
}

/// A value that names its request.
#[test]
fn many_threads_find_only_what_is_about_their_request() {
    const THREADS: u64 = 4;
    const STEPS: u64 = 20_000;
    const REQUESTS: u64 = 400;
    let l1 = Arc::new(L1::new(64 << 10));
    let body = |number: u64| vec![number as u8; (number % 7 * 100) as usize];
    thread::scope(|scope| {
        for id in 0..THREADS {
            let l1 = &l1;
            scope.spawn(move || {
                let mut random = Random(id);
                let mut hits = 0;
                for _ in 0..STEPS {
                    let number = random.below(REQUESTS).min(random.below(REQUESTS));
                    let body = body(number);
                    let probe = probe(l1, &number.to_le_bytes(), &body);
                    match l1.get(&probe, &body) {
                        Some(known) => {
                            assert_eq!(known, number);
                            hits += 1;
                        }
                        None => {
                            let tenant = tenant_of(number);
                            l1.insert(&probe, &body, &tenant, number);
                        }
                    }
                    match random.below(4000) {
                        0 => l1.drop_tenant(&TENANT),
                        1 => l1.clear(),
                        _ => {}
                    }
                }
                assert!(hits > 0);
            });
        }
    });
    insert(&l1, b"last", b"", 0);
    let stats = l1.stats();
    assert!(stats.bytes <= 64 << 10, "{stats:?}");
    // The policy knows each of them: once others are asked for, it evicts all of these.
    for round in 0..20 {
        for number in 0..2000u64 {
            let head = [&b"new"[..], &number.to_le_bytes()].concat();
            if get(&l1, &head, b"").is_none() {
                insert(&l1, &head, b"", round);
            }
        }
    }
    l1.clear();
    assert_eq!((l1.stats().requests, l1.stats().bytes), (0, 0));
}

#[test]
fn no_request_of_a_purged_tenant_stays_whenever_it_was_answered() {
    for _ in 0..200 {
        let cache = Cache::in_memory(&CacheOptions::default());
        let l1 = L1::of(&cache, 1 << 20);
        for number in 0..4 {
            put(&cache, number, 1, 10);
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for id in 0..2 {
                let (cache, l1, is_over) = (&cache, &l1, &is_over);
                scope.spawn(move || {
                    for at in id..u64::MAX {
                        let number = at % 4;
                        let probe = probe(l1, &number.to_le_bytes(), b"{}");
                        if let Lookup::Hit(entry) = cache.lookup(&key(number), NOW) {
                            l1.insert(&probe, b"{}", &entry.tenant(), number);
                        }
                        if is_over.load(Relaxed) {
                            return;
                        }
                    }
                });
            }
            // Each of them has been there at least once, or is there now.
            while l1.stats().requests < 2 {
                thread::yield_now();
            }
            cache.purge_tenant(&TENANT).unwrap();
            is_over.store(true, Relaxed);
        });
        assert_eq!((l1.stats().requests, l1.stats().bytes), (0, 0));
    }
}

/// A request as a client sends it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    credential: &'static str,
    header: (&'static str, &'static str),
    query: &'static str,
    body: &'static str,
}

const CREDENTIALS: [&str; 3] = ["Bearer one", "Bearer two", "Bearer"];
const ASKED_HEADERS: [(&str, &str); 7] = [
    ("x-request-id", "1"),
    ("x-request-id", "2"),
    ("accept", "text/event-stream"),
    ("cache-control", "max-age=5"),
    ("cache-control", "no-store"),
    ("x-any", "1"),
    ("x-any", "2"),
];
const QUERIES: [&str; 3] = ["", "?api-version=1", "?token=1"];
const BODIES: [&str; 6] = [
    r#"{"model":"m","messages":[]}"#,
    r#"{"messages":[],"model":"m"}"#,
    r#"{"model":"m","messages":[],"stream":true}"#,
    r#"{"model":"m","messages":[],"n":2}"#,
    r#"{"model":"m","messages":[],"bypass":1}"#,
    r#"{"model":"m","#,
];

/// The cache's answer to a request.
type Told = Option<(Control, Option<(Vec<u8>, u64)>)>;

struct Daemon {
    cache: Cache,
    l1: Arc<L1<(reflex_llm::Key, reflex_llm::Shape)>>,
    rules: Arc<Rules>,
    known: RefCell<usize>,
}

impl Daemon {
    fn with<T>(
        &self,
        asked: Asked,
        then: impl FnOnce(reflex_llm::Candidate<'_>) -> T,
    ) -> Option<T> {
        let (name, value) = asked.header;
        let headers = [
            ("authorization", asked.credential.as_bytes()),
            (name, value.as_bytes()),
        ];
        let path = format!("/v1/chat/completions{}", asked.query);
        let head = Head {
            method: "POST",
            upstream: "https://api.test",
            path: &path,
            headers: &headers,
        };
        let policy = Policy {
            anonymous: Anonymous::Share,
            rules: Some(&self.rules),
            ..Policy::default()
        };
        Some(then(candidate(&head, &policy).ok()?))
    }

    fn tell(&self, key: &reflex_llm::Key, control: Control, now_ms: u64) -> Told {
        let cache_key = CacheKey::new("test", &key.tenant.0, &key.digest);
        let hit = self.cache.lookup(&cache_key, now_ms).hit();
        let hit =
            hit.filter(|hit| control.accepts(hit.age_seconds(now_ms), hit.ttl_seconds(now_ms)));
        Some((
            control,
            hit.map(|hit| (hit.payload().to_vec(), hit.stored_at_ms())),
        ))
    }

    fn the_long_way(&self, asked: Asked, now_ms: u64) -> Told {
        self.with(asked, |candidate| {
            let Examined { exchange, .. } = candidate.examine(asked.body.as_bytes()).ok()?;
            self.tell(&exchange.key, exchange.control, now_ms)
        })?
    }

    fn by_l1(&self, asked: Asked, now_ms: u64) -> Told {
        self.with(asked, |candidate| {
            let body = asked.body.as_bytes();
            let probe = self.l1.probe(|out| candidate.write_identity(out), body);
            if let Some((key, shape)) = self.l1.get(&probe, body) {
                let examined = candidate.examine(body).unwrap().exchange;
                assert_eq!((key, shape), (examined.key, examined.shape), "{asked:?}");
                *self.known.borrow_mut() += 1;
                return self.tell(&key, candidate.control(), now_ms);
            }
            let Examined { exchange, .. } = candidate.examine(body).ok()?;
            let told = self.tell(&exchange.key, exchange.control, now_ms);
            if let Some((_, Some(_))) = told {
                self.l1.insert(
                    &probe,
                    body,
                    &exchange.key.tenant.0,
                    (exchange.key, exchange.shape),
                );
            }
            told
        })?
    }

    fn answer(&self, asked: Asked, number: u64, now_ms: u64) {
        self.with(asked, |candidate| {
            let Ok(examined) = candidate.examine(asked.body.as_bytes()) else {
                return;
            };
            let key = examined.exchange.key;
            let new = NewEntry {
                key: &CacheKey::new("test", &key.tenant.0, &key.digest),
                tenant: &key.tenant.0,
                metadata: b"",
                payload: &number.to_le_bytes(),
                now_ms,
                ttl_ms: Some(20_000),
            };
            self.cache.insert(new).unwrap();
        });
    }
}

/// Random requests, answers, removals, purges and times: the L1 always agrees with a full
/// examination.
#[test]
fn with_an_l1_and_without_the_cache_says_the_same() {
    let rules = Rules {
        bypass_fields: vec!["bypass".into()],
        ..Rules::default()
    };
    for (seed, bytes_max) in (0..20).zip([1 << 20, 100 << 10, 12 << 10, 0].into_iter().cycle()) {
        let cache = Cache::in_memory(&CacheOptions::default());
        let daemon = Daemon {
            l1: L1::of(&cache, bytes_max),
            cache,
            rules: Arc::new(rules.clone()),
            known: RefCell::new(0),
        };
        let mut random = Random(seed);
        let mut now_ms = NOW;
        for step in 0..3000 {
            let asked = Asked {
                credential: pick(&mut random, &CREDENTIALS),
                header: pick(&mut random, &ASKED_HEADERS),
                query: pick(&mut random, &QUERIES),
                body: pick(&mut random, &BODIES),
            };
            now_ms += random.below(100);
            let told = daemon.by_l1(asked, now_ms);
            assert_eq!(
                told,
                daemon.the_long_way(asked, now_ms),
                "{seed}/{step}: {asked:?}"
            );
            match random.below(300) {
                0..60 => daemon.answer(asked, step, now_ms),
                60 => daemon.cache.purge_all().unwrap(),
                61 => {
                    let tenant = daemon.with(asked, |candidate| candidate.tenant());
                    tenant
                        .into_iter()
                        .for_each(|it| daemon.cache.purge_tenant(&it.0).unwrap());
                }
                62..66 => {
                    let examined = daemon.with(asked, |it| it.examine(asked.body.as_bytes()));
                    if let Some(Ok(examined)) = examined {
                        let key = examined.exchange.key;
                        let key = CacheKey::new("test", &key.tenant.0, &key.digest);
                        daemon.cache.remove(&key);
                    }
                }
                _ => {}
            }
        }
        let known = *daemon.known.borrow();
        assert_eq!(known > 0, bytes_max > 0, "{seed}");
        assert!(bytes_max < 1 << 20 || known > 100, "{known} say little");
    }
}

fn pick<T: Copy>(random: &mut Random, among: &[T]) -> T {
    among[random.below(among.len() as u64) as usize]
}
