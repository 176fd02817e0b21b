//! Two tenants and ten thousand, in stores that are full many times over.

use super::super::format::NEVER;
use super::super::place::{Place, Read};
use super::super::record::NewRecord;
use super::super::sim_disk::{Random, SimDisk};
use super::super::{Shares, Store, StoreOptions, StoredMax, TenantBounds};

const SEGMENT_BYTES: u64 = 64 << 10;
const PAYLOAD: [u8; 112] = [1; 112];
/// With the header.
const RECORD_BYTES: u64 = 224;

fn key(tenant: u64, number: u64) -> [u8; 32] {
    *blake3::hash(&[tenant.to_le_bytes(), number.to_le_bytes()].concat()).as_bytes()
}

fn tenant(number: u64) -> [u8; 32] {
    key(number, u64::MAX)
}

struct Run {
    disk: SimDisk,
    bounds: TenantBounds,
    options: StoreOptions,
    store: Option<Store>,
}

impl Run {
    /// A store of so many segments.
    fn new(segments: u64, bounds: TenantBounds) -> Self {
        let mut run = Self {
            disk: SimDisk::new(1),
            options: StoreOptions::plain(segments * SEGMENT_BYTES, SEGMENT_BYTES),
            bounds,
            store: None,
        };
        run.open();
        run
    }

    /// As after a restart: nothing is known but what is on disk.
    fn open(&mut self) {
        self.store = None;
        self.options.shares = Shares::new(self.bounds.clone());
        let opened = Store::open(self.disk.handle(), &self.options);
        self.store = Some(opened.unwrap().store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// As many entries as the whole store would have room for, if it held nothing else. Superblocks and
    /// contents take a quarter.
    fn room(&self) -> u64 {
        self.options.quota / RECORD_BYTES
    }

    fn put(&mut self, owner: u64, number: u64) {
        let (key, tenant) = (key(owner, number), tenant(owner));
        let record = NewRecord::entry(&key, &tenant, b"", &PAYLOAD, 1, NEVER);
        self.store.as_mut().unwrap().append(&record).unwrap();
    }

    fn has(&self, owner: u64, number: u64) -> bool {
        let key = key(owner, number);
        let place = self.store().index.find(&key, Place::clone);
        place.is_some_and(|place| matches!(place.read(&key), Read::Sound(_)))
    }

    /// As a lookup: a hit counts.
    fn hit(&self, owner: u64, number: u64) -> bool {
        let key = key(owner, number);
        self.store().index.find(&key, Place::hit);
        self.has(owner, number)
    }

    /// How many of a tenant's first entries are found.
    fn found(&self, owner: u64, first: u64) -> u64 {
        let found = (0..first).filter(|number| self.has(owner, *number));
        found.count() as u64
    }

    fn entries(&self, owner: u64) -> u64 {
        self.options.shares.stored(Some(&tenant(owner))).entries
    }

    /// The accounts say what the index says.
    fn check_accounts(&self) {
        let mut live = 0;
        self.store().index.each(|_, place| {
            live += u64::from(!place.is_evicted());
        });
        assert_eq!(self.options.shares.all(), live);
    }
}

fn most(entries: u64, bytes: u64) -> TenantBounds {
    TenantBounds {
        each: StoredMax { bytes, entries },
        ..TenantBounds::default()
    }
}

/// The quiet tenant's entries are within the fair share of two, a quarter of the store. Half of them are
/// asked for now and then, the others never.
#[test]
fn a_tenant_that_floods_the_store_pushes_nothing_of_a_small_one_out() {
    let mut run = Run::new(64, TenantBounds::default());
    let (noisy, quiet) = (1, 2);
    let (room, share) = (run.room(), run.room() / 5);
    for number in 0..share {
        run.put(quiet, number);
        run.put(noisy, number);
    }
    for number in share..6 * room {
        run.put(noisy, number);
        // Of the flood, some is asked for, too.
        run.hit(noisy, number - number % 7);
        if number % 16 == 0 {
            assert!(run.hit(quiet, number / 16 % (share / 2)), "{number}");
        }
    }
    assert_eq!(run.found(quiet, share), share);
    assert_eq!(run.entries(quiet), share);
    let stats = run.store().stats();
    assert!(stats.reclaimed > 4 * 64 && stats.disk_bytes <= run.options.quota);
    // The flood has the rest: nothing is kept free.
    assert!(run.entries(noisy) > room / 3, "{}", run.entries(noisy));
    run.check_accounts();
    // Nor after a restart.
    run.open();
    assert_eq!(run.entries(quiet), share);
    for number in 0..2 * room {
        run.put(noisy, 1_000_000 + number);
    }
    assert_eq!(run.found(quiet, share), share);
    run.check_accounts();
}

/// Without the shelter, what is never asked for leaves with the small log's next turnover.
#[test]
fn one_tenant_alone_is_not_sheltered_from_itself() {
    let mut run = Run::new(16, TenantBounds::default());
    let room = run.room();
    for number in 0..4 * room {
        run.put(1, number);
    }
    assert_eq!(run.found(1, room), 0);
}

/// A tenant above the fair share competes with the others, and what it keeps is not less than the share
/// by more than a segment or two.
#[test]
fn a_tenant_over_its_share_loses_only_what_is_over() {
    let mut run = Run::new(64, TenantBounds::default());
    let room = run.room();
    for number in 0..room / 2 {
        run.put(2, number);
    }
    for number in 0..4 * room {
        run.put(1, number);
    }
    let kept = run.entries(2);
    assert!(kept > room / 4 - room / 32, "{kept} of {room}");
    assert!(kept < room / 2, "{kept} of {room}");
    run.check_accounts();
}

/// Zipf: the tenant of rank r has a part of 1 in r. All but the largest few are below the fair share.
#[test]
fn of_ten_thousand_tenants_none_below_the_fair_share_loses_an_entry() {
    const TENANTS: u64 = 10_000;
    let mut run = Run::new(256, TenantBounds::default());
    let room = run.room();
    let weight: f64 = (1..=TENANTS).map(|rank| 1.0 / rank as f64).sum();
    let of_rank = |rank: u64| (0.5 * room as f64 / weight / rank as f64).ceil() as u64;
    let mut random = Random(7);
    let mut order: Vec<(u64, u64, u64)> = (1..=TENANTS)
        .flat_map(|rank| (0..of_rank(rank)).map(move |number| (rank, number)))
        .map(|(rank, number)| (random.below(u64::MAX), rank, number))
        .collect();
    order.sort_unstable();
    for (_, rank, number) in &order {
        run.put(*rank, *number);
    }
    assert!(order.len() as u64 > room / 2);
    // One that is none of them floods the store.
    for number in 0..room {
        run.put(0, number);
    }
    let lost = |run: &Run| {
        let all = (100..=TENANTS).map(|rank| (rank, of_rank(rank)));
        let lost = all.filter(|(rank, size)| run.found(*rank, *size) < *size);
        lost.count()
    };
    assert_eq!(lost(&run), 0);
    assert!(run.options.shares.accounts() as u64 > TENANTS);
    run.check_accounts();
    run.open();
    assert_eq!(lost(&run), 0);
    assert_eq!(run.entries(TENANTS), of_rank(TENANTS));
}

/// Within a sixteenth: that much goes at once.
#[test]
fn a_tenant_over_its_bound_loses_its_own_oldest_entries() {
    for bounds in [most(1600, u64::MAX), most(u64::MAX, 1600 * RECORD_BYTES)] {
        let mut run = Run::new(64, bounds);
        for number in 0..200 {
            run.put(2, number);
        }
        for number in 0..3000 {
            run.put(1, number);
            let entries = run.entries(1);
            assert!(entries <= 1600, "{entries}");
            assert!(entries >= (number + 1).min(1500), "{entries} at {number}");
            assert!(run.has(1, number));
        }
        // The oldest went, and only those.
        let entries = run.entries(1);
        assert!((3000 - entries..3000).all(|number| run.has(1, number)));
        assert_eq!(run.found(1, 3000 - entries), 0);
        assert_eq!(run.found(2, 200), 200);
        let stats = run.store().stats();
        assert_eq!((stats.over_bounds, stats.evicted), (3000 - entries, 0));
        run.check_accounts();
        // The same after a restart, which counts anew.
        run.open();
        assert!(run.entries(1) <= 1600 && run.entries(1) >= 1500);
        assert!((1600..3000).all(|number| run.has(1, number)));
        assert_eq!(run.found(2, 200), 200);
        run.check_accounts();
        // An entry that was evicted can be stored again.
        run.put(1, 0);
        assert!(run.has(1, 0));
    }
}

#[test]
fn other_bounds_hold_with_the_next_append() {
    let mut run = Run::new(64, TenantBounds::default());
    for number in 0..1000 {
        run.put(1, number);
    }
    run.options.shares.bound(most(100, u64::MAX));
    run.put(2, 0);
    // All that was stored without a bound is one part.
    assert!(run.entries(1) <= 100);
    assert!(run.has(2, 0));
    for number in 1000..2000 {
        run.put(1, number);
        assert!(run.has(1, number) && run.entries(1) <= 100);
    }
    assert!(run.entries(1) >= 90);
}

/// With a bound of ten entries, each has a number of its own, in whatever segment it is.
#[test]
fn the_smallest_bounds_hold_exactly() {
    for entries in [1, 2, 10] {
        let mut run = Run::new(16, most(entries, u64::MAX));
        for number in 0..2000 {
            run.put(number % 3, number);
            assert!(run.entries(number % 3) <= entries);
        }
        for number in 2000 - 3 * entries..2000 {
            assert!(run.has(number % 3, number), "{number}");
        }
        run.open();
        for number in 2000 - 3 * entries..2000 {
            assert!(run.has(number % 3, number), "{number}");
        }
        assert_eq!(run.entries(0), entries);
    }
}

/// A client that shows another credential with each request is another tenant each time. Counted as one,
/// they are within one bound, and push out nothing of a named tenant.
#[test]
fn tenants_without_a_name_count_as_one_where_the_operator_says_so() {
    let mut bounds = most(u64::MAX, u64::MAX);
    bounds.apart = Some([tenant(1), tenant(2)].into());
    let mut run = Run::new(64, bounds);
    let (room, share) = (run.room(), run.room() / 7);
    for number in 0..share {
        run.put(1, number);
        run.put(2, number);
    }
    for number in 0..4 * room {
        run.put(100 + number, number);
    }
    assert_eq!(run.found(1, share), share);
    assert_eq!(run.found(2, share), share);
    assert_eq!(run.options.shares.accounts(), 2);
    run.check_accounts();
}

/// And a bound for each holds for all of them together.
#[test]
fn tenants_without_a_name_have_one_bound_together() {
    let mut bounds = most(500, u64::MAX);
    bounds.apart = Some([tenant(1)].into());
    let mut run = Run::new(64, bounds);
    for number in 0..200 {
        run.put(1, number);
    }
    for number in 0..5000 {
        run.put(100 + number, 0);
        let others = run.options.shares.stored(None).entries;
        assert!(others <= 500, "{others}");
        assert!(run.has(100 + number, 0));
    }
    assert_eq!(run.found(1, 200), 200);
    run.check_accounts();
}
