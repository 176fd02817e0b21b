//! Everything at once from several threads, with each payload looked at byte by byte, also after
//! its entry is gone. Meant to be run under ThreadSanitizer as well (docs/testing-store.md), longer:
//! `REFLEX_STRESS_STEPS`.

use super::*;
use std::env;

const THREADS: u64 = 4;
const STEPS_DEFAULT: u64 = 2000;
const KEYS: u64 = 120;
const TENANTS: u64 = 3;

fn tenant(number: u64) -> [u8; 32] {
    [(number % TENANTS) as u8; 32]
}

/// A thread with the entries that it holds.
struct Player {
    cache: Cache,
    random: Random,
    held: Vec<(u64, Entry)>,
}

impl Player {
    fn insert(&mut self, version: u64) {
        let number = self.random.below(KEYS);
        let length = self.random.below(8000) as usize;
        let new = NewEntry {
            key: &key(number),
            tenant: &tenant(number),
            metadata: &version.to_le_bytes(),
            payload: &payload(number, version, length),
            now_ms: NOW,
            ttl_ms: None,
        };
        let entry = self.cache.insert(new).unwrap();
        verify(number, &entry);
        self.held.push((number, entry));
    }

    fn look_up(&mut self) {
        let number = self.random.below(KEYS);
        let found = match self.random.below(2) {
            0 => Some(self.cache.lookup(&key(number), NOW)),
            _ => self.cache.lookup_now(&key(number), NOW),
        };
        if let Some(Lookup::Hit(entry)) = found {
            verify(number, &entry);
            self.held.push((number, entry));
        }
    }

    fn step(&mut self, version: u64) {
        match self.random.below(1000) {
            0..350 => self.insert(version),
            350..400 => drop(self.cache.remove(&key(self.random.below(KEYS)))),
            400..410 => self.cache.sync().unwrap(),
            410..413 => self
                .cache
                .purge_tenant(&tenant(self.random.below(TENANTS)))
                .unwrap(),
            413 => self.cache.purge_all().unwrap(),
            414 => drop(self.cache.compact(NOW).unwrap()),
            415..420 => {
                let stats = self.cache.stats();
                assert_eq!(stats.corrupt, 0, "{stats:?}");
            }
            420..450 => drop(self.cache.contains(&key(self.random.below(KEYS)), NOW)),
            _ => self.look_up(),
        }
        while self.held.len() > 2 {
            let (number, entry) = self.held.remove(0);
            verify(number, &entry);
        }
    }
}

#[track_caller]
fn verify(number: u64, entry: &Entry) {
    let version = u64::from_le_bytes(*entry.metadata().first_chunk().unwrap());
    assert_eq!(entry.tenant(), tenant(number), "another tenant's");
    let found = entry.payload();
    assert_eq!(found, payload(number, version, found.len()));
}

/// Which thread writes inserted entries.
#[derive(PartialEq)]
enum Writes {
    Thread,
    WhoeverInserts,
}

#[test]
fn everything_at_once_and_no_bytes_are_mixed_up() {
    all_at_once(Writes::WhoeverInserts);
}

#[test]
fn everything_at_once_with_a_writer_and_no_bytes_are_mixed_up() {
    all_at_once(Writes::Thread);
}

fn all_at_once(writes: Writes) {
    let steps = env::var("REFLEX_STRESS_STEPS").ok();
    let steps = steps.and_then(|text| text.parse().ok());
    let steps = steps.unwrap_or(STEPS_DEFAULT);
    let mut props = Props::new();
    props.options.disk_bytes_max = 4 << 20;
    props.options.segment_bytes = 128 << 10;
    props.options.durability = Durability::Interval {
        ms: 1,
        bytes: 64 << 10,
    };
    let mut cache = props.open();
    cache.start_flusher().unwrap();
    if writes == Writes::Thread {
        cache.start_writer().unwrap();
    }
    thread::scope(|scope| {
        for id in 0..THREADS {
            let mut player = Player {
                cache: cache.clone(),
                random: Random(id),
                held: Vec::new(),
            };
            scope.spawn(move || (0..steps).for_each(|at| player.step(id * steps + at)));
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.corrupt, 0, "{stats:?}");
    assert!(
        stats.segments_reclaimed > 0 && stats.inserts > 0,
        "{stats:?}"
    );
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);
    drop(cache);
    // All threads are gone, the flusher's too, so that the folder is free.
    let cache = props.open();
    for number in 0..KEYS {
        if let Lookup::Hit(entry) = cache.lookup(&key(number), NOW) {
            verify(number, &entry);
        }
    }
}
