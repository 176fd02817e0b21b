//! The cache over real files, over a disk with faults, and without a disk.

mod absence;
mod basics;
#[cfg(not(shuttle))]
mod cold;
mod contents;
mod damage;
mod durability;
#[cfg(feature = "encryption")]
mod encryption;
mod figures;
mod files;
mod folder;
#[cfg(not(shuttle))]
mod heir;
mod hit_ratio;
mod l1;
mod power;
mod process;
mod purge;
mod quota;
mod random;
mod scan;
#[cfg(shuttle)]
mod schedules;
mod stall;
mod stress;
mod sync;
mod trouble;
mod upkeep;

use super::*;
use crate::store::HEADER_BYTES;
use crate::store::faults::{FaultDisk, Faults};
use crate::store::sim_disk::Random;
#[cfg(shuttle)]
use shuttle::thread;
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
#[cfg(not(shuttle))]
use std::thread;
use tempfile::TempDir;

const TENANT: [u8; 32] = [7; 32];
const NOW: u64 = 1_700_000_000_000;

/// The offset of the first record in a segment, as in docs/format.md.
const FIRST_RECORD: u64 = 4096;

/// A data folder that can be opened again and again.
struct Props {
    dir: TempDir,
    options: CacheOptions,
    faults: Arc<Faults>,
}

impl Props {
    /// Eight segments of 128 KiB.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = CacheOptions {
            data_dir: dir.path().join("data"),
            disk_bytes_max: 1 << 20,
            memory_bytes_max: 1 << 20,
            entry_bytes_max: 16 << 10,
            durability: Durability::Os,
            ..CacheOptions::default()
        };
        Self {
            dir,
            options,
            faults: Arc::default(),
        }
    }

    fn open(&self) -> Cache {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Cache, OpenError> {
        let faults = Arc::clone(&self.faults);
        Cache::open_on(Arc::new(FaultDisk { faults }), &self.options)
    }

    fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|found| found == "seg");
        self.folder().into_iter().filter(is_segment).collect()
    }

    /// Everything in the folder of segments.
    fn folder(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.data_dir().join("segments"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
    }

    /// Alters one byte of the first segment and returns its old value.
    fn flip(&self, at: u64, with: u8) -> u8 {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.segments()[0])
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ with], at).unwrap();
        byte[0]
    }
}

/// A cache whose inserts and removals have to be durable, with its threads, and a disk with faults.
#[cfg(not(shuttle))]
pub(crate) struct Durable {
    pub(crate) cache: Cache,
    pub(crate) faults: Arc<Faults>,
    _dir: TempDir,
}

/// A test that fails must not wait for the threads of a cache whose disk hangs.
#[cfg(not(shuttle))]
impl Drop for Durable {
    fn drop(&mut self) {
        self.faults.waits.open();
    }
}

#[cfg(not(shuttle))]
impl Durable {
    pub(crate) fn open() -> Self {
        let mut props = Props::new();
        props.options.durability = Durability::EveryInsert;
        let mut cache = props.open();
        cache.start_flusher().unwrap();
        cache.start_writer().unwrap();
        let Props { dir, faults, .. } = props;
        Self {
            cache,
            faults,
            _dir: dir,
        }
    }

    /// A call that waits for the disk while that hangs. It ends while the disk still does, and before
    /// that, the only thread does something else.
    pub(crate) fn holds_up_nothing<T>(&self, call: impl Future<Output = T>) -> T {
        self.cache.sync().unwrap();
        self.faults.waits.close();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let is_over = AtomicBool::new(false);
        let call = async {
            let output = call.await;
            is_over.store(true, Relaxed);
            output
        };
        // Polled once the call has been, for the first time.
        let other = async { assert!(!is_over.load(Relaxed), "the thread waited for the disk") };
        let both = async { tokio::join!(biased; call, other).0 };
        let output = runtime.block_on(async {
            let patience = Duration::from_secs(60);
            tokio::time::timeout(patience, both).await
        });
        let output = output.expect("it waits for the disk forever");
        self.faults.waits.open();
        self.cache.sync().unwrap();
        output
    }
}

fn key(number: u64) -> CacheKey {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    CacheKey::new("test", &TENANT, &digest)
}

/// A payload that tells which key, which version of it and which part of it this is, all
/// through.
fn payload(number: u64, version: u64, length: usize) -> Vec<u8> {
    let seed = [number.to_le_bytes(), version.to_le_bytes()].concat();
    let seed = blake3::hash(&seed);
    let mut bytes = Vec::with_capacity(length + 40);
    for part in 0..length.div_ceil(40) as u64 {
        bytes.extend_from_slice(&part.to_le_bytes());
        bytes.extend_from_slice(seed.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn put(cache: &Cache, number: u64, version: u64, length: usize) -> Entry {
    put_until(cache, number, version, length, None)
}

fn put_until(cache: &Cache, number: u64, version: u64, length: usize, ttl: Option<u64>) -> Entry {
    let (key, metadata) = (key(number), format!("{number}/{version}"));
    let payload = payload(number, version, length);
    let new = NewEntry {
        key: &key,
        tenant: &TENANT,
        metadata: metadata.as_bytes(),
        payload: &payload,
        now_ms: NOW,
        ttl_ms: ttl,
    };
    cache.insert(new).unwrap()
}

/// The version of a key that the cache answers with, if any. It must be a version of this key,
/// unaltered.
#[track_caller]
fn version(cache: &Cache, number: u64) -> Option<u64> {
    version_at(cache, number, NOW)
}

#[track_caller]
fn version_at(cache: &Cache, number: u64, now_ms: u64) -> Option<u64> {
    let Lookup::Hit(entry) = cache.lookup(&key(number), now_ms) else {
        return None;
    };
    Some(check(&entry, number))
}

#[track_caller]
fn check(entry: &Entry, number: u64) -> u64 {
    let text = std::str::from_utf8(entry.metadata()).unwrap();
    let (of, version) = text.split_once('/').unwrap();
    let version = version.parse().unwrap();
    assert_eq!(of, number.to_string(), "another key's metadata");
    let expected = payload(number, version, entry.payload().len());
    assert_eq!(entry.payload(), expected, "not what was stored");
    assert_eq!(entry.tenant(), TENANT);
    version
}

/// A block with the number at `at` one higher and its checksum put right.
fn sealed_again(block: &[u8], at: usize) -> Vec<u8> {
    sealed_as(block, at, block[at] + 1)
}

/// A block with another byte at `at` and its checksum put right.
fn sealed_as(block: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut block = block.to_vec();
    block[at] = byte;
    let end = block.len() - 4;
    let checksum = crc_fast::crc32_iscsi(&block[..end]);
    block[end..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Every file below a folder with its contents.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), None));
            found.extend(snapshot(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, Some(bytes)));
        }
    }
    found.sort();
    found
}
