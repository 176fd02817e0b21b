//! One contender at one size, in a process of its own, so that its memory is its own.

use crate::contender::{Contender, Entrant, Key};
use crate::trace::Random;
use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// So few that the looked-up entries fit into the processor's caches.
const HOT: usize = 1000;
const GETS: usize = 500_000;

/// Made durable together.
const GROUP: usize = 64;
const GROUPS: usize = 50;

/// Cold, each a different one.
const COLD_GETS: usize = 1000;

/// The results. Absent: the store cannot do that.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) entries: usize,
    /// Microseconds of CPU, and of time.
    pub(crate) insert: (f64, f64),
    pub(crate) durable_insert: Option<(f64, f64)>,
    /// Nanoseconds of CPU.
    pub(crate) hot_get: f64,
    pub(crate) any_get: f64,
    /// Nanoseconds of time.
    pub(crate) hot_get_p99: f64,
    /// Microseconds of time.
    pub(crate) cold_get: Option<f64>,
    /// Entries that were not found any more when all was opened again.
    pub(crate) lost: usize,
    /// Bytes for each entry.
    pub(crate) memory: f64,
    pub(crate) disk_per_byte: Option<f64>,
    /// Seconds.
    pub(crate) reopen: Option<f64>,
}

/// Keys of one contender's entries.
fn keys(count: usize, namespace: &str) -> Vec<Key> {
    let key = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Key::new(namespace, &[0; 32], &digest)
    };
    (0..count).map(key).collect()
}

pub(crate) fn measure(entrant: &Entrant, entries: usize, payload_bytes: usize) -> Figures {
    let entries = entries.min(entrant.entries_max);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    // Random bytes: a repeated byte would favour stores that compress.
    let mut random = Random(7);
    let payload: Vec<u8> = (0..payload_bytes).map(|_| random.next() as u8).collect();
    let keys_of_all = keys(entries, "compare");
    let mut figures = Figures {
        entries,
        ..Figures::default()
    };

    let mut contender = (entrant.open)(dir);
    let memory_before = memory(contender.as_ref());
    let clock = Clock::start(contender.as_ref());
    for key in &keys_of_all {
        contender.insert(key, &payload);
    }
    figures.insert = clock.micros_each(contender.as_ref(), entries);
    let memory_after = memory(contender.as_ref());
    let mut held = memory_after.saturating_sub(memory_before) as f64 / entries as f64;
    if entrant.holds_payloads {
        held = (held - payload_bytes as f64).max(0.0);
    }
    figures.memory = held;

    get(&mut figures, contender.as_mut(), &keys_of_all);
    contender.close();

    if !entrant.is_volatile {
        figures.disk_per_byte = Some(disk_bytes(dir) as f64 / (entries * payload_bytes) as f64);
        reopen(&mut figures, entrant, dir, &keys_of_all);
    }
    figures
}

/// Entries stored and made durable in groups.
pub(crate) fn measure_durable(entrant: &Entrant, payload_bytes: usize) -> Option<(f64, f64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let payload = vec![b'x'; payload_bytes];
    let mut contender = (entrant.open)(folder.path());
    let keys = keys(GROUP * GROUPS, "durable");
    let clock = Clock::start(contender.as_ref());
    let mut groups = keys.chunks(GROUP);
    let is_durable = groups.all(|group| contender.insert_durably(group, &payload));
    let found = clock.micros_each(contender.as_ref(), keys.len());
    contender.close();
    is_durable.then_some(found)
}

fn get(figures: &mut Figures, contender: &mut dyn Contender, keys: &[Key]) {
    let hot = &keys[keys.len() - HOT.min(keys.len())..];
    let mut random = Random(8);
    let mut order = |among: &[Key]| -> Vec<Key> {
        let key = |_| among[random.below(among.len() as u64) as usize];
        (0..GETS).map(key).collect()
    };
    // Some of these entries may have been dropped; the remaining ones count.
    let hot_order = order(hot);
    let clock = Clock::start(contender);
    for key in &hot_order {
        contender.get(key);
    }
    figures.hot_get = clock.micros_each(contender, GETS).0 * 1000.0;
    let mut times: Vec<u64> = Vec::with_capacity(GETS);
    for key in &hot_order {
        let began = Instant::now();
        contender.get(key);
        times.push(began.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    figures.hot_get_p99 = times[times.len() * 99 / 100] as f64;
    let order = order(keys);
    let clock = Clock::start(contender);
    for key in &order {
        contender.get(key);
    }
    figures.any_get = clock.micros_each(contender, GETS).0 * 1000.0;
}

fn reopen(figures: &mut Figures, entrant: &Entrant, dir: &Path, keys: &[Key]) {
    drop_page_cache(dir);
    let began = Instant::now();
    let mut contender = (entrant.open)(dir);
    figures.reopen = Some(began.elapsed().as_secs_f64());
    if !entrant.holds_payloads {
        drop_page_cache(dir);
        let step = keys.len() / COLD_GETS;
        let mut random = Random(9);
        let mut cold: Vec<&Key> = keys.iter().step_by(step).collect();
        for at in (1..cold.len()).rev() {
            cold.swap(at, random.below(at as u64 + 1) as usize);
        }
        let began = Instant::now();
        for key in &cold {
            contender.get(key);
        }
        figures.cold_get = Some(began.elapsed().as_micros() as f64 / cold.len() as f64);
    }
    let lost = keys.iter().filter(|key| contender.get(key).is_none());
    figures.lost = lost.count();
    contender.close();
}

/// CPU and time. CPU of this process, all its threads, and of the server.
struct Clock {
    cpu: f64,
    began: Instant,
}

impl Clock {
    fn start(contender: &dyn Contender) -> Self {
        Self {
            cpu: cpu_seconds(contender.server()),
            began: Instant::now(),
        }
    }

    /// CPU and time of each of so many.
    fn micros_each(&self, contender: &dyn Contender, count: usize) -> (f64, f64) {
        let time = self.began.elapsed().as_secs_f64();
        let cpu = cpu_seconds(contender.server()) - self.cpu;
        let each = 1e6 / count as f64;
        (cpu * each, time * each)
    }
}

fn cpu_seconds(server: Option<u32>) -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let ours = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    let theirs = server.map_or(0.0, |pid| {
        // In nanoseconds, of the one thread that answers.
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
        let first = text.split(' ').next().and_then(|text| text.parse().ok());
        first.map_or(0.0, |nanos: f64| nanos / 1e9)
    });
    ours + theirs
}

/// Bytes of memory that are no file's: what is mapped or in the page cache can be had back.
fn memory(contender: &dyn Contender) -> u64 {
    let process = contender
        .server()
        .map_or("self".into(), |pid| pid.to_string());
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes << 10)
}

fn files(dir: &Path, look: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, look);
        } else if path.is_file() {
            look(&path);
        }
    }
}

/// What the files occupy.
fn disk_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    files(dir, &mut |path| {
        bytes += fs::metadata(path).map_or(0, |found| found.blocks() * 512);
    });
    bytes
}

/// As after a start of the machine, as far as a process can do that.
fn drop_page_cache(dir: &Path) {
    files(dir, &mut |path| {
        let file = File::open(path).expect("readable");
        file.sync_data().expect("synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
    });
}
