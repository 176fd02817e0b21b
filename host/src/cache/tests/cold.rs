//! Lookups that must not wait for the disk do not, and still find entries of an earlier process.

use super::*;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Runtime};

/// One thread: a call that blocks it holds up all tasks.
fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Upper bound of waits for certain events, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cache that has read none of its entries yet.
fn cold(props: &Props, entries: u64) -> Cache {
    let cache = props.open();
    for number in 0..entries {
        put(&cache, number, 0, 100);
    }
    cache.sync().unwrap();
    drop(cache);
    patient(props)
}

fn patient(props: &Props) -> Cache {
    let cache = props.open();
    cache.shared.readers.wait_at_most(PATIENCE);
    cache
}

async fn find(cache: &Cache, number: u64) -> Option<u64> {
    match cache.lookup_async(&key(number), NOW).await {
        Lookup::Hit(entry) => Some(check(&entry, number)),
        Lookup::Stale(_) | Lookup::Miss => None,
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_cold_lookup_waits_for_the_disk_and_its_thread_does_not() {
    let props = Props::new();
    let cache = cold(&props, 3);
    assert_eq!(version(&cache, 2), Some(0));
    props.faults.reads.close();
    let others = async {
        props.faults.reads.wait_for_one();
        assert_eq!(find(&cache, 2).await, Some(0), "read before");
        assert_eq!(find(&cache, 3).await, None, "nowhere");
        assert!(cache.may_contain(&key(1), NOW) && !cache.may_contain(&key(3), NOW));
        props.faults.reads.open();
    };
    let (found, ()) = runtime().block_on(async { tokio::join!(find(&cache, 0), others) });
    assert_eq!(found, Some(0));
    assert!(cache.lookup_now(&key(0), NOW).is_some(), "it is cold once");
    assert_eq!(cache.stats().lookups_given_up, 0);
}

#[test]
fn a_read_that_hangs_is_a_miss_and_further_ones_are_not_begun() {
    let props = Props::new();
    let cache = cold(&props, 3);
    props.faults.reads.close();
    let give_up = async {
        props.faults.reads.wait_for_one();
        cache.shared.readers.wait_at_most(Duration::from_millis(1));
    };
    let (found, ()) = runtime().block_on(async { tokio::join!(find(&cache, 0), give_up) });
    assert_eq!(found, None);
    let stats = cache.stats();
    assert_eq!((stats.lookups_given_up, stats.healthy), (1, false));
    assert!(stats.trouble.unwrap().contains("hangs"));

    // At once: without being woken.
    assert!(poll(pin!(find(&cache, 1))).is_ready());
    assert!(matches!(
        poll(pin!(cache.contains_async(&key(2), NOW))),
        Poll::Ready(false)
    ));
    assert_eq!(cache.stats().lookups_given_up, 3);

    props.faults.reads.open();
    cache.shared.readers.wait_at_most(PATIENCE);
    while !cache.stats().healthy {
        thread::yield_now();
    }
    let runtime = runtime();
    for number in 0..3 {
        assert_eq!(runtime.block_on(find(&cache, number)), Some(0));
    }
    assert_eq!(cache.stats().lookups_given_up, 3);
}

#[test]
fn of_many_that_wait_at_once_all_are_answered_or_told_at_once() {
    const MORE: usize = 50;
    let props = Props::new();
    let cache = cold(&props, 2000);
    props.faults.reads.close();
    let mut finds: Vec<_> = (0..(readers::WAITING_MAX + MORE) as u64)
        .map(|number| Box::pin(find(&cache, number)))
        .collect();
    let told = finds.iter_mut().map(|find| poll(find.as_mut()));
    let told = told.filter(|found| *found == Poll::Ready(None)).count();
    assert_eq!(told, MORE);
    props.faults.reads.open();
    let runtime = runtime();
    let waited = finds.into_iter().take(readers::WAITING_MAX);
    let answered = waited.filter_map(|find| runtime.block_on(find)).count();
    let given_up = cache.stats().lookups_given_up as usize;
    assert_eq!((answered, given_up), (readers::WAITING_MAX, MORE));
}

/// The readers do not keep an unused cache open.
#[test]
fn a_folder_is_free_when_its_last_cold_lookup_is_answered() {
    let props = Props::new();
    let runtime = runtime();
    for _ in 0..20 {
        let cache = cold(&props, 30);
        for number in 0..30 {
            assert_eq!(runtime.block_on(find(&cache, number)), Some(0));
        }
        drop(cache);
    }
}

#[test]
fn a_damaged_entry_and_an_expired_one_are_the_same_to_all_lookups() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 0, 0, 1000);
    put_until(&cache, 1, 0, 1000, Some(1));
    cache.sync().unwrap();
    drop(cache);
    props.flip(FIRST_RECORD + 500, 1);
    let cache = patient(&props);
    let runtime = runtime();
    assert_eq!(runtime.block_on(find(&cache, 0)), None);
    let later = runtime.block_on(cache.lookup_async(&key(1), NOW + 2));
    assert!(matches!(later, Lookup::Stale(_)));
    assert!(!runtime.block_on(cache.contains_async(&key(1), NOW + 2)));
    assert!(runtime.block_on(cache.contains_async(&key(1), NOW)));
    assert_eq!(cache.stats().corrupt, 1);
}

/// A read from disk held the index's guard: as long as it hung, no place that had left the index
/// was freed.
#[test]
fn a_read_that_hangs_keeps_no_memory_of_others_alive() {
    const VERSIONS: u64 = 20_000;
    let mut props = Props::new();
    props.options.disk_bytes_max = 64 << 20;
    props.options.segment_bytes = 8 << 20;
    let cache = props.open();
    put(&cache, 1, 0, 1000);
    drop(cache);
    let cache = props.open();
    props.faults.reads.close();
    thread::scope(|scope| {
        let reading = scope.spawn(|| version(&cache, 1));
        props.faults.reads.wait_for_one();
        for version in 0..VERSIONS {
            put(&cache, 2, version, 10);
        }
        let places = cache.shared.writer().unwrap().store.places();
        props.faults.reads.open();
        assert_eq!(reading.join().unwrap(), Some(0));
        assert!(places < VERSIONS as usize / 10, "{places} places");
    });
    // A record that was read once is verified.
    let again = cache.lookup_now(&key(1), NOW);
    assert!(matches!(again, Some(Lookup::Hit(_))));
}

/// A record that was read once was read through the mapping from then on, whether or not its pages were
/// in memory still: a thread of tokio waited for the disk, and a bad sector was a signal.
#[test]
fn an_entry_whose_pages_are_gone_is_cold_again_and_a_bad_sector_is_a_miss() {
    const LATER: u64 = NOW + 20_000;
    let props = Props::new();
    let cache = patient(&props);
    for number in 0..2 {
        put(&cache, number, 0, 8000);
        assert_eq!(version(&cache, number), Some(0));
    }
    props.faults.is_evicting.store(true, Relaxed);
    let is_hit = |number, now| {
        let found = cache.lookup_now(&key(number), now);
        found.map(|found| found.hit().is_some())
    };
    assert_eq!(is_hit(0, NOW + 1), Some(true), "read a moment ago");
    assert_eq!(is_hit(0, LATER), None);
    let runtime = runtime();
    let found = runtime.block_on(cache.lookup_async(&key(0), LATER));
    assert_eq!(check(&found.hit().unwrap(), 0), 0);
    assert_eq!(is_hit(0, LATER + 1), Some(true), "read a moment ago");

    // The second record ends in this block.
    props.faults.bad_block.store(4, Relaxed);
    let found = runtime.block_on(cache.lookup_async(&key(1), LATER));
    assert!(matches!(found, Lookup::Miss));
    assert_eq!(cache.stats().corrupt, 1);
    assert_eq!(is_hit(1, LATER), Some(false));
    assert_eq!(is_hit(0, LATER), Some(true));
}

/// Counting references shared a line of each segment among all threads that read there.
#[test]
fn threads_read_a_segment_with_references_of_their_own_and_all_keep_its_space() {
    let props = Props::new();
    let cache = props.open();
    put(&cache, 0, 0, 1000);
    let entries: Vec<_> = (0..8)
        .map(|_| thread::scope(|it| it.spawn(|| cache.lookup(&key(0), NOW).hit()).join()))
        .map(|entry| entry.unwrap().unwrap())
        .collect();
    let segment_bytes = cache.stats().disk_bytes;
    cache.purge_all().unwrap();
    assert!(matches!(cache.lookup(&key(0), NOW), Lookup::Miss));
    for entry in entries {
        assert_eq!(cache.stats().pinned_bytes, segment_bytes);
        check(&entry, 0);
    }
    assert_eq!(cache.stats().pinned_bytes, 0);
}
