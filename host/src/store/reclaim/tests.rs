//! Segments are reclaimed in any order, against the policy too, in one go or piece by piece, with losses
//! of power in between.

use super::super::format::NEVER;
use super::super::place::{Place, Read};
use super::super::record::NewRecord;
use super::super::sim_disk::{Random, SimDisk};
use super::super::{Shares, StoreOptions, StoredMax, TenantBounds};
use super::*;

const SEGMENT_BYTES: u64 = 8 << 10;
const KEYS: u64 = 12;
const TENANT: [u8; 32] = [7; 32];

/// What the store may give for a key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The newest version; `None` once it is removed.
    now: Option<u64>,
    /// Versions below this one were superseded or removed, durably.
    least: u64,
    /// The number of the newest change.
    last: u64,
    /// A sync failed since then: whether it is durable is unknown for good.
    is_in_limbo: bool,
}

struct Run {
    disk: SimDisk,
    options: StoreOptions,
    random: Random,
    known: [Known; KEYS as usize],
    changes: u64,
    /// Every second run.
    syncs_may_fail: bool,
}

fn key(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

impl Run {
    fn new(seed: u64) -> Self {
        let is_bounded = seed.is_multiple_of(3);
        Self {
            disk: SimDisk::new(seed),
            options: StoreOptions {
                shares: Shares::new(TenantBounds {
                    each: StoredMax {
                        // Half of the tenants' keys.
                        entries: if is_bounded { 2 } else { u64::MAX },
                        ..StoredMax::default()
                    },
                    ..TenantBounds::default()
                }),
                ..StoreOptions::plain(100 * SEGMENT_BYTES, SEGMENT_BYTES)
            },
            random: Random(seed ^ 0x5eed),
            known: [Known::default(); KEYS as usize],
            changes: 0,
            syncs_may_fail: seed.is_multiple_of(2),
        }
    }

    fn open(&self) -> Store {
        let opened = Store::open(self.disk.handle(), &self.options);
        let mut store = opened.unwrap().store;
        // As the cache does before it writes anything.
        store.settle_tombstones().unwrap();
        store
    }

    fn find(store: &Store, number: u64) -> Option<u64> {
        let key = key(number);
        let place = store.index.find(&key, Place::clone)?;
        let record = match place.read(&key) {
            Read::Sound(record) => record,
            // What supersedes or removes it has to do so for good: it counts again after a restart.
            Read::Gone if place.is_evicted() => {
                let mut head = Vec::new();
                place.read_head(&key, &mut head)?;
                head.into()
            }
            // Its segment went, and the last piece is yet to come.
            Read::Gone => return None,
            other => panic!("an unsound record: {other:?}"),
        };
        let metadata = &record[place.shape().metadata()];
        Some(u64::from_le_bytes(*metadata.first_chunk().unwrap()))
    }

    /// In a log that is not always the one that the policy would choose.
    fn change(&mut self, store: &mut Store, is_removal: bool) {
        let number = self.random.below(KEYS);
        let log = Log::BOTH[self.random.below(2) as usize];
        self.changes += 1;
        let (key, version) = (key(number), self.changes.to_le_bytes());
        let tenant = [number as u8 % 3; 32];
        let payload = vec![0; self.random.below(1500) as usize];
        let record = match is_removal {
            true => NewRecord::tombstone(&key),
            false => NewRecord::entry(&key, &tenant, &version, &payload, 0, NEVER),
        };
        // As the cache does before it writes anything.
        store.settle_tombstones().unwrap();
        if is_removal && !store.index.remove(&key) {
            return;
        }
        store.append_to(log, &record).unwrap();
        store.keep_bounds();
        let known = &mut self.known[number as usize];
        known.now = (!is_removal).then_some(self.changes);
        known.last = self.changes;
        known.is_in_limbo = false;
    }

    /// Of one file, it may fail.
    fn sync(&mut self, store: &mut Store) {
        let (unsynced, lost) = store.take_unsynced();
        let mut is_ok = lost.is_ok();
        let taken = self.known.map(|known| known.last);
        // The writer does not wait for the flusher.
        for _ in 0..self.random.below(4) {
            self.change(store, false);
            self.reclaim_piece(store);
        }
        let fails = self.random.below(6 * (unsynced.len() as u64).max(1)) as usize;
        for (at, file) in unsynced.iter().enumerate() {
            if self.syncs_may_fail && at == fails {
                store.abandon(file);
                is_ok = false;
                continue;
            }
            file.sync().unwrap();
            if self.random.below(2) == 0 && file.write_contents() {
                store.contents_written(file);
            }
        }
        store.all_synced(true);
        assert!(is_ok || self.syncs_may_fail);
        for (known, last) in self.known.iter_mut().zip(taken) {
            match is_ok {
                false => known.is_in_limbo |= known.last > known.least,
                true if !known.is_in_limbo => known.least = last,
                true => {}
            }
        }
    }

    /// A piece of any size, of any segment.
    fn reclaim_piece(&mut self, store: &mut Store) {
        if !store.is_making_room() {
            let Some((victim, moving)) = self.any_segment(store) else {
                return;
            };
            store.ahead.leaving = Some(store.leaving(&victim, moving.which));
            store.ahead.moving = Some(moving);
        }
        let is_short = self.random.below(16) == 0;
        let mut budget = match is_short {
            true => Budget::all(),
            false => Budget(self.random.below(2000)),
        };
        store.make_piece(&mut budget, is_short).unwrap();
    }

    fn any_segment(&mut self, store: &Store) -> Option<(Arc<Segment>, Moving)> {
        let segments = store.segments.len() as u64;
        let at = self.random.below(segments.max(1)) as usize;
        let which = [Which::None, Which::Worthy, Which::Alive];
        let moving = Moving {
            which: which[self.random.below(3) as usize],
            bytes_left: self.random.below(2 * SEGMENT_BYTES),
            sheltered_left: self.random.below(2 * SEGMENT_BYTES),
            is_durable: false,
            now_ms: 1,
        };
        let victim = store.segments.get(at)?;
        Some((Arc::clone(victim), moving))
    }

    fn reclaim_any(&mut self, store: &mut Store) {
        if let Some((victim, mut moving)) = self.any_segment(store) {
            let outcome = store.reclaim_one(&victim, moving.which, &mut moving);
            assert_eq!(outcome.unwrap(), Outcome::Reclaimed);
        }
    }

    /// Returns how many entries were found.
    fn check(&mut self, store: &Store, is_after_loss: bool) -> u64 {
        let mut found_any = 0;
        for number in 0..KEYS {
            let found = Self::find(store, number);
            let known = &mut self.known[number as usize];
            let is_right = match is_after_loss {
                true => found.is_none_or(|version| version >= known.least),
                false => found.is_none() || found == known.now,
            };
            assert!(
                is_right,
                "key {number}: {found:?}, not {:?}, at least {}",
                known.now, known.least
            );
            if is_after_loss {
                // What survived is read, and so durable from now on.
                known.now = found;
                known.is_in_limbo = false;
                known.last = found.unwrap_or(known.last).max(known.least);
            }
            found_any += u64::from(found.is_some());
        }
        found_any
    }

    fn run(&mut self) -> u64 {
        let mut found = 0;
        let mut store = self.open();
        for _ in 0..300 {
            match self.random.below(55) {
                0..20 => self.change(&mut store, false),
                20..24 => self.change(&mut store, true),
                24..28 => {
                    let key = key(self.random.below(KEYS));
                    store.index.find(&key, Place::hit);
                }
                28..31 => self.sync(&mut store),
                31..36 => self.reclaim_any(&mut store),
                36..38 => {
                    for log in Log::BOTH {
                        store.seal_for_room(log).unwrap();
                    }
                }
                38..53 => self.reclaim_piece(&mut store),
                53 => {
                    drop(store);
                    store = self.open();
                }
                _ => {
                    drop(store);
                    self.disk.restore_power();
                    store = self.open();
                    found += self.check(&store, true);
                }
            }
            found += self.check(&store, false);
        }
        found
    }
}

/// What a piece found is used by a later one, when more was written, removed and synced.
#[test]
fn in_whatever_order_segments_go_nothing_superseded_or_removed_comes_back() {
    let mut found = 0;
    for seed in 0..400 {
        println!("seed {seed}");
        found += Run::new(seed).run();
    }
    // And entries were found.
    assert!(found > 400 * 300, "{found}");
}

/// A whole segment was looked through within one append, while the queue was full and inserts waited.
#[test]
fn no_append_makes_more_room_than_a_piece() {
    const BYTES: u64 = 128 << 10;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        dir: dir.path().join("data"),
        ..StoreOptions::plain(16 * BYTES, BYTES)
    };
    let disk = Arc::new(super::super::RealDisk);
    let mut store = Store::open(disk, &options).unwrap().store;
    let mut most = 0;
    for number in 0..40_000 {
        let before = (store.evicted, store.moved_bytes);
        let (key, payload) = (key(number), [1; 16]);
        let record = NewRecord::entry(&key, &TENANT, b"", &payload, 0, NEVER);
        store.append(&record).unwrap();
        if number % 7 == 0 {
            store.index.find(&key, Place::hit);
        }
        let moved_bytes = store.moved_bytes - before.1;
        let looked_at = (store.evicted - before.0) * record.shape().record_bytes() + moved_bytes;
        most = most.max(looked_at);
    }
    let record_bytes = 128;
    assert!(store.reclaimed > 10 && store.moved_bytes > 0);
    // An append brings the credit of its own bytes to one that is short of a piece by a byte at least. The
    // last record may be longer than what is left of it.
    let record_bytes_most = (PACE + 1) * record_bytes;
    assert!(
        most < store.piece_bytes() + record_bytes_most,
        "{most} in one append"
    );
}

/// A key of which an entry, its tombstone and a newer entry lie in three segments, in this order. Only
/// the last two are removed in these tests, by ids 2 and 3.
struct Three {
    disk: SimDisk,
    options: StoreOptions,
    store: Store,
}

impl Three {
    fn new(seed: u64) -> Self {
        let Run { disk, options, .. } = Run::new(seed);
        let mut store = Store::open(disk.handle(), &options).unwrap().store;
        let key = key(0);
        let entry = |version| NewRecord::entry(&key, &TENANT, version, b"", 0, NEVER);
        store.append_to(Log::Small, &entry(b"old")).unwrap();
        store.seal_for_room(Log::Small).unwrap();
        Self::sync(&mut store, None);
        store
            .append_to(Log::Main, &NewRecord::tombstone(&key))
            .unwrap();
        store.seal_for_room(Log::Main).unwrap();
        store.append_to(Log::Small, &entry(b"new")).unwrap();
        store.seal_for_room(Log::Small).unwrap();
        Self {
            disk,
            options,
            store,
        }
    }

    /// The sync of one segment may fail.
    fn sync(store: &mut Store, fails: Option<u64>) {
        let (unsynced, _) = store.take_unsynced();
        for file in unsynced {
            match fails == Some(file.id) {
                true => store.abandon(&file),
                false => file.sync().unwrap(),
            }
        }
        store.all_synced(true);
    }

    fn segment(&self, at: usize) -> Arc<Segment> {
        Arc::clone(&self.store.segments[at])
    }

    fn begin(&mut self, victim: &Arc<Segment>, which: Which) {
        self.store.ahead.leaving = Some(self.store.leaving(victim, which));
        self.store.ahead.moving = Some(Moving {
            bytes_left: SEGMENT_BYTES,
            ..Moving::nothing()
        });
    }

    /// The flusher syncs where it is asked to.
    fn piece(&mut self) {
        if self.store.is_sync_wanted {
            Self::sync(&mut self.store, None);
        }
        self.store.make_piece(&mut Budget(1), false).unwrap();
    }

    fn lose_power(mut self) {
        while self.store.is_making_room() && self.store.ahead.moving.is_some() {
            self.piece();
            if self.store.ahead.leaving.is_none() && self.store.ahead.gone.is_none() {
                break;
            }
        }
        Self::sync(&mut self.store, None);
        drop(self.store);
        self.disk.restore_power();
        let store = Store::open(self.disk.handle(), &self.options)
            .unwrap()
            .store;
        let found = store.index.find(&key(0), Place::clone);
        let found = found.map(|place| match place.read(&key(0)) {
            Read::Sound(record) => record[place.shape().metadata()].to_vec(),
            other => panic!("{other:?}"),
        });
        assert_ne!(found.as_deref(), Some(&b"old"[..]), "it was removed");
    }
}

/// The place of a record whose file was gone stood in for a tombstone, and that went, too.
#[test]
fn a_record_whose_file_is_gone_stands_in_for_no_tombstone() {
    for seed in 0..32 {
        let mut three = Three::new(seed);
        Three::sync(&mut three.store, None);
        let (tombstone, newest) = (three.segment(1), three.segment(2));
        three.begin(&newest, Which::None);
        while three.store.ahead.gone.is_none() {
            three.piece();
        }
        let mut moving = Moving::nothing();
        let outcome = three
            .store
            .reclaim_one(&tombstone, Which::None, &mut moving);
        assert_eq!(outcome.unwrap(), Outcome::Reclaimed);
        three.lose_power();
    }
}

/// A record was found to supersede nothing. Then the tombstone went for which it stood in.
#[test]
fn what_one_segment_relies_on_does_not_go_with_another_one() {
    for (which, pieces) in [(Which::None, 1), (Which::Alive, 1), (Which::Alive, 2)] {
        for seed in 0..32 {
            let mut three = Three::new(seed);
            Three::sync(&mut three.store, None);
            let (tombstone, newest) = (three.segment(1), three.segment(2));
            three.begin(&newest, which);
            for _ in 0..pieces {
                three.piece();
            }
            let mut moving = Moving::nothing();
            let outcome = three
                .store
                .reclaim_one(&tombstone, Which::None, &mut moving);
            assert_eq!(outcome.unwrap(), Outcome::Reclaimed);
            three.lose_power();
        }
    }
}

/// A sync loses the tombstone while the segment of the newer record is on its way out.
#[test]
fn a_record_on_its_way_out_stands_in_for_a_lost_tombstone_only_while_it_lasts() {
    for (which, pieces) in [(Which::None, 1), (Which::Alive, 2), (Which::Alive, 3)] {
        for seed in 0..32 {
            let mut three = Three::new(seed);
            let (tombstone, newest) = (three.segment(1), three.segment(2));
            three.begin(&newest, which);
            for _ in 0..pieces {
                three.piece();
            }
            Three::sync(&mut three.store, Some(tombstone.id));
            three.store.settle_tombstones().unwrap();
            while three.store.ahead.leaving.is_some() || three.store.ahead.gone.is_some() {
                three.piece();
            }
            // What was written again goes as well.
            let written_again = three.store.index.find(&key(0), Place::clone);
            if let Some(place) = written_again {
                three.store.seal_all().unwrap();
                let mut segments = three.store.segments.iter();
                let victim = segments.find(|it| place.is_in(it)).cloned().unwrap();
                let mut moving = Moving::nothing();
                let outcome = three.store.reclaim_one(&victim, Which::None, &mut moving);
                assert_eq!(outcome.unwrap(), Outcome::Reclaimed);
            }
            three.lose_power();
        }
    }
}

/// The record that supersedes another one in place of a tombstone waits for the flusher's sync, and that
/// sync loses it: the tombstone's segment stays until a later one.
#[test]
fn no_segment_goes_with_a_sync_that_failed() {
    for fails in [false, true] {
        for seed in 0..32 {
            let mut three = Three::new(seed);
            let (tombstone, newest) = (three.segment(1), three.segment(2));
            three.begin(&tombstone, Which::None);
            while !three.store.is_sync_wanted {
                three.store.make_piece(&mut Budget(1), false).unwrap();
            }
            // Asked again before the sync, it still waits, and writes nothing.
            let last = three.store.last;
            three.store.make_piece(&mut Budget(1), false).unwrap();
            assert_eq!(three.store.last, last);
            assert!(three.store.ahead.leaving.is_some());
            Three::sync(&mut three.store, fails.then_some(newest.id));
            three.store.make_piece(&mut Budget(1), false).unwrap();
            let is_gone = !three.store.segments.iter().any(|it| it.id == tombstone.id);
            assert_eq!(is_gone, !fails);
            assert_eq!(three.store.last > last, fails, "another tombstone");
            three.lose_power();
        }
    }
}

/// A sync under the lock of the store took as long as the disk, at each segment with such a record.
#[test]
fn a_segment_waits_for_the_syncs_of_the_flusher_until_room_runs_out() {
    let mut three = Three::new(1);
    let tombstone = three.segment(1);
    three.begin(&tombstone, Which::None);
    // A sync goes on that does not cover the newest record.
    let (unsynced, _) = three.store.take_unsynced();
    let (key, version) = (key(0), b"newest");
    let record = NewRecord::entry(&key, &TENANT, version, b"", 0, NEVER);
    three.store.append_to(Log::Small, &record).unwrap();
    while !three.store.is_sync_wanted {
        three.store.make_piece(&mut Budget(1), false).unwrap();
    }
    // When it is short of room, too: two syncs must not go on at the same time.
    three.store.make_piece(&mut Budget::all(), true).unwrap();
    assert!(three.store.ahead.leaving.is_some());
    assert!(unsynced.iter().all(|file| file.sync().is_ok()));
    three.store.all_synced(true);
    three.store.make_piece(&mut Budget(1), false).unwrap();
    assert!(three.store.ahead.leaving.is_some());
    // Then it does not wait for the next one.
    three.store.make_piece(&mut Budget::all(), true).unwrap();
    assert!(!three.store.segments.iter().any(|it| it.id == tombstone.id));
    three.lose_power();
}
