//! The hot paths, one at a time, for a tool that counts instructions (`cargo xtask bench
//! instructions`).
//!
//! `reflex-instructions` prints the names of the cases, one a line. `reflex-instructions NAME` runs
//! one and prints how often [`counted`] was entered. The tool collects inside of [`counted`] only, so
//! that neither set-up nor other threads are in the count.

mod get;
mod key;
mod l1;
mod record;
mod request;

use std::hint::black_box;
use std::process::ExitCode;

/// One pass through a hot path. The number it returns depends on the result, so that no work can be
/// optimised away.
type Pass = Box<dyn FnMut() -> usize>;

struct Case {
    name: &'static str,
    /// Prepares everything and returns the pass.
    prepare: fn() -> Pass,
    /// Passes that are counted: enough to level out what few of them do, such as growing a buffer or
    /// passing statistics on.
    times: u32,
}

const CASES: [Case; 6] = [
    Case {
        name: "key of a chat request, 1 KiB",
        prepare: || key::pass(1 << 10),
        times: 200,
    },
    Case {
        name: "key of a chat request, 16 KiB",
        prepare: || key::pass(16 << 10),
        times: 50,
    },
    Case {
        name: "chat request known by the L1, 1 KiB",
        prepare: || l1::pass(1 << 10),
        times: 5000,
    },
    Case {
        name: "get by key, memory, 4 KiB",
        prepare: get::memory,
        times: 5000,
    },
    Case {
        name: "get by key, mapped store, 4 KiB",
        prepare: get::mapped,
        times: 5000,
    },
    Case {
        name: "recorder, SSE of 50 events",
        prepare: record::pass,
        times: 50,
    },
];

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        for case in &CASES {
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == name) else {
        eprintln!("no case is named `{name}`; without an argument, this lists them");
        return ExitCode::from(2);
    };
    let mut pass = (case.prepare)();
    // The first passes fill caches and resolve symbols.
    for _ in 0..case.times.min(50) {
        black_box(pass());
    }
    for _ in 0..case.times {
        black_box(counted(&mut pass));
    }
    println!("{}", case.times);
    ExitCode::SUCCESS
}

/// What the tool looks for by name. The addition keeps the call from becoming a jump, which would
/// leave this function before its work is done.
#[inline(never)]
fn counted(pass: &mut Pass) -> usize {
    pass().wrapping_add(1)
}
