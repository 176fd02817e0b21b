//! One order of events after another, under shuttle: `tests/shuttle` builds the cache with
//! shuttle's locks and threads, and its scheduler reports a lost wake-up as a deadlock.
//!
//! The model covers users of `crate::sync`: the queue, the writer, the flusher, purges and purge marks.
//! A call of papaya, moka or the disk is one step; all atomic operations are sequentially
//! consistent; no wait ever times out.
//!
//! `REFLEX_SCHEDULES` is the number of orders for each test, `REFLEX_SCHEDULES_FIRST` the first
//! seed.

use super::*;
use crate::store::StoreOptions;
use crate::store::sim_disk::SimDisk;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use std::env;

const SCHEDULES_DEFAULT: usize = 200;

/// Upper bound of unexpected switches, in the half of the schedules that has few.
const SWITCHES_MAX: usize = 4;

const STACK_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: u64 = 16 << 10;
const OTHER: [u8; 32] = [8; 32];

fn number_of(name: &str, default: u64) -> u64 {
    let text = env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// Half of the schedules take any step at any time, half of them switch rarely.
fn try_schedules(run: fn()) {
    let schedules = number_of("REFLEX_SCHEDULES", SCHEDULES_DEFAULT as u64) as usize;
    let seed = number_of("REFLEX_SCHEDULES_FIRST", 0);
    let config = || {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.silence_warnings = true;
        config
    };
    let half = schedules.div_ceil(2);
    Runner::new(RandomScheduler::new_from_seed(seed, half), config()).run(run);
    let few = PctScheduler::new_from_seed(seed, SWITCHES_MAX, half);
    Runner::new(few, config()).run(run);
}

/// A disk, and the options of a cache on it.
struct Place {
    disk: SimDisk,
    segments: u64,
    durability: Durability,
}

impl Place {
    fn new(segments: u64, durability: Durability) -> Self {
        Self {
            disk: SimDisk::new(0),
            segments,
            durability,
        }
    }

    fn options(&self) -> (CacheOptions, StoreOptions) {
        let options = CacheOptions {
            memory_bytes_max: 1 << 20,
            entry_bytes_max: 4096,
            durability: self.durability,
            ..CacheOptions::default()
        };
        let store = StoreOptions::plain(self.segments * SEGMENT_BYTES, SEGMENT_BYTES);
        (options, store)
    }

    fn open(&self) -> Cache {
        let (options, store) = self.options();
        Cache::open_sized(self.disk.handle(), &options, &store).unwrap()
    }

    /// Without its disk, but with its writer.
    fn start_without_disk(&self) -> Cache {
        let (options, store) = self.options();
        let mut shared = Shared::new(&options, Arc::default(), None);
        shared.absence = Some(Absence::new(self.disk.handle(), store));
        let mut cache = Cache {
            writer: None,
            flusher: None,
            shared: Arc::new(shared),
        };
        cache.start_writer().unwrap();
        cache
    }

    /// With its writer.
    fn start(&self) -> Cache {
        let mut cache = self.open();
        if self.durability != Durability::Os {
            cache.start_flusher().unwrap();
        }
        cache.start_writer().unwrap();
        cache
    }
}

fn run_all(tasks: Vec<Box<dyn FnOnce() + Send>>) {
    let running: Vec<_> = tasks.into_iter().map(thread::spawn).collect();
    for task in running {
        task.join().unwrap();
    }
}

fn put_others(cache: &Cache, number: u64) {
    let new = NewEntry {
        key: &key(number),
        tenant: &OTHER,
        metadata: b"",
        payload: b"of another tenant",
        now_ms: NOW,
        ttl_ms: None,
    };
    cache.insert(new).unwrap();
}

fn is_others_there(cache: &Cache, number: u64) -> bool {
    cache.contains(&key(number), NOW)
}

#[test]
fn an_insert_is_found_and_no_older_one_after_a_newer_one() {
    try_schedules(|| {
        let place = Place::new(100, Durability::Os);
        let cache = place.start();
        let (writes, reads, moves) = (cache.clone(), cache.clone(), cache.clone());
        run_all(vec![
            Box::new(move || {
                for newest in 1..=3 {
                    put(&writes, 1, newest, 40);
                    assert_eq!(version(&writes, 1), Some(newest));
                }
            }),
            Box::new(move || {
                let mut last = None;
                for _ in 0..4 {
                    let found = version(&reads, 1);
                    assert!(found >= last, "{found:?} after {last:?}");
                    last = found;
                }
            }),
            Box::new(move || {
                put(&moves, 2, 1, 40);
                moves.sync().unwrap();
                assert_eq!(version(&moves, 2), Some(1));
                moves.compact(NOW).unwrap();
                assert_eq!(version(&moves, 2), Some(1));
            }),
        ]);
        assert_eq!(cache.stats().corrupt, 0);
        // The writer writes what waits and ends.
        drop(cache);
        let cache = place.open();
        assert_eq!((version(&cache, 1), version(&cache, 2)), (Some(3), Some(1)));
    });
}

/// The first version is removed by `remove` before the second comes.
fn removes_between(remove: fn(&Cache), spares_others: bool) {
    let place = Place::new(100, Durability::Os);
    let cache = place.start();
    let (writes, reads, others) = (cache.clone(), cache.clone(), cache.clone());
    run_all(vec![
        Box::new(move || {
            put(&writes, 1, 1, 40);
            remove(&writes);
            assert_eq!(version(&writes, 1), None);
            put(&writes, 1, 2, 40);
            assert_eq!(version(&writes, 1), Some(2));
            remove(&writes);
            assert_eq!(version(&writes, 1), None);
        }),
        Box::new(move || {
            // Missing, 1, missing, 2, missing: in this order, as far as seen.
            let mut at = 0;
            for _ in 0..5 {
                let stages = match version(&reads, 1) {
                    Some(1) => [1, 1, 1],
                    Some(_) => [3, 3, 3],
                    None => [0, 2, 4],
                };
                let next = stages.into_iter().find(|stage| *stage >= at);
                at = next.expect("what was gone came back");
            }
        }),
        Box::new(move || {
            put_others(&others, 2);
            if spares_others {
                assert!(is_others_there(&others, 2));
            }
        }),
    ]);
    assert_eq!(version(&cache, 1), None);
    assert!(!spares_others || is_others_there(&cache, 2));
    drop(cache);
    let cache = place.open();
    assert_eq!(version(&cache, 1), None, "it came back with a restart");
    assert!(!spares_others || is_others_there(&cache, 2));
}

#[test]
fn no_lookup_finds_what_was_removed() {
    try_schedules(|| removes_between(|cache| assert!(cache.remove(&key(1))), true));
}

#[test]
fn no_lookup_finds_what_was_purged_of_a_tenant() {
    try_schedules(|| removes_between(|cache| cache.purge_tenant(&TENANT).unwrap(), true));
}

#[test]
fn no_lookup_finds_anything_after_a_purge_of_all() {
    try_schedules(|| removes_between(|cache| cache.purge_all().unwrap(), false));
}

#[test]
fn what_was_begun_before_a_purge_is_not_there_after_it() {
    try_schedules(|| {
        let cache = Place::new(100, Durability::Os).start();
        let (fills, purges) = (cache.clone(), cache.clone());
        let before = cache.purges().now();
        run_all(vec![
            Box::new(move || {
                let mark = fills.purges().now();
                let held = fills.purges().hold();
                if !held.has_met(&key(1), &TENANT, before) {
                    put(&fills, 1, 1, 40);
                }
                drop(held);
                let held = fills.purges().hold();
                if !held.has_met(&key(2), &TENANT, mark) {
                    put(&fills, 2, 1, 40);
                }
            }),
            Box::new(move || purges.purge_tenant(&TENANT).unwrap()),
        ]);
        assert_eq!(version(&cache, 1), None);
    });
}

#[test]
fn what_readers_hold_stays_while_its_segment_goes() {
    const SEGMENTS: u64 = 6;
    const ENTRIES: u64 = 14;
    try_schedules(|| {
        let place = Place::new(SEGMENTS, Durability::Os);
        let cache = place.start();
        let fill = |from: u64, cache: Cache| {
            move || {
                for number in from..from + ENTRIES {
                    put(&cache, number, 1, 3500);
                    assert!(place_bytes(&cache) <= SEGMENTS * SEGMENT_BYTES);
                }
            }
        };
        let reads = cache.clone();
        run_all(vec![
            Box::new(fill(0, cache.clone())),
            Box::new(fill(ENTRIES, cache.clone())),
            Box::new(move || {
                let mut held = Vec::new();
                for number in (0..4).chain(ENTRIES..ENTRIES + 4).cycle().take(16) {
                    if let Lookup::Hit(entry) = reads.lookup(&key(number), NOW) {
                        held.push((number, entry));
                    }
                    for (number, entry) in &held {
                        check(entry, *number);
                    }
                    if held.len() > 2 {
                        held.remove(0);
                    }
                }
            }),
        ]);
        // The queue may have been so full that memory took entries; that is over now.
        put(&cache, 2 * ENTRIES, 1, 3500);
        cache.sync().unwrap();
        let stats = cache.stats();
        assert!(stats.segments_reclaimed > 0 && stats.healthy, "{stats:?}");
        assert_eq!((stats.corrupt, stats.queued_bytes), (0, 0), "{stats:?}");
        assert_eq!(stats.store_errors, stats.inserts_in_memory, "{stats:?}");
        drop(cache);
        assert!(place.disk.bytes_in("data/segments".as_ref()) <= SEGMENTS * SEGMENT_BYTES);
    });
}

fn place_bytes(cache: &Cache) -> u64 {
    cache.stats().disk_bytes
}

#[test]
fn a_full_queue_keeps_its_bound_and_wakes_all_waiting_threads() {
    /// Two of the entries below, and not three.
    const BYTES_MAX: u64 = 1500;
    const EACH: u64 = 3;
    try_schedules(|| {
        let queue = Arc::new(Queue::new(BYTES_MAX));
        let insert = |number: u64, queue: Arc<Queue>| {
            move || {
                let payload = payload(number, 1, 300);
                let (key, tenant) = (key(number), TENANT);
                let record = NewRecord::entry(key.as_bytes(), &tenant, b"", &payload, NOW, NEVER);
                let entry = Entry::in_memory(&record);
                for _ in 0..EACH {
                    let stored = queue.store(&key, &entry, 0, Wait::ForRoom);
                    assert!(stored.is_ok(), "no insert waits forever");
                    assert!(queue.stats().bytes <= BYTES_MAX);
                }
            }
        };
        let writes = Arc::clone(&queue);
        let writer = thread::spawn(move || {
            let mut written = 0;
            while writes.wait() {
                let operations = writes.next();
                written += operations.len() as u64;
                writes.done(&operations, 0);
            }
            written
        });
        run_all(vec![
            Box::new(insert(1, Arc::clone(&queue))),
            Box::new(insert(2, Arc::clone(&queue))),
            Box::new(insert(3, Arc::clone(&queue))),
        ]);
        queue.stop();
        assert_eq!(writer.join().unwrap(), 3 * EACH);
        let stats = queue.stats();
        let left = queue.on_top_of((0, 0), |_| None);
        assert_eq!((left, stats.bytes), ((0, 0), 0));
        assert!(matches!(queue.find(key(1).as_bytes()), Found::Nothing));
    });
}

#[test]
fn what_every_insert_makes_durable_is_there_after_a_loss_of_power() {
    try_schedules(|| {
        let place = Place::new(100, Durability::EveryInsert);
        let cache = place.start();
        let insert = |number: u64, cache: Cache| {
            move || {
                for newest in 1..=2 {
                    put(&cache, number, newest, 40);
                }
            }
        };
        run_all(vec![
            Box::new(insert(1, cache.clone())),
            Box::new(insert(2, cache.clone())),
        ]);
        assert_eq!(cache.stats().store_errors, 0);
        place.disk.lose_power_after(0);
        drop(cache);
        place.disk.restore_power();
        let cache = place.open();
        assert_eq!((version(&cache, 1), version(&cache, 2)), (Some(2), Some(2)));
    });
}

#[test]
fn the_flusher_hears_the_bell_and_ends() {
    try_schedules(|| {
        let place = Place::new(100, Durability::Interval { ms: 1000, bytes: 1 });
        let cache = place.start();
        let (one, two) = (cache.clone(), cache.clone());
        run_all(vec![
            Box::new(move || drop(put(&one, 1, 1, 40))),
            Box::new(move || {
                put(&two, 2, 1, 40);
                two.sync().unwrap();
            }),
        ]);
        drop(cache);
        let cache = place.open();
        assert_eq!((version(&cache, 1), version(&cache, 2)), (Some(1), Some(1)));
    });
}

/// Records on the disk undo no insert, removal or purge made while the disk is taken into use.
#[test]
fn whatever_happens_while_the_disk_comes_holds() {
    try_schedules(|| {
        let place = Place::new(8, Durability::Os);
        let cache = place.open();
        for number in 1..4 {
            put(&cache, number, 0, 100);
        }
        put_others(&cache, 5);
        cache.sync().unwrap();
        drop(cache);
        let cache = place.start_without_disk();
        let with = |what: fn(&Cache)| {
            let cache = cache.clone();
            Box::new(move || what(&cache)) as Box<dyn FnOnce() + Send>
        };
        run_all(vec![
            with(|cache| cache.shared.try_disk()),
            with(|cache| {
                put(cache, 1, 1, 100);
                assert_eq!(version(cache, 1), Some(1));
                put(cache, 1, 2, 100);
                assert_eq!(version(cache, 1), Some(2));
            }),
            with(|cache| {
                cache.remove(&key(2));
                assert_eq!(version(cache, 2), None);
                // It fails if the disk does not have the purge yet.
                let _ = cache.purge_tenant(&OTHER);
                assert!(!is_others_there(cache, 5));
            }),
        ]);
        let check = |cache: &Cache| {
            assert_eq!(version(cache, 2), None);
            assert_eq!(version(cache, 3), Some(0));
            assert!(!is_others_there(cache, 5));
        };
        check(&cache);
        assert_eq!(version(&cache, 1), Some(2));
        cache.sync().unwrap();
        drop(cache);
        let cache = place.open();
        check(&cache);
        assert!(matches!(version(&cache, 1), None | Some(2)));
    });
}

/// A hit is taken into the L1 some time after its lookup, and a purge may come in between.
#[test]
fn no_request_of_a_purged_tenant_stays_in_the_l1() {
    try_schedules(|| {
        let cache = Cache::in_memory(&CacheOptions::default());
        let l1: Arc<L1<u64>> = L1::of(&cache, 1 << 20);
        put(&cache, 1, 1, 10);
        let ask = || {
            let (cache, l1) = (cache.clone(), Arc::clone(&l1));
            Box::new(move || {
                let probe = l1.probe(|out| out.push(1), b"{}");
                if let Lookup::Hit(entry) = cache.lookup(&key(1), NOW) {
                    l1.insert(&probe, b"{}", &entry.tenant(), 1);
                }
            }) as Box<dyn FnOnce() + Send>
        };
        let purging = cache.clone();
        run_all(vec![
            ask(),
            ask(),
            Box::new(move || purging.purge_tenant(&TENANT).unwrap()),
        ]);
        assert_eq!((l1.stats().requests, l1.stats().bytes), (0, 0));
    });
}
