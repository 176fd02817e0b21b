//! What an insert that waits for room waits for: the threads that write, each millisecond, as the system
//! accounts for them.
//!
//! While an insert waits, these threads either run, or are ready and another process has the processor, or
//! wait for the disk. Only the first is time that the cache itself takes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// The threads that hold the lock of the store.
const NAMES: [&str; 2] = ["reflex-writer", "reflex-flusher"];

const PAUSE: Duration = Duration::from_millis(1);

/// Shorter waits are not looked at: they end between two samples.
const WAIT_LEAST: Duration = Duration::from_millis(3);

static SAMPLES: Mutex<Vec<Sample>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    running: Duration,
    ready: Duration,
}

/// The parts of a wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait {
    pub(crate) time: Duration,
    /// The writer ran: the pause that the cache itself makes.
    pub(crate) own: Duration,
    /// The writer could have run, and another process did.
    pub(crate) others: Duration,
}

impl Wait {
    /// What is left: the writer waited for the disk.
    pub(crate) fn disk(&self) -> Duration {
        self.time.saturating_sub(self.own + self.others)
    }
}

/// Runs `inserts` and returns the longest wait, and the longest part of any wait that is the cache's own.
pub(crate) fn longest_of(inserts: impl FnOnce(&mut dyn FnMut(Instant))) -> (Wait, Duration) {
    let is_over = AtomicBool::new(false);
    let mut waits: Vec<(Instant, Duration)> = Vec::new();
    let mut shorter = Duration::ZERO;
    thread::scope(|scope| {
        sample(scope, &is_over);
        inserts(&mut |began| {
            let time = began.elapsed();
            match time >= WAIT_LEAST {
                true => waits.push((began, time)),
                false => shorter = shorter.max(time),
            }
        });
        is_over.store(true, Relaxed);
    });
    let samples = std::mem::take(&mut *SAMPLES.lock().unwrap_or_else(PoisonError::into_inner));
    let parts = waits.into_iter().map(|(began, time)| {
        let first = samples.partition_point(|sample| sample.at <= began);
        let last = samples.partition_point(|sample| sample.at < began + time);
        let (first, last) = (first.saturating_sub(1), last.min(samples.len() - 1));
        let (first, last) = (samples[first], samples[last]);
        Wait {
            time,
            own: (last.running - first.running).min(time),
            others: (last.ready - first.ready).min(time),
        }
    });
    let parts: Vec<Wait> = parts.collect();
    let own = parts.iter().map(|wait| wait.own).max();
    let longest = parts.into_iter().max_by_key(|wait| wait.time);
    let short = Wait {
        time: shorter,
        own: shorter,
        ..Wait::default()
    };
    (longest.unwrap_or(short), own.unwrap_or(shorter))
}

fn sample<'scope>(scope: &'scope Scope<'scope, '_>, is_over: &'scope AtomicBool) {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let threads = threads.flatten().map(|thread| thread.path());
    let is_meant = |name: &str| NAMES.contains(&name.trim());
    let writers = threads
        .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| is_meant(&name)));
    let files: Vec<_> = writers.map(|path| path.join("schedstat")).collect();
    scope.spawn(move || {
        let look = || {
            let (mut running, mut ready) = (0, 0);
            for file in &files {
                let text = fs::read_to_string(file).unwrap_or_default();
                let mut numbers = text
                    .split_whitespace()
                    .map(|it| it.parse::<u64>().unwrap_or(0));
                running += numbers.next().unwrap_or(0);
                ready += numbers.next().unwrap_or(0);
            }
            let sample = Sample {
                at: Instant::now(),
                running: Duration::from_nanos(running),
                ready: Duration::from_nanos(ready),
            };
            let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push(sample);
        };
        while !is_over.load(Relaxed) {
            look();
            thread::sleep(PAUSE);
        }
        look();
    });
}
