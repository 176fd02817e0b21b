//! Figures, side by side: ours and what it is measured against, in one run on one machine.
//!
//! `cargo xtask bench` builds and runs this. Ratios are what counts; absolute times belong to the
//! machine. The load stays on loopback and is bounded in connections and time.

mod clock;
mod guest;
mod http;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The bare server that `reflex-edge serve` is compared with is this program once more.
    if std::env::args().nth(1).as_deref() == Some("bare-server") {
        return http::bare_server();
    }
    println!(
        "{} cores; every figure is the median of {} rounds\n",
        cores(),
        ROUNDS
    );
    store::run();
    guest::run();
    http::run()
}

/// Rounds of each measurement. Ours and theirs take turns, so that what disturbs one round of one
/// is no lasting difference.
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
