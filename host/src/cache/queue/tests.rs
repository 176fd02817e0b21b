//! A loader that may wait leaves room to those that must not, and waits for little at a time.

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
            queue.done(&[operation.unwrap()]);
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
