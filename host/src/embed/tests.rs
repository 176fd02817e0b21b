//! The library's promises: one fetch for all, errors once, nothing half-stored.

use super::*;
use crate::OpenError;
use std::io::Write as _;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

fn cache() -> Cache {
    Cache::builder("").in_memory()
}

fn key(prompt: &str) -> Key {
    Key::for_prompt(&Tenant::of_group("tests"), prompt)
}

fn payload(entry: Option<Entry>) -> Option<Vec<u8>> {
    entry.map(|entry| entry.payload().to_vec())
}

/// The output of a future that is ready at once, otherwise none.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn what_was_inserted_outlives_the_process_until_it_is_removed_or_purged() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::builder(dir.path()).open().unwrap();
    for prompt in ["a", "b"] {
        cache.insert(&key(prompt), prompt).unwrap();
    }
    let other = Key::for_prompt(&Tenant::of_group("others"), "a");
    cache.insert(&other, "o").unwrap();
    drop(cache);

    let cache = Cache::builder(dir.path()).open().unwrap();
    assert_eq!(payload(cache.lookup(&key("a"))), Some(b"a".to_vec()));
    assert_eq!(cache.stats().entries, 3);
    assert!(cache.remove(&key("a")));
    assert!(!cache.remove(&key("a")));
    assert!(!cache.contains(&key("a")));
    cache.purge_tenant(&Tenant::of_group("tests")).unwrap();
    assert!(cache.lookup(&key("b")).is_none());
    assert_eq!(payload(cache.lookup(&other)), Some(b"o".to_vec()));
    cache.purge().unwrap();
    assert!(cache.lookup(&other).is_none());
}

#[test]
fn namespaces_share_nothing() {
    let cache = cache();
    let other = Cache {
        core: cache.core.clone(),
        shared: Arc::clone(&Cache::builder("").namespace("other").in_memory().shared),
    };
    cache.insert(&key("a"), "1").unwrap();
    assert!(other.lookup(&key("a")).is_none());
}

#[test]
fn lives_are_the_entrys_own_or_the_caches() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Clock::from_fn({
        let now = Arc::clone(&now);
        move || now.load(Ordering::Relaxed)
    });
    let cache = Cache::builder("")
        .ttl(Duration::from_secs(60))
        .clock(clock)
        .in_memory();
    let with = |prompt, options: InsertOptions| {
        cache.insert_with(&key(prompt), "x", &options).unwrap();
    };
    with("usual", InsertOptions::new());
    with("short", InsertOptions::new().ttl(Duration::from_secs(10)));
    with("forever", InsertOptions::new().forever());
    let check = |after_ms: u64, found: [bool; 3]| {
        now.store(1_000_000 + after_ms, Ordering::Relaxed);
        let there = ["usual", "short", "forever"].map(|prompt| cache.contains(&key(prompt)));
        assert_eq!(there, found, "after {after_ms} ms");
    };
    check(9_999, [true, true, true]);
    check(10_000, [true, false, true]);
    check(60_000, [false, false, true]);
    check(u64::MAX / 2, [false, false, true]);
}

#[test]
fn a_writer_stores_all_or_nothing_within_its_bound() {
    let cache = Cache::builder("").entry_bytes_max(8).in_memory();
    let mut writer = cache.writer(&key("w"));
    writer.write_all(b"12345678").unwrap();
    assert_eq!(writer.len(), 8);
    assert_eq!(
        writer.write(b"9").unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    assert_eq!(
        writer.finish().unwrap_err(),
        InsertError::PayloadTooLarge(8)
    );
    assert!(cache.lookup(&key("w")).is_none());

    let mut writer = cache.writer_with(&key("w"), InsertOptions::new().metadata("m"));
    writer.write_all(b"12").unwrap();
    assert!(cache.lookup(&key("w")).is_none());
    writer.write_all(b"34").unwrap();
    writer.finish().unwrap();
    let entry = cache.lookup(&key("w")).unwrap();
    assert_eq!(
        (entry.metadata(), &entry.payload()[..]),
        (&b"m"[..], &b"1234"[..])
    );
}

#[test]
fn many_threads_are_one_fetch() {
    let cache = cache();
    let fetches = AtomicUsize::new(0);
    const THREADS: usize = 16;
    let origins: Vec<Origin> = thread::scope(|scope| {
        let callers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let answer = cache.get_or_fetch_blocking(&key("a"), || {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        // The others come while this is under way.
                        while cache.shared.flights.waiting() < THREADS - 1 {
                            thread::yield_now();
                        }
                        Ok::<_, io::Error>("answer")
                    });
                    let answer = answer.unwrap();
                    assert_eq!(answer.payload(), "answer");
                    answer.origin()
                })
            })
            .collect();
        let origin = |caller: thread::ScopedJoinHandle<'_, Origin>| caller.join().unwrap();
        callers.into_iter().map(origin).collect()
    });
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
    let joined = origins.iter().filter(|&&origin| origin == Origin::Joined);
    assert_eq!(joined.count(), THREADS - 1);
    assert_eq!(cache.shared.flights.waiting(), 0);
}

/// A leader that waits for `release`, polled once, and a follower.
macro_rules! leader_and_waiter {
    ($cache:ident, $release:ident, $leader:ident, $waiter:ident, $result:expr) => {
        let ($release, released) = tokio::sync::oneshot::channel::<()>();
        let fetch = async move {
            released.await.unwrap();
            $result
        };
        #[allow(unused_mut, reason = "some tests drop it")]
        let mut $leader = Box::pin($cache.get_or_fetch(&A, fetch));
        assert!(poll_once($leader.as_mut()).is_none());
        let mut $waiter = Box::pin($cache.get_or_fetch(&A, async { Ok::<_, String>("own") }));
        assert!(poll_once($waiter.as_mut()).is_none());
    };
}

const A: Key = Key {
    tenant: Tenant([1; 32]),
    digest: [2; 32],
};

#[test]
fn an_error_goes_to_each_follower_once_and_the_next_fetches_anew() {
    let cache = cache();
    leader_and_waiter!(
        cache,
        release,
        leader,
        waiter,
        Err::<&str, _>("failed".to_owned())
    );
    release.send(()).unwrap();
    let first = poll_once(leader.as_mut()).unwrap().unwrap_err();
    let second = poll_once(waiter.as_mut()).unwrap().unwrap_err();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(*first, "failed");
    let third = cache.get_or_fetch_blocking(&A, || Ok::<_, String>("better"));
    assert_eq!(third.unwrap().payload(), "better");
}

#[test]
fn a_follower_takes_over_from_a_leader_that_is_dropped() {
    let cache = cache();
    leader_and_waiter!(cache, _release, leader, waiter, Ok::<_, String>("never"));
    drop(leader);
    let answer = poll_once(waiter.as_mut()).unwrap().unwrap();
    assert_eq!(
        (answer.payload(), answer.origin()),
        ("own".into(), Origin::Fetched)
    );
    assert_eq!(payload(cache.lookup(&A)), Some(b"own".to_vec()));
}

#[test]
fn what_is_not_kept_is_for_the_leader_only() {
    let cache = cache();
    let refusal = Ok::<_, String>(Fetched::new("refusal").not_kept());
    leader_and_waiter!(cache, release, leader, waiter, refusal);
    release.send(()).unwrap();
    let first = poll_once(leader.as_mut()).unwrap().unwrap();
    assert_eq!(first.payload(), "refusal");
    assert!(first.entry().is_none());
    let second = poll_once(waiter.as_mut()).unwrap().unwrap();
    assert_eq!(second.payload(), "own");
}

#[test]
fn an_answer_that_is_too_large_is_still_one() {
    let cache = Cache::builder("").entry_bytes_max(3).in_memory();
    let answer = cache.get_or_fetch_blocking(&A, || Ok::<_, String>("four"));
    assert_eq!(answer.unwrap().payload(), "four");
    assert!(cache.lookup(&A).is_none());
}

/// A purge said that an answer is no good; the fetch of it was under way, and stored it after.
#[test]
fn what_is_purged_while_it_is_fetched_is_not_stored() {
    let check = |purge: fn(&Cache)| {
        let cache = cache();
        leader_and_waiter!(cache, release, leader, waiter, Ok::<_, String>("old"));
        purge(&cache);
        release.send(()).unwrap();
        assert_eq!(
            poll_once(leader.as_mut()).unwrap().unwrap().payload(),
            "old"
        );
        assert!(cache.lookup(&A).is_none());
        assert_eq!(
            poll_once(waiter.as_mut()).unwrap().unwrap().payload(),
            "own"
        );
    };
    check(|cache| assert!(!cache.remove(&A)));
    check(|cache| cache.purge_tenant(&A.tenant).unwrap());
    check(|cache| cache.purge().unwrap());
}

#[test]
fn no_call_waits_where_too_many_do_or_for_too_long() {
    let cache = Cache::builder("")
        .waiters_max(1)
        .fetch_wait_max(Duration::from_millis(1))
        .in_memory();
    leader_and_waiter!(cache, release, leader, waiter, Ok::<_, String>("late"));
    let fetch = || Ok::<_, String>(Fetched::new("mine").not_kept());
    let answer = cache.get_or_fetch_blocking(&A, fetch).unwrap();
    assert_eq!(answer.payload(), "mine");
    drop(waiter);
    // Now it has room to wait, but the wait is too long.
    let answer = cache.get_or_fetch_blocking(&A, fetch).unwrap();
    assert_eq!(answer.payload(), "mine");
    release.send(()).unwrap();
    assert_eq!(
        poll_once(leader.as_mut()).unwrap().unwrap().payload(),
        "late"
    );
}

#[test]
fn a_cache_may_begin_without_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Cache::builder(folder.path().join("data")).disk_bytes_max(1000);
    assert!(matches!(builder().open(), Err(OpenError::Quota(_))));
    let cache = builder().open_even_without_disk().unwrap();
    let key = key("Hi");
    cache.insert(&key, "Ho").unwrap();
    assert_eq!(cache.lookup(&key).unwrap().payload(), "Ho");
    assert!(!cache.stats().healthy);
}

/// Purges past the library.
type Purge = fn(&Cache);

/// The ways to purge, all of them past the library: the cache underneath is shared with components,
/// with a daemon, and with other namespaces. Each with whether it covers `A`.
const PURGES: [(Purge, bool); 8] = [
    (
        |cache| {
            cache.core.remove(&cache.key(&A));
        },
        true,
    ),
    (
        |cache| {
            cache.core.remove_now(&cache.key(&A));
        },
        true,
    ),
    (|cache| cache.core.purge_tenant(&A.tenant.0).unwrap(), true),
    (|cache| cache.core.purge_all().unwrap(), true),
    (
        |cache| cache.core.erase_tenant(&A.tenant.0, 0).unwrap(),
        true,
    ),
    (
        |cache| {
            cache.remove(&A);
        },
        true,
    ),
    (
        |cache| {
            cache.remove(&key("another"));
        },
        false,
    ),
    (|cache| cache.core.purge_tenant(&[9; 32]).unwrap(), false),
];

/// Entry points, each with a purge during its fetch: four of them stored the answer.
#[test]
fn nothing_that_was_begun_before_a_purge_is_stored_after_it_whichever_way_either_goes() {
    type Store = fn(&Cache, &dyn Fn());
    let entry_points: [(&str, Store); 8] = [
        ("get_or_fetch", |cache, purge| {
            let mut fetch = pin!(cache.get_or_fetch(&A, async {
                purge();
                Ok::<_, io::Error>("old")
            }));
            let answer = poll_once(fetch.as_mut()).unwrap().unwrap();
            assert_eq!(answer.payload(), "old");
        }),
        ("get_or_fetch_blocking", |cache, purge| {
            let fetch = || {
                purge();
                Ok::<_, io::Error>("old")
            };
            let answer = cache.get_or_fetch_blocking(&A, fetch).unwrap();
            assert_eq!(answer.payload(), "old");
        }),
        ("get_or_fetch without a flight", |cache, purge| {
            // No room to wait for the leader.
            let lead = cache.shared.flights.join(&cache.key(&A), &A.tenant);
            assert!(matches!(lead, Turn::Lead(_)));
            let fetch = || {
                purge();
                Ok::<_, io::Error>("old")
            };
            cache.get_or_fetch_blocking(&A, fetch).unwrap();
        }),
        ("a fetch that says itself when it began", |cache, purge| {
            let since = cache.mark();
            purge();
            let fetched = Fetched::new("old").with(InsertOptions::new().since(since));
            let fetch = || Ok::<_, io::Error>(fetched);
            cache.get_or_fetch_blocking(&A, fetch).unwrap();
        }),
        ("writer", |cache, purge| {
            let mut writer = cache.writer(&A);
            writer.write_all(b"o").unwrap();
            purge();
            writer.write_all(b"ld").unwrap();
            let _ = writer.finish();
        }),
        ("writer of an async caller", |cache, purge| {
            let mut writer = cache.writer_with(&A, InsertOptions::new().forever());
            writer.write_all(b"old").unwrap();
            purge();
            let mut finish = pin!(writer.finish_async());
            let _ = poll_once(finish.as_mut()).unwrap();
        }),
        ("insert_with", |cache, purge| {
            let options = InsertOptions::new().since(cache.mark());
            purge();
            let _ = cache.insert_with(&A, "old", &options);
        }),
        ("insert_with_async", |cache, purge| {
            let options = InsertOptions::new().since(cache.mark());
            purge();
            let mut insert = pin!(cache.insert_with_async(&A, "old", &options));
            let _ = poll_once(insert.as_mut()).unwrap();
        }),
    ];
    for (name, store) in entry_points {
        for (number, (purge, is_meant)) in PURGES.into_iter().enumerate() {
            let cache = Cache::builder("").waiters_max(0).in_memory();
            store(&cache, &|| purge(&cache));
            let is_there = cache.lookup(&A).is_some();
            assert_eq!(is_there, !is_meant, "{name}, purge {number}");
            // And what begins now is stored.
            cache
                .get_or_fetch_blocking(&A, || Ok::<_, io::Error>("new"))
                .unwrap();
            assert!(cache.lookup(&A).is_some(), "{name}, purge {number}");
        }
    }
}

/// After a purge that the library did not make, later calls joined a fetch from before it.
#[test]
fn no_call_joins_a_fetch_from_before_a_purge_of_any_kind() {
    for (number, (purge, is_meant)) in PURGES.into_iter().enumerate() {
        let cache = cache();
        leader_and_waiter!(cache, release, leader, waiter, Ok::<_, String>("old"));
        purge(&cache);
        let mut late = pin!(cache.get_or_fetch(&A, async { Ok::<_, String>("new") }));
        let at_once = poll_once(late.as_mut());
        assert_eq!(at_once.is_some(), is_meant, "purge {number}");
        release.send(()).unwrap();
        let leaders = poll_once(leader.as_mut()).unwrap().unwrap();
        assert_eq!(leaders.payload(), "old");
        let late = at_once.unwrap_or_else(|| poll_once(late.as_mut()).unwrap());
        let expected = if is_meant { "new" } else { "old" };
        assert_eq!(late.unwrap().payload(), expected, "purge {number}");
        let stored = payload(cache.lookup(&A));
        assert_eq!(stored, Some(expected.into()), "purge {number}");
        drop(waiter);
    }
}
