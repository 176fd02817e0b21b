//! A cache with a healthy disk, over restarts, and one in memory.

use super::*;

#[test]
fn an_entry_is_found_as_it_was_stored_until_it_expires() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        assert!(matches!(cache.lookup(&key(1), NOW), Lookup::Miss));
        let stored = put_until(&cache, 1, 0, 5000, Some(10_500));
        for entry in [stored, put_until(&cache, 1, 0, 5000, Some(10_500))] {
            check(&entry, 1);
            assert_eq!(entry.stored_at_ms(), NOW);
            assert_eq!(entry.expires_at_ms(), Some(NOW + 10_500));
        }

        for (after_ms, is_hit, age, ttl) in [
            (0, true, 0, 10),
            (999, true, 0, 9),
            (1000, true, 1, 9),
            (10_499, true, 10, 0),
            (10_500, false, 10, 0),
            (99_999, false, 99, 0),
        ] {
            let now = NOW + after_ms;
            assert_eq!(cache.contains(&key(1), now), is_hit, "{after_ms}");
            let entry = match cache.lookup(&key(1), now) {
                Lookup::Hit(entry) if is_hit => entry,
                Lookup::Stale(entry) if !is_hit => entry,
                other => panic!("{after_ms}: {other:?}"),
            };
            assert_eq!(entry.age_seconds(now), age, "{after_ms}");
            assert_eq!(entry.ttl_seconds(now), Some(ttl), "{after_ms}");
        }

        let for_ever = put(&cache, 2, 0, 0);
        assert_eq!(for_ever.expires_at_ms(), None);
        assert_eq!(for_ever.ttl_seconds(u64::MAX - 1), None);
        assert!(cache.contains(&key(2), u64::MAX - 1));
        // A clock that was set back does no harm.
        assert_eq!(for_ever.age_seconds(NOW - 1), 0);
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_older_entry_stays() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        put(&cache, 1, 0, 10);
        let max = props.options.entry_bytes_max;
        let try_put = |metadata: usize, payload: u64| {
            cache
                .insert(NewEntry {
                    key: &key(1),
                    tenant: &TENANT,
                    metadata: &vec![0; metadata],
                    payload: &vec![0; payload as usize],
                    now_ms: NOW,
                    ttl_ms: None,
                })
                .map(|_| ())
        };
        let too_long = METADATA_BYTES_MAX as u64;
        assert_eq!(try_put(0, max + 1), Err(InsertError::PayloadTooLarge(max)));
        assert_eq!(
            try_put(METADATA_BYTES_MAX + 1, 0),
            Err(InsertError::MetadataTooLarge(too_long))
        );
        assert_eq!(version(&cache, 1), Some(0));
        assert_eq!(try_put(METADATA_BYTES_MAX, max), Ok(()));
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused_in_one_line() {
    for (disk, entry, segment, ok) in [
        (4 << 30, 16 << 20, 64 << 20, true),
        (40 << 20, 16 << 20, 64 << 20, true),
        (32 << 20, 16 << 20, 64 << 20, false),
        (0, 0, 0, false),
        (u64::MAX, u64::MAX, u64::MAX, false),
        (u64::MAX, 1 << 20, 1 << 40, false),
        (1 << 20, 1 << 10, 0, true),
    ] {
        let options = CacheOptions {
            disk_bytes_max: disk,
            entry_bytes_max: entry,
            segment_bytes: segment,
            ..CacheOptions::default()
        };
        match options.store() {
            Ok(store) => {
                assert!(ok, "{options:?}");
                assert!(store.segment_bytes * 2 <= store.quota);
            }
            Err(error) => {
                assert!(!ok, "{options:?}: {error}");
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
}

#[test]
fn reopening_keeps_entries_the_newest_wins_and_the_removed_stay_removed() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..6 {
        put(&cache, number, 0, 100 * number as usize);
    }
    put(&cache, 1, 1, 50);
    assert!(cache.remove(&key(2)));
    assert!(!cache.remove(&key(2)));
    cache.remove(&key(3));
    put(&cache, 3, 2, 70);
    put_until(&cache, 4, 3, 10, Some(0));
    cache.sync().unwrap();
    drop(cache);

    let expected = [Some(0), Some(1), None, Some(2), None, Some(0)];
    for _ in 0..3 {
        let cache = props.open();
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(version(&cache, number as u64), *expected, "key {number}");
        }
        // The sequence goes on, so that new records supersede older ones.
        let stats = cache.stats();
        assert_eq!((stats.corrupt, stats.segments), (0, 1));
        assert_eq!(stats.entries, 5);
    }
    let cache = props.open();
    put(&cache, 1, 4, 10);
    drop(cache);
    assert_eq!(version(&props.open(), 1), Some(4));
}

#[test]
fn a_cache_in_memory_stays_within_its_bytes() {
    let props = Props::new();
    let cache = Cache::in_memory(&props.options);
    for number in 0..2000 {
        put(&cache, number, 0, 4000);
    }
    let stats = cache.stats();
    assert!(stats.payload_bytes <= props.options.memory_bytes_max);
    assert!(stats.entries > 200 && stats.evictions > 1700, "{stats:?}");
    assert!(stats.healthy && stats.inserts_in_memory == 0 && stats.disk_bytes == 0);
    assert_eq!(version(&cache, 1999), Some(0));
    assert!(cache.remove(&key(1999)) && !cache.remove(&key(1999)));
    assert!(cache.sync().is_ok());
    assert!(!props.data_dir().exists());
}

/// `contains` went through `lookup`, and so kept entries without real uses.
#[test]
fn contains_is_no_use_of_an_entry() {
    let props = Props::new();
    let hits = |cache: &Cache| {
        let index = &cache.shared.index;
        index.find(key(1).as_bytes(), |place| place.hits()).unwrap()
    };
    let cache = props.open();
    put(&cache, 1, 0, 10);
    for _ in 0..5 {
        assert!(cache.contains(&key(1), NOW));
    }
    assert_eq!(hits(&cache), 0);
    version(&cache, 1);
    assert_eq!(hits(&cache), 1);
}

/// The bound was enforced every 64 entries, each of which may have 16 MiB.
#[test]
fn a_cache_in_memory_stays_within_its_bytes_at_each_moment() {
    let props = Props::new();
    for length in [0, 100, 16 << 10] {
        let cache = Cache::in_memory(&props.options);
        for number in 0..300 {
            put(&cache, number, 0, length);
            let bytes = cache.shared.memory.record_bytes();
            assert!(bytes <= props.options.memory_bytes_max, "{bytes} bytes");
            assert_eq!(version(&cache, number), Some(0));
        }
    }
    // And when many come at once.
    let cache = Cache::in_memory(&props.options);
    thread::scope(|scope| {
        for first in [0, 1000, 2000, 3000] {
            let cache = &cache;
            scope.spawn(move || {
                for number in first..first + 500 {
                    put(cache, number, 0, 16 << 10);
                }
            });
        }
    });
    put(&cache, 1, 0, 16 << 10);
    assert!(cache.shared.memory.record_bytes() <= props.options.memory_bytes_max);
}

/// An entry stored while the clock was ahead had an age of 0. It outlived its rule by the amount
/// by which the clock was set back.
#[test]
fn an_entry_from_the_future_is_no_answer() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        put_until(&cache, 1, 0, 10, Some(1000));
        put_until(&cache, 2, 0, 10, None);
        for number in [1, 2] {
            let found = |now_ms| cache.lookup(&key(number), now_ms);
            assert!(matches!(found(NOW), Lookup::Hit(_)));
            assert!(matches!(found(NOW + 999), Lookup::Hit(_)));
            // An entry from the future is a miss.
            assert!(matches!(found(NOW - 1), Lookup::Miss));
            assert!(matches!(found(0), Lookup::Miss));
            assert!(!cache.contains(&key(number), NOW - 1));
            assert!(!cache.may_contain(&key(number), NOW - 1));
            let now = cache.lookup_now(&key(number), NOW - 1);
            assert!(matches!(now, Some(Lookup::Miss)));
            // The clock may be put right.
            assert!(matches!(found(NOW), Lookup::Hit(_)));
        }
        let stale = cache.lookup(&key(1), NOW + 1000);
        assert!(matches!(stale, Lookup::Stale(entry) if entry.is_expired(NOW - 1)));
    }
}
