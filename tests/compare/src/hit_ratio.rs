//! Hit ratios on made-up requests: ours beside other policies.

use crate::policy::{self, ENTRIES};
use crate::trace::{REQUESTS, Trace};
use std::path::PathBuf;

/// In memory if possible: this measurement does not depend on the disk.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// Prints the table.
pub(crate) fn run() {
    println!("Hit ratio in percent; {REQUESTS} requests, room for {ENTRIES} entries:\n");
    println!("| requests | ours | TinyLFU (moka) | LRU | FIFO | random | optimum | written |");
    println!("|---|---|---|---|---|---|---|---|");
    for trace in Trace::all() {
        let keys = &trace.keys;
        let (ours, written) = policy::ours(keys, &scratch());
        let ratios = [
            ours,
            policy::tiny_lfu(keys),
            policy::lru(keys),
            policy::fifo(keys),
            policy::at_random(keys),
            policy::optimum(keys),
        ];
        let cells: Vec<String> = ratios.iter().map(|r| format!("{:.1}", r * 100.0)).collect();
        println!("| {} | {} | {written:.2} |", trace.name, cells.join(" | "));
    }
    println!();
}
