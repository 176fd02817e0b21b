//! The cache at sizes from ten thousand entries to ten million, through its public interface:
//!
//! ```sh
//! cargo xtask bench store --entries 10M
//! ```
//!
//! Each size fills a new folder up to its quota, goes on inserting so that segments are reclaimed, looks
//! entries up, purges tenants, and opens the folder again. Payloads are short: what is measured is taken
//! by each entry, whatever its length. The folder is below `TMPDIR`, and is removed at the end.
//!
//! With `--encryption` alone, what a hit from the data folder costs more when that is encrypted.

#[cfg(feature = "encryption")]
mod encryption;
mod pauses;
mod run;
mod sizes;
mod waits;

use sizes::{Room, Sizes};
use std::process::ExitCode;

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    #[cfg(feature = "encryption")]
    if arguments == ["--encryption"] {
        encryption::print();
        return ExitCode::SUCCESS;
    }
    let sizes = match Sizes::parse(arguments.into_iter()) {
        Ok(sizes) => sizes,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let needed = sizes.needs();
    let dir = std::env::temp_dir();
    println!(
        "needs {} of disk below {}, and {} of memory",
        megabytes(needed.disk_bytes),
        dir.display(),
        megabytes(needed.memory_bytes)
    );
    let found = Room::found_below(&dir);
    if found.disk_bytes < needed.disk_bytes || found.memory_bytes < needed.memory_bytes {
        eprintln!(
            "only {} of disk and {} of memory are free; choose fewer with --entries, or another TMPDIR",
            megabytes(found.disk_bytes),
            megabytes(found.memory_bytes)
        );
        return ExitCode::FAILURE;
    }
    pauses::install();
    println!("{}", run::HEADINGS);
    for entries in sizes.each() {
        println!("{}", run::measure(entries, sizes.payload_bytes).row());
    }
    ExitCode::SUCCESS
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}
