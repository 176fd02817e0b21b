//! Bytes on disk that are not as they were written.

use super::*;

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
        // A damaged superblock costs nothing: each record has its own checksums.
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
    let at = FIRST_RECORD + 192 + HEADER_BYTES as u64 + 20;
    props.flip(at, 1);
    assert_eq!(version(&cache, 9), None);
    assert_eq!(cache.stats().corrupt, 1);
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
fn zeros_anywhere_are_the_right_answer_or_a_miss() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..10 {
        put(&cache, number, 0, 100 * number as usize);
    }
    put(&cache, 1, 1, 50);
    cache.remove(&key(2));
    put(&cache, 9, 2, 10);
    drop(cache);
    let path = props.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    for (length, step) in [(1, 13), (16, 16), (512, 64), (4096, 512)] {
        for at in (0..FIRST_RECORD as usize + 8000).step_by(step) {
            let mut zeroed = whole.clone();
            zeroed[at..at + length].fill(0);
            fs::write(&path, zeroed).unwrap();
            let cache = props.open();
            for number in 0..10 {
                let expected = match number {
                    1 => [Some(0), Some(1)],
                    2 => [Some(0), None],
                    9 => [Some(0), Some(2)],
                    _ => [Some(0), Some(0)],
                };
                let found = version(&cache, number);
                // One lost header is noticed, unless it is the very last; of several in a row,
                // the last is.
                let may_be_older = length > 16 || number == 9;
                let is_right = found == expected[1] || may_be_older && found == expected[0];
                assert!(
                    found.is_none() || is_right,
                    "{length} bytes at {at}, key {number}: {found:?}"
                );
            }
        }
    }
}

/// A loss of power took the last record of a segment, and all records of the segment behind it. The
/// superblock of that one names the lost record. The next process wrote there, and named the last record
/// that was left: the start after that took that one, durable as it was, for the lost one.
#[test]
fn a_record_lost_before_an_empty_segment_costs_no_other_record() {
    let props = Props::new();
    let cache = props.open();
    let mut written = 0;
    let mut record_bytes = 0;
    while cache.stats().segments < 2 {
        record_bytes = put(&cache, written, 0, 1000).record_bytes();
        written += 1;
    }
    drop(cache);
    let zeros = vec![0; record_bytes as usize];
    for (segment, record) in props.segments().iter().zip([written - 2, 0]) {
        let file = OpenOptions::new().write(true).open(segment).unwrap();
        let at = FIRST_RECORD + record * record_bytes;
        file.write_all_at(&zeros, at).unwrap();
    }
    for path in props.folder() {
        if path.extension().is_some_and(|it| it == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    let left = written - 2;
    for start in 0..3 {
        let cache = props.open();
        for number in (0..left).chain(1000..1000 + start) {
            assert_eq!(version(&cache, number), Some(0), "key {number}");
        }
        assert_eq!(cache.stats().entries, left + start);
        // Purges take sequences, too, which no record has.
        cache.purge_tenant(&[9; 32]).unwrap();
        put(&cache, 1000 + start, 0, 1000);
        cache.sync().unwrap();
    }
}

/// Through the mapping, a sector that went bad after opening would be a signal.
#[test]
fn a_sector_that_goes_bad_before_the_first_read_is_a_miss() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..60 {
        put(&cache, number, 0, 1000);
    }
    cache.sync().unwrap();
    drop(cache);
    let cache = props.open();
    props.faults.bad_block.store(3, Relaxed);
    let lost = (0..60).filter(|n| version(&cache, *n).is_none()).count();
    assert!((4..=6).contains(&lost), "{lost} lost");
    assert_eq!(cache.stats().corrupt, lost as u64);
}

#[test]
fn a_lookup_that_must_not_wait_is_told_what_may_have_to_be_fetched() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 1000);
    let is_hit = |found| matches!(found, Some(Lookup::Hit(_)));
    // Entries of this process need no read from disk, nor do entries in memory and misses.
    assert!(is_hit(cache.lookup_now(&key(1), NOW)));
    assert!(matches!(cache.lookup_now(&key(2), NOW), Some(Lookup::Miss)));
    drop(cache);
    let cache = props.open();
    assert!(cache.lookup_now(&key(1), NOW).is_none());
    assert_eq!(version(&cache, 1), Some(0));
    assert!(is_hit(cache.lookup_now(&key(1), NOW)));
    let cache = Cache::in_memory(&props.options);
    put(&cache, 1, 0, 1000);
    assert!(is_hit(cache.lookup_now(&key(1), NOW)));
}

/// The blocks of a segment that hold these records of 1,120 bytes, by number from 0.
fn block_of(record: u64) -> u64 {
    (FIRST_RECORD + record * 1120) / 4096
}

fn put_for(cache: &Cache, number: u64, tenant: &[u8; 32], version: u64) {
    let (metadata, payload) = (
        format!("{number}/{version}"),
        payload(number, version, 1000),
    );
    let new = NewEntry {
        key: &key(number),
        tenant,
        metadata: metadata.as_bytes(),
        payload: &payload,
        now_ms: NOW,
        ttl_ms: None,
    };
    cache.insert(new).unwrap();
}

fn version_for_any(cache: &Cache, number: u64) -> Option<u64> {
    let entry = cache.lookup(&key(number), NOW).hit()?;
    let text = std::str::from_utf8(entry.metadata()).unwrap();
    let (of, version) = text.split_once('/').unwrap();
    assert_eq!(of, number.to_string());
    version.parse().ok()
}

/// A block could not be read when the cache was opened, at the end of the log or in the middle. Its
/// records came back when it could be read again: they had the higher sequences, no purge covered
/// them, and no tombstone had been written for them.
#[test]
fn what_a_read_error_hides_does_not_come_back_when_it_was_done_away_with_meanwhile() {
    const MINE: [u8; 32] = [1; 32];
    const RECORDS: u64 = 40;
    type Act = fn(&Cache, u64);
    let acts: [(Act, Option<u64>); 6] = [
        (|cache, _| cache.purge_tenant(&MINE).unwrap(), None),
        (|cache, _| cache.purge_all().unwrap(), None),
        (|cache, _| cache.erase_tenant(&MINE, NOW).unwrap(), None),
        (
            |cache, number| {
                cache.remove(&key(number));
            },
            None,
        ),
        (|cache, number| put_for(cache, number, &MINE, 7), Some(7)),
        (
            |cache, number| {
                put_for(cache, number, &MINE, 7);
                cache.remove(&key(number));
            },
            None,
        ),
    ];
    for hidden in [20, RECORDS - 1] {
        for is_synced in [false, true] {
            for (at, (act, expected)) in acts.iter().enumerate() {
                let props = Props::new();
                let cache = props.open();
                for number in 0..RECORDS {
                    put_for(&cache, number, &MINE, 0);
                }
                cache.sync().unwrap();
                drop(cache);
                props.faults.bad_block.store(block_of(hidden), Relaxed);
                let cache = props.open();
                assert_eq!(version_for_any(&cache, hidden), None);
                assert_eq!(version_for_any(&cache, 1), Some(0), "it can be read");
                act(&cache, hidden);
                assert_eq!(version_for_any(&cache, hidden), *expected);
                if is_synced {
                    cache.sync().unwrap();
                }
                drop(cache);
                props.faults.bad_block.store(0, Relaxed);
                for _ in 0..2 {
                    let cache = props.open();
                    let found = version_for_any(&cache, hidden);
                    assert_eq!(found, *expected, "act {at}, record {hidden}, {is_synced}");
                }
            }
        }
    }
}

/// Only readable records gave the highest sequence. When these were hidden in turn, new records had
/// lower sequences than they.
#[test]
fn one_read_error_after_another_lets_nothing_older_win() {
    let props = Props::new();
    const RECORDS: u64 = 40;
    let cache = props.open();
    for number in 0..RECORDS {
        put(&cache, number, 0, 1000);
    }
    drop(cache);
    // The end of the first segment; then, one after the other, the records written since.
    let last = RECORDS - 1;
    for (version_now, bad_block) in [(1, block_of(last)), (2, 1), (3, 1), (4, 1)] {
        props.faults.bad_block.store(bad_block, Relaxed);
        let cache = props.open();
        put(&cache, last, version_now, 1000);
        put(&cache, last, version_now + 10, 1000);
        assert_eq!(version(&cache, last), Some(version_now + 10));
        drop(cache);
    }
    props.faults.bad_block.store(0, Relaxed);
    let cache = props.open();
    assert_eq!(version(&cache, last), Some(14));
    cache.remove(&key(last));
    drop(cache);
    assert_eq!(version(&props.open(), last), None);
}

/// A segment that is half dead is reclaimed before older ones, and leaves tombstones for the
/// records that it supersedes there, but not for its own unreadable ones.
#[test]
fn a_segment_that_cannot_be_read_does_not_go_before_an_older_one() {
    let props = Props::new();
    let cache = props.open();
    // The first segment, in which only records die that the second one supersedes.
    for number in 0..31 {
        put(&cache, number, 0, 4000);
    }
    // The second one: a new version of an old key, and many records that die.
    put(&cache, 0, 1, 4000);
    for number in 100..130 {
        put(&cache, number, 0, 4000);
    }
    for number in 200..240 {
        put(&cache, number, 0, 1000);
    }
    for number in 100..130 {
        cache.remove(&key(number));
    }
    drop(cache);
    for path in props.folder() {
        // So that all is read again.
        if path.extension().is_some_and(|found| found == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    let cache = props.open();
    cache.remove(&key(0));
    for path in props.folder() {
        if path.extension().is_some_and(|found| found == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
    props.faults.bad_block.store(1, Relaxed);
    for number in 300..700 {
        put(&cache, number, 0, 1000);
    }
    cache.sync().unwrap();
    drop(cache);
    props.faults.bad_block.store(0, Relaxed);
    assert_eq!(version(&props.open(), 0), None);
}
