//! Which entries stay when there is no room for all: ours, and other policies. All are given
//! the same number of bytes, and all entries are of one size.

use crate::trace::Random;
use reflex_host::cache::{Cache, CacheKey, CacheOptions, Durability, Lookup, NewEntry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Segments of the quota: the defaults come to 256 of 16 MiB in 4 GiB.
const SEGMENTS: u64 = 64;

/// An answer of 4 KiB, with the header of its record. In segments of 512 KiB a smaller one would
/// measure the blocks that each segment has beside its records: with 1 KiB in 128 KiB they take 9 %.
const RECORD_BYTES: u64 = 4096;
const PAYLOAD_BYTES: usize = RECORD_BYTES as usize - 112;

/// After this many entries all are written, so that no found entry is only in the queue.
const WRITTEN_EACH: u64 = 16;

/// Room of the made-up requests, in entries: 32 MiB, for a policy that needs no room beside them.
pub(crate) const ENTRIES: u64 = (32 << 20) / RECORD_BYTES;

const NOW_MS: u64 = 1_700_000_000_000;

/// Hits among the requests, each of which stores what it did not find. The first fifth fills
/// the cache and is not counted.
fn ratio(keys: &[u64], mut find_or_insert: impl FnMut(usize, u64) -> bool) -> f64 {
    let counted_from = keys.len() / 5;
    let mut hits = 0;
    for (at, key) in keys.iter().enumerate() {
        let is_hit = find_or_insert(at, *key);
        hits += u64::from(is_hit && at >= counted_from);
    }
    hits as f64 / (keys.len() - counted_from) as f64
}

/// The cache itself, on disk, in a folder of its own below `dir`. With the ratio, the bytes that it
/// writes for each byte that is stored.
pub(crate) fn ours(keys: &[u64], entries: u64, dir: &Path) -> (f64, f64) {
    let folder = tempfile::tempdir_in(dir).expect("a folder");
    let quota = entries * RECORD_BYTES;
    let options = CacheOptions {
        data_dir: folder.path().join("data"),
        disk_bytes_max: quota,
        memory_bytes_max: 1 << 20,
        entry_bytes_max: RECORD_BYTES,
        segment_bytes: quota / SEGMENTS,
        durability: Durability::Os,
        ..CacheOptions::default()
    };
    let cache = Cache::open(&options).expect("opens");
    let payload = [b'x'; PAYLOAD_BYTES];
    let mut inserted = 0;
    let found = ratio(keys, |_, number| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        let key = CacheKey::new("compare", &[0; 32], &digest);
        let is_hit = matches!(cache.lookup(&key, NOW_MS), Lookup::Hit(_));
        if !is_hit {
            let new = NewEntry {
                key: &key,
                tenant: &[0; 32],
                metadata: b"",
                payload: &payload,
                now_ms: NOW_MS,
                ttl_ms: None,
            };
            cache.insert(new).expect("stored");
            inserted += 1;
            if inserted % WRITTEN_EACH == 0 {
                cache.sync().expect("synced");
            }
        }
        is_hit
    });
    let stats = cache.stats();
    assert_eq!(stats.inserts_in_memory, 0, "{stats:?}");
    let moved = stats.moved_bytes as f64 / (inserted * RECORD_BYTES) as f64;
    (found, 1.0 + moved)
}

/// moka as it is: an estimate of how often a key is asked for decides which entries come in.
pub(crate) fn tiny_lfu(keys: &[u64], entries: u64) -> f64 {
    let cache = moka::sync::Cache::new(entries);
    ratio(keys, |_, key| {
        let is_hit = cache.get(&key).is_some();
        if !is_hit {
            cache.insert(key, ());
        }
        is_hit
    })
}

/// Evicts the entry that was asked for longest ago.
pub(crate) fn lru(keys: &[u64], entries: u64) -> f64 {
    let mut used_at: HashMap<u64, usize> = HashMap::new();
    let mut by_use: BTreeMap<usize, u64> = BTreeMap::new();
    ratio(keys, |at, key| {
        let before = used_at.insert(key, at);
        by_use.insert(at, key);
        if let Some(before) = before {
            by_use.remove(&before);
        } else if by_use.len() as u64 > entries
            && let Some((_, oldest)) = by_use.pop_first()
        {
            used_at.remove(&oldest);
        }
        before.is_some()
    })
}

/// Evicts the oldest entry.
pub(crate) fn fifo(keys: &[u64], entries: u64) -> f64 {
    let mut there: HashMap<u64, ()> = HashMap::new();
    let mut queue = std::collections::VecDeque::new();
    ratio(keys, |_, key| {
        let is_hit = there.insert(key, ()).is_some();
        if !is_hit {
            queue.push_back(key);
            if queue.len() as u64 > entries
                && let Some(first) = queue.pop_front()
            {
                there.remove(&first);
            }
        }
        is_hit
    })
}

/// Evicts, or does not admit, the entry that is asked for again last. No policy without knowledge
/// of the future can do better.
pub(crate) fn optimum(keys: &[u64], entries: u64) -> f64 {
    let mut next_use = vec![usize::MAX; keys.len()];
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for (at, key) in keys.iter().enumerate().rev() {
        next_use[at] = seen.insert(*key, at).unwrap_or(usize::MAX);
    }
    let mut until: HashMap<u64, usize> = HashMap::new();
    let mut by_next_use: BTreeSet<(usize, u64)> = BTreeSet::new();
    ratio(keys, |at, key| {
        let before = until.insert(key, next_use[at]);
        if let Some(before) = before {
            by_next_use.remove(&(before, key));
        }
        by_next_use.insert((next_use[at], key));
        if by_next_use.len() as u64 > entries
            && let Some((_, last)) = by_next_use.pop_last()
        {
            until.remove(&last);
        }
        before.is_some()
    })
}

/// Evicts any entry.
pub(crate) fn at_random(keys: &[u64], entries: u64) -> f64 {
    let mut random = Random(9);
    let mut there: HashMap<u64, usize> = HashMap::new();
    let mut slots: Vec<u64> = Vec::new();
    ratio(keys, |_, key| {
        if there.contains_key(&key) {
            return true;
        }
        let slot = match slots.len() as u64 {
            free if free < entries => free as usize,
            _ => random.below(entries) as usize,
        };
        match slots.get_mut(slot) {
            Some(old) => {
                there.remove(&std::mem::replace(old, key));
            }
            None => slots.push(key),
        }
        there.insert(key, slot);
        false
    })
}
