//! The promise of a sync, which covers no more than is known.

use super::*;
use std::io;

/// Does by hand what [`Cache::sync`] does, with something in between.
fn sync_failing(props: &Props, cache: &Cache, meanwhile: impl FnOnce()) -> io::Result<()> {
    let writer = cache.shared.writer.get().unwrap();
    let (unsynced, lost) = lock(writer).store.take_unsynced();
    lost?;
    meanwhile();
    props.faults.fails_syncs.store(true, Relaxed);
    for file in unsynced {
        assert!(file.sync().is_err());
        lock(writer).store.abandon(&file);
    }
    props.faults.fails_syncs.store(false, Relaxed);
    lock(writer).store.all_synced(true);
    Ok(())
}

/// While a sync ran, an entry was written to the same segment; the sync failed. The entry was then
/// dropped from the unsynced bytes with its segment, and the next sync succeeded.
#[test]
fn what_came_while_a_sync_failed_is_not_called_durable() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    sync_failing(&props, &cache, || drop(put(&cache, 2, 0, 10))).unwrap();
    assert!(cache.sync().is_err());
    // Once is enough: the next entry goes to another segment.
    put(&cache, 3, 0, 10);
    assert!(cache.sync().is_ok());
}

/// The same when the segment was sealed meanwhile: it waited to be synced once more, which
/// after a failure succeeds without doing anything.
#[test]
fn a_segment_sealed_while_its_sync_failed_is_not_synced_again() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    sync_failing(&props, &cache, || {
        for number in 0..50 {
            put(&cache, number, 1, 4000);
        }
    })
    .unwrap();
    assert!(cache.sync().is_err());
    assert!(cache.sync().is_ok());
}

/// Without other syncs, sealing syncs. Its failure went to the insert at that moment, and not to
/// the next sync.
#[test]
fn a_sync_that_failed_without_a_caller_is_told_to_the_next() {
    let props = Props::new();
    let mut options = props.options.clone();
    options.disk_bytes_max = 4 << 20;
    options.segment_bytes = 128 << 10;
    let faults = Arc::clone(&props.faults);
    let cache = Cache::open_on(Arc::new(FaultDisk { faults }), &options).unwrap();
    for number in 0..200 {
        put(&cache, number, 0, 4000);
    }
    assert!(cache.stats().healthy);
    props.faults.fails_data_syncs.store(true, Relaxed);
    for number in 200..400 {
        put(&cache, number, 0, 4000);
    }
    assert!(cache.stats().inserts_in_memory > 0);
    props.faults.fails_data_syncs.store(false, Relaxed);
    assert!(cache.sync().is_err());
    put(&cache, 1, 1, 10);
    assert!(cache.sync().is_ok());
}

#[test]
fn a_removal_that_could_not_be_written_is_written_by_the_next_sync_or_it_says_so() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    put(&cache, 2, 0, 10);
    cache.sync().unwrap();
    props.faults.tears_writes.store(true, Relaxed);
    assert!(cache.remove(&key(1)));
    assert!(cache.sync().is_err());
    props.faults.tears_writes.store(false, Relaxed);
    assert!(cache.sync().is_ok());
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), None);
    assert_eq!(version(&cache, 2), Some(0));
}

/// A sync without a caller could not write a removal. That is not lost, and yet the next sync failed
/// although it wrote it.
#[test]
fn a_removal_that_a_sync_without_a_caller_could_not_write_is_no_loss() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    cache.sync().unwrap();
    props.faults.tears_writes.store(true, Relaxed);
    assert!(cache.remove(&key(1)));
    assert!(cache.shared.flush(None, Told::NextSync).is_err());
    props.faults.tears_writes.store(false, Relaxed);
    cache.sync().unwrap();
    drop(cache);
    assert_eq!(version(&props.open(), 1), None);
}

/// What a sync without a caller lost is still told when a removal fails as well.
#[test]
fn a_removal_that_fails_does_not_hide_a_loss() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    put(&cache, 2, 0, 10);
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.shared.flush(None, Told::NextSync).is_err());
    props.faults.fails_syncs.store(false, Relaxed);
    props.faults.tears_writes.store(true, Relaxed);
    assert!(cache.remove(&key(1)));
    assert!(cache.shared.flush(None, Told::NextSync).is_err());
    props.faults.tears_writes.store(false, Relaxed);
    assert!(cache.sync().is_err());
    cache.sync().unwrap();
}

/// A record that could not be read once may be readable after the next start. Until then its
/// key may have been removed, which must hold.
#[test]
fn what_was_damaged_and_then_removed_does_not_come_back() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 64);
    put(&cache, 2, 0, 64);
    cache.sync().unwrap();
    let at = FIRST_RECORD + HEADER_BYTES as u64 + 10;
    props.flip(at, 1);
    assert_eq!(version(&cache, 1), None);
    cache.remove(&key(1));
    cache.sync().unwrap();
    drop(cache);
    props.flip(at, 1);
    let cache = props.open();
    assert_eq!(version(&cache, 1), None);
    assert_eq!(version(&cache, 2), Some(0));
}

/// A removal in a segment whose sync failed was lost with it, although a later sync succeeded: the
/// key had been stored again meanwhile, in memory.
#[test]
fn removals_are_not_lost_with_a_poisoned_segment() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    cache.sync().unwrap();
    cache.remove(&key(1));
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.sync().is_err());
    props.faults.fails_syncs.store(false, Relaxed);
    cache.sync().unwrap();
    drop(cache);
    // As after a loss of power: of the first segment, only durable bytes are left.
    props.flip(FIRST_RECORD + 128, 1);
    assert_eq!(version(&props.open(), 1), None);
}
