//! What a repeated request costs in time: known by the L1 and by the long way, side by side.
//!
//! `cargo xtask bench l1` runs this. Ratios are what counts; absolute times belong to the machine.

mod request;

use reflex_host::cache::{Cache, CacheKey, CacheOptions, L1, L1_BYTES_MAX, NewEntry, Probe};
use reflex_llm::{Key, Shape};
use request::{bodies, with_candidate};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// So many requests take turns: with their copies in the L1 they fit into a processor's second cache,
/// as a request does that has just arrived.
const REQUESTS: usize = 200;
const BODY_BYTES: usize = 1 << 10;
const GETS: usize = 200_000;
const ROUNDS: usize = 7;
const NOW_MS: u64 = 1_700_000_000_000;

type Known = L1<(Key, Shape)>;

struct Hot {
    l1: Known,
    bodies: Vec<Vec<u8>>,
    probes: Vec<Probe>,
    head: Vec<u8>,
    cache: Cache,
    keys: Vec<CacheKey>,
    plain: moka::sync::Cache<[u8; 32], usize>,
}

impl Hot {
    fn new() -> Self {
        let mut hot = Self {
            l1: L1::new(L1_BYTES_MAX),
            bodies: bodies(REQUESTS, BODY_BYTES),
            probes: Vec::new(),
            head: Vec::new(),
            cache: Cache::in_memory(&CacheOptions::default()),
            keys: Vec::new(),
            plain: moka::sync::Cache::new(1 << 20),
        };
        with_candidate(|candidate| candidate.write_identity(&mut hot.head));
        let bodies = hot.bodies.iter();
        for body in bodies {
            let exchange = with_candidate(|it| it.examine(body)).expect("cacheable");
            let (key, shape) = (exchange.exchange.key, exchange.exchange.shape);
            let probe = hot.l1.probe(|out| out.extend_from_slice(&hot.head), body);
            hot.l1.insert(&probe, body, &key.tenant.0, (key, shape));
            hot.probes.push(probe);
            let entry = CacheKey::new("bench", &key.tenant.0, &key.digest);
            let new = NewEntry {
                key: &entry,
                tenant: &key.tenant.0,
                metadata: b"",
                payload: b"{}",
                now_ms: NOW_MS,
                ttl_ms: None,
            };
            hot.cache.insert(new).expect("stored");
            hot.plain.insert(*entry.as_bytes(), body.len());
            hot.keys.push(entry);
        }
        hot
    }

    /// By a probe that was made before.
    fn get(&self, at: usize) {
        let at = at % REQUESTS;
        let known = self.l1.get(&self.probes[at], black_box(&self.bodies[at]));
        black_box(known.expect("known"));
    }

    /// The same with the hash of the whole request.
    fn hash_and_get(&self, at: usize) {
        let body = black_box(&self.bodies[at % REQUESTS]);
        let probe = self.l1.probe(|out| out.extend_from_slice(&self.head), body);
        black_box(self.l1.get(&probe, body).expect("known"));
    }

    /// The same from the head as a client sends it.
    fn recognise(&self, at: usize) {
        let body = black_box(&self.bodies[at % REQUESTS]);
        with_candidate(|candidate| {
            let probe = self.l1.probe(|head| candidate.write_identity(head), body);
            black_box(self.l1.get(&probe, body).expect("known"));
        });
    }

    fn the_long_way(&self, at: usize) {
        let body = black_box(&self.bodies[at % REQUESTS]);
        black_box(with_candidate(|candidate| candidate.examine(body)).expect("cacheable"));
    }

    fn look_up(&self, at: usize) {
        black_box(self.cache.lookup(&self.keys[at % REQUESTS], NOW_MS));
    }

    fn get_from_moka(&self, at: usize) {
        let key = self.keys[at % REQUESTS].as_bytes();
        black_box(self.plain.get(key).expect("there"));
    }
}

/// Nanoseconds of one call: the median, and what one in a hundred takes longer than.
fn each(call: impl Fn(usize)) -> [f64; 2] {
    let take = |call: &dyn Fn(usize)| {
        let mut took: Vec<u128> = (0..GETS)
            .map(|at| {
                let began = Instant::now();
                call(at);
                began.elapsed().as_nanos()
            })
            .collect();
        took.sort_unstable();
        [took[GETS / 2], took[GETS - GETS / 100]].map(|it| it as f64)
    };
    // Of which the clock is a part.
    let [clock, _] = take(&|_| {});
    take(&call).map(|took| took - clock)
}

/// Nanoseconds of a processor for one call among many without a pause.
fn mean(call: impl Fn(usize)) -> f64 {
    let began = thread_nanoseconds();
    (0..GETS).for_each(call);
    (thread_nanoseconds() - began) / GETS as f64
}

/// How many times as many calls two threads make at once as one does, each on a processor of its own.
fn two_to_one(call: &(impl Fn(usize) + Sync)) -> f64 {
    let one = mean(call);
    let both = thread::scope(|scope| {
        let threads = [0, 7].map(|first| scope.spawn(move || mean(|at| call(first + at))));
        threads.map(|thread| thread.join().expect("no panic"))
    });
    one / both[0] + one / both[1]
}

/// The time of this thread on a processor: what others take does not count.
fn thread_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(round: impl FnMut(usize) -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..ROUNDS).map(round).collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

fn report(what: &str, figure: f64, unit: &str) {
    println!("  {what:<58} {figure:>10.2} {unit}");
}

fn main() {
    let hot = Hot::new();
    println!("L1: {REQUESTS} requests of {BODY_BYTES} bytes, medians of {ROUNDS} rounds");
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let [middle, slow] = each(|at| hot.get(at));
        p50.push(middle);
        p99.push(slow);
    }
    report("hot get by key from L1, p50", median(|at| p50[at]), "ns");
    report("hot get by key from L1, p99", median(|at| p99[at]), "ns");
    let get = median(|_| mean(|at| hot.get(at)));
    let hashed = median(|_| mean(|at| hot.hash_and_get(at)));
    let recognised = median(|_| mean(|at| hot.recognise(at)));
    let long = median(|_| mean(|at| hot.the_long_way(at)));
    let moka = median(|_| mean(|at| hot.get_from_moka(at)));
    let cache = median(|_| mean(|at| hot.look_up(at)));
    report("hot get by key from L1, mean", get, "ns");
    report("the same with the hash of the request", hashed, "ns");
    report(
        "the same from the head on: a request recognised",
        recognised,
        "ns",
    );
    report("the long way: a request examined", long, "ns");
    report("the long way / recognised", long / recognised, "x");
    report("plain moka, by a key of 32 bytes", moka, "ns");
    report("hot get from L1 / plain moka", get / moka, "x");
    report("lookup of an entry in memory", cache, "ns");
    let get = median(|_| two_to_one(&|at| hot.get(at)));
    let recognised = median(|_| two_to_one(&|at| hot.recognise(at)));
    report("two threads / one, hot get from L1", get, "x");
    report("two threads / one, a request recognised", recognised, "x");
}
