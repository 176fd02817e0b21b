//! When entries become durable without a call of `sync`.

use super::*;
use std::sync::mpsc::{Receiver, channel};

/// A cache with a flusher, and a receiver of a message for each file synced from now on.
fn open(props: &Props) -> (Cache, Receiver<()>) {
    let mut cache = props.open();
    cache.start_flusher().unwrap();
    let (sender, receiver) = channel();
    put(&cache, 0, 0, 10);
    *props.faults.synced.lock().unwrap() = Some(sender);
    (cache, receiver)
}

fn is_clean(cache: &Cache) -> bool {
    let writer = lock(cache.shared.writer.get().unwrap());
    writer.store.is_clean()
}

#[test]
fn after_the_interval_what_was_stored_is_durable() {
    let mut props = Props::new();
    props.options.durability = Durability::Interval {
        ms: 1,
        bytes: u64::MAX,
    };
    let (cache, synced) = open(&props);
    put(&cache, 1, 0, 10);
    synced.recv().unwrap();
    while !is_clean(&cache) {
        thread::yield_now();
    }
}

#[test]
fn when_much_has_come_together_it_is_made_durable_before_the_interval() {
    let mut props = Props::new();
    props.options.durability = Durability::Interval {
        ms: u64::MAX,
        bytes: 20_000,
    };
    let (cache, synced) = open(&props);
    for number in 0..4 {
        put(&cache, number, 0, 4000);
    }
    assert!(!is_clean(&cache));
    assert!(synced.try_recv().is_err());
    put(&cache, 4, 0, 4000);
    synced.recv().unwrap();
}

#[test]
fn sealed_segments_get_their_contents_without_a_sync() {
    for durability in [
        Durability::Os,
        Durability::Interval {
            ms: u64::MAX,
            bytes: u64::MAX,
        },
    ] {
        let mut props = Props::new();
        props.options.durability = durability;
        let (cache, synced) = open(&props);
        for number in 0..40 {
            put(&cache, number, 0, 4000);
        }
        // The new segment, the sealed one, its contents.
        for _ in 0..3 {
            synced.recv().unwrap();
        }
        drop(cache);
        assert!(props.segments()[0].with_extension("idx").exists());
    }
}

#[test]
fn every_insert_and_removal_is_durable_when_it_returns() {
    let mut props = Props::new();
    props.options.durability = Durability::EveryInsert;
    let cache = props.open();
    for number in 0..50 {
        put(&cache, number, 0, 4000);
        assert!(is_clean(&cache), "entry {number}");
        cache.remove(&key(number));
        assert!(is_clean(&cache), "removal {number}");
    }
    props.faults.fails_syncs.store(true, Relaxed);
    put(&cache, 1, 1, 10);
    assert_eq!(version(&cache, 1), Some(1));
    assert!(!cache.stats().healthy);
    props.faults.fails_syncs.store(false, Relaxed);
    put(&cache, 2, 1, 10);
    assert!(cache.stats().healthy && is_clean(&cache));
}

/// Concurrent inserts wait for one sync.
#[test]
fn inserts_that_come_together_are_synced_together() {
    let mut props = Props::new();
    props.options.durability = Durability::EveryInsert;
    let cache = props.open();
    put(&cache, 0, 0, 10);
    let before = props.faults.syncs.load(Relaxed);
    const THREADS: u64 = 8;
    const EACH: u64 = 50;
    // No thread can sync before all have written once.
    let first = lock(&cache.shared.syncing);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let cache = cache.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    put(&cache, 1 + id * EACH + number, 0, 10);
                }
            });
        }
        while cache.shared.index.len() < 1 + THREADS {
            thread::yield_now();
        }
        drop(first);
    });
    let syncs = props.faults.syncs.load(Relaxed) - before;
    assert!(syncs < THREADS * EACH, "{syncs}");
    assert!(is_clean(&cache));
}

/// The flusher got the failure of its sync, and the next sync succeeded.
#[test]
fn a_flush_that_failed_is_told_to_the_next_sync() {
    let mut props = Props::new();
    props.options.durability = Durability::Interval {
        ms: u64::MAX,
        bytes: 1,
    };
    let (cache, _synced) = open(&props);
    props.faults.fails_syncs.store(true, Relaxed);
    put(&cache, 1, 0, 10);
    while cache.stats().healthy {
        thread::yield_now();
    }
    props.faults.fails_syncs.store(false, Relaxed);
    // It waits for the flusher to have come to its end.
    assert!(cache.sync().is_err());
    assert!(cache.sync().is_ok());
}
