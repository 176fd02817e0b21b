//! A data folder that goes from one cache to another while both are in use.

use super::*;
use crate::sync::{Mutex, lock};

/// Gives another cache what it gets, as the daemon does, and can be looked at.
#[derive(Debug, Default)]
struct Other {
    told: Mutex<Vec<String>>,
    cache: Mutex<Option<Cache>>,
}

impl Other {
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.told))
    }

    fn note(&self, what: &str, key: &CacheKey) {
        let number = (0..100).find(|number| self::key(*number) == *key);
        let number = number.map_or(String::from("?"), |number| number.to_string());
        lock(&self.told).push(format!("{what} {number}"));
    }
}

impl Heir for Other {
    fn released(&self) {
        lock(&self.told).push("released".into());
        if let Some(cache) = &*lock(&self.cache) {
            cache.folder_is_free();
        }
    }

    fn stores(&self, key: &CacheKey, entry: &Entry) {
        self.note("store", key);
        if let Some(cache) = &*lock(&self.cache) {
            let new = NewEntry {
                key,
                tenant: &entry.tenant(),
                metadata: entry.metadata(),
                payload: entry.as_ref(),
                now_ms: entry.stored_at_ms(),
                ttl_ms: None,
            };
            // Purged there, perhaps.
            let _ = cache.insert_since(new, Mark::at(0));
        }
    }

    fn removes(&self, key: &CacheKey) {
        self.note("remove", key);
        if let Some(cache) = &*lock(&self.cache) {
            cache.remove(key);
        }
    }
}

fn versions(cache: &Cache, of: Range<u64>) -> Vec<Option<u64>> {
    of.map(|number| version(cache, number)).collect()
}

fn opened_after(props: &Props) -> Cache {
    let cache = Cache::open_after_another(&props.options).unwrap();
    assert_eq!(cache.folder(), Folder::OfAnother);
    cache
}

#[test]
fn what_comes_after_the_release_goes_to_the_heir() {
    let props = Props::new();
    let old = props.open();
    for number in 0..3 {
        put(&old, number, 0, 100);
    }
    let held = old.lookup(&key(0), NOW).hit().unwrap();
    let heir = Arc::<Other>::default();
    old.release(Arc::clone(&heir) as _).unwrap();
    assert_eq!(heir.told(), ["released"]);
    assert_eq!(
        versions(&old, 0..3),
        [None; 3],
        "a purge elsewhere is unknown here"
    );
    assert!(old.purges().has_left());
    assert_eq!(held.payload(), payload(0, 0, 100));

    // Another process has it, as far as the lock says.
    let new = props.open();
    assert_eq!(versions(&new, 0..3), [Some(0); 3]);

    put(&old, 1, 1, 100);
    put(&old, 5, 0, 100);
    old.remove(&key(2));
    assert_eq!(heir.told(), ["store 1", "store 5", "remove 2"]);
    assert_eq!(versions(&old, 0..6), [None; 6]);
    for purged in [old.purge_tenant(&TENANT), old.purge_all()] {
        assert!(purged.unwrap_err().to_string().contains("another process"));
    }
    assert!(old.purge_where(|_| true).is_err() && old.has_left().is_some());
    old.release(Arc::<Other>::default()).unwrap();
    put(&old, 6, 0, 100);
    assert_eq!(heir.told(), ["store 6"], "the first heir stays");
    old.sync().unwrap();
    assert_eq!(old.compact(NOW).unwrap(), 0);
    // Nothing of that has touched the folder.
    drop(old);
    put(&new, 7, 0, 100);
    drop(new);
    let again = props.open();
    assert_eq!(version(&again, 1), Some(0));
    assert_eq!(version(&again, 7), Some(0));
    assert_eq!(again.stats().corrupt, 0);
}

#[test]
fn the_next_cache_is_in_memory_until_the_folder_comes_and_loses_nothing() {
    let mut props = Props::new();
    props.options.memory_bytes_max = 64 << 20;
    let old = Cache::open(&props.options).unwrap();
    for number in 0..6 {
        put(&old, number, 0, 100);
    }
    let heir = Arc::<Other>::default();
    let new = opened_after(&props);
    *lock(&heir.cache) = Some(new.clone());
    assert!(Cache::is_folder_in_use(props.data_dir()));
    assert!(!new.wait_for_folder(Duration::from_millis(1)));

    put(&new, 1, 1, 100);
    new.remove(&key(2));
    put(&new, 20, 0, 100);
    // The old one stores it meanwhile; the new one's is newer there.
    put(&old, 21, 0, 100);
    put(&new, 21, 1, 100);

    old.release(Arc::clone(&heir) as _).unwrap();
    assert!(new.wait_for_folder(Duration::from_secs(60)));
    assert_eq!(new.folder(), Folder::Settled);
    let check = |cache: &Cache| {
        let expected = [Some(0), Some(1), None, Some(0)];
        assert_eq!(versions(cache, 0..4), expected);
        assert_eq!(versions(cache, 20..22), [Some(0), Some(1)]);
    };
    check(&new);
    // A request that was under way in the old one.
    put(&old, 30, 0, 100);
    old.remove(&key(3));
    old.sync().unwrap();
    drop(old);
    let after = |cache: &Cache| {
        assert_eq!(version(cache, 30), Some(0));
        assert_eq!(version(cache, 3), None);
        assert_eq!(versions(cache, 4..6), [Some(0); 2]);
    };
    after(&new);
    new.sync().unwrap();
    *lock(&heir.cache) = None;
    drop(new);
    let again = props.open();
    assert_eq!(versions(&again, 0..3), [Some(0), Some(1), None]);
    assert_eq!(versions(&again, 20..22), [Some(0), Some(1)]);
    after(&again);
}

/// Each side purges, and each stores something of that tenant around it.
#[test]
fn purges_of_both_hold_whenever_the_folder_goes_over() {
    const OTHER: [u8; 32] = [8; 32];
    let put_other = |cache: &Cache, number: u64| {
        let new = NewEntry {
            key: &key(number),
            tenant: &OTHER,
            metadata: b"",
            payload: b"other",
            now_ms: NOW,
            ttl_ms: None,
        };
        cache.insert(new).unwrap();
    };
    let props = Props::new();
    let old = Cache::open(&props.options).unwrap();
    put(&old, 0, 0, 100);
    put_other(&old, 50);
    let new = opened_after(&props);
    let heir = Arc::<Other>::default();
    *lock(&heir.cache) = Some(new.clone());

    assert!(
        new.purge_tenant(&OTHER).is_err(),
        "the folder does not have it yet"
    );
    // Stored by the old one after that, of a request before it.
    put_other(&old, 51);
    old.purge_tenant(&TENANT).unwrap();
    put(&new, 1, 0, 100);
    old.release(Arc::clone(&heir) as _).unwrap();
    // And after the release.
    put_other(&old, 52);
    old.sync().unwrap();
    assert!(new.wait_for_folder(Duration::from_secs(60)));
    new.sync().unwrap();
    put_other(&new, 53);
    let check = |cache: &Cache| {
        let there = |number| cache.contains(&key(number), NOW);
        assert!(!there(0) && there(1));
        assert_eq!([50, 51, 52, 53].map(there), [false, false, false, true]);
    };
    check(&new);
    new.sync().unwrap();
    *lock(&heir.cache) = None;
    drop((old, new));
    check(&props.open());
}

/// Its disk is in trouble: what it has is in memory only.
#[test]
fn entries_in_memory_go_to_the_heir_as_well() {
    let props = Props::new();
    props.faults.is_read_only.store(true, Relaxed);
    let disk = Arc::new(FaultDisk {
        faults: Arc::clone(&props.faults),
    });
    let error = Cache::open_on(Arc::clone(&disk) as _, &props.options).unwrap_err();
    let old = Cache::without_disk(disk, &props.options, error).unwrap();
    put(&old, 1, 0, 100);
    let heir = Arc::<Other>::default();
    let released = old.release(Arc::clone(&heir) as _);
    assert!(released.is_err(), "no disk has it");
    assert_eq!(heir.told(), ["released", "store 1"]);
    put(&old, 2, 0, 100);
    old.remove(&key(1));
    old.sync().unwrap();
    assert_eq!(heir.told(), ["store 2", "remove 1"]);
    props.faults.is_read_only.store(false, Relaxed);
    old.shared.try_disk();
    assert!(
        !Cache::is_folder_in_use(props.data_dir()),
        "it stays the heir's"
    );
}

/// It may end without a word, or never give the folder up.
#[test]
fn a_folder_is_waited_for_as_long_as_it_is_expected() {
    let props = Props::new();
    let old = props.open();
    put(&old, 0, 0, 100);
    old.sync().unwrap();
    let new = opened_after(&props);
    new.folder_is_free();
    while new.folder() != Folder::OfAnother {
        thread::yield_now();
    }
    new.expects_no_folder();
    assert_eq!(new.folder(), Folder::Settled);
    assert!(!new.wait_for_folder(Duration::from_secs(60)));
    drop(old);
    new.folder_is_free();
    while !new.stats().healthy {
        thread::yield_now();
    }
    assert_eq!(version(&new, 0), Some(0));
    assert_eq!(new.stats().store_errors, 0, "nothing has failed");
}

#[test]
fn all_that_is_stored_while_the_folder_goes_over_is_there_after_it() {
    const KEYS: u64 = 400;
    let mut props = Props::new();
    props.options.disk_bytes_max = 64 << 20;
    props.options.memory_bytes_max = 64 << 20;
    for _ in 0..10 {
        let old = Cache::open(&props.options).unwrap();
        let new = opened_after(&props);
        let heir = Arc::<Other>::default();
        *lock(&heir.cache) = Some(new.clone());
        thread::scope(|scope| {
            let (old, new) = (&old, &new);
            scope.spawn(move || (0..KEYS / 2).for_each(|number| drop(put(old, number, 1, 100))));
            scope.spawn(move || (KEYS / 2..KEYS).for_each(|number| drop(put(new, number, 1, 100))));
            scope.spawn(move || old.release(heir as _).unwrap());
        });
        old.sync().unwrap();
        assert!(new.wait_for_folder(Duration::from_secs(60)));
        let is_there = |cache: &Cache| (0..KEYS).all(|number| version(cache, number) == Some(1));
        assert!(is_there(&new));
        drop((old, new));
        let again = props.open();
        assert!(is_there(&again));
        again.purge_all().unwrap();
    }
}
