//! Purging a tenant, or all tenants: at once, for good, and no other tenant.

use super::*;

const OTHER: [u8; 32] = [8; 32];

fn put_for(cache: &Cache, tenant: [u8; 32], number: u64, version: u64) {
    cache
        .insert(NewEntry {
            key: &key_of(tenant, number),
            tenant: &tenant,
            metadata: b"",
            payload: &version.to_le_bytes(),
            now_ms: NOW,
            ttl_ms: None,
        })
        .unwrap();
}

fn key_of(tenant: [u8; 32], number: u64) -> CacheKey {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    CacheKey::new("purge", &tenant, &digest)
}

/// How many of ten entries are there of a tenant, all of them of `version`.
#[track_caller]
fn found(cache: &Cache, tenant: [u8; 32], version: u64) -> usize {
    let found = (0..10).filter_map(|n| match cache.lookup(&key_of(tenant, n), NOW) {
        Lookup::Hit(entry) => Some(entry),
        _ => None,
    });
    found
        .inspect(|entry| assert_eq!(entry.payload(), version.to_le_bytes()[..]))
        .count()
}

fn put_ten(cache: &Cache, tenant: [u8; 32], version: u64) {
    for number in 0..10 {
        put_for(cache, tenant, number, version);
    }
}

#[test]
fn a_tenant_is_purged_at_once_and_for_good_and_others_are_not() {
    let props = Props::new();
    let cache = props.open();
    put_ten(&cache, TENANT, 1);
    put_ten(&cache, OTHER, 1);
    cache.purge_tenant(&TENANT).unwrap();
    assert_eq!(found(&cache, TENANT, 1), 0);
    assert!(!cache.contains(&key_of(TENANT, 0), NOW));
    assert_eq!(found(&cache, OTHER, 1), 10);
    drop(cache);
    let cache = props.open();
    assert_eq!(found(&cache, TENANT, 1), 0);
    assert_eq!(found(&cache, OTHER, 1), 10);

    // Later entries are found, over restarts too, and can be purged again.
    put_ten(&cache, TENANT, 2);
    assert_eq!(found(&cache, TENANT, 2), 10);
    drop(cache);
    let cache = props.open();
    assert_eq!(found(&cache, TENANT, 2), 10);
    cache.purge_tenant(&TENANT).unwrap();
    cache.purge_tenant(&TENANT).unwrap();
    drop(cache);
    let cache = props.open();
    assert_eq!(found(&cache, TENANT, 2), 0);
    assert_eq!(found(&cache, OTHER, 1), 10);
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn everything_is_purged_and_its_files_are_gone() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..100 {
        put(&cache, number, 0, 4000);
    }
    put_ten(&cache, OTHER, 1);
    let Lookup::Hit(held) = cache.lookup(&key(99), NOW) else {
        panic!("just stored")
    };
    assert!(props.segments().len() > 2);
    cache.purge_all().unwrap();
    assert_eq!(props.segments().len(), 0);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.payload_bytes), (0, 0), "{stats:?}");
    assert_eq!(stats.segments, 0);
    assert!(
        (4000..=128 << 10).contains(&stats.pinned_bytes),
        "{stats:?}"
    );
    assert_eq!(found(&cache, OTHER, 1), 0);
    check(&held, 99);
    put_ten(&cache, OTHER, 2);
    put(&cache, 1, 3, 10);
    assert_eq!(found(&cache, OTHER, 2), 10);
    drop((cache, held));
    let cache = props.open();
    assert_eq!(found(&cache, OTHER, 2), 10);
    assert_eq!(version(&cache, 1), Some(3));
    assert_eq!(version(&cache, 99), None);
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn memory_is_purged_as_well() {
    let props = Props::new();
    let in_memory = Cache::in_memory(&props.options);
    let in_trouble = props.open();
    props.faults.is_full.store(true, Relaxed);
    for cache in [in_memory, in_trouble] {
        put_ten(&cache, TENANT, 1);
        put_ten(&cache, OTHER, 1);
        cache.purge_tenant(&TENANT).unwrap();
        assert_eq!(found(&cache, TENANT, 1), 0);
        assert_eq!(found(&cache, OTHER, 1), 10);
        put_ten(&cache, TENANT, 2);
        assert_eq!(found(&cache, TENANT, 2), 10);
        cache.purge_all().unwrap();
        assert_eq!(found(&cache, TENANT, 2) + found(&cache, OTHER, 1), 0);
        assert_eq!(cache.stats().entries, 0);
    }
}

#[test]
fn a_purge_that_cannot_be_written_holds_until_it_can() {
    let props = Props::new();
    let cache = props.open();
    put_ten(&cache, TENANT, 1);
    put_ten(&cache, OTHER, 1);
    cache.sync().unwrap();
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.purge_tenant(&TENANT).is_err());
    assert!(!cache.stats().healthy);
    assert_eq!(found(&cache, TENANT, 1), 0);
    assert!(cache.sync().is_err());
    props.faults.fails_syncs.store(false, Relaxed);
    cache.sync().unwrap();
    drop(cache);
    let cache = props.open();
    assert_eq!(found(&cache, TENANT, 1), 0);
    assert_eq!(found(&cache, OTHER, 1), 10);
}

/// If a restart does not find the last records, the sequence must not fall below a purge: the purge
/// would then cover new entries.
#[test]
fn what_is_lost_behind_a_purge_does_not_make_it_cover_what_comes_next() {
    let props = Props::new();
    let cache = props.open();
    put_ten(&cache, TENANT, 1);
    cache.purge_tenant(&TENANT).unwrap();
    drop(cache);
    fs::remove_file(&props.segments()[0]).unwrap();
    let cache = props.open();
    put_ten(&cache, TENANT, 2);
    drop(cache);
    assert_eq!(found(&props.open(), TENANT, 2), 10);
}

#[test]
fn a_damaged_file_of_purge_marks_costs_the_entries_and_nothing_purged_comes_back() {
    let props = Props::new();
    let cache = props.open();
    put_ten(&cache, TENANT, 1);
    put_ten(&cache, OTHER, 1);
    cache.purge_tenant(&TENANT).unwrap();
    drop(cache);
    let marks = props.data_dir().join("purge_marks");
    let whole = fs::read(&marks).unwrap();
    let mut flipped = whole.clone();
    flipped[70] ^= 1;
    for damaged in [Some(&flipped[..]), Some(&whole[..100]), Some(b""), None] {
        match damaged {
            Some(bytes) => fs::write(&marks, bytes).unwrap(),
            None => fs::remove_file(&marks).unwrap(),
        }
        let cache = props.open();
        assert_eq!(found(&cache, TENANT, 1) + found(&cache, OTHER, 1), 0);
        assert_eq!(cache.stats().corrupt, 1);
        put_ten(&cache, OTHER, 2);
        cache.sync().unwrap();
        drop(cache);
        let cache = props.open();
        assert_eq!(found(&cache, OTHER, 2), 10);
        assert_eq!(cache.stats().corrupt, 0);
    }
    let newer = sealed_again(&whole, 8);
    fs::write(&marks, newer).unwrap();
    let error = props.try_open().unwrap_err().to_string();
    assert!(error.contains("later release (format 4"), "{error}");
}

/// Each purge wrote all marks again: 2.6 MB where many tenants had been purged.
#[test]
fn a_purge_writes_as_much_however_many_there_were() {
    const TENANTS: u64 = 1500;
    let tenant = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let props = Props::new();
    let cache = props.open();
    for number in 0..TENANTS {
        put_for(&cache, tenant(number), 0, 1);
    }
    put_ten(&cache, OTHER, 1);
    let all_marks = || fs::read(props.data_dir().join("purge_marks")).unwrap();
    let mut rewritten = 0;
    let mut before = Vec::new();
    for number in 0..TENANTS {
        cache.purge_tenant(&tenant(number)).unwrap();
        let now = all_marks();
        rewritten += u64::from(number > 500 && now != before);
        before = now;
        assert_eq!(found(&cache, tenant(number), 1), 0);
    }
    assert!((1..=3).contains(&rewritten), "{rewritten} times");
    let recent = props.data_dir().join("purge_marks.recent");
    assert!(fs::metadata(&recent).unwrap().len() <= 16 << 10);
    drop(cache);

    let cache = props.open();
    assert!((0..TENANTS).all(|number| found(&cache, tenant(number), 1) == 0));
    assert_eq!(found(&cache, OTHER, 1), 10);
    // The recent purges still hold when all marks are written again.
    put_for(&cache, tenant(0), 0, 2);
    cache.purge_tenant(&tenant(1)).unwrap();
    drop(cache);
    let cache = props.open();
    assert!((1..TENANTS).all(|number| found(&cache, tenant(number), 1) == 0));
    assert_eq!(found(&cache, tenant(0), 2), 1);
    cache.purge_tenant(&tenant(0)).unwrap();
    drop(cache);

    // A file that is damaged or lost may have named any tenant.
    fs::remove_file(&recent).unwrap();
    let cache = props.open();
    assert_eq!(found(&cache, OTHER, 1), 0);
    assert_eq!(cache.stats().corrupt, 1);
    put_ten(&cache, OTHER, 2);
    drop(cache);
    assert_eq!(found(&props.open(), OTHER, 2), 10);
}

/// The files of purge marks were called `epochs` and `epochs.recent`. A folder of that time keeps its
/// purges, and a release of that time refuses the folder afterwards: it would not find them.
#[test]
fn a_folder_that_calls_its_purge_marks_epochs_is_converted_and_nothing_purged_comes_back() {
    const TENANTS: u64 = 450;
    let tenant = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
    for tenants in [3, TENANTS] {
        let props = Props::new();
        let cache = props.open();
        put_ten(&cache, OTHER, 1);
        for number in 0..tenants {
            put_for(&cache, tenant(number), 0, 1);
            cache.purge_tenant(&tenant(number)).unwrap();
        }
        drop(cache);
        let path = |name: &str| props.data_dir().join(name);
        let names = [
            "purge_marks",
            "purge_marks.recent",
            "epochs",
            "epochs.recent",
        ];
        let [marks, recent, old_marks, old_recent] = names.map(path);
        let is_many = tenants == TENANTS;
        assert_eq!(recent.exists(), is_many);
        fs::rename(&marks, &old_marks).unwrap();
        if is_many {
            fs::rename(&recent, &old_recent).unwrap();
        }
        let manifest = fs::read(path("manifest")).unwrap();
        assert_eq!(manifest[12], 2);
        let old_manifest = sealed_as(&manifest, 12, 1);
        fs::write(path("manifest"), &old_manifest).unwrap();
        let report = StoreReport::of(props.data_dir()).unwrap();
        assert_eq!((report.tenants_purged, report.findings.len()), (tenants, 0));
        let old = snapshot(props.data_dir());

        // Both before and after a crash between any two steps.
        for written in [&[][..], &[&marks], &[&marks, &recent]] {
            for (path, bytes) in &old {
                if let Some(bytes) = bytes {
                    fs::write(path, bytes).unwrap();
                }
            }
            for path in [&marks, &recent] {
                let _ = fs::remove_file(path);
            }
            for path in written {
                fs::write(path, "unfinished").unwrap();
            }
            let cache = props.open();
            assert!((0..tenants).all(|number| found(&cache, tenant(number), 1) == 0));
            assert_eq!(found(&cache, OTHER, 1), 10);
            assert_eq!(cache.stats().corrupt, 0);
            assert!(marks.exists() && !old_marks.exists() && !old_recent.exists());
            assert_eq!(fs::read(path("manifest")).unwrap(), manifest);
            drop(cache);
            let cache = props.open();
            assert!((0..tenants).all(|number| found(&cache, tenant(number), 1) == 0));
        }
        // Left by a crash before they were removed: they count for nothing.
        fs::write(&old_marks, "left over").unwrap();
        assert_eq!(found(&props.open(), OTHER, 1), 10);
        assert!(!old_marks.exists());
        // Under the former name too, marks that are lost may have named anyone.
        fs::write(path("manifest"), &old_manifest).unwrap();
        assert_eq!(found(&props.open(), OTHER, 1), 0);
    }
}

#[test]
fn purged_bytes_are_dead_at_once_and_counted_once() {
    let props = Props::new();
    let cache = props.open();
    put_ten(&cache, TENANT, 1);
    put_ten(&cache, OTHER, 1);
    let dead = || cache.stats().dead_bytes;
    let record = (HEADER_BYTES as u64 + 8).next_multiple_of(16);
    assert_eq!(dead(), 0);
    put_for(&cache, TENANT, 0, 2);
    assert_eq!(dead(), record);
    cache.purge_tenant(&TENANT).unwrap();
    assert_eq!(dead(), 11 * record);
    // A lookup takes the places out of the index; a later entry supersedes one.
    assert_eq!(found(&cache, TENANT, 1), 0);
    put_for(&cache, TENANT, 0, 3);
    cache.purge_tenant(&[9; 32]).unwrap();
    assert_eq!(dead(), 11 * record);
    cache.purge_tenant(&TENANT).unwrap();
    assert_eq!(dead(), 12 * record);
    assert_eq!(found(&cache, OTHER, 1), 10);
}
