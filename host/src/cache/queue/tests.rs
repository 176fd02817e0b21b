//! A loader that may wait leaves room to those that must not, and waits for little at a time: for a part
//! of the queue to be written, and for a bounded number of bytes to be durable.

use super::*;
use crate::cache::entry::Entry;
use crate::store::{NEVER, NewRecord};
use std::thread;

const BYTES_MAX: u64 = 1 << 20;
const PAYLOAD: usize = 1000;

fn store(queue: &Queue, number: u64, wait: Wait) -> Result<(), Full> {
    let key = CacheKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let payload = [1; PAYLOAD];
    let record = NewRecord::entry(key.as_bytes(), &[7; 32], b"", &payload, 0, NEVER);
    queue.store(&key, &Entry::in_memory(&record), 0, wait)
}

#[test]
fn an_insert_that_waits_leaves_room_and_goes_on_when_a_little_is_free() {
    let queue = Queue::new(BYTES_MAX);
    let mut number = 0;
    // None of these waits.
    while queue.stats().bytes <= queue.waiting_bytes() {
        store(&queue, number, Wait::ForRoom).unwrap();
        number += 1;
    }
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store(&queue, u64::MAX, Wait::ForRoom));
        while lock(&queue.state).waiters == 0 {
            thread::yield_now();
        }
        store(&queue, number, Wait::No).unwrap();
        let free = queue.waiting_bytes() / ROOM_SHARE;
        let before = queue.stats().bytes;
        while lock(&queue.state).waiters > 0 && before - queue.stats().bytes < 4 * free {
            let operation = lock(&queue.state).operations.pop_front();
            queue.done(&[operation.unwrap()], 0);
            thread::yield_now();
        }
        waiting.join().unwrap().unwrap();
    });
    // The others find room up to the whole bound.
    while store(&queue, number + 1, Wait::No).is_ok() {
        number += 1;
    }
    let stats = queue.stats();
    assert!(stats.bytes > BYTES_MAX - 2 * PAYLOAD as u64 && stats.bytes <= BYTES_MAX);
}

/// All that waits is written, and `unsynced_bytes` are not durable.
fn write_all(queue: &Queue, unsynced_bytes: u64) {
    let operations = queue.next();
    queue.done(&operations, unsynced_bytes);
}

/// A loader faster than the disk left hundreds of megabytes to each sync, and all writing waited for it.
#[test]
fn an_insert_that_waits_does_not_get_ahead_of_the_syncs_and_others_do() {
    let queue = Queue::new(BYTES_MAX);
    let max = UNSYNCED_BYTES_MAX;
    queue.waits_for_syncs_of(max / UNSYNCED_INTERVALS);
    store(&queue, 0, Wait::ForRoom).unwrap();
    write_all(&queue, max);
    // As much is not too much.
    store(&queue, 1, Wait::ForRoom).unwrap();
    write_all(&queue, max + 1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store(&queue, 2, Wait::ForRoom));
        while lock(&queue.state).waiters == 0 {
            thread::yield_now();
        }
        store(&queue, 3, Wait::No).unwrap();
        // What is written meanwhile does not let it go on.
        write_all(&queue, 2 * max);
        assert_eq!(lock(&queue.state).waiters, 1);
        queue.synced(queue.written(), max);
        waiting.join().unwrap().unwrap();
    });
    assert!(!lock(&queue.state).is_stalled);
    assert_eq!(queue.len(), 1);
}

/// Nothing would ever let it go on.
#[test]
fn without_a_thread_that_syncs_no_insert_waits_for_a_sync() {
    let queue = Queue::new(BYTES_MAX);
    write_all(&queue, u64::MAX);
    store(&queue, 0, Wait::ForRoom).unwrap();
    assert_eq!(lock(&queue.state).steps, 1);
    assert!(!lock(&queue.state).is_stalled);
}
