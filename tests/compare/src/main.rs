//! Ours beside other stores, in one run on one machine: stores of payloads, and policies of
//! eviction.
//!
//! `cargo xtask bench compare` builds and runs this; with `stores` or `eviction` behind it, only
//! that part. The output is Markdown. CPU is that of the whole process, and of a server if there is
//! one, so that other load on the machine matters little; times do depend
//! on it.

mod contender;
mod hit_ratio;
mod measure;
mod policy;
mod stores;
mod trace;

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
