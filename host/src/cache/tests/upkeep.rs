//! Inspecting a folder, compacting it, erasing a tenant from it.

use super::*;

const OTHER: [u8; 32] = [8; 32];

fn filled(props: &Props) -> Cache {
    let cache = props.open();
    for number in 0..100 {
        put(&cache, number, 0, 4000);
    }
    for number in 0..50 {
        cache.remove(&key(number * 2));
    }
    put(&cache, 1, 1, 100);
    cache.sync().unwrap();
    cache
}

#[track_caller]
fn check_all(cache: &Cache) {
    for number in 0..100 {
        let expected = match number {
            1 => Some(1),
            _ => Some(0).filter(|_| number % 2 == 1),
        };
        assert_eq!(version(cache, number), expected, "key {number}");
    }
}

#[test]
fn a_report_tells_what_is_there_and_changes_nothing() {
    let props = Props::new();
    let cache = filled(&props);
    let error = StoreReport::of(props.data_dir()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    let stats = cache.stats();
    drop(cache);
    let before = snapshot(props.dir.path());
    let report = StoreReport::of(props.data_dir()).unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!(report.entries, stats.entries);
    assert_eq!(report.payload_bytes, stats.payload_bytes);
    // A file system may need a block to know where those of a file are.
    let own_bytes = report.disk_bytes - stats.disk_bytes;
    assert!(own_bytes <= 4096 * stats.segments, "{report:?}, {stats:?}");
    assert_eq!(report.segments.len() as u64, stats.segments);
    let tombstones: u64 = report.segments.iter().map(|s| s.tombstones).sum();
    assert_eq!(tombstones, 50);

    props.flip(FIRST_RECORD + 12_900, 1);
    let flipped = StoreReport::of(props.data_dir()).unwrap();
    assert_eq!(flipped.findings.len(), 1, "{:?}", flipped.findings);
    assert!(
        flipped.findings[0].contains("record at"),
        "{:?}",
        flipped.findings
    );
    assert_eq!(flipped.entries, report.entries - 1);
    props.flip(FIRST_RECORD + 12_900, 1);
    assert_eq!(snapshot(props.dir.path()), before);

    let empty = tempfile::tempdir().unwrap();
    let error = StoreReport::of(empty.path()).unwrap_err().to_string();
    assert!(error.contains("not a data folder"), "{error}");
}

#[test]
fn compacting_keeps_what_lives_and_frees_what_does_not() {
    let props = Props::new();
    let cache = filled(&props);
    let before = cache.stats();
    let freed = cache.compact(NOW).unwrap();
    let after = cache.stats();
    assert!(freed >= 128 << 10, "{freed}");
    assert_eq!(after.entries, before.entries);
    assert_eq!((after.dead_bytes, after.evictions), (0, 0));
    check_all(&cache);
    assert!(cache.compact(NOW).unwrap() < 128 << 10);
    drop(cache);
    let cache = props.open();
    check_all(&cache);
    drop(cache);
    assert_eq!(
        StoreReport::of(props.data_dir()).unwrap().findings,
        Vec::<String>::new()
    );
}

/// Entries of a purged tenant without a request since were taken for entries without room, and
/// compacting ended there.
#[test]
fn compacting_goes_past_what_was_purged() {
    let props = Props::new();
    let cache = filled(&props);
    for number in 0..40 {
        let new = NewEntry {
            key: &CacheKey::new("purged", &OTHER, &[number; 32]),
            tenant: &OTHER,
            metadata: b"",
            payload: &[number; 4000],
            now_ms: NOW,
            ttl_ms: None,
        };
        cache.insert(new).unwrap();
    }
    cache.purge_tenant(&OTHER).unwrap();
    assert!(cache.compact(NOW).unwrap() > 128 << 10);
    assert_eq!(cache.stats().dead_bytes, 0);
    check_all(&cache);
    drop(cache);
    check_all(&props.open());
}

#[test]
fn what_has_expired_is_kept_while_someone_may_have_a_use_for_it() {
    let mut props = Props::new();
    props.options.stale_seconds_max = 60;
    let cache = props.open();
    put_until(&cache, 1, 1, 100, Some(1000));
    let is_there = |now_ms| match cache.lookup(&key(1), now_ms) {
        Lookup::Stale(entry) => check(&entry, 1) == 1,
        Lookup::Hit(_) => panic!("it has expired"),
        Lookup::Miss => false,
    };
    let expired_ms = NOW + 1000;
    for (seconds_max, after_ms, is_kept) in [
        (60, 0, true),
        (60, 59_999, true),
        (90, 60_000, true),
        (70, 69_999, true),
        (70, 70_000, false),
    ] {
        cache.keep_expired(seconds_max);
        cache.compact(expired_ms + after_ms).unwrap();
        assert_eq!(is_there(expired_ms), is_kept, "{after_ms} ms after");
    }
}

#[test]
fn nothing_of_an_erased_tenant_stays_on_disk() {
    let props = Props::new();
    let cache = filled(&props);
    let (metadata, payload) = (b"what comes with it", b"an answer that only one may know");
    let key = |number: u8| CacheKey::new("erased", &OTHER, &[number; 32]);
    for number in 0..40 {
        let payload = [&[number; 1000][..], payload].concat();
        cache
            .insert(NewEntry {
                key: &key(number),
                tenant: &OTHER,
                metadata,
                payload: &payload,
                now_ms: NOW,
                ttl_ms: None,
            })
            .unwrap();
    }
    let everywhere = |what: &[u8]| {
        let files = snapshot(props.data_dir()).into_iter();
        let mut files = files.filter_map(|(_, bytes)| bytes);
        files.any(|bytes| bytes.windows(what.len()).any(|window| window == what))
    };
    let is_on_disk = || {
        let keys = (0..40).any(|number| everywhere(key(number).as_bytes()));
        [
            keys,
            everywhere(metadata),
            everywhere(payload),
            everywhere(&OTHER),
        ]
    };
    cache.sync().unwrap();
    assert_eq!(is_on_disk(), [true; 4]);
    cache.purge_tenant(&OTHER).unwrap();
    assert_eq!(is_on_disk(), [true; 4]);
    cache.erase_tenant(&OTHER, NOW).unwrap();
    assert_eq!(is_on_disk(), [false; 4]);
    check_all(&cache);
    drop(cache);
    let cache = props.open();
    check_all(&cache);
    // A purge that covers something is not forgotten.
    cache.purge_tenant(&TENANT).unwrap();
    drop(cache);
    let cache = props.open();
    assert_eq!(is_on_disk(), [false; 4]);
    assert!((0..100).all(|number| version(&cache, number).is_none()));
    assert!((0..40).all(|number| !cache.contains(&key(number), NOW)));
}
