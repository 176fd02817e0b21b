//! Figures of the cache alone, printed by hand:
//!
//! ```sh
//! cargo test --release -p reflex-host --no-default-features --lib figures -- --ignored --nocapture
//! ```

use super::*;
use std::time::Instant;

const ENTRIES: u64 = 200_000;

fn rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = anonymous.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() << 10
}

/// The CPU time of this process: wall-clock time depends on other processes.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn bytes_on_disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of = |path: PathBuf| match path.is_dir() {
        true => bytes_on_disk(&path),
        false => fs::metadata(&path).unwrap().blocks() * 512,
    };
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| of(entry.unwrap().path())).sum()
}

fn new<'a>(key: &'a CacheKey, payload: &'a [u8]) -> NewEntry<'a> {
    NewEntry {
        key,
        tenant: &TENANT,
        metadata: b"",
        payload,
        now_ms: NOW,
        ttl_ms: Some(3_600_000),
    }
}

/// Concurrent inserts wait for the medium together.
#[test]
#[ignore = "measures; for an idle machine"]
fn figures_of_group_commit() {
    const THREADS: u64 = 64;
    const EACH: u64 = 500;
    let payload = payload(1, 1, 4096);
    let open = |durability| {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let options = CacheOptions {
            data_dir: dir.path().join("data"),
            durability,
            ..CacheOptions::default()
        };
        (Cache::open(&options).unwrap(), dir)
    };
    let (cache, _dir) = open(Durability::EveryInsert);
    let (began, began_cpu) = (Instant::now(), cpu());
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (cache, payload) = (&cache, &payload);
            scope.spawn(move || {
                for number in 0..EACH {
                    cache
                        .insert(new(&key(id * EACH + number), payload))
                        .unwrap();
                }
            });
        }
    });
    let each = began.elapsed() / (THREADS * EACH) as u32;
    let each_cpu = (cpu() - began_cpu) / (THREADS * EACH) as u32;
    println!("{THREADS} threads that each wait: {each:?} an insert ({each_cpu:?} CPU)");

    // In turns, so that both meet the same disk.
    let (cache, _dir) = open(Durability::Os);
    let bare = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let record = vec![1; payload.len() + HEADER_BYTES];
    let (mut ours, mut bares) = (Vec::new(), Vec::new());
    for group in 0..EACH {
        let began = Instant::now();
        for number in 0..THREADS {
            let key = key(group * THREADS + number);
            cache.insert(new(&key, &payload)).unwrap();
        }
        cache.sync().unwrap();
        ours.push(began.elapsed() / THREADS as u32);
        let began = Instant::now();
        for number in 0..THREADS {
            let at = (group * THREADS + number) * record.len() as u64;
            bare.write_all_at(&record, at).unwrap();
        }
        bare.sync_data().unwrap();
        bares.push(began.elapsed() / THREADS as u32);
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (ours, bare) = (median(ours), median(bares));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!(
        "a sync for each {THREADS}: {ours:?} an insert; writes to a bare file, and a sync for each \
         {THREADS}: {bare:?} each: {ratio:.2} x"
    );
}

#[test]
#[ignore = "measures; for an idle machine"]
fn figures() {
    for payload_bytes in [600, 4096] {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let options = CacheOptions {
            data_dir: dir.path().join("data"),
            ..CacheOptions::default()
        };
        let keys: Vec<_> = (0..ENTRIES).map(key).collect();
        let payload = payload(1, 1, payload_bytes);
        let before = rss();
        let cache = Cache::open(&options).unwrap();

        let (began, began_cpu) = (Instant::now(), cpu());
        for key in &keys {
            cache.insert(new(key, &payload)).unwrap();
        }
        let insert = began.elapsed() / ENTRIES as u32;
        while cache.stats().queued_bytes > 0 {
            thread::yield_now();
        }
        let insert_cpu = (cpu() - began_cpu) / ENTRIES as u32;
        let memory = (rss() - before) / ENTRIES;
        let began = Instant::now();
        cache.sync().unwrap();
        let sync = began.elapsed();

        const GETS: usize = 1_000_000;
        const HOT: usize = 1000;
        let get = |key: &CacheKey| {
            let Lookup::Hit(entry) = cache.lookup(key, NOW) else {
                panic!("a miss")
            };
            std::hint::black_box(entry.payload());
        };
        keys[..HOT].iter().for_each(get);
        let began = Instant::now();
        for at in 0..GETS {
            get(&keys[at % HOT]);
        }
        let hot = began.elapsed() / GETS as u32;
        let mut times: Vec<_> = (0..GETS)
            .map(|at| {
                let began = Instant::now();
                get(&keys[at * 7 % HOT]);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let p99 = times[GETS / 100 * 99];

        let stats = cache.stats();
        let disk = bytes_on_disk(&options.data_dir);
        drop(cache);
        let began = Instant::now();
        let cache = Cache::open(&options).unwrap();
        let reopen = began.elapsed();
        assert_eq!(cache.stats().entries, stats.entries);
        println!(
            "{payload_bytes} B x {ENTRIES}: insert {insert:?} ({insert_cpu:?} CPU), sync {sync:?}, hot get {hot:?}, \
             p99 {p99:?} clock included, {memory} B of memory each, disk {:.3} x, \
             reopen {reopen:?} with {} entries",
            disk as f64 / (ENTRIES as usize * payload_bytes) as f64,
            stats.entries,
        );
    }
}

/// The memory of the L1 beside its own count, and how often it knows a request, with room for
/// one request of seven, and other requests becoming popular half way.
#[test]
#[ignore = "measures; for an idle machine"]
fn figures_of_the_l1() {
    const REQUESTS: u64 = 40_000;
    const ASKED: u64 = 1_000_000;
    let body = vec![b'x'; 600];
    for (room, turns) in [(1 << 30, 1), (4 << 20, 3)] {
        let before = rss();
        let l1 = crate::cache::L1::<[u64; 16]>::new(room);
        for number in 0..REQUESTS * turns {
            let probe = l1.probe(|head| head.extend_from_slice(&number.to_le_bytes()), &body);
            l1.insert(&probe, &body, &TENANT, [number; 16]);
        }
        let stats = l1.stats();
        println!(
            "{} requests counted as {} B, {} B resident",
            stats.requests,
            stats.bytes,
            rss() - before,
        );
    }
    let each = 600 + 8 + 400 + 200;
    let l1 = crate::cache::L1::<u64>::new(each * REQUESTS / 8);
    // The n-th most popular request has 1/n of the share of the first.
    let mut sum = 0.0;
    let ranks: Vec<f64> = (1..=REQUESTS)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut random = Random(1);
    let mut known = 0;
    for at in 0..ASKED {
        let wanted = random.below(1 << 40) as f64 / (1u64 << 40) as f64 * sum;
        let rank = ranks.partition_point(|up_to| *up_to < wanted) as u64;
        // Half way, others are popular.
        let number = if at < ASKED / 2 {
            rank
        } else {
            rank + REQUESTS
        };
        let probe = l1.probe(|head| head.extend_from_slice(&number.to_le_bytes()), &body);
        match l1.get(&probe, &body) {
            Some(_) => known += 1,
            None => l1.insert(&probe, &body, &TENANT, number),
        }
        if at % (ASKED / 10) == ASKED / 10 - 1 {
            println!(
                "known: {:.1} %",
                f64::from(known) / (ASKED / 10) as f64 * 100.0
            );
            known = 0;
        }
    }
    println!("{:?}", l1.stats());
}
