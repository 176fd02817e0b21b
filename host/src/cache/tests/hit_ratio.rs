//! Which entries stay when not all have room. `cargo xtask bench compare eviction` has the whole
//! table; this is the relation that must hold.

use super::*;
use std::collections::BTreeMap;

const REQUESTS: usize = 60_000;
const KEYS: u64 = 4000;

/// Of equal size, and as many as fit into the quota.
const RECORD_BYTES: u64 = 1024;
const ENTRIES: usize = 1024;

/// In percent of the requests.
const AT_MOST_WORSE: usize = 2;

/// Requests of which the n-th most popular key has 1/n of the share of the first, with runs now and
/// then of many keys that are never asked for again.
fn requests() -> Vec<u64> {
    let mut sum = 0.0;
    let up_to = |rank: u64| {
        sum += 1.0 / rank as f64;
        sum
    };
    let ranks: Vec<f64> = (1..=KEYS).map(up_to).collect();
    let (mut random, mut next) = (Random(1), KEYS);
    let request = |at: usize| {
        if at % 3000 < 1000 {
            next += 1;
            return next;
        }
        let wanted = random.below(1 << 40) as f64 / (1u64 << 40) as f64 * sum;
        ranks.partition_point(|up_to| *up_to < wanted) as u64
    };
    (0..REQUESTS).map(request).collect()
}

fn lru_hits(requests: &[u64]) -> usize {
    let mut used_at = HashMap::new();
    let mut by_use = BTreeMap::new();
    let mut hits = 0;
    for (at, key) in requests.iter().enumerate() {
        by_use.insert(at, *key);
        if let Some(before) = used_at.insert(*key, at) {
            by_use.remove(&before);
            hits += 1;
        } else if by_use.len() > ENTRIES {
            let (_, oldest) = by_use.pop_first().unwrap();
            used_at.remove(&oldest);
        }
    }
    hits
}

#[test]
fn with_scans_mixed_in_no_worse_than_if_the_least_recently_used_went() {
    let mut props = Props::new();
    props.options.entry_bytes_max = 2048;
    props.options.segment_bytes = 16 << 10;
    let store = crate::store::StoreOptions {
        dir: props.data_dir().to_owned(),
        ..crate::store::StoreOptions::plain(ENTRIES as u64 * RECORD_BYTES, 16 << 10)
    };
    let faults = Arc::clone(&props.faults);
    let disk = Arc::new(FaultDisk { faults });
    let cache = Cache::open_sized(disk, &props.options, &store).unwrap();
    let payload = vec![b'x'; RECORD_BYTES as usize - HEADER_BYTES];
    let requests = requests();
    let mut hits = 0;
    for number in &requests {
        let key = key(*number);
        if let Lookup::Hit(_) = cache.lookup(&key, NOW) {
            hits += 1;
            continue;
        }
        let new = NewEntry {
            key: &key,
            tenant: &TENANT,
            metadata: b"",
            payload: &payload,
            now_ms: NOW,
            ttl_ms: None,
        };
        let entry = cache.insert(new).unwrap();
        assert_eq!(entry.record_bytes(), RECORD_BYTES);
    }
    let least = lru_hits(&requests) - REQUESTS * AT_MOST_WORSE / 100;
    println!("{hits} hits, LRU {}", lru_hits(&requests));
    assert!(hits >= least, "{hits} hits, {least} would do");
    assert!(cache.stats().disk_bytes <= store.quota);
}
