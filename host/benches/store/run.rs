//! One size: a cache is filled, used, purged and opened again.

use crate::pauses;
use crate::sizes::kilobytes;
use crate::waits::{self, Wait};
use reflex_host::cache::{Cache, CacheKey, CacheOptions, InsertError, Lookup, NewEntry};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

pub(crate) const HEADINGS: &str = "\
| entries | hot get, p50, p99 ns | the same on 2 threads, p50 ns | any get, p50, p99 ns | page faults of a get, the first time, again | insert, µs (CPU) | longest insert in a row, ms (the disk, other processes, the cache) | the cache's own part of any, ms | longest insert, paced, ms (likewise) | a piece of reclaiming, p50, p99 ms (CPU) | memory, B an entry | open, s | open, µs an entry (CPU) | purge, p50, p99 ms |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

const NOW_MS: u64 = 1_700_000_000_000;
const TENANTS: u64 = 1000;
const HOT: u64 = 1000;
const GETS: u64 = 300_000;
/// The more there were, the longer one takes, unless it takes the same always.
const PURGES: u64 = 200;
/// After the cache is full, so many times the records of a segment are inserted in a row.
const SEGMENTS_MORE: u64 = 12;

/// And so many times at this pace, which is far above what a provider answers.
const SEGMENTS_PACED: u64 = 4;
const PER_SECOND: u32 = 25_000;

#[derive(Debug, Default)]
pub(crate) struct Figures {
    entries: u64,
    hot_get: (Duration, Duration),
    hot_get_of_two: Duration,
    any_get: (Duration, Duration),
    any_get_faults: (f64, f64),
    insert: Took,
    insert_longest: Wait,
    insert_own: Duration,
    insert_longest_paced: Wait,
    reclaim: (Duration, Duration),
    reclaim_cpu: (Duration, Duration),
    memory_bytes: u64,
    open: Took,
    purge: (Duration, Duration),
}

impl Figures {
    pub(crate) fn row(&self) -> String {
        let ns = |time: Duration| time.as_nanos();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let parts = |wait: &Wait| {
            let [all, disk, others, own] = [wait.time, wait.disk(), wait.others, wait.own].map(ms);
            format!("{all:.1} ({disk:.1}, {others:.1}, {own:.1})")
        };
        format!(
            "| {} | {}, {} | {} | {}, {} | {:.3}, {:.3} | {:.1} ({:.1}) | {} | {:.1} | {} | {:.2}, {:.2} ({:.2}, {:.2}) | {} | {:.2} | \
             {:.2} ({:.2}) | {:.2}, {:.2} |",
            self.entries,
            ns(self.hot_get.0),
            ns(self.hot_get.1),
            ns(self.hot_get_of_two),
            ns(self.any_get.0),
            ns(self.any_get.1),
            self.any_get_faults.0,
            self.any_get_faults.1,
            micros(self.insert.time),
            micros(self.insert.cpu),
            parts(&self.insert_longest),
            ms(self.insert_own),
            parts(&self.insert_longest_paced),
            ms(self.reclaim.0),
            ms(self.reclaim.1),
            ms(self.reclaim_cpu.0),
            ms(self.reclaim_cpu.1),
            self.memory_bytes,
            self.open.time.as_secs_f64(),
            micros(self.open.time) / self.entries as f64,
            micros(self.open.cpu) / self.entries as f64,
            ms(self.purge.0),
            ms(self.purge.1),
        )
    }
}

/// What something took: CPU is that of all threads, which depends less on other processes.
#[derive(Debug, Default)]
struct Took {
    time: Duration,
    cpu: Duration,
}

impl Took {
    fn by<T>(what: impl FnOnce() -> T) -> (Self, T) {
        let cpu = || {
            let now = clock_gettime(ClockId::ProcessCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let (began, began_cpu) = (Instant::now(), cpu());
        let result = what();
        let took = Self {
            time: began.elapsed(),
            cpu: cpu() - began_cpu,
        };
        (took, result)
    }

    fn each(&self, times: u64) -> Self {
        Self {
            time: self.time / times as u32,
            cpu: self.cpu / times as u32,
        }
    }
}

/// SplitMix64, of any number.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keys are as random as hashes are.
fn key(number: u64) -> CacheKey {
    let mut bytes = [0; 32];
    for (at, part) in bytes.chunks_mut(8).enumerate() {
        part.copy_from_slice(&mixed(4 * number + at as u64).to_le_bytes());
    }
    CacheKey::from_bytes(bytes)
}

fn tenant(number: u64) -> [u8; 32] {
    let mut tenant = [7; 32];
    tenant[..8].copy_from_slice(&(number % TENANTS).to_le_bytes());
    tenant
}

/// Median and 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

fn memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "RssAnon:") << 10
}

/// Of pages that are in memory, but not in the table of this process.
fn page_faults() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the process, which may have any form.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let minor = fields.split_whitespace().nth(7);
    minor.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// Room for the entries and for what the store keeps free: a segment and its contents.
pub(crate) fn disk_bytes(entries: u64, payload_bytes: usize) -> u64 {
    let record_bytes = (112 + payload_bytes as u64).next_multiple_of(16);
    let full = entries * (record_bytes + 46);
    // Of small stores, a segment is an eighth.
    (full * 5 / 4).min(full + (96 << 20))
}

pub(crate) fn measure(entries: u64, payload_bytes: usize) -> Figures {
    let dir = tempfile::tempdir().expect("a folder");
    let record_bytes = (112 + payload_bytes as u64).next_multiple_of(16);
    let options = CacheOptions {
        data_dir: dir.path().join("data"),
        disk_bytes_max: disk_bytes(entries, payload_bytes).max(4 << 20),
        entry_bytes_max: payload_bytes as u64,
        entries_max: Some(u64::MAX),
        ..CacheOptions::default()
    };
    let segment_bytes = (options.disk_bytes_max / 8).clamp(1 << 19, options.segment_bytes);
    let payload: Vec<u8> = (0..payload_bytes)
        .map(|at| mixed(at as u64) as u8)
        .collect();
    let mut figures = Figures::default();

    let before = memory_bytes();
    let cache = Cache::open(&options).expect("opens");
    let insert = |number: u64| {
        let key = key(number);
        let tenant = tenant(number);
        let new = NewEntry {
            key: &key,
            tenant: &tenant,
            metadata: b"",
            payload: &payload,
            now_ms: NOW_MS + number / 1000,
            ttl_ms: Some(86_400_000),
        };
        let began = Instant::now();
        // When the disk hangs for more than a second, it is refused.
        while let Err(error) = cache.insert(new) {
            assert_eq!(error, InsertError::QueueFull);
        }
        began
    };
    let insert_all = |numbers: std::ops::Range<u64>| {
        waits::longest_of(|note| numbers.for_each(|number| note(insert(number))))
    };
    let (took, (longest, own)) = Took::by(|| insert_all(0..entries));
    figures.insert = took.each(entries);
    cache.sync().expect("syncs");
    figures.memory_bytes = memory_bytes().saturating_sub(before) / cache.stats().entries;

    // Some of them are worth keeping.
    let get = |number: u64| {
        let key = key(number);
        let began = Instant::now();
        if let Lookup::Hit(entry) = cache.lookup(&key, NOW_MS + entries) {
            black_box(entry.payload()[0]);
        }
        began.elapsed()
    };
    for number in (0..entries).step_by(7) {
        get(number);
    }
    pauses::take();
    let more = SEGMENTS_MORE * segment_bytes / record_bytes;
    let (longest_more, own_more) = insert_all(entries..entries + more);
    figures.insert_longest = match longest.time > longest_more.time {
        true => longest,
        false => longest_more,
    };
    figures.insert_own = own.max(own_more);
    cache.sync().expect("syncs");
    let began = Instant::now();
    let paced = entries + more..entries + more + SEGMENTS_PACED * segment_bytes / record_bytes;
    let newest = paced.end - 1;
    let insert_paced = |note: &mut dyn FnMut(Instant)| {
        for (nth, number) in (0..).zip(paced) {
            let due = Duration::from_secs(nth) / PER_SECOND;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            note(insert(number));
        }
    };
    (figures.insert_longest_paced, _) = waits::longest_of(insert_paced);
    cache.sync().expect("syncs");
    let pauses = pauses::take();
    figures.reclaim = percentiles(pauses.iter().map(|pause| pause.time).collect());
    figures.reclaim_cpu = percentiles(pauses.iter().map(|pause| pause.cpu).collect());
    figures.entries = cache.stats().entries;

    // Of those that are there for certain.
    let there = (figures.entries / 2).max(1);
    let spread = |at: u64| newest - mixed(at) % there;
    let hot: Vec<u64> = (0..HOT).map(spread).collect();
    let hot_get = |at: u64| get(hot[(at * 7 % HOT) as usize]);
    (0..GETS).for_each(|at| {
        black_box(hot_get(at));
    });
    figures.hot_get = percentiles((0..GETS).map(hot_get).collect());
    figures.hot_get_of_two = std::thread::scope(|scope| {
        let gets = || (0..4 * GETS).map(hot_get).collect::<Vec<_>>();
        let threads = [0, 1].map(|_| scope.spawn(gets));
        let times = threads.map(|thread| thread.join().expect("measured"));
        percentiles(times.concat()).0
    });
    // Once before, to see what reading takes, not what the first check of a record takes.
    let any_get = |at: u64| get(spread(at));
    let mut times = Vec::with_capacity(GETS as usize);
    let mut get_all = || {
        let before = page_faults();
        times.clear();
        times.extend((0..GETS).map(any_get));
        (page_faults() - before) as f64 / GETS as f64
    };
    figures.any_get_faults = (get_all(), get_all());
    figures.any_get = percentiles(times);

    drop(cache);
    let (took, cache) = Took::by(|| Cache::open(&options).expect("opens"));
    figures.open = took;
    assert_eq!(cache.stats().entries, figures.entries);

    let purge = |number: u64| {
        let began = Instant::now();
        cache.purge_tenant(&tenant(number)).expect("durable");
        began.elapsed()
    };
    figures.purge = percentiles((0..PURGES).map(purge).collect());
    figures
}
