//! A disk that hangs does not hold up lookups; inserts fail after a bounded wait.

use super::*;

const PAYLOAD: usize = 16 << 10;

/// As [`Cache::open`], on a disk with faults.
fn open(props: &Props) -> Cache {
    let mut cache = props.open();
    cache.start_flusher().unwrap();
    cache.start_writer().unwrap();
    cache
}

fn props() -> Props {
    let mut props = Props::new();
    props.options.disk_bytes_max = 256 << 20;
    props
}

fn try_put(cache: &Cache, number: u64, wait: Wait) -> Result<Entry, InsertError> {
    let (metadata, payload) = (format!("{number}/0"), payload(number, 0, PAYLOAD));
    let new = NewEntry {
        key: &key(number),
        tenant: &TENANT,
        metadata: metadata.as_bytes(),
        payload: &payload,
        now_ms: NOW,
        ttl_ms: None,
    };
    match wait {
        Wait::ForRoom => cache.insert(new),
        Wait::No => cache.insert_now(new),
    }
}

/// Puts entries in until one is refused; which one.
#[track_caller]
fn fill(cache: &Cache, first: u64) -> u64 {
    let most = QUEUE_BYTES_MAX / PAYLOAD as u64;
    let refused = (first..=first + most).find(|number| {
        let stored = try_put(cache, *number, Wait::No);
        stored.is_err_and(|error| error == InsertError::QueueFull)
    });
    refused.unwrap()
}

/// Inserts, removals, counts and lookups waited for a write that hung.
#[test]
fn a_write_that_hangs_holds_up_no_caller_and_beyond_the_bound_entries_are_refused() {
    let props = props();
    let cache = open(&props);
    for number in 0..10 {
        put(&cache, number, 0, 4000);
    }
    cache.sync().unwrap();
    props.faults.writes.close();
    put(&cache, 0, 1, 4000);
    props.faults.writes.wait_for_one();

    let refused = fill(&cache, 100);
    assert!(refused > 1000);
    assert_eq!(
        try_put(&cache, refused, Wait::No).unwrap_err(),
        InsertError::QueueFull
    );
    let stats = cache.stats();
    assert_eq!(stats.inserts_refused, 2);
    assert!(!stats.healthy && stats.trouble.unwrap().contains("slow"));
    assert!(stats.queued_bytes <= QUEUE_BYTES_MAX);
    // On disk, waiting, superseded, and refused.
    assert_eq!(version(&cache, 1), Some(0));
    assert_eq!(version(&cache, 100), Some(0));
    assert_eq!(version(&cache, 0), Some(1));
    assert_eq!(version(&cache, refused), None);
    assert!(matches!(
        cache.lookup_now(&key(100), NOW),
        Some(Lookup::Hit(_))
    ));
    // A removed entry must not be found.
    for number in [0, 2, 101] {
        assert!(cache.remove(&key(number)));
        assert!(!cache.remove(&key(number)));
        assert_eq!(version(&cache, number), None);
    }
    // Inserts that may wait fail after a while, the others at once.
    for number in [refused, refused + 1] {
        let stored = try_put(&cache, number, Wait::ForRoom);
        assert_eq!(stored.unwrap_err(), InsertError::QueueFull);
    }
    assert!(cache.stats().trouble.unwrap().contains("hangs"));

    props.faults.writes.open();
    try_put(&cache, refused, Wait::ForRoom).unwrap_or_else(|_| {
        cache.sync().unwrap();
        try_put(&cache, refused, Wait::No).unwrap()
    });
    cache.sync().unwrap();
    let stats = cache.stats();
    assert!(stats.healthy && stats.trouble.is_none(), "{stats:?}");
    assert_eq!(stats.queued_bytes, 0);
    let check = |cache: &Cache| {
        for number in [0, 2, 101] {
            assert_eq!(version(cache, number), None);
        }
        for number in [1].into_iter().chain(102..=refused) {
            assert_eq!(version(cache, number), Some(0), "key {number}");
        }
    };
    check(&cache);
    drop(cache);
    check(&props.open());
}

#[test]
fn a_sync_that_hangs_holds_up_no_caller() {
    let mut props = props();
    props.options.durability = Durability::Interval {
        ms: u64::MAX,
        bytes: 1,
    };
    let cache = open(&props);
    props.faults.waits.close();
    put(&cache, 1, 0, 10);
    // The flusher, or the writer for the first segment.
    props.faults.waits.wait_for_one();
    let refused = fill(&cache, 100);
    assert_eq!(version(&cache, 1), Some(0));
    assert_eq!(version(&cache, 100), Some(0));
    props.faults.waits.open();
    cache.sync().unwrap();
    assert!(cache.stats().healthy);
    assert!((100..refused).all(|number| version(&cache, number) == Some(0)));
}

#[test]
fn a_wait_for_an_entry_to_be_durable_ends() {
    let mut props = props();
    props.options.durability = Durability::EveryInsert;
    let cache = open(&props);
    put(&cache, 1, 0, 10);
    assert!(props.faults.syncs.load(Relaxed) > 0 && cache.stats().healthy);
    props.faults.waits.close();
    for number in 2..100 {
        put(&cache, number, 0, 10);
        assert_eq!(version(&cache, number), Some(0));
    }
    let stats = cache.stats();
    assert!(!stats.healthy && stats.store_errors > 0, "{stats:?}");
    props.faults.waits.open();
    cache.sync().unwrap();
    assert!(cache.stats().healthy);
    // The insert returns once it is written.
    put(&cache, 100, 0, 10);
    drop(cache);
    let cache = props.open();
    assert!((1..=100).all(|number| version(&cache, number) == Some(0)));
}

/// Recordings end on shared threads, so they do not wait even where entries have to be durable.
#[test]
fn a_caller_that_must_not_wait_does_not_wait_until_an_entry_is_durable() {
    let mut props = props();
    props.options.durability = Durability::EveryInsert;
    let cache = open(&props);
    props.faults.waits.close();
    try_put(&cache, 0, Wait::No).unwrap();
    props.faults.waits.wait_for_one();
    for number in 1..100 {
        try_put(&cache, number, Wait::No).unwrap();
        assert_eq!(version(&cache, number), Some(0));
    }
    assert!(cache.remove_now(&key(1)));
    // No insert has given up waiting.
    assert_eq!(cache.stats().store_errors, 0);
    props.faults.waits.open();
    cache.wait_until_durable();
    let stats = cache.stats();
    assert!(stats.healthy && stats.store_errors == 0, "{stats:?}");
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), None);
    assert!((2..100).all(|number| version(&cache, number) == Some(0)));
}

/// The thread of an async runtime waited for the disk, and held up all its tasks.
#[cfg(not(shuttle))]
#[test]
fn async_callers_that_wait_for_the_disk_hold_up_nothing() {
    let durable = Durable::open();
    let cache = &durable.cache;
    let insert = |number| async move {
        try_put(cache, number, Wait::No).unwrap();
        cache.wait_until_durable_async().await;
    };
    for number in 0..2 {
        durable.holds_up_nothing(insert(number));
        assert_eq!(version(cache, number), Some(0));
    }
    durable.holds_up_nothing(async {
        assert!(cache.remove_now(&key(0)));
        cache.wait_until_durable_async().await;
    });
    assert_eq!((version(cache, 0), version(cache, 1)), (None, Some(0)));
}

/// More removals than may wait, on a disk that hangs. Everything on disk used to be given up.
#[test]
fn however_much_is_removed_while_the_disk_hangs_that_is_gone_and_nothing_else() {
    for wait in [Wait::No, Wait::ForRoom] {
        let props = props();
        let cache = open(&props);
        const KEYS: u64 = 70_000;
        for number in 0..KEYS {
            put(&cache, number, 0, 10);
        }
        cache.sync().unwrap();
        props.faults.writes.close();
        put(&cache, KEYS, 0, 10);
        props.faults.writes.wait_for_one();
        for number in 0..KEYS - 10 {
            assert!(match wait {
                Wait::No => cache.remove_now(&key(number)),
                Wait::ForRoom => cache.remove(&key(number)),
            });
            assert_eq!(version(&cache, number), None);
            assert!(!cache.remove_now(&key(number)));
        }
        put(&cache, KEYS + 1, 0, 10);
        let check = |cache: &Cache| {
            assert!((0..KEYS - 10).all(|number| !cache.contains(&key(number), NOW)));
            assert!((KEYS - 10..=KEYS + 1).all(|number| version(cache, number) == Some(0)));
        };
        check(&cache);
        props.faults.writes.open();
        cache.sync().unwrap();
        check(&cache);
        put(&cache, 1, 1, 10);
        cache.sync().unwrap();
        drop(cache);
        let cache = props.open();
        assert_eq!(version(&cache, 1), Some(1));
        cache.remove(&key(1));
        check(&cache);
    }
}

/// After a failure of the disk, inserts try it again. Removals alone were remembered instead, and
/// past their bound everything was given up.
#[test]
fn removals_alone_do_not_give_up_a_disk_that_is_well_again() {
    let props = props();
    let cache = open(&props);
    const KEYS: u64 = 70_000;
    for number in 0..KEYS {
        put(&cache, number, 0, 10);
    }
    cache.sync().unwrap();
    props.faults.tears_writes.store(true, Relaxed);
    put(&cache, KEYS, 0, 10);
    let _ = cache.sync();
    assert!(!cache.stats().healthy);
    props.faults.tears_writes.store(false, Relaxed);
    for number in 0..KEYS - 10 {
        assert!(cache.remove(&key(number)));
    }
    let check = |cache: &Cache| {
        assert!((0..KEYS - 10).all(|number| !cache.contains(&key(number), NOW)));
        assert!((KEYS - 10..KEYS).all(|number| version(cache, number) == Some(0)));
    };
    check(&cache);
    cache.sync().unwrap();
    drop(cache);
    check(&props.open());
}

/// A purge covers waiting entries as well, but not later ones.
#[test]
fn a_purge_covers_what_waits_to_be_written() {
    for all in [false, true] {
        let props = props();
        let cache = open(&props);
        put(&cache, 1, 0, 10);
        props.faults.writes.close();
        put(&cache, 2, 0, 10);
        put(&cache, 3, 0, 10);
        thread::scope(|scope| {
            let purging = scope.spawn(|| match all {
                true => cache.purge_all(),
                false => cache.purge_tenant(&TENANT),
            });
            props.faults.writes.wait_for_one();
            props.faults.writes.open();
            purging.join().unwrap().unwrap();
        });
        assert!((1..4).all(|number| version(&cache, number).is_none()));
        put(&cache, 3, 1, 10);
        drop(cache);
        let cache = props.open();
        assert!((1..3).all(|number| version(&cache, number).is_none()));
        assert_eq!(version(&cache, 3), Some(1));
    }
}
