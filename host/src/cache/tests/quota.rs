//! Which entries make room, and that the disk never holds more than the quota.

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
    props.options.entries_max = Some(48);
    let cache = props.open();
    for number in 0..200 {
        put(&cache, number, 0, 10);
        assert!(cache.stats().entries <= 48);
        assert_eq!(version(&cache, number), Some(0));
    }
    assert!(cache.stats().evictions >= 152);
    drop(cache);
    entries(&props, 48);
    // Even if that is less than a segment holds, the next entry always has room.
    props.options.entries_max = Some(24);
    entries(&props, 24);
    props.options.entries_max = Some(1);
    let cache = props.open();
    for number in 0..20 {
        put(&cache, number, 0, 10);
        assert_eq!(version(&cache, number), Some(0));
        assert_eq!(cache.stats().entries, 1);
    }
}

#[test]
fn without_a_bound_the_number_of_entries_follows_from_the_quota() {
    let bound = |disk_bytes_max, entries_max| {
        let options = CacheOptions {
            disk_bytes_max,
            entries_max,
            ..CacheOptions::default()
        };
        options.entries_max()
    };
    assert_eq!(bound(1 << 20, None), 1 << 20);
    assert_eq!(bound(4 << 30, None), 2 << 20);
    assert_eq!(bound(1 << 40, None), 512 << 20);
    assert_eq!(bound(1 << 40, Some(10_000_000)), 10_000_000);
    assert_eq!(bound(1 << 40, Some(0)), 1);
}

/// A scan for each reclaimed segment held the writer up for half a second at ten million entries.
#[test]
fn making_room_looks_at_the_entries_of_a_segment_and_at_no_others() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..2000 {
        put(&cache, number, 0, 4000);
        version(&cache, number / 2);
    }
    assert!(cache.stats().segments_reclaimed > 40);
    assert_eq!(cache.shared.index.scans(), 0);
    let there = (0..2000).filter(|n| cache.contains(&key(*n), NOW)).count();
    assert_eq!(cache.stats().entries, there as u64);
}

#[test]
fn the_quota_is_kept_the_oldest_goes_and_the_newest_stays() {
    let props = Props::new();
    let quota = props.options.disk_bytes_max;
    let on_disk = || -> u64 {
        // A file system may need a block to know where those of a file are.
        let space =
            |path: &PathBuf| (fs::metadata(path).unwrap().blocks() * 512).saturating_sub(4096);
        props.folder().iter().map(space).sum()
    };
    let cache = props.open();
    let count = 10 * quota / 4096;
    for number in 0..count {
        put(&cache, number, 0, 4000);
        assert!(cache.contains(&key(number), NOW));
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
            .filter(|n| cache.contains(&key(*n), NOW))
            .collect()
    };
    let before = kept(&cache);
    // Seven segments, less the room that is kept for another one.
    assert!((150..=230).contains(&before.len()), "{}", before.len());
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

/// The entry as it is on disk.
fn put_and_find(cache: &Cache, number: u64, length: usize) -> Entry {
    put(cache, number, 0, length);
    match cache.lookup(&key(number), NOW) {
        Lookup::Hit(entry) => entry,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_keeps_its_bytes_when_the_segment_is_reclaimed() {
    let props = Props::new();
    let cache = props.open();
    let held = put_and_find(&cache, 0, 5000);
    let held_payload = held.payload();
    for number in 1..1000 {
        put(&cache, number, 0, 4000);
    }
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
        held.push(put_and_find(&cache, number, 4000));
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
    assert_eq!(version_at(&cache, 1, NOW + RETRY_AFTER_MS), Some(5));
}

#[test]
fn what_was_hit_outlives_what_was_not() {
    let props = Props::new();
    let cache = props.open();
    // Fewer than half a segment.
    const HOT: u64 = 10;
    for number in 0..HOT {
        put(&cache, number, 0, 4000);
    }
    for number in HOT..2000 {
        put(&cache, number, 0, 4000);
        version(&cache, number % HOT);
    }
    for number in 0..HOT {
        assert_eq!(version(&cache, number), Some(0), "key {number}");
    }
    let stats = cache.stats();
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);
    // Over restarts too, until other entries are hit and they are not.
    drop(cache);
    let cache = props.open();
    for number in 0..HOT {
        assert!(cache.contains(&key(number), NOW), "key {number}");
    }
    for number in 2000..4000 {
        put(&cache, number, 0, 4000);
        version(&cache, number);
    }
    for number in 0..HOT {
        assert!(!cache.contains(&key(number), NOW), "key {number}");
    }
}

#[test]
fn even_when_everything_was_hit_room_is_made() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..2000 {
        put(&cache, number, 0, 4000);
        for before in number.saturating_sub(200)..=number {
            version(&cache, before);
        }
        assert!(cache.stats().disk_bytes <= props.options.disk_bytes_max);
    }
    let stats = cache.stats();
    assert!(stats.healthy && stats.inserts_in_memory == 0, "{stats:?}");
    let there = (0..2000).filter(|n| cache.contains(&key(*n), NOW));
    assert!(there.count() > 130);
}

#[test]
fn what_is_mostly_dead_goes_first_and_what_lives_in_it_stays() {
    let props = Props::new();
    let cache = props.open();
    const OLD: u64 = 31;
    // One segment that lives and is never asked for, then the same few keys over and over.
    for number in 0..OLD {
        put(&cache, number, 0, 4000);
    }
    for round in 0..100 {
        for number in 100..120 {
            put(&cache, number, round, 4000);
        }
        if round % 10 == 0 {
            put(&cache, 1000 + round / 10, 0, 4000);
            cache.sync().unwrap();
        }
    }
    let check = |cache: &Cache| {
        for number in (0..OLD).chain(1000..1010) {
            assert_eq!(version(cache, number), Some(0), "key {number}");
        }
        for number in 100..120 {
            assert_eq!(version(cache, number), Some(99), "key {number}");
        }
    };
    let stats = cache.stats();
    assert_eq!(stats.evictions, 0, "{stats:?}");
    assert!(stats.segments_reclaimed > 40, "{stats:?}");
    check(&cache);
    drop(cache);
    check(&props.open());
}

/// A tombstone brings no time, so no entry counted as expired: expired entries were written again.
#[test]
fn tombstones_alone_keep_nothing_that_has_expired() {
    /// Header, metadata and payload, to the next multiple of 16.
    const RECORD: usize = 4128;
    /// So many are in a segment. At least one segment goes.
    const EACH: usize = ((128 << 10) - FIRST_RECORD as usize) / RECORD;
    /// The last four segments of as many as have room: they are in the small log, which makes room first.
    const EXPIRING: Range<u64> = 120..240;
    let props = Props::new();
    for is_reopened in [false, true] {
        let mut cache = props.open();
        cache.purge_all().unwrap();
        for number in 0..EXPIRING.end {
            let ttl = EXPIRING.contains(&number).then_some(1);
            put_until(&cache, number, 0, 4000, ttl);
            version(&cache, number);
        }
        make_all_room(&cache);
        // Time goes on.
        let new = NewEntry {
            key: &key(1000),
            tenant: &TENANT,
            metadata: b"1000/0",
            payload: &payload(1000, 0, 10),
            now_ms: NOW + 5000,
            ttl_ms: None,
        };
        cache.insert(new).unwrap();
        if is_reopened {
            drop(cache);
            cache = props.open();
        }
        // Each of these lookups counts, so that the policy would keep what has not expired.
        let expired = |cache: &Cache| {
            let is_there = |n: &u64| matches!(cache.lookup(&key(*n), NOW + 5000), Lookup::Stale(_));
            EXPIRING.filter(is_there).count()
        };
        let reclaimed = |cache: &Cache| cache.stats().segments_reclaimed;
        let (before, reclaimed_before) = (expired(&cache), reclaimed(&cache));
        let tombstones = (5000..15_000).take_while(|number| {
            let mut writer = cache.shared.writer().unwrap();
            let key = key(*number);
            let tombstone = NewRecord::tombstone(key.as_bytes());
            writer.store.append(&tombstone).unwrap();
            drop(writer);
            reclaimed(&cache) == reclaimed_before
        });
        assert!(tombstones.count() < 10_000, "no room was made");
        make_all_room(&cache);
        let left = expired(&cache);
        assert!(left + EACH <= before, "{left} are left of {before}");
    }
}

/// As the writer thread does when nothing waits to be written.
fn make_all_room(cache: &Cache) {
    while cache.shared.writer().unwrap().store.make_some_room() {}
}
