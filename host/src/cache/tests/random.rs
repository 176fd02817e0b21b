//! Random operations against a map, and many threads at once.

use super::*;

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
    // More segments than elsewhere, so that the readers here do not hold too much of it.
    props.options.disk_bytes_max = 4 << 20;
    props.options.segment_bytes = 128 << 10;
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
    // After the last write the index and the log agree on the last record.
    let cache = props.open();
    for (number, before) in before.iter().enumerate() {
        let after = version(&cache, number as u64);
        assert!(before.is_none() || after == *before, "key {number}");
    }
}
