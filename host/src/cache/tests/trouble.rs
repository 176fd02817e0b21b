//! A disk that fails while the cache runs.

use super::*;
use std::sync::atomic::AtomicBool;

#[test]
fn a_disk_in_trouble_means_memory_and_back_again_without_a_restart() {
    #[track_caller]
    fn check(props: &Props, fault: &AtomicBool) {
        let cache = props.open();
        for number in 1..4 {
            put(&cache, number, 0, 10);
        }
        fault.store(true, Relaxed);
        // Enough to need another segment.
        for number in 100..140 {
            put(&cache, number, 0, 4000);
            assert_eq!(version(&cache, number), Some(0));
        }
        assert_eq!(version(&cache, 1), Some(0));
        put(&cache, 1, 1, 10);
        assert_eq!(version(&cache, 1), Some(1));
        put(&cache, 3, 1, 10);
        let stats = cache.stats();
        assert!(!stats.healthy && stats.trouble.is_some());
        assert!(stats.inserts_in_memory > 0);

        // Within the second, the disk is not tried.
        let tries = props.faults.tries.load(Relaxed);
        put(&cache, 140, 0, 4000);
        assert_eq!(props.faults.tries.load(Relaxed), tries);
        assert_eq!(cache.stats().store_errors, stats.store_errors);

        // Memory stays bounded for any time.
        for number in 200..600 {
            put(&cache, number, 0, 4000);
        }
        cache.shared.memory.settle();
        assert!(cache.stats().payload_bytes <= 2 << 20);
        assert!(cache.shared.memory.len() <= (1 << 20) / 4096);
        assert_eq!(version(&cache, 599), Some(0));
        // A removal cannot be written either, but holds for as long as the process lives.
        assert!(cache.remove(&key(599)) && cache.remove(&key(2)));
        assert_eq!(version(&cache, 599), None);

        fault.store(false, Relaxed);
        let now_ms = NOW + RETRY_AFTER_MS;
        let new = NewEntry {
            key: &key(1),
            tenant: &TENANT,
            metadata: b"1/2",
            payload: &payload(1, 2, 100),
            now_ms,
            ttl_ms: None,
        };
        cache.insert(new).unwrap();
        let stats = cache.stats();
        assert!(stats.healthy && stats.trouble.is_none());
        assert_eq!(version_at(&cache, 1, now_ms), Some(2));
        // Or it would be found there once the newer one is evicted.
        assert!(cache.shared.memory.peek(key(1).as_bytes()).is_none());
        drop(cache);
        let cache = props.open();
        assert_eq!(version_at(&cache, 1, now_ms), Some(2));
        // An entry on disk that was removed, or superseded in memory, does not come back.
        assert_eq!(version(&cache, 2), None);
        assert_eq!(version(&cache, 3), None);
        for number in 100..600 {
            let found = version(&cache, number);
            assert!(found.is_none() || found == Some(0));
        }
    }

    let props = Props::new();
    check(&props, &props.faults.is_full);
    let props = Props::new();
    check(&props, &props.faults.tears_writes);
}

#[test]
fn files_that_cannot_be_removed_do_not_let_the_disk_grow() {
    let props = Props::new();
    let cache = props.open();
    props.faults.keeps_files.store(true, Relaxed);
    for number in 0..1000 {
        put(&cache, number, 0, 4000);
    }
    let stats = cache.stats();
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);
    assert!(stats.trouble.unwrap().contains("cannot remove"));
    // Entries on disk are still served.
    assert_eq!(version(&cache, 200), Some(0));
    assert_eq!(version(&cache, 999), Some(0));
}

#[test]
fn after_a_failed_sync_nothing_more_is_written_to_that_segment() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.sync().is_err());
    assert!(!cache.stats().healthy);
    // It is not tried again, and nothing else is to be synced.
    assert!(cache.sync().is_ok());
    assert_eq!(version(&cache, 1), Some(0));

    props.faults.fails_syncs.store(false, Relaxed);
    put(&cache, 2, 0, 10);
    assert_eq!(cache.stats().segments, 2);
    assert!(cache.stats().healthy);
    assert!(cache.sync().is_ok());
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(0));
    assert_eq!(version(&cache, 2), Some(0));
}

/// While the disk was in trouble, 10,000 removed or superseded keys were remembered, including new
/// keys that were never on disk. Entries of further keys came back with the next start. Later, 65,536
/// keys were remembered, and with more of them everything on disk was given up.
#[test]
fn however_much_is_superseded_in_trouble_that_is_gone_and_nothing_else() {
    let mut props = Props::new();
    props.options.disk_bytes_max = 64 << 20;
    props.options.memory_bytes_max = 64 << 20;
    const KEYS: u64 = 70_000;
    let cache = props.open();
    for number in 0..KEYS {
        put(&cache, number, 0, 10);
    }
    props.faults.is_full.store(true, Relaxed);
    props.faults.tears_writes.store(true, Relaxed);
    for number in 0..KEYS - 10 {
        put(&cache, KEYS + number, 0, 10);
    }
    assert_eq!(version(&cache, 0), Some(0));
    for number in 0..KEYS - 10 {
        cache.remove(&key(number));
    }
    props.faults.is_full.store(false, Relaxed);
    props.faults.tears_writes.store(false, Relaxed);
    let check = |cache: &Cache| {
        for number in 0..KEYS - 10 {
            assert!(!cache.contains(&key(number), NOW), "key {number}");
        }
        for number in KEYS - 10..KEYS {
            assert_eq!(version(cache, number), Some(0));
        }
    };
    check(&cache);
    cache.sync().unwrap();
    check(&cache);
    drop(cache);
    let cache = props.open();
    check(&cache);
    put(&cache, 1, 1, 10);
    assert_eq!(version(&cache, 1), Some(1));
}

/// A disk that takes a part of the owed tombstones and fails again: the rest is still owed.
#[test]
fn what_is_owed_is_written_as_far_as_the_disk_goes() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..50 {
        put(&cache, number, 0, 10);
    }
    props.faults.tears_writes.store(true, Relaxed);
    put(&cache, 100, 0, 10);
    for number in 0..40 {
        assert!(cache.remove(&key(number)));
    }
    for writes in [0, 7, 1, 40] {
        props.faults.writes_until_torn.store(writes, Relaxed);
        props.faults.tears_writes.store(writes < 40, Relaxed);
        assert_eq!(cache.sync().is_ok(), writes == 40, "{writes}");
    }
    drop(cache);
    let cache = props.open();
    assert!((0..40).all(|number| !cache.contains(&key(number), NOW)));
    assert!((40..50).all(|number| version(&cache, number) == Some(0)));
}
