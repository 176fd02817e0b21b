//! Figures, side by side: ours and those of others, in one run on one machine.
//!
//! `cargo xtask bench` builds and runs this; with `store`, `classify`, `guest`, `policy`, `serve`,
//! `envoy` or `cassette` behind it, only that part. `peers` runs only when it is named, and `ask` for a server that
//! is there. Compare the ratios: absolute times depend on the machine.
//! The load stays on loopback and is bounded in connections and time.

mod ask;
mod bare;
mod cassette;
mod classify;
mod clock;
mod envoy;
mod guest;
mod http;
mod load;
mod peers;
mod policy;
mod store;
mod work;

use std::process::ExitCode;

/// A part of the benchmark, by its name on the command line.
type Part = (&'static str, fn() -> ExitCode);

const PARTS: [Part; 7] = [
    ("store", store::run),
    ("classify", classify::run),
    ("guest", guest::run),
    ("policy", policy::run),
    ("serve", http::run),
    ("envoy", envoy::run),
    ("cassette", cassette::run),
];

fn main() -> ExitCode {
    let part = std::env::args().nth(1);
    // The bare server that others are compared with is this program once more.
    if part.as_deref() == Some("bare-server") {
        return bare::serve();
    }
    if part.as_deref() == Some("ask") {
        return ask::run(&std::env::args().skip(2).collect::<Vec<_>>());
    }
    if part.as_deref() == Some("peers") {
        return peers::run(&std::env::args().skip(2).collect::<Vec<_>>());
    }
    let wanted: Vec<Part> = PARTS
        .into_iter()
        .filter(|(name, _)| part.as_deref().is_none_or(|part| part == *name))
        .collect();
    if wanted.is_empty() {
        let names = PARTS.map(|(name, _)| name).join(", ");
        eprintln!("bench: no such part; the parts are {names}, peers");
        return ExitCode::from(2);
    }
    println!(
        "{} cores; every figure is the median of {ROUNDS} rounds\n",
        cores()
    );
    let failed = wanted.iter().any(|(_, run)| run() != ExitCode::SUCCESS);
    ExitCode::from(u8::from(failed))
}

/// Rounds of each measurement. Ours and theirs take turns, so that a disturbance of one round
/// makes no lasting difference.
const ROUNDS: usize = 5;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One line of the report.
fn report(what: &str, figure: f64, unit: &str) {
    println!("  {what:<58} {figure:>10.2} {unit}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
