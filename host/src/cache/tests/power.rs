//! Random operations on a disk that fails and loses power, against a model that knows what may
//! be found afterwards.
//!
//! To repeat a seed: `REFLEX_SIM_SEED=17 cargo test … power`. `REFLEX_SIM_SEEDS` is the number of
//! seeds, from `REFLEX_SIM_FIRST` on.

use super::*;
use crate::store::StoreOptions;
use crate::store::sim_disk::{Rates, SimDisk};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS_DEFAULT: u64 = 10_000;
#[cfg(feature = "encryption")]
const SEEDS_ENCRYPTED_DEFAULT: u64 = 4_000;
const SEEDS_KEPT_UP_DEFAULT: u64 = 4_000;
const KEYS: u64 = 8;
const SEGMENT_BYTES: u64 = 16 << 10;
const TENANTS: u64 = 2;

/// The model's state of a key.
#[derive(Clone, Debug)]
struct Known {
    /// The version that a lookup finds now; `None` is a miss.
    now: Option<u64>,
    /// The versions that may be found after a loss of power; the first was durable once.
    possible: Vec<Option<u64>>,
    /// Versions written before a sync that failed. They stay uncertain: later syncs do not cover
    /// them.
    in_limbo: Vec<Option<u64>>,
    /// All that was ever stored since the last purge. Where a header cannot be read, an older
    /// answer may be found.
    ever: Vec<u64>,
    /// A block could not be read, and the key was not changed since: the disk may have any of these
    /// versions, and a sync does not cover it.
    is_hidden: bool,
}

impl Known {
    fn certain(found: Option<u64>) -> Self {
        Self {
            now: found,
            possible: vec![found],
            in_limbo: Vec::new(),
            ever: found.into_iter().collect(),
            is_hidden: false,
        }
    }

    fn becomes(&mut self, now: Option<u64>) {
        self.now = now;
        self.possible.push(now);
        self.ever.extend(now);
        self.is_hidden = false;
    }

    /// Lookups from now on, until the key is changed, find one of these.
    fn hides(&mut self, found: Option<u64>) {
        self.now = found;
        self.possible.extend(self.ever.iter().copied().map(Some));
        self.possible.push(None);
        self.is_hidden = true;
    }
}

/// A run of one seed.
struct Run {
    disk: SimDisk,
    options: CacheOptions,
    store: StoreOptions,
    random: Random,
    known: Vec<Known>,
    now_ms: u64,
    version: u64,
    /// Entries have to make room, so that a miss is always right.
    is_tight: bool,
    /// Reads may fail.
    is_unreadable: bool,
    /// The folder is encrypted; keys are rotated as well.
    is_encrypted: bool,
    /// The folder is compacted, and tenants are erased, as well.
    is_kept_up: bool,
}

fn tenant(number: u64) -> [u8; 32] {
    [(number % TENANTS) as u8; 32]
}

impl Run {
    fn new(seed: u64) -> Self {
        let is_tight = seed.is_multiple_of(3);
        let quota = if is_tight { 6 } else { 100 } * SEGMENT_BYTES;
        Self {
            disk: SimDisk::new(seed),
            options: CacheOptions {
                entry_bytes_max: 4096,
                memory_bytes_max: 1 << 20,
                ..CacheOptions::default()
            },
            store: StoreOptions::plain(quota, SEGMENT_BYTES),
            random: Random(seed ^ 0x5eed),
            known: vec![Known::certain(None); KEYS as usize],
            now_ms: NOW,
            version: 0,
            is_tight,
            is_unreadable: false,
            is_encrypted: false,
            is_kept_up: false,
        }
    }

    fn kept_up(seed: u64) -> Self {
        let mut run = Self::new(seed);
        run.is_kept_up = true;
        run
    }

    #[cfg(feature = "encryption")]
    fn encrypted(seed: u64) -> Self {
        let mut run = Self::new(seed);
        run.is_encrypted = true;
        run.is_kept_up = true;
        run.store.keys = Some(super::encryption::keys(&[1]));
        run
    }

    /// Other keys in this process, or from the next one on. Those in use stay among them.
    #[cfg(feature = "encryption")]
    fn rotate(&mut self, cache: Option<&Cache>) {
        let keys = super::encryption::keys(match self.random.below(3) {
            0 => &[1, 2, 3],
            1 => &[2, 3, 1],
            _ => &[3, 1, 2],
        });
        if let Some(cache) = cache {
            cache.set_encryption_keys(&keys).unwrap();
            if self.random.below(2) == 0 {
                let is_done = cache.reencrypt(self.now_ms).is_ok();
                self.wrote_again(is_done);
            }
        }
        self.store.keys = Some(keys);
    }

    #[cfg(not(feature = "encryption"))]
    fn rotate(&mut self, _: Option<&Cache>) {}

    /// Reads fail from now on: now and then, or always in some places.
    fn spoil(&mut self) {
        self.is_unreadable = true;
        match self.random.below(4) {
            0 => self.disk.set_rates(Rates {
                reads_fail: 1 + self.random.below(40),
                ..Rates::default()
            }),
            // Unsealed bytes are damaged more often than one file among many.
            _ => {
                for _ in 0..=self.random.below(12) {
                    self.disk.spoil(Path::new("data/segments"));
                }
                if self.random.below(8) == 0 {
                    self.disk.spoil(Path::new("data"));
                }
            }
        }
    }

    fn mend(&mut self) {
        self.is_unreadable = false;
        self.disk.mend();
    }

    fn open(&self) -> Result<Cache, OpenError> {
        Cache::open_sized(self.disk.handle(), &self.options, &self.store)
    }

    fn find(&self, cache: &Cache, number: u64) -> Option<u64> {
        match cache.lookup(&key(number), self.now_ms) {
            Lookup::Hit(entry) => {
                assert_eq!(entry.tenant(), tenant(number), "another tenant's");
                let version = u64::from_le_bytes(*entry.metadata().first_chunk().unwrap());
                let length = entry.payload().len();
                assert_eq!(entry.payload(), payload(number, version, length));
                Some(version)
            }
            Lookup::Stale(_) => panic!("nothing expires here"),
            Lookup::Miss => None,
        }
    }

    /// While the process lives, every key has its expected version.
    fn check(&mut self, cache: &Cache) {
        for number in 0..KEYS {
            let found = self.find(cache, number);
            let known = &mut self.known[number as usize];
            // Without power nothing can be fetched.
            let may_miss = self.is_tight || self.disk.lost_power() || self.is_unreadable;
            let is_evicted = may_miss && found.is_none();
            assert!(
                found == known.now || is_evicted,
                "key {number}: found {found:?}, {known:?}"
            );
            if self.is_unreadable && found != known.now {
                // It is given up, and may be found again in the next process.
                known.hides(found);
            }
        }
        let used = self.disk.bytes_in(Path::new("data/segments"));
        assert!(used <= self.store.quota, "{used} bytes on disk");
    }

    fn is_on_disk(cache: &Cache, number: u64) -> bool {
        let index = &cache.shared.index;
        index.find(key(number).as_bytes(), |_| ()).is_some()
    }

    fn put(&mut self, cache: &Cache) {
        let number = self.random.below(KEYS);
        let length = self.random.below(3000) as usize;
        self.version += 1;
        let version = self.version;
        cache
            .insert(NewEntry {
                key: &key(number),
                tenant: &tenant(number),
                metadata: &version.to_le_bytes(),
                payload: &payload(number, version, length),
                now_ms: self.now_ms,
                ttl_ms: None,
            })
            .unwrap();
        let known = &mut self.known[number as usize];
        if !Self::is_on_disk(cache, number) {
            // In memory: the version on disk is removed, sooner or later.
            known.possible.push(None);
        }
        known.becomes(Some(version));
    }

    /// Of records that were written again and not synced, because the disk failed, a loss of power may leave
    /// a header without its body. It supersedes the older record as that of a newer answer would.
    fn wrote_again(&mut self, is_done: bool) {
        if !is_done {
            for known in &mut self.known {
                known.possible.extend([None, known.now]);
            }
        }
    }

    /// Notes a successful sync in the model.
    fn sync(&mut self, cache: &Cache) {
        let is_ok = cache.sync().is_ok();
        for (number, known) in (0..).zip(&mut self.known) {
            if !is_ok {
                known.in_limbo.extend(&known.possible[1..]);
            }
            if known.is_hidden || known.in_limbo.contains(&known.now) {
                continue;
            }
            known.in_limbo.clear();
            known.possible = vec![known.now];
            if !Self::is_on_disk(cache, number) {
                known.possible.push(None);
            }
        }
    }

    fn purge(&mut self, cache: &Cache, whose: Option<u64>) {
        let result = match whose {
            Some(tenant_number) if self.is_kept_up && self.random.below(2) == 0 => {
                cache.erase_tenant(&tenant(tenant_number), self.now_ms)
            }
            Some(tenant_number) => cache.purge_tenant(&tenant(tenant_number)),
            None => cache.purge_all(),
        };
        self.wrote_again(result.is_ok());
        for (number, known) in (0..).zip(&mut self.known) {
            if whose.is_none_or(|tenant| number % TENANTS == tenant) {
                known.becomes(None);
                if result.is_ok() {
                    known.possible = vec![None];
                    known.ever.clear();
                }
            }
        }
    }

    /// One operation.
    fn step(&mut self, cache: &Cache) {
        self.now_ms += self.random.below(600);
        match self.random.below(40) {
            0..22 => self.put(cache),
            22..28 => {
                let number = self.random.below(KEYS);
                cache.remove(&key(number));
                self.known[number as usize].becomes(None);
            }
            28..34 => {
                self.sync(cache);
            }
            34 => {
                let whose = self.random.below(TENANTS + 1);
                self.purge(cache, Some(whose).filter(|whose| *whose < TENANTS));
            }
            35 => self.disk.set_rates(Rates {
                writes_fail: self.random.below(2) * 30,
                syncs_fail: self.random.below(2) * 30,
                is_full: self.random.below(2) * 50,
                reads_fail: 0,
            }),
            36 => self.disk.set_rates(Rates::default()),
            37 if self.random.below(4) == 0 => self.spoil(),
            38 if self.is_unreadable => self.mend(),
            39 if self.is_encrypted => self.rotate(Some(cache)),
            39 if self.is_kept_up => {
                let is_done = cache.compact(self.now_ms).is_ok();
                self.wrote_again(is_done);
            }
            _ => {}
        }
    }

    /// The process has ended and a new one has opened the folder.
    fn reopened(&mut self, cache: &Cache, lost_power: bool, was_unreadable: bool) {
        for number in 0..KEYS {
            let found = self.find(cache, number);
            let known = &mut self.known[number as usize];
            // Of a key that was written to, the lost record may have been a removal.
            let may_miss = self.is_tight || known.possible.len() > 1 || was_unreadable;
            let was_ever = found.is_some_and(|found| known.ever.contains(&found));
            assert!(
                known.possible.contains(&found)
                    || may_miss && found.is_none()
                    || was_unreadable && was_ever,
                "key {number} after a restart: found {found:?}, {known:?}"
            );
            match lost_power {
                _ if was_unreadable => known.hides(found),
                true => {
                    let ever = std::mem::take(&mut known.ever);
                    *known = Known::certain(found);
                    known.ever.extend(ever);
                }
                false => {
                    known.is_hidden = false;
                    // The version found is older than one that a failed sync has left uncertain.
                    // A loss of power may yet reveal enough of the newer one to cover it: a header
                    // without its body. No later sync covers either.
                    if found != known.now && !known.in_limbo.is_empty() {
                        known.in_limbo.push(found);
                    }
                    known.now = found;
                    known.possible.push(found);
                }
            }
        }
    }

    /// Ends the process by a loss of power or without one, and begins a new one, in which the
    /// power may be lost again.
    fn restart(&mut self, cache: Cache, lose_power: bool) -> Cache {
        drop(cache);
        if self.is_encrypted && self.random.below(4) == 0 {
            self.rotate(None);
        }
        if !lose_power {
            self.disk.set_rates(Rates::default());
            self.mend();
            if self.random.below(3) == 0 {
                self.spoil();
            }
            let was_unreadable = self.is_unreadable;
            let cache = self.open().or_else(|_| {
                // Too much of it.
                assert!(self.is_unreadable);
                self.mend();
                self.open()
            });
            let cache = cache.unwrap();
            self.reopened(&cache, false, was_unreadable);
            return cache;
        }
        // A start that failed may have given up records that it could not read.
        let mut was_unreadable = false;
        loop {
            self.disk.restore_power();
            self.mend();
            if self.random.below(4) == 0 {
                self.spoil();
                was_unreadable = true;
            }
            if self.random.below(2) == 0 {
                self.disk.lose_power_after(self.random.below(40));
            }
            match self.open() {
                Ok(cache) if !self.disk.lost_power() => {
                    self.disk.keep_power();
                    self.reopened(&cache, true, was_unreadable);
                    return cache;
                }
                Ok(_) => {}
                Err(error) => assert!(self.disk.lost_power() || self.is_unreadable, "{error}"),
            }
        }
    }

    fn run(&mut self) {
        let mut cache = self.open().unwrap();
        for _ in 0..4 {
            let steps = self.random.below(40);
            let is_power_lost = self.random.below(4) > 0;
            if is_power_lost {
                let after = self.random.below(120);
                self.disk.lose_power_after(after);
            }
            for _ in 0..steps {
                self.step(&cache);
                self.check(&cache);
            }
            cache = self.restart(cache, is_power_lost);
            self.check(&cache);
        }
    }
}

#[test]
fn whatever_the_disk_does_nothing_wrong_is_served_and_nothing_durable_lost() {
    run_all(seeds(SEEDS_DEFAULT), Run::new);
}

/// As above. The folder is compacted and tenants are erased as well.
#[test]
fn whatever_the_disk_does_upkeep_serves_nothing_wrong_and_loses_nothing_durable() {
    run_all(seeds(SEEDS_KEPT_UP_DEFAULT), Run::kept_up);
}

/// As above. Keys are rotated, and tenants erased, as well.
#[cfg(feature = "encryption")]
#[test]
fn whatever_the_disk_does_an_encrypted_folder_serves_nothing_wrong_and_loses_nothing_durable() {
    run_all(seeds(SEEDS_ENCRYPTED_DEFAULT), Run::encrypted);
}

/// Those that the environment names, or so many.
fn seeds(count: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    match number("REFLEX_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("REFLEX_SIM_FIRST").unwrap_or(0);
            first..first + number("REFLEX_SIM_SEEDS").unwrap_or(count)
        }
    }
}

/// Each of these seeds has once found a mistake, of the store or of the model here. Some find it
/// only sometimes: a seed does not fix the order in which a hash map gives its keys.
#[test]
fn seeds_that_once_found_something_find_nothing_any_more() {
    for seed in [
        72_997, 283_216, 790_824, 1_015_564, 1_024_562, 1_030_582, 1_031_923, 1_036_851, 1_048_948,
    ] {
        for _ in 0..20 {
            run_all(seed..seed + 1, Run::new);
        }
    }
    #[cfg(feature = "encryption")]
    for _ in 0..20 {
        run_all(2_355..2_356, Run::encrypted);
    }
}

fn run_all(seeds: Range<u64>, run: fn(u64) -> Run) {
    const THREADS: u64 = 2;
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for id in 0..THREADS {
            let seeds = seeds.clone().filter(move |seed| seed % THREADS == id);
            let failed = &failed;
            scope.spawn(move || {
                for seed in seeds {
                    let ran = catch_unwind(AssertUnwindSafe(|| run(seed).run()));
                    if ran.is_err() {
                        println!("REFLEX_SIM_SEED={seed}");
                        lock(failed).push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "REFLEX_SIM_SEED is one of {failed:?}");
}
