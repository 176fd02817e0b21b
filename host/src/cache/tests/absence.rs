//! A disk that cannot be used when the cache is opened, and can be later.

use super::*;

const OTHER: [u8; 32] = [8; 32];

fn open(props: &Props) -> Cache {
    let faults = Arc::clone(&props.faults);
    let disk = Arc::new(FaultDisk { faults });
    let error = Cache::open_on(Arc::clone(&disk) as _, &props.options).unwrap_err();
    Cache::without_disk(disk, &props.options, error).unwrap()
}

fn key_of_other(number: u64) -> CacheKey {
    CacheKey::new("test", &OTHER, &[number as u8; 32])
}

fn put_other(cache: &Cache, number: u64) {
    let new = NewEntry {
        key: &key_of_other(number),
        tenant: &OTHER,
        metadata: b"",
        payload: b"other",
        now_ms: NOW,
        ttl_ms: None,
    };
    cache.insert(new).unwrap();
}

/// A folder with entries, and a cache that cannot use it.
fn absent(entries: u64) -> (Props, Cache) {
    let mut props = Props::new();
    props.options.disk_bytes_max = 64 << 20;
    props.options.memory_bytes_max = 64 << 20;
    let cache = props.open();
    for number in 0..entries {
        put(&cache, number, 0, 100);
        if number < 10 {
            put_other(&cache, number);
        }
    }
    cache.sync().unwrap();
    drop(cache);
    props.faults.is_read_only.store(true, Relaxed);
    let cache = open(&props);
    let stats = cache.stats();
    assert!(!stats.healthy && stats.trouble.unwrap().contains("cannot"));
    (props, cache)
}

fn has_other(cache: &Cache, number: u64) -> bool {
    cache.contains(&key_of_other(number), NOW)
}

#[test]
fn a_disk_that_comes_late_is_used_and_has_missed_nothing() {
    let (props, cache) = absent(20);
    assert_eq!(version(&cache, 0), None);
    put(&cache, 1, 1, 100);
    cache.remove(&key(2));
    put(&cache, 3, 1, 100);
    cache.remove(&key(3));
    put(&cache, 50, 0, 100);
    put_other(&cache, 11);
    assert!(cache.purge_tenant(&OTHER).is_err(), "it is not durable yet");
    put_other(&cache, 12);

    assert!(cache.sync().is_err());

    cache.shared.try_disk();
    assert!(!cache.stats().healthy);
    assert_eq!(version(&cache, 0), None);

    // Changes that cannot be made durable keep the folder from being used.
    props.faults.is_read_only.store(false, Relaxed);
    props.faults.fails_syncs.store(true, Relaxed);
    cache.shared.try_disk();
    assert!(!cache.stats().healthy);
    assert_eq!(version(&cache, 1), Some(1));

    props.faults.fails_syncs.store(false, Relaxed);
    cache.shared.try_disk();
    let stats = cache.stats();
    assert!(stats.healthy && stats.trouble.is_none(), "{stats:?}");
    let check = |cache: &Cache| {
        assert_eq!(version(cache, 0), Some(0));
        assert_eq!(version(cache, 1), Some(1));
        assert_eq!(version(cache, 2), None);
        assert_eq!(version(cache, 3), None);
        assert_eq!(version(cache, 50), Some(0));
        assert!((0..12).all(|number| !has_other(cache, number)));
    };
    check(&cache);
    assert!(has_other(&cache, 12));
    assert_eq!(cache.shared.memory.len(), 0, "the disk has them now");
    // From now on it is a cache like any other.
    put(&cache, 51, 0, 100);
    assert!(cache.remove(&key(4)));
    assert!(cache.purge_tenant(&OTHER).is_ok());
    assert!(!has_other(&cache, 12));
    put_other(&cache, 13);
    cache.sync().unwrap();
    drop(cache);
    let cache = props.open();
    check(&cache);
    assert_eq!(version(&cache, 51), Some(0));
    assert_eq!(version(&cache, 4), None);
    assert!(has_other(&cache, 13));
}

#[test]
fn a_purge_of_everything_is_not_forgotten_until_the_disk_comes() {
    let (props, cache) = absent(20);
    put(&cache, 1, 1, 100);
    assert!(cache.purge_all().is_err());
    put(&cache, 2, 1, 100);
    props.faults.is_read_only.store(false, Relaxed);
    cache.shared.try_disk();
    assert!(cache.stats().healthy);
    let found = |cache: &Cache| {
        (0..20)
            .filter(|number| version(cache, *number).is_some())
            .count()
    };
    assert_eq!(found(&cache), 1);
    assert_eq!(version(&cache, 2), Some(1));
    drop(cache);
    let cache = props.open();
    assert_eq!(found(&cache), 1);
    assert_eq!(version(&cache, 2), Some(1));
}

/// More changes than are remembered key by key. Everything on disk used to be given up.
#[test]
fn however_much_the_disk_misses_that_is_gone_and_nothing_else() {
    let (props, cache) = absent(100);
    for number in (0..50).chain(100..70_000) {
        put(&cache, number, 1, 1);
    }
    for number in 50..60 {
        cache.remove(&key(number));
    }
    props.faults.is_read_only.store(false, Relaxed);
    cache.shared.try_disk();
    assert!(cache.stats().healthy);
    let check = |cache: &Cache| {
        assert!((0..60).all(|number| version(cache, number) != Some(0)));
        assert!((50..60).all(|number| version(cache, number).is_none()));
        assert!((60..100).all(|number| version(cache, number) == Some(0)));
        assert!((0..10).all(|number| has_other(cache, number)));
    };
    check(&cache);
    put(&cache, 1, 2, 100);
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(2));
    assert!((2..50).all(|number| version(&cache, number) == Some(1)));
    check(&cache);
}

/// An unreadable part of the disk may hold any of the keys that are only in the filter.
#[test]
fn a_disk_that_cannot_be_read_and_has_missed_too_much_is_given_up() {
    let (props, cache) = absent(100);
    for number in 0..70_000 {
        put(&cache, 1000 + number, 1, 1);
    }
    props.faults.bad_block.store(1, Relaxed);
    props.faults.is_read_only.store(false, Relaxed);
    cache.shared.try_disk();
    assert!(cache.stats().healthy);
    drop(cache);
    props.faults.bad_block.store(0, Relaxed);
    let cache = props.open();
    assert!((0..100).all(|number| version(&cache, number).is_none()));
}

#[cfg(not(shuttle))]
#[test]
fn what_is_stored_while_the_disk_comes_is_found() {
    const KEYS: u64 = 200;
    for _ in 0..20 {
        let (props, cache) = absent(KEYS);
        let storing = |first: u64| {
            let cache = cache.clone();
            move || {
                for number in (first..KEYS).step_by(2) {
                    put(&cache, number, 1, 100);
                    assert_eq!(version(&cache, number), Some(1));
                }
            }
        };
        thread::scope(|scope| {
            for first in 0..2 {
                scope.spawn(storing(first));
            }
            props.faults.is_read_only.store(false, Relaxed);
            cache.shared.try_disk();
        });
        assert!(cache.stats().healthy);
        assert!((0..KEYS).all(|number| version(&cache, number) == Some(1)));
        drop(cache);
        let cache = props.open();
        assert!((0..KEYS).all(|number| version(&cache, number) == Some(1)));
    }
}

#[test]
fn a_quota_without_room_for_an_entry_means_memory() {
    let mut props = Props::new();
    props.options.disk_bytes_max = 4096;
    assert!(matches!(props.try_open(), Err(OpenError::Quota(_))));
    let cache = Cache::open_even_without_disk(&props.options).unwrap();
    put(&cache, 1, 0, 10_000);
    assert_eq!(version(&cache, 1), Some(0));
    let stats = cache.stats();
    assert!(!stats.healthy && stats.trouble.unwrap().contains("disk_bytes_max"));
    assert!(!cache.shared.is_disk_awaited() && !props.data_dir().exists());
}

/// An error that an operator has to fix refuses the folder: the cache does not go on without it.
#[test]
fn a_folder_of_another_program_is_an_error() {
    let props = Props::new();
    fs::create_dir(props.data_dir()).unwrap();
    fs::write(props.data_dir().join("thesis.txt"), "irreplaceable").unwrap();
    let opened = Cache::open_even_without_disk(&props.options);
    assert!(matches!(opened, Err(OpenError::Foreign(..))));
}

/// A daemon with ten million entries answered nothing for the twenty seconds that reading them took.
#[test]
fn a_folder_that_takes_long_to_read_is_used_once_it_is_read() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..4 {
        put(&cache, number, 0, 100);
    }
    cache.sync().unwrap();
    drop(cache);

    props.faults.reads.close();
    let faults = Arc::clone(&props.faults);
    let disk = Arc::new(FaultDisk { faults });
    let cache = Cache::open_within(disk, &props.options, Duration::from_millis(1)).unwrap();
    cache.shared.try_disk();
    let stats = cache.stats();
    assert!(!stats.healthy && stats.trouble.unwrap().contains("still being read"));
    assert_eq!(stats.store_errors, 0);
    assert_eq!(version(&cache, 0), None);
    put(&cache, 1, 1, 100);
    assert_eq!(version(&cache, 1), Some(1));
    cache.remove(&key(2));

    props.faults.reads.open();
    while !cache.stats().healthy {
        cache.shared.try_disk();
        thread::yield_now();
    }
    let found = |cache: &Cache| [0, 1, 2, 3].map(|number| version(cache, number));
    assert_eq!(found(&cache), [Some(0), Some(1), None, Some(0)]);
    put(&cache, 2, 2, 100);
    drop(cache);
    assert_eq!(found(&props.open()), [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn a_folder_that_an_operator_has_to_see_to_is_an_error_as_before() {
    let props = Props::new();
    let _owner = props.open();
    let faults = Arc::clone(&props.faults);
    let disk = Arc::new(FaultDisk { faults });
    let opened = Cache::open_within(disk, &props.options, Duration::from_secs(60));
    assert!(matches!(opened, Err(OpenError::Locked(_))));
}
