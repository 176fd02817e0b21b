//! The cache over real files, over a disk with faults, and without a disk.

use super::*;
use crate::store::HEADER_BYTES;
use crate::store::faults::{FaultDisk, Faults};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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
        let mut paths: Vec<_> = fs::read_dir(self.data_dir().join("segments"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
    }

    /// Alters one byte of the first segment and returns what it was.
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

/// Which version of a key the cache answers with, if any. Whatever it answers with must be a
/// version of this key, unaltered.
#[track_caller]
fn version(cache: &Cache, number: u64) -> Option<u64> {
    let Lookup::Hit(entry) = cache.lookup(&key(number), NOW) else {
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

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[test]
fn an_entry_is_found_as_it_was_stored_until_it_expires() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        assert!(matches!(cache.lookup(&key(1), NOW), Lookup::Miss));
        let stored = put_until(&cache, 1, 0, 5000, Some(10_500));
        for entry in [stored, put_until(&cache, 1, 0, 5000, Some(10_500))] {
            check(&entry, 1);
            assert_eq!(entry.stored_at_ms(), NOW);
            assert_eq!(entry.expires_at_ms(), Some(NOW + 10_500));
        }

        for (after_ms, is_hit, age, ttl) in [
            (0, true, 0, 10),
            (999, true, 0, 9),
            (1000, true, 1, 9),
            (10_499, true, 10, 0),
            (10_500, false, 10, 0),
            (99_999, false, 99, 0),
        ] {
            let now = NOW + after_ms;
            assert_eq!(cache.contains(&key(1), now), is_hit, "{after_ms}");
            let entry = match cache.lookup(&key(1), now) {
                Lookup::Hit(entry) if is_hit => entry,
                Lookup::Stale(entry) if !is_hit => entry,
                other => panic!("{after_ms}: {other:?}"),
            };
            assert_eq!(entry.age_seconds(now), age, "{after_ms}");
            assert_eq!(entry.ttl_seconds(now), Some(ttl), "{after_ms}");
        }

        let for_ever = put(&cache, 2, 0, 0);
        assert_eq!(for_ever.expires_at_ms(), None);
        assert_eq!(for_ever.ttl_seconds(u64::MAX - 1), None);
        assert!(cache.contains(&key(2), u64::MAX - 1));
        // A clock that was set back is no trouble.
        assert_eq!(for_ever.age_seconds(NOW - 1), 0);
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_older_entry_stays() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        put(&cache, 1, 0, 10);
        let max = props.options.entry_bytes_max;
        let try_put = |metadata: usize, payload: u64| {
            cache
                .insert(NewEntry {
                    key: &key(1),
                    tenant: &TENANT,
                    metadata: &vec![0; metadata],
                    payload: &vec![0; payload as usize],
                    now_ms: NOW,
                    ttl_ms: None,
                })
                .map(|_| ())
        };
        let too_long = METADATA_BYTES_MAX as u64;
        assert_eq!(try_put(0, max + 1), Err(InsertError::PayloadTooLarge(max)));
        assert_eq!(
            try_put(METADATA_BYTES_MAX + 1, 0),
            Err(InsertError::MetadataTooLarge(too_long))
        );
        assert_eq!(version(&cache, 1), Some(0));
        assert_eq!(try_put(METADATA_BYTES_MAX, max), Ok(()));
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused_in_one_line() {
    for (disk, entry, segment, ok) in [
        (4 << 30, 16 << 20, 64 << 20, true),
        (40 << 20, 16 << 20, 64 << 20, true),
        (32 << 20, 16 << 20, 64 << 20, false),
        (0, 0, 0, false),
        (u64::MAX, u64::MAX, u64::MAX, false),
        (u64::MAX, 1 << 20, 1 << 40, false),
        (1 << 20, 1 << 10, 0, true),
    ] {
        let options = CacheOptions {
            disk_bytes_max: disk,
            entry_bytes_max: entry,
            segment_bytes: segment,
            ..CacheOptions::default()
        };
        match options.store() {
            Ok(store) => {
                assert!(ok, "{options:?}");
                assert!(store.segment_bytes * 2 <= store.quota);
            }
            Err(error) => {
                assert!(!ok, "{options:?}: {error}");
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
}

#[test]
fn reopening_keeps_entries_the_newest_wins_and_the_removed_stay_removed() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..6 {
        put(&cache, number, 0, 100 * number as usize);
    }
    put(&cache, 1, 1, 50);
    assert!(cache.remove(&key(2)));
    assert!(!cache.remove(&key(2)));
    cache.remove(&key(3));
    put(&cache, 3, 2, 70);
    put_until(&cache, 4, 3, 10, Some(0));
    cache.sync().unwrap();
    drop(cache);

    let expected = [Some(0), Some(1), None, Some(2), None, Some(0)];
    for _ in 0..3 {
        let cache = props.open();
        for (number, expected) in expected.iter().enumerate() {
            assert_eq!(version(&cache, number as u64), *expected, "key {number}");
        }
        // The sequence goes on, so that what is written now wins over what was before.
        let stats = cache.stats();
        assert_eq!((stats.corrupt, stats.segments), (0, 1));
        assert_eq!(stats.entries, 5);
    }
    let cache = props.open();
    put(&cache, 1, 4, 10);
    drop(cache);
    assert_eq!(version(&props.open(), 1), Some(4));
}

#[test]
fn what_was_evicted_can_still_be_removed_for_good() {
    let mut props = Props::new();
    props.options.entries_max = 4;
    let cache = props.open();
    for number in 0..100 {
        put(&cache, number, 0, 10);
    }
    cache.shared.l1.run_pending_tasks();
    assert_eq!(version(&cache, 0), None);
    assert!(cache.stats().entries <= 4 && cache.stats().evictions >= 96);
    assert!(cache.stats().dead_bytes >= 96 * 192);
    assert!(!cache.remove(&key(0)));
    drop(cache);
    props.options.entries_max = 1000;
    let cache = props.open();
    assert_eq!(version(&cache, 0), None);
    assert_eq!(version(&cache, 1), Some(0));
}

#[test]
fn a_flipped_byte_anywhere_is_the_right_answer_or_a_miss() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..4 {
        put(&cache, number, 0, 10 * number as usize);
    }
    put(&cache, 1, 1, 50);
    cache.remove(&key(2));
    put(&cache, 4, 0, 33);
    drop(cache);
    let expected = [Some(0), Some(1), None, Some(0), Some(0)];
    let end = FIRST_RECORD + 7 * 192;

    let superblock = (0..FIRST_RECORD).step_by(61);
    for at in superblock.chain(FIRST_RECORD..end + 64) {
        let with = 1 << (at % 8);
        props.flip(at, with);
        let cache = props.open();
        for (number, expected) in expected.iter().enumerate() {
            let found = version(&cache, number as u64);
            assert!(
                found.is_none() || found == *expected,
                "byte {at}: version {found:?} of key {number}"
            );
        }
        // A damaged superblock costs nothing: every record proves itself.
        if at < FIRST_RECORD {
            assert_eq!(version(&cache, 1), Some(1), "byte {at}");
            assert!(cache.stats().corrupt > 0, "byte {at}");
        }
        drop(cache);
        props.flip(at, with);
    }
    let cache = props.open();
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(version(&cache, number as u64), *expected);
    }
}

#[test]
fn a_byte_flipped_before_the_first_read_is_a_miss() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 9, 0, 64);
    put(&cache, 9, 0, 64);
    drop(cache);

    let cache = props.open();
    // Somewhere in the payload of the record that counts, the second one.
    let at = FIRST_RECORD + 256 + HEADER_BYTES as u64 + 20;
    props.flip(at, 1);
    assert_eq!(version(&cache, 9), None);
    assert_eq!(cache.stats().corrupt, 1);
    cache.shared.l1.run_pending_tasks();
    assert_eq!(cache.stats().entries, 0);
    put(&cache, 9, 1, 64);
    assert_eq!(version(&cache, 9), Some(1));
}

#[test]
fn a_segment_cut_short_anywhere_keeps_what_is_before_the_cut() {
    let props = Props::new();
    let cache = props.open();
    let mut ends = Vec::new();
    let mut end = FIRST_RECORD;
    for number in 0..5 {
        let entry = put(&cache, number, 0, 64 * number as usize);
        end += entry.record_bytes();
        ends.push(end);
    }
    drop(cache);
    let path = props.segments().remove(0);
    let whole = fs::read(&path).unwrap();

    for cut in (0..=end as usize).step_by(37).chain([end as usize]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let cache = props.open();
        for (number, end) in ends.iter().enumerate() {
            let found = version(&cache, number as u64);
            assert!(found.is_none() || found == Some(0));
            if *end <= cut as u64 {
                assert_eq!(found, Some(0), "key {number}, cut at {cut}");
            }
        }
        // Nothing is written into it any more, and the cache goes on beside it.
        put(&cache, 9, 0, 10);
        assert_eq!(version(&cache, 9), Some(0));
        assert_eq!(fs::metadata(&path).unwrap().len(), cut as u64);
        drop(cache);
        for path in props.segments().iter().skip(1) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn an_unreadable_block_costs_its_records_and_no_more() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..40 {
        put(&cache, number, 0, 1000);
    }
    drop(cache);
    props.faults.bad_block.store(3, Relaxed);
    let cache = props.open();
    let lost = (0..40).filter(|n| version(&cache, *n).is_none()).count();
    assert!((4..=6).contains(&lost), "{lost} lost");
    assert!(cache.stats().corrupt > 0);
}

#[test]
fn a_folder_in_use_or_not_ours_is_refused_in_one_line_and_left_alone() {
    #[track_caller]
    fn check(props: &Props, expected: &str) {
        let before = snapshot(props.dir.path());
        let error = props.try_open().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let path = props.data_dir().display().to_string();
        assert!(error.contains(&path), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(snapshot(props.dir.path()), before);
    }

    let props = Props::new();
    let cache = props.open();
    check(&props, "in use by another process");
    put(&cache, 1, 0, 10);
    drop(cache);
    assert_eq!(version(&props.open(), 1), Some(0));

    let manifest = props.data_dir().join("manifest");
    let ours = fs::read(&manifest).unwrap();
    let newer = sealed_again(&ours, 8);
    let feature = sealed_again(&ours, 12);
    let mut flipped = ours.clone();
    flipped[20] ^= 1;
    for (bytes, expected) in [
        (&newer[..], "later release (format 2"),
        (&feature[..], "later release"),
        (&flipped[..], "damaged (its checksum differs)"),
        (&ours[..100], "damaged (cut short)"),
        (b"", "damaged (cut short)"),
        (&[b'x'; 5000], "somebody else's"),
    ] {
        fs::write(&manifest, bytes).unwrap();
        check(&props, expected);
    }
    // The manifest lost, the segments there.
    fs::remove_file(&manifest).unwrap();
    check(&props, "files in it but no manifest");
    fs::write(&manifest, &ours).unwrap();
    assert_eq!(version(&props.open(), 1), Some(0));

    let segment = props.segments().remove(0);
    let bytes = fs::read(&segment).unwrap();
    let newer = [&sealed_again(&bytes[..4096], 8), &bytes[4096..]].concat();
    fs::write(&segment, newer).unwrap();
    check(&props, "later release (format 2");

    let props = Props::new();
    fs::create_dir(props.data_dir()).unwrap();
    fs::write(props.data_dir().join("thesis.txt"), "irreplaceable").unwrap();
    check(&props, "files in it but no manifest");

    let props = Props::new();
    fs::write(props.data_dir(), "a file").unwrap();
    check(&props, "cannot make data folder");
}

/// A block with the number at `at` one higher and its checksum put right.
fn sealed_again(block: &[u8], at: usize) -> Vec<u8> {
    let mut block = block.to_vec();
    block[at] += 1;
    let checksum = crc_fast::crc32_iscsi(&block[..4092]);
    block[4092..].copy_from_slice(&checksum.to_le_bytes());
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

#[test]
fn what_a_crash_leaves_while_making_things_is_cleared_away() {
    let props = Props::new();
    fs::create_dir_all(props.data_dir().join("segments")).unwrap();
    fs::create_dir_all(props.data_dir().join("lost+found")).unwrap();
    fs::write(props.data_dir().join("manifest.tmp"), "half").unwrap();
    fs::write(props.data_dir().join("lock"), "").unwrap();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    drop(cache);

    let segments = props.data_dir().join("segments");
    fs::write(segments.join("00000000000000ff.seg.tmp"), "half").unwrap();
    for name in [
        "notes.txt",
        "1.seg",
        "000000000000000G.seg",
        "0000000000000001.idx",
    ] {
        fs::write(segments.join(name), "stays").unwrap();
    }
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(0));
    assert!(!segments.join("00000000000000ff.seg.tmp").exists());
    assert!(segments.join("notes.txt").exists());
    assert_eq!(cache.stats().segments, 1);
}

#[test]
fn the_quota_is_kept_the_oldest_goes_and_the_newest_stays() {
    let props = Props::new();
    let quota = props.options.disk_bytes_max;
    let on_disk = || -> u64 {
        let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
        props.segments().iter().map(length).sum()
    };
    let cache = props.open();
    let count = 10 * quota / 4096;
    for number in 0..count {
        put(&cache, number, 0, 4000);
        assert_eq!(version(&cache, number), Some(0));
        if number % 16 == 0 {
            assert!(on_disk() <= quota);
            assert!(cache.stats().disk_bytes <= quota);
        }
    }
    let stats = cache.stats();
    assert!(stats.segments_reclaimed > 60, "{stats:?}");
    assert!(stats.healthy && stats.inserts_in_memory == 0, "{stats:?}");
    let kept = |cache: &Cache| -> Vec<u64> {
        (0..count)
            .filter(|n| version(cache, *n).is_some())
            .collect()
    };
    let before = kept(&cache);
    // Nine tenths of seven segments, less what does not fill one.
    assert!((180..=230).contains(&before.len()), "{}", before.len());
    assert_eq!(before.last(), Some(&(count - 1)));
    assert_eq!(before.first(), Some(&(count - before.len() as u64)));
    drop(cache);
    let after = kept(&props.open());
    assert_eq!(after.last(), Some(&(count - 1)));
    assert!(on_disk() <= quota);

    // A quota that was made smaller is kept from the beginning.
    let mut props = props;
    props.options.disk_bytes_max /= 2;
    let cache = props.open();
    assert!(cache.stats().disk_bytes <= props.options.disk_bytes_max);
    assert_eq!(version(&cache, count - 1), Some(0));
}

#[test]
fn a_reader_keeps_its_bytes_when_the_segment_is_reclaimed() {
    let props = Props::new();
    let cache = props.open();
    let held = put(&cache, 0, 0, 5000);
    let held_payload = held.payload();
    for number in 1..1000 {
        put(&cache, number, 0, 4000);
    }
    assert_eq!(version(&cache, 0), None);
    assert!(!props.segments()[0].ends_with("0000000000000001.seg"));
    check(&held, 0);
    let stats = cache.stats();
    assert_eq!(stats.pinned_bytes, 128 << 10);
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);

    drop(held);
    assert_eq!(cache.stats().pinned_bytes, 128 << 10);
    assert_eq!(held_payload, payload(0, 0, 5000));
    drop(held_payload);
    assert_eq!(cache.stats().pinned_bytes, 0);
}

#[test]
fn readers_that_hold_too_much_make_inserts_go_to_memory_and_not_the_disk_grow() {
    let props = Props::new();
    let cache = props.open();
    let quota = props.options.disk_bytes_max;
    let mut held = Vec::new();
    for number in 0..2000 {
        held.push(put(&cache, number, 0, 4000));
        held.truncate(300);
        assert!(cache.stats().disk_bytes <= quota);
    }
    let stats = cache.stats();
    assert!(!stats.healthy && stats.inserts_in_memory > 0, "{stats:?}");
    assert!(stats.trouble.unwrap().contains("slow readers"));
    // They do not empty the cache either.
    assert!(stats.segments >= 4, "{} segments", stats.segments);
    for (number, entry) in held.iter().enumerate() {
        check(entry, number as u64);
    }
    assert_eq!(version(&cache, 1999), Some(0));

    held.clear();
    let later = NewEntry {
        key: &key(1),
        tenant: &TENANT,
        metadata: b"1/5",
        payload: &payload(1, 5, 9),
        now_ms: NOW + RETRY_AFTER_MS,
        ttl_ms: None,
    };
    cache.insert(later).unwrap();
    assert!(cache.stats().healthy);
    assert_eq!(version(&cache, 1), Some(5));
}

#[test]
fn a_disk_in_trouble_means_memory_and_back_again_without_a_restart() {
    #[track_caller]
    fn check(props: &Props, fault: &AtomicBool) {
        let cache = props.open();
        for number in 1..4 {
            put(&cache, number, 0, 10);
        }
        fault.store(true, Relaxed);
        // Enough to need another segment.
        for number in 100..140 {
            put(&cache, number, 0, 4000);
            assert_eq!(version(&cache, number), Some(0));
        }
        assert_eq!(version(&cache, 1), Some(0));
        put(&cache, 1, 1, 10);
        assert_eq!(version(&cache, 1), Some(1));
        put(&cache, 3, 1, 10);
        let stats = cache.stats();
        assert!(!stats.healthy && stats.trouble.is_some());
        assert!(stats.inserts_in_memory > 0);

        // Within the second, the disk is left in peace.
        let tries = props.faults.tries.load(Relaxed);
        put(&cache, 140, 0, 4000);
        assert_eq!(props.faults.tries.load(Relaxed), tries);
        assert_eq!(cache.stats().store_errors, stats.store_errors);

        // However long it lasts, memory is bounded.
        for number in 200..600 {
            put(&cache, number, 0, 4000);
        }
        cache.shared.memory.run_pending_tasks();
        assert!(cache.stats().payload_bytes <= 2 << 20);
        assert!(cache.shared.memory.len() <= (1 << 20) / 4096);
        assert_eq!(version(&cache, 599), Some(0));
        // A removal cannot be written either, but holds for as long as the process lives.
        assert!(cache.remove(&key(599)) && cache.remove(&key(2)));
        assert_eq!(version(&cache, 599), None);

        fault.store(false, Relaxed);
        let now_ms = NOW + RETRY_AFTER_MS;
        let new = NewEntry {
            key: &key(1),
            tenant: &TENANT,
            metadata: b"1/2",
            payload: &payload(1, 2, 100),
            now_ms,
            ttl_ms: None,
        };
        cache.insert(new).unwrap();
        let stats = cache.stats();
        assert!(stats.healthy && stats.trouble.is_none());
        assert_eq!(version(&cache, 1), Some(2));
        // Or it would be found there once the newer one is evicted.
        assert!(!cache.shared.memory.contains_hash(key(1).as_bytes()));
        drop(cache);
        let cache = props.open();
        assert_eq!(version(&cache, 1), Some(2));
        // What was on disk and then removed, or superseded in memory, does not come back.
        assert_eq!(version(&cache, 2), None);
        assert_eq!(version(&cache, 3), None);
        for number in 100..600 {
            let found = version(&cache, number);
            assert!(found.is_none() || found == Some(0));
        }
    }

    let props = Props::new();
    check(&props, &props.faults.is_full);
    let props = Props::new();
    check(&props, &props.faults.tears_writes);
}

#[test]
fn files_that_cannot_be_removed_do_not_let_the_disk_grow() {
    let props = Props::new();
    let cache = props.open();
    props.faults.keeps_files.store(true, Relaxed);
    for number in 0..1000 {
        put(&cache, number, 0, 4000);
    }
    let stats = cache.stats();
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);
    assert!(stats.trouble.unwrap().contains("cannot remove"));
    // What is on disk is still served.
    assert_eq!(version(&cache, 200), Some(0));
    assert_eq!(version(&cache, 999), Some(0));
}

#[test]
fn after_a_failed_sync_nothing_more_is_written_to_that_segment() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.sync().is_err());
    assert!(!cache.stats().healthy);
    // It is not tried again, and there is nothing else to sync.
    assert!(cache.sync().is_ok());
    assert_eq!(version(&cache, 1), Some(0));

    props.faults.fails_syncs.store(false, Relaxed);
    put(&cache, 2, 0, 10);
    assert_eq!(cache.stats().segments, 2);
    assert!(cache.stats().healthy);
    assert!(cache.sync().is_ok());
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(0));
    assert_eq!(version(&cache, 2), Some(0));
}

#[test]
fn random_operations_do_what_a_map_does_over_restarts_too() {
    const SEEDS: Range<u64> = 0..20;
    const KEYS: u64 = 12;
    for seed in SEEDS {
        let mut random = Random(seed);
        let props = Props::new();
        // Every other seed has to make room all the time; then a miss is right as well.
        let makes_room = seed % 2 == 1;
        let length_max = if makes_room { 16_000 } else { 300 };
        let mut cache = props.open();
        let mut model = HashMap::new();
        for step in 0..200 {
            let number = random.below(KEYS);
            match random.below(20) {
                0..10 => {
                    let length = random.below(length_max) as usize;
                    put(&cache, number, step, length);
                    model.insert(number, step);
                }
                10..13 => {
                    let was_there = version(&cache, number).is_some();
                    assert_eq!(cache.remove(&key(number)), was_there);
                    model.remove(&number);
                }
                13 => {
                    drop(cache);
                    cache = props.open();
                    assert_eq!(cache.stats().corrupt, 0, "seed {seed}, step {step}");
                }
                14 => cache.sync().unwrap(),
                _ => {}
            }
            for number in 0..KEYS {
                let found = version(&cache, number);
                let expected = model.get(&number).copied();
                assert!(
                    found == expected || makes_room && found.is_none(),
                    "seed {seed}, step {step}, key {number}: {found:?}, not {expected:?}"
                );
            }
            assert!(cache.stats().disk_bytes <= props.options.disk_bytes_max);
        }
    }
}

#[test]
fn many_threads_insert_look_up_remove_and_reclaim_and_no_bytes_are_mixed_up() {
    const THREADS: u64 = 4;
    const STEPS: u64 = 3000;
    const KEYS: u64 = 200;
    let mut props = Props::new();
    // Larger segments than elsewhere, so that the readers here do not hold too much of it.
    props.options.disk_bytes_max = 4 << 20;
    let cache = props.open();
    thread::scope(|scope| {
        for id in 0..THREADS {
            let cache = cache.clone();
            scope.spawn(move || {
                let mut random = Random(id);
                let mut held = Vec::new();
                for step in 0..STEPS {
                    let number = random.below(KEYS);
                    match random.below(10) {
                        0..4 => {
                            let length = random.below(8000) as usize;
                            check(&put(&cache, number, id * STEPS + step, length), number);
                        }
                        4 => {
                            cache.remove(&key(number));
                        }
                        5 => drop(cache.sync()),
                        _ => {
                            if let Lookup::Hit(entry) = cache.lookup(&key(number), NOW) {
                                check(&entry, number);
                                held.push((number, entry));
                            }
                        }
                    }
                    if held.len() > 2 {
                        let (number, entry) = held.remove(0);
                        check(&entry, number);
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.segments_reclaimed > 10, "{stats:?}");
    assert_eq!(
        (stats.corrupt, stats.inserts_in_memory),
        (0, 0),
        "{stats:?}"
    );
    assert!(stats.disk_bytes <= props.options.disk_bytes_max);
    let before: Vec<_> = (0..KEYS).map(|n| version(&cache, n)).collect();
    drop(cache);
    // After the last write L1 and the log agree on what came last.
    let cache = props.open();
    for (number, before) in before.iter().enumerate() {
        let after = version(&cache, number as u64);
        assert!(before.is_none() || after == *before, "key {number}");
    }
}

#[test]
fn a_cache_in_memory_stays_within_its_bytes() {
    let props = Props::new();
    let cache = Cache::in_memory(&props.options);
    for number in 0..2000 {
        put(&cache, number, 0, 4000);
    }
    cache.shared.memory.run_pending_tasks();
    let stats = cache.stats();
    assert!(stats.payload_bytes <= props.options.memory_bytes_max);
    assert!(stats.entries > 200 && stats.evictions > 1700, "{stats:?}");
    assert!(stats.healthy && stats.inserts_in_memory == 0 && stats.disk_bytes == 0);
    assert_eq!(version(&cache, 1999), Some(0));
    assert!(cache.remove(&key(1999)) && !cache.remove(&key(1999)));
    assert!(cache.sync().is_ok());
    assert!(!props.data_dir().exists());
}
