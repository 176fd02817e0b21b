//! What operators see of all entries, and what they purge by.

use super::*;

fn put(cache: &Cache, number: u8, metadata: &[u8]) {
    let (key, payload) = (CacheKey::from_bytes([number; 32]), [number; 100]);
    let tenant = [number % 2; 32];
    let new = NewEntry {
        key: &key,
        tenant: &tenant,
        metadata,
        payload: &payload,
        now_ms: NOW,
        ttl_ms: None,
    };
    cache.insert(new).unwrap();
}

fn heads(cache: &Cache) -> Vec<(u8, u8, Vec<u8>, u64)> {
    let mut seen = Vec::new();
    let broke = cache.for_each_head(|head| {
        let (number, tenant) = (head.key.as_bytes()[0], head.tenant[0]);
        seen.push((number, tenant, head.metadata.to_vec(), head.payload_bytes));
        ControlFlow::Continue(())
    });
    assert!(!broke);
    seen.sort();
    seen
}

/// Sixteen parts of the keys, and all that a cache keeps entries in.
#[test]
fn each_entry_is_seen_once_wherever_it_is() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        for number in 0..100 {
            put(&cache, number, &[number, 1]);
        }
        let expected: Vec<_> = (0..100).map(|n| (n, n % 2, vec![n, 1], 100)).collect();
        assert_eq!(heads(&cache), expected);
        let mut left = 10;
        let broke = cache.for_each_key(|_| {
            left -= 1;
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert!(broke && left == 0);
    }
}

#[test]
fn what_waits_to_be_written_is_seen_too() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, b"old");
    // Without a thread that writes: the caller would, and does not.
    cache.shared.has_thread.store(true, Relaxed);
    put(&cache, 1, b"new");
    put(&cache, 2, b"new");
    let expected = [(1, 1, b"new".to_vec(), 100), (2, 0, b"new".to_vec(), 100)];
    assert_eq!(heads(&cache), expected);
    assert_eq!(cache.count_of(Some(&[0; 32])).entries, 1);
    let counted = cache.purge_where(|head| head.metadata == b"new").unwrap();
    assert_eq!(counted.entries, 2);
    assert_eq!(heads(&cache), []);
}

#[test]
fn a_purge_counts_what_it_covers_and_a_count_changes_nothing() {
    let props = Props::new();
    for cache in [props.open(), Cache::in_memory(&props.options)] {
        for number in 0..9 {
            put(&cache, number, b"");
        }
        let (five, four) = (
            cache.count_of(Some(&[0; 32])),
            cache.count_of(Some(&[1; 32])),
        );
        assert_eq!((five.entries, four.entries), (5, 4));
        assert_eq!(five.bytes / 5, four.bytes / 4);
        assert_eq!(cache.count_of(Some(&[2; 32])), Counted::default());
        let all = cache.count_of(None);
        assert_eq!(all.bytes, five.bytes + four.bytes);
        assert_eq!(cache.purge_tenant_counted(&[0; 32]).0, five);
        assert_eq!(cache.purge_tenant_counted(&[0; 32]).0, Counted::default());
        assert_eq!(cache.count_of(None), four);
        assert_eq!(heads(&cache).len(), 4);
        assert_eq!(cache.purge_all_counted().0, four);
        assert_eq!(cache.count_of(None), Counted::default());
    }
}

#[test]
fn a_purge_by_what_entries_say_is_for_good_and_keeps_earlier_fills_out() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..50 {
        put(&cache, number, if number < 20 { b"old" } else { b"new" });
    }
    let before = cache.purges().now();
    let counted = cache.purge_where(|head| head.metadata == b"old").unwrap();
    assert_eq!(counted.entries, 20);
    assert_eq!(counted.bytes, cache.count_of(None).bytes / 30 * 20);
    // Whatever it says of itself: that is not known in time.
    let key = CacheKey::from_bytes([99; 32]);
    let late = NewEntry {
        key: &key,
        tenant: &TENANT,
        metadata: b"new",
        payload: b"",
        now_ms: NOW,
        ttl_ms: None,
    };
    let refused = cache.insert_now_since(late, before).unwrap_err();
    assert_eq!(refused, InsertError::Purged);
    let none = cache.purge_where(|head| head.metadata == b"old").unwrap();
    assert_eq!(none, Counted::default());
    drop(cache);
    let cache = props.open();
    let left: Vec<u8> = heads(&cache).into_iter().map(|head| head.0).collect();
    assert_eq!(left, (20..50).collect::<Vec<u8>>());
}

/// What it says of itself is not known, and it may be readable again after a restart.
#[test]
fn an_entry_whose_metadata_cannot_be_read_is_purged_and_not_seen() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, b"one");
    put(&cache, 2, b"two");
    cache.sync().unwrap();
    // The magic of the first record.
    props.flip(FIRST_RECORD, 1);
    assert_eq!(heads(&cache).len(), 1);
    let counted = cache.purge_where(|_| false).unwrap();
    assert_eq!(counted.entries, 1);
    assert_eq!(
        cache.peek(&CacheKey::from_bytes([1; 32]), NOW).map(drop),
        None
    );
    assert!(cache.peek(&CacheKey::from_bytes([2; 32]), NOW).is_some());
}
