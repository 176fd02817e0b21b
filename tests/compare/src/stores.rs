//! All contenders at every size, and the table of the results.

use crate::contender::{ENTRANTS, Entrant};
use crate::measure::{Figures, measure, measure_durable};
use std::process::Command;

/// Bytes of a payload, and how many of them. Of the largest fewer: it would be 13 GB each.
const SIZES: [(usize, usize); 3] = [(600, 200_000), (4096, 200_000), (65_536, 20_000)];

const HEADINGS: [&str; 12] = [
    "",
    "entries",
    "insert, CPU µs",
    "insert, µs",
    "64 durable together, CPU µs each",
    "the same, µs each",
    "hot get, CPU ns",
    "hot get, p99 ns",
    "any get, CPU ns",
    "cold get, µs",
    "memory, B an entry",
    "disk, × payload",
];

/// Prints the tables. Each contender is a process of its own.
pub(crate) fn run() {
    let program = std::env::current_exe().expect("a program");
    for (payload_bytes, entries) in SIZES {
        println!("Payloads of {payload_bytes} bytes:\n");
        println!("| {} | reopen, s |", HEADINGS.join(" | "));
        println!("|{}", "---|".repeat(HEADINGS.len() + 1));
        for entrant in &ENTRANTS {
            if let Err(why) = (entrant.is_there)() {
                println!("| {} | skipped: {why} |", entrant.name);
                continue;
            }
            let arguments = [
                entrant.name,
                &payload_bytes.to_string(),
                &entries.to_string(),
            ];
            let output = Command::new(&program).arg("one").args(arguments).output();
            match output {
                Ok(output) if output.status.success() => {
                    print!("{}", String::from_utf8_lossy(&output.stdout));
                }
                Ok(output) => {
                    let why = String::from_utf8_lossy(&output.stderr);
                    println!("| {} | failed |", entrant.name);
                    eprintln!("{}: {why}", entrant.name);
                }
                Err(error) => eprintln!("{}: {error}", entrant.name),
            }
        }
        println!();
    }
}

/// The task of a child process: prints the line of one contender.
pub(crate) fn one(name: &str, payload_bytes: usize, entries: usize) {
    let entrant = ENTRANTS.iter().find(|entrant| entrant.name == name);
    let entrant: &Entrant = entrant.expect("a contender");
    let durable = measure_durable(entrant, payload_bytes);
    let mut figures = measure(entrant, entries, payload_bytes);
    figures.durable_insert = durable;
    println!("| {name} | {} |", cells(&figures).join(" | "));
}

fn cells(figures: &Figures) -> Vec<String> {
    let some = |figure: Option<f64>, digits: usize| {
        figure.map_or("–".into(), |figure| format!("{figure:.digits$}"))
    };
    let lost = match figures.lost {
        0 => String::new(),
        lost => format!(", {lost} lost"),
    };
    vec![
        format!("{}{lost}", figures.entries),
        some(Some(figures.insert.0), 1),
        some(Some(figures.insert.1), 1),
        some(figures.durable_insert.map(|found| found.0), 1),
        some(figures.durable_insert.map(|found| found.1), 1),
        some(Some(figures.hot_get), 0),
        some(Some(figures.hot_get_p99), 0),
        some(Some(figures.any_get), 0),
        some(figures.cold_get, 0),
        some(Some(figures.memory), 0),
        some(figures.disk_per_byte, 2),
        some(figures.reopen, 3),
    ]
}
