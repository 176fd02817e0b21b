//! The tables, as Markdown, with the machine and the versions.

use crate::peers::Settings;
use crate::peers::contender::{Contender, program};
use crate::peers::miss::Miss;
use crate::peers::rounds::{Cell, Figures};
use crate::peers::strain::Strain;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Figures by contender, for each cell.
pub(crate) type Measured = Vec<(Cell, Vec<Result<Figures, String>>)>;

/// How a figure is written, beside that of the first contender.
type Format = fn(&Figures, Option<&Figures>) -> String;

const TABLES: [(&str, Format); 4] = [
    (
        "CPU of the server per request, µs, and beside A",
        |it, a| match a {
            Some(a) => format!("{:.1} ({:.2} ×)", it.cpu, it.cpu / a.cpu),
            None => format!("{:.1}", it.cpu),
        },
    ),
    ("median latency, µs", |it, _| format!("{:.0}", it.p50)),
    ("p99 of the latency, µs", |it, _| format!("{:.0}", it.p99)),
    ("requests per second", |it, _| format!("{:.0}", it.rate)),
];

/// The whole page.
pub(crate) fn page(
    contenders: &[Contender],
    measured: &Measured,
    misses: &[Miss],
    strains: &[Strain],
    settings: &Settings,
) -> String {
    let mut page = format!(
        "# Beside its peers\n\n\
         Written by `cargo xtask bench peers{}`; how is told in [README.md](README.md).\n\n{}\n\
         {} rounds of {} ms for each figure, in turns; medians. One core for each server.\n\n\
         ![CPU per request beside a bare hyper server](peers.svg)\n",
        if settings.is_quick { " --quick" } else { "" },
        setting(),
        settings.rounds,
        settings.round.as_millis(),
    );
    for connections in settings.connections {
        let cells: Vec<_> = measured
            .iter()
            .filter(|(cell, _)| cell.connections == *connections)
            .collect();
        let plural = if *connections == 1 { "" } else { "s" };
        let _ = writeln!(page, "\n## Hits, {connections} connection{plural}");
        for (title, format) in TABLES {
            let _ = write!(page, "\n| {title} |");
            for (cell, _) in &cells {
                let _ = write!(page, " {} |", cell.name());
            }
            let _ = write!(page, "\n|---|{}\n", "---:|".repeat(cells.len()));
            for (at, contender) in contenders.iter().enumerate() {
                let _ = write!(page, "| {} |", contender.name);
                for (_, figures) in &cells {
                    let first = figures[0].as_ref().ok();
                    let text = figures[at].as_ref().map(|it| format(it, first));
                    let _ = write!(page, " {} |", text.as_deref().unwrap_or("–"));
                }
                page.push('\n');
            }
        }
    }
    page + &problems(contenders, measured) + &of_misses(misses) + &of_strains(strains, settings)
}

/// The reasons for missing figures.
fn problems(contenders: &[Contender], measured: &Measured) -> String {
    let mut text = String::new();
    for (cell, figures) in measured {
        for (contender, figures) in contenders.iter().zip(figures) {
            if let Err(why) = figures {
                let _ = writeln!(
                    text,
                    "- {}, {}, {} connections: {why}",
                    contender.name,
                    cell.name(),
                    cell.connections
                );
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("\nNot measured:\n\n{text}")
}

fn of_misses(misses: &[Miss]) -> String {
    let mut text = "\n## Misses\n\n\
        Streams to prompts of their own, one after the other, and misses of 4 KiB from 16 \
        connections; µs. *Added* is to the provider's own.\n\n\
        | | time to first byte | added | event delayed, median | p99 | CPU of a miss |\n\
        |---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let own = misses.first().map_or(0.0, |miss| miss.first_byte);
    for miss in misses {
        let cpu = miss.cpu.map_or("–".into(), |cpu| format!("{cpu:.0}"));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {cpu} |",
            miss.name,
            miss.first_byte,
            miss.first_byte - own,
            miss.event_p50,
            miss.event_p99,
        );
    }
    text
}

fn of_strains(strains: &[Strain], settings: &Settings) -> String {
    let count = settings.slow_clients;
    let mut text = format!(
        "\n## Hits under strain\n\n\
         16 connections ask for what is cached, 4 KiB, first alone, then while {count} clients have \
         sent half a body and {count} wait for a provider that does not answer; µs.\n\n\
         | | p99, calm | p99, strained | ratio | hits that asked the provider | failed | waiting at the provider |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    for strain in strains {
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.1} × | {:.1} % | {} | {} |",
            strain.name,
            strain.calm_p99,
            strain.p99,
            strain.p99 / strain.calm_p99,
            strain.misses * 100.0,
            strain.failures,
            strain.waiting,
        );
    }
    text
}

/// The machine, and the version of everything.
fn setting() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    // The cores of the load, because this thread is pinned to them, and the server's.
    let cores = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let said = |mut command: Command, flag: &str| first_line(command.arg(flag));
    let peer = |name: &str| program(name).ok();
    let lock = include_str!("../../../Cargo.lock");
    let rows = [
        (
            "machine",
            format!(
                "{} core(s) of {} ({}), Linux {}",
                cores,
                model.unwrap_or_default(),
                std::env::consts::ARCH,
                kernel.trim()
            ),
        ),
        ("reflex-edge", commit()),
        ("bare hyper", locked(lock, "hyper")),
        (
            "nginx",
            peer("nginx").map_or_else(String::new, |command| {
                after(said(command, "-v"), "version:")
            }),
        ),
        (
            "Varnish",
            peer("varnishd").map_or_else(String::new, |command| said(command, "-V")),
        ),
        (
            "Envoy",
            // Before it stands the path of the program.
            after(
                said(Command::new(reflex_tests::envoy::binary()), "--version"),
                "version:",
            ),
        ),
        ("compiler", {
            let mut rustc = Command::new("rustc");
            rustc.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
            said(rustc, "--version")
        }),
    ];
    let mut text = "| | |\n|---|---|\n".to_owned();
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

/// The commit that is measured, with a mark if files differ from it.
fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["describe", "--always"]);
    format!("commit {}", first_line(git.arg("--dirty")))
}

/// The text behind `mark`, if it occurs.
fn after(text: String, mark: &str) -> String {
    match text.split_once(mark) {
        Some((_, rest)) => rest.trim().to_owned(),
        None => text,
    }
}

/// The first line of a program, on stdout or on stderr.
fn first_line(command: &mut Command) -> String {
    let output = command.output();
    let said = output.map(|output| [output.stdout, output.stderr].concat());
    let said = said.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or("unknown").trim().to_owned()
}

/// The version of a crate in this workspace's lock file.
fn locked(lock: &str, name: &str) -> String {
    let start = format!("name = \"{name}\"\nversion = \"");
    let version = lock
        .split(&start)
        .nth(1)
        .and_then(|it| it.split('"').next());
    format!("{name} {}", version.unwrap_or("unknown"))
}
