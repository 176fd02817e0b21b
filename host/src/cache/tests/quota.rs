//! What makes room for what, and that the disk never holds more than was allowed.

use super::*;

#[test]
fn the_number_of_entries_is_bounded_also_when_it_is_lowered() {
    let mut props = Props::new();
    let entries = |props: &Props, max| {
        let cache = props.open();
        let there = (0..200).filter(|n| cache.contains(&key(*n), NOW)).count() as u64;
        assert_eq!(cache.stats().entries, there);
        assert!((max / 2..=max).contains(&there), "{there} of {max}");
    };
    props.options.entries_max = 48;
    let cache = props.open();
    for number in 0..200 {
        put(&cache, number, 0, 10);
        assert!(cache.stats().entries <= 48);
        assert_eq!(version(&cache, number), Some(0));
    }
    assert!(cache.stats().evictions >= 152);
    drop(cache);
    entries(&props, 48);
    // Even where that is less than a segment holds, there is always room for the next one.
    props.options.entries_max = 24;
    entries(&props, 24);
    props.options.entries_max = 1;
    let cache = props.open();
    for number in 0..20 {
        put(&cache, number, 0, 10);
        assert_eq!(version(&cache, number), Some(0));
        assert_eq!(cache.stats().entries, 1);
    }
}

#[test]
fn the_quota_is_kept_the_oldest_goes_and_the_newest_stays() {
    let props = Props::new();
    let quota = props.options.disk_bytes_max;
    let on_disk = || -> u64 {
        let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
        props.segments().iter().map(length).sum()
    };
    let cache = props.open();
    let count = 10 * quota / 4096;
    for number in 0..count {
        put(&cache, number, 0, 4000);
        assert_eq!(version(&cache, number), Some(0));
        if number % 16 == 0 {
            assert!(on_disk() <= quota);
            assert!(cache.stats().disk_bytes <= quota);
        }
    }
    let stats = cache.stats();
    assert!(stats.segments_reclaimed > 60, "{stats:?}");
    assert!(stats.healthy && stats.inserts_in_memory == 0, "{stats:?}");
    let kept = |cache: &Cache| -> Vec<u64> {
        (0..count)
            .filter(|n| version(cache, *n).is_some())
            .collect()
    };
    let before = kept(&cache);
    // Nine tenths of seven segments, less what does not fill one.
    assert!((180..=230).contains(&before.len()), "{}", before.len());
    assert_eq!(before.last(), Some(&(count - 1)));
    assert_eq!(before.first(), Some(&(count - before.len() as u64)));
    drop(cache);
    let after = kept(&props.open());
    assert_eq!(after.last(), Some(&(count - 1)));
    assert!(on_disk() <= quota);

    // A quota that was made smaller is kept from the beginning.
    let mut props = props;
    props.options.disk_bytes_max /= 2;
    let cache = props.open();
    assert!(cache.stats().disk_bytes <= props.options.disk_bytes_max);
    assert_eq!(version(&cache, count - 1), Some(0));
}

#[test]
fn a_reader_keeps_its_bytes_when_the_segment_is_reclaimed() {
    let props = Props::new();
    let cache = props.open();
    let held = put(&cache, 0, 0, 5000);
    let held_payload = held.payload();
    for number in 1..1000 {
        put(&cache, number, 0, 4000);
    }
    assert_eq!(version(&cache, 0), None);
    assert!(!props.segments()[0].ends_with("0000000000000001.seg"));
    check(&held, 0);
    let stats = cache.stats();
    assert_eq!(stats.pinned_bytes, 128 << 10);
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);

    drop(held);
    assert_eq!(cache.stats().pinned_bytes, 128 << 10);
    assert_eq!(held_payload, payload(0, 0, 5000));
    drop(held_payload);
    assert_eq!(cache.stats().pinned_bytes, 0);
}

#[test]
fn readers_that_hold_too_much_make_inserts_go_to_memory_and_not_the_disk_grow() {
    let props = Props::new();
    let cache = props.open();
    let quota = props.options.disk_bytes_max;
    let mut held = Vec::new();
    for number in 0..2000 {
        held.push(put(&cache, number, 0, 4000));
        held.truncate(300);
        assert!(cache.stats().disk_bytes <= quota);
    }
    let stats = cache.stats();
    assert!(!stats.healthy && stats.inserts_in_memory > 0, "{stats:?}");
    assert!(stats.trouble.unwrap().contains("slow readers"));
    // They do not empty the cache either.
    assert!(stats.segments >= 4, "{} segments", stats.segments);
    for (number, entry) in held.iter().enumerate() {
        check(entry, number as u64);
    }
    assert_eq!(version(&cache, 1999), Some(0));

    held.clear();
    let later = NewEntry {
        key: &key(1),
        tenant: &TENANT,
        metadata: b"1/5",
        payload: &payload(1, 5, 9),
        now_ms: NOW + RETRY_AFTER_MS,
        ttl_ms: None,
    };
    cache.insert(later).unwrap();
    assert!(cache.stats().healthy);
    assert_eq!(version(&cache, 1), Some(5));
}
