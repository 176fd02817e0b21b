//! A folder damaged in any way opens, or is refused and left alone; and each of its
//! answers was once stored for that key and tenant, unaltered.
//!
//! Input: edits of the files of a good folder, one behind the other.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::bytes::Bytes;
use reflex_host::cache::{
    Cache, CacheKey, CacheOptions, Durability, Lookup, NewEntry, OpenError, StoreReport,
};

const NOW: u64 = 1_700_000_000_000;
const KEYS: u64 = 12;
const EDITS_MAX: usize = 8;
const BLOCK_BYTES: usize = 4096;

/// The purged tenant; the last of the tenants.
const PURGED: u64 = 2;

type Files = BTreeMap<String, Vec<u8>>;

fn tenant(number: u64) -> [u8; 32] {
    [7 + (number % 3) as u8; 32]
}

fn key(number: u64) -> CacheKey {
    CacheKey::new("fuzz", &tenant(number), &[number as u8; 32])
}

/// Shows everywhere which key and which version this is.
fn text(number: u64, version: u64, length: usize) -> Vec<u8> {
    let text = format!("{number}/{version} of {}; ", tenant(number)[0]);
    let mut text = text.into_bytes().repeat(length / 8 + 1);
    text.truncate(length);
    text
}

/// Long enough that a segment has few records, so that the folder has several segments.
fn metadata(number: u64, version: u64) -> Vec<u8> {
    text(number, version, 12_000 + 100 * number as usize)
}

fn payload(number: u64, version: u64) -> Vec<u8> {
    text(number, version, 40 * number as usize + version as usize)
}

fn options(data_dir: &Path) -> CacheOptions {
    CacheOptions {
        data_dir: data_dir.into(),
        disk_bytes_max: 1 << 20,
        memory_bytes_max: 1 << 20,
        entry_bytes_max: 1024,
        segment_bytes: 1,
        durability: Durability::Os,
        ..CacheOptions::default()
    }
}

fn put(cache: &Cache, number: u64, version: u64) {
    let new = NewEntry {
        key: &key(number),
        tenant: &tenant(number),
        metadata: &metadata(number, version),
        payload: &payload(number, version),
        now_ms: NOW,
        ttl_ms: (number % 2 == 0).then_some(3_600_000),
    };
    cache.insert(new).expect("an entry within the limits");
}

/// The found version of a key, which must be a valid one.
fn version(cache: &Cache, number: u64) -> Option<u64> {
    let Lookup::Hit(entry) = cache.lookup(&key(number), NOW) else {
        return None;
    };
    let found = (0..4).find(|&version| entry.metadata() == metadata(number, version));
    let found = found.expect("another one's metadata");
    assert_eq!(
        entry.payload(),
        payload(number, found),
        "not what was stored"
    );
    assert_eq!(entry.tenant(), tenant(number));
    Some(found)
}

fn walk(root: &Path, below: &str, files: &mut Files) {
    for entry in fs::read_dir(root.join(below)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            walk(root, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(entry.path()).expect("a file"));
        }
    }
}

fn files_of(root: &Path) -> Files {
    let mut files = Files::new();
    walk(root, "", &mut files);
    files
}

/// The fastest place for files.
fn folder() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a temporary folder")
}

fn good() -> &'static Files {
    static GOOD: OnceLock<Files> = OnceLock::new();
    // Contents are written by a thread, and the end of the cache does not wait for it.
    const TRIES_MAX: usize = 100;
    let is_whole = |files: &Files| {
        let contents = files.keys().filter(|name| name.ends_with(".idx"));
        contents.count() >= 2
    };
    let make = || {
        let folder = folder();
        let dir = folder.path().join("data");
        let cache = Cache::open(&options(&dir)).expect("a new folder");
        for number in 0..KEYS {
            put(&cache, number, 0);
        }
        cache.purge_tenant(&tenant(PURGED)).expect("a purge");
        for number in (0..KEYS).filter(|number| number % 4 == 1) {
            put(&cache, number, 1);
        }
        cache.remove(&key(3));
        cache.sync().expect("a sync");
        for number in 0..KEYS {
            let expected = match number {
                3 => None,
                _ if number % 3 == PURGED => (number % 4 == 1).then_some(1),
                _ => Some(u64::from(number % 4 == 1)),
            };
            assert_eq!(version(&cache, number), expected, "key {number}");
        }
        drop(cache);
        files_of(&dir)
    };
    GOOD.get_or_init(|| {
        let mut tries = (0..TRIES_MAX).map(|_| make());
        tries.find(is_whole).expect("contents of two segments")
    })
}

/// Applies the edits; returns whether a checksum was put right after one, which only an author of
/// such files does.
fn edit(files: &mut Files, mut input: Bytes<'_>) -> bool {
    let mut is_forged = false;
    for _ in 0..EDITS_MAX {
        if input.is_empty() || files.is_empty() {
            break;
        }
        let what = input.byte();
        let nth = usize::from(input.byte()) % files.len();
        let name = files.keys().nth(nth).expect("a file").clone();
        let mut bytes = files.remove(&name).expect("a file");
        let at = (input.below(1 << 16) | usize::from(input.byte()) << 16) % (bytes.len() + 1);
        match what % 8 {
            0 | 1 => {
                let length = usize::from(input.byte() % 16) + 1;
                let piece = input.piece(length);
                for (byte, with) in bytes[at..].iter_mut().zip(piece) {
                    *byte = if what % 8 == 0 { *with } else { *byte ^ with };
                }
            }
            2 => {
                let end = (at + input.below(1 << 16)).min(bytes.len());
                bytes[at..end].fill(0);
            }
            3 => bytes.truncate(at),
            4 => bytes.extend_from_slice(input.piece(64)),
            5 => {
                let other = usize::from(input.byte()) % (files.len() + 1);
                let other = files.values().nth(other).unwrap_or(&bytes);
                let from = input.below(1 << 16) % (other.len() + 1);
                let end = (from + input.below(1 << 16)).min(other.len());
                let piece = other[from..end].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            // Lost.
            6 => continue,
            _ => {
                let names = [
                    "segments/0000000000000007.seg",
                    "segments/0000000000000001.idx",
                ];
                let name = names[usize::from(input.byte() % 2)];
                files.insert(name.into(), bytes.clone());
            }
        }
        if what & 0x80 != 0 && bytes.len() >= BLOCK_BYTES {
            is_forged = true;
            let end = match name.ends_with(".seg") {
                true => BLOCK_BYTES,
                false => bytes.len(),
            };
            let checksum = crc_fast::crc32_iscsi(&bytes[..end - 4]);
            bytes[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
        }
        files.insert(name, bytes);
    }
    is_forged
}

fn versions(cache: &Cache, is_forged: bool) -> Vec<Option<u64>> {
    (0..KEYS)
        .map(|number| {
            let found = version(cache, number);
            if number % 3 == PURGED && !is_forged {
                assert_ne!(found, Some(0), "key {number} was purged");
            }
            found
        })
        .collect()
}

fuzz_target!(|input: &[u8]| {
    let mut files = good().clone();
    let is_forged = edit(&mut files, Bytes(input));
    let folder = folder();
    let dir = folder.path().join("data");
    fs::create_dir_all(dir.join("segments")).expect("a folder");
    for (name, bytes) in &files {
        fs::write(dir.join(name), bytes).expect("a file");
    }
    let report = StoreReport::of(&dir);
    assert!(files_of(&dir) == files, "looking changed something");

    let cache = match Cache::open(&options(&dir)) {
        Ok(cache) => cache,
        Err(error) => {
            assert!(
                !matches!(
                    error,
                    OpenError::Locked(_) | OpenError::Sizes(_) | OpenError::Quota(_)
                ),
                "{error}"
            );
            let mut after = files_of(&dir);
            // An empty lock is all that may have come.
            if !files.contains_key("lock") {
                after.remove("lock");
            }
            assert!(after == files, "refused and changed: {error}");
            return;
        }
    };
    // If all is lost, a new store begins, and the inspection found none.
    let is_ours = files.contains_key("manifest");
    assert_eq!(report.is_ok(), is_ours, "opened, and looked at: {report:?}");
    let found = versions(&cache, is_forged);
    // The cache goes on.
    put(&cache, 1, 2);
    assert_eq!(version(&cache, 1), Some(2), "just stored");
    drop(cache);
    let cache = Cache::open(&options(&dir)).expect("what was open opens again");
    let again = versions(&cache, is_forged);
    assert_eq!(again[1], Some(2), "stored before it was opened again");
    for (number, (first, again)) in found.into_iter().zip(again).enumerate() {
        // No purged entry comes back; others may have had to make room.
        if number != 1 && again.is_some() {
            assert_eq!(again, first, "key {number}");
        }
    }
});
