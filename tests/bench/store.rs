//! The cache as a library: insert and hot get, beside a plain moka of bytes.

use crate::{ROUNDS, median, report};
use bytes::Bytes;
use reflex_host::cache::{Cache, CacheKey, CacheOptions, Lookup, NewEntry};
use std::hint::black_box;
use std::time::Instant;

const ENTRIES: usize = 20_000;
const HOT: usize = 1000;
const GETS: usize = 1_000_000;
const PAYLOAD_BYTES: usize = 4096;
const NOW_MS: u64 = 1_700_000_000_000;

pub(crate) fn run() {
    println!("cache, payloads of {PAYLOAD_BYTES} bytes, one thread");
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let keys: Vec<CacheKey> = (0..ENTRIES as u64)
        .map(|number| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            CacheKey::new("bench", &[0; 32], &digest)
        })
        .collect();

    let mut inserts = (Vec::new(), Vec::new());
    let mut gets = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir().expect("a folder");
        let options = CacheOptions {
            data_dir: dir.path().into(),
            ..CacheOptions::default()
        };
        let ours = Cache::open(&options).expect("opens");
        let plain: moka::sync::Cache<[u8; 32], Bytes> = moka::sync::Cache::new(1 << 20);

        inserts.0.push(nanoseconds(ENTRIES, |at| {
            let new = NewEntry {
                key: &keys[at],
                tenant: &[0; 32],
                metadata: b"",
                payload: &payload,
                now_ms: NOW_MS,
                ttl_ms: None,
            };
            ours.insert(new).expect("stored");
        }));
        inserts.1.push(nanoseconds(ENTRIES, |at| {
            plain.insert(*keys[at].as_bytes(), Bytes::copy_from_slice(&payload));
        }));
        gets.0.push(nanoseconds(GETS, |at| {
            match ours.lookup(&keys[at % HOT], NOW_MS) {
                Lookup::Hit(entry) => drop(black_box(entry.payload())),
                other => panic!("{other:?}"),
            }
        }));
        gets.1.push(nanoseconds(GETS, |at| {
            black_box(plain.get(keys[at % HOT].as_bytes()).expect("there"));
        }));
    }
    let insert = (median(inserts.0), median(inserts.1));
    let get = (median(gets.0), median(gets.1));
    report("insert, unsynced", insert.0 / 1000.0, "µs");
    report("insert into plain moka", insert.1 / 1000.0, "µs");
    report("hot get with payload", get.0, "ns");
    report("hot get from plain moka", get.1, "ns");
    report("hot get, ours / plain", get.0 / get.1, "x");
    println!();
}

fn nanoseconds(times: usize, mut operation: impl FnMut(usize)) -> f64 {
    let began = Instant::now();
    for at in 0..times {
        operation(at);
    }
    began.elapsed().as_nanos() as f64 / times as f64
}
