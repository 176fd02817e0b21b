//! What a hit from the data folder costs with and without encryption: the same entries in two folders, looked
//! up in turns, so that a busy machine slows both.

use reflex_host::cache::{Cache, CacheKey, CacheOptions, EncryptionKeys, Lookup, NewEntry};
use std::hint::black_box;
use std::time::{Duration, Instant};

const NOW_MS: u64 = 1_700_000_000_000;
const ENTRIES: u64 = 2000;
const ROUNDS: usize = 60;
/// As of an answer with a head.
const METADATA_BYTES: usize = 200;
const SIZES: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, 64 << 10];

fn open(payload_bytes: usize, keys: Option<EncryptionKeys>) -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().expect("a folder");
    let options = CacheOptions {
        data_dir: dir.path().join("data"),
        encryption_keys: keys,
        ..CacheOptions::default()
    };
    let cache = Cache::open(&options).expect("opens");
    let (metadata, payload) = (vec![1; METADATA_BYTES], vec![2; payload_bytes]);
    for number in 0..ENTRIES {
        let new = NewEntry {
            key: &key(number),
            tenant: &[(number % 10) as u8; 32],
            metadata: &metadata,
            payload: &payload,
            now_ms: NOW_MS,
            ttl_ms: None,
        };
        while cache.insert(new).is_err() {}
    }
    cache.sync().expect("syncs");
    (dir, cache)
}

fn key(number: u64) -> CacheKey {
    CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The mean time of a hit in one round.
fn round(cache: &Cache, keys: &[CacheKey]) -> Duration {
    let began = Instant::now();
    for key in keys {
        let Lookup::Hit(entry) = cache.lookup(key, NOW_MS) else {
            panic!("not there");
        };
        black_box(entry.payload()[0]);
    }
    began.elapsed() / keys.len() as u32
}

pub(crate) fn print() {
    let line = format!("bench {}", "5a".repeat(32));
    println!("| payload, bytes | hit, µs | encrypted, µs | more, µs | ratio |");
    println!("|---:|---:|---:|---:|---:|");
    for payload_bytes in SIZES {
        let keys = EncryptionKeys::parse(&line).expect("a key");
        let (_dir, plain) = open(payload_bytes, None);
        let (_other, encrypted) = open(payload_bytes, Some(keys));
        let keys: Vec<_> = (0..ENTRIES).map(key).collect();
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..ROUNDS {
            times[0].push(round(&plain, &keys));
            times[1].push(round(&encrypted, &keys));
        }
        let [plain, encrypted] = times.map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64() * 1e6
        });
        println!(
            "| {payload_bytes} | {plain:.2} | {encrypted:.2} | {:.2} | {:.2} |",
            encrypted - plain,
            encrypted / plain
        );
    }
}
