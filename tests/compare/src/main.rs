//! Ours beside other stores, in one run on one machine: stores of payloads, and policies of
//! eviction.
//!
//! `cargo xtask bench compare` builds and runs this; with `stores` or `eviction` behind it, only
//! that part. Files behind `eviction` are traces to take in place of made-up requests, one key a
//! line. What it prints is Markdown. CPU is that of the whole process, and of the server
//! where there is one, so that what the machine does beside it matters little; times do depend
//! on it.

mod contender;
mod hit_ratio;
mod measure;
mod policy;
mod recorded;
mod stores;
mod trace;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            stores::run();
            hit_ratio::run();
        }
        ["stores"] => stores::run(),
        ["eviction"] => hit_ratio::run(),
        ["eviction", ref traces @ ..] => {
            for trace in traces {
                if let Err(error) = hit_ratio::run_recorded(Path::new(trace)) {
                    eprintln!("compare: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        ["one", name, payload_bytes, entries] => {
            let number = |text: &str| text.parse().expect("a number");
            stores::one(name, number(payload_bytes), number(entries));
        }
        _ => {
            eprintln!("compare: no such part; the parts are stores, eviction");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
