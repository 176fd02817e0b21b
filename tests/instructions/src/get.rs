//! An entry by its key, payload included: from a cache in memory, and from the mapped store.

use crate::Pass;
use reflex_host::cache::{Cache, CacheKey, CacheOptions, Lookup, NewEntry};
use std::hint::black_box;

/// So many keys take turns: more than a cache line, fewer than what makes tables deep.
const ENTRIES: u64 = 1000;
const PAYLOAD_BYTES: usize = 4096;
const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) fn memory() -> Pass {
    let cache = Cache::in_memory(&CacheOptions::default());
    let keys = fill(&cache);
    pass(cache, keys, ())
}

pub(crate) fn mapped() -> Pass {
    let dir = tempfile::tempdir().expect("a folder");
    let options = CacheOptions {
        data_dir: dir.path().into(),
        ..CacheOptions::default()
    };
    let cache = Cache::open(&options).expect("opens");
    let keys = fill(&cache);
    // Written, so that lookups find records in the segment and not in the queue.
    cache.sync().expect("a disk");
    pass(cache, keys, dir)
}

fn fill(cache: &Cache) -> Vec<CacheKey> {
    let key = |number: u64| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        CacheKey::new("instructions", &[0; 32], &digest)
    };
    let keys: Vec<CacheKey> = (0..ENTRIES).map(key).collect();
    for key in &keys {
        let new = NewEntry {
            key,
            tenant: &[0; 32],
            metadata: b"",
            payload: &[b'x'; PAYLOAD_BYTES],
            now_ms: NOW_MS,
            ttl_ms: None,
        };
        cache.insert(new).expect("stored");
    }
    keys
}

/// `kept` lives as long as the pass does.
fn pass(cache: Cache, keys: Vec<CacheKey>, kept: impl Sized + 'static) -> Pass {
    let get = move |at: usize| match cache.lookup(black_box(&keys[at % keys.len()]), NOW_MS) {
        Lookup::Hit(entry) => black_box(entry.payload()).len(),
        other => panic!("{other:?}"),
    };
    // The first get of each record computes its checksum; later ones do not.
    for at in 0..ENTRIES as usize {
        get(at);
    }
    let mut at = 0;
    Box::new(move || {
        let _ = &kept;
        at += 1;
        get(at)
    })
}
