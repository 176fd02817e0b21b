//! Hit ratios: ours beside the policies that others have, on made-up requests or on a recorded trace.

use crate::policy::{self, ENTRIES};
use crate::recorded::Recorded;
use crate::trace::{REQUESTS, Trace};
use std::path::{Path, PathBuf};

/// In memory if possible: this measurement does not depend on the disk.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// The smallest room of a recorded trace, in entries: below, segments are too short to say much.
const ENTRIES_MIN: u64 = 1024;

/// Rooms of a recorded trace, in percent of its different keys.
const SHARES: [u64; 3] = [5, 10, 20];

/// Prints the table of made-up requests.
pub(crate) fn run() {
    println!("Hit ratio in percent; {REQUESTS} requests, room for {ENTRIES} entries:\n");
    head();
    for trace in Trace::all() {
        row(&trace.name, &trace.keys, ENTRIES);
    }
    println!();
}

/// Prints the table of a recorded trace: one key a line, whatever it looks like.
///
/// # Errors
///
/// The file cannot be read, or has too few different keys.
pub(crate) fn run_recorded(path: &Path) -> Result<(), String> {
    let recorded = Recorded::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let Recorded {
        trace,
        different_keys: different,
    } = recorded;
    let requests = trace.keys.len();
    println!("Hit ratio in percent; {requests} requests for {different} keys:\n");
    let rooms = SHARES.map(|share| different * share / 100);
    let rooms = rooms.into_iter().filter(|room| *room >= ENTRIES_MIN);
    let rooms: Vec<u64> = rooms.collect();
    if rooms.is_empty() {
        return Err(format!(
            "{} has only {different} different keys",
            path.display()
        ));
    }
    head();
    for room in rooms {
        row(
            &format!("{}, room for {room}", trace.name),
            &trace.keys,
            room,
        );
    }
    println!();
    Ok(())
}

fn head() {
    println!("| requests | ours | TinyLFU (moka) | LRU | FIFO | random | optimum | written |");
    println!("|---|---|---|---|---|---|---|---|");
}

fn row(name: &str, keys: &[u64], entries: u64) {
    let (ours, written) = policy::ours(keys, entries, &scratch());
    let ratios = [
        ours,
        policy::tiny_lfu(keys, entries),
        policy::lru(keys, entries),
        policy::fifo(keys, entries),
        policy::at_random(keys, entries),
        policy::optimum(keys, entries),
    ];
    let cells: Vec<String> = ratios.iter().map(|r| format!("{:.1}", r * 100.0)).collect();
    println!("| {name} | {} | {written:.2} |", cells.join(" | "));
}
