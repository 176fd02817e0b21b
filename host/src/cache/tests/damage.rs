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
fn whoever_must_not_wait_is_told_what_may_have_to_be_fetched() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 1000);
    let is_hit = |found| matches!(found, Some(Lookup::Hit(_)));
    // What this process has written need not be fetched, nor what is in memory or nowhere.
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
