//! Beside its peers: nginx and Varnish as caches of POSTs, Envoy with and without our filter, and a
//! bare hyper server, all in front of one provider and on the same work.
//!
//! `cargo xtask bench peers` writes `docs/bench/peers.md` and `peers.svg`; `--quick` measures a small
//! part in a few seconds, which shows that all of it runs, and writes them below `target/`.

mod contender;
mod cores;
mod miss;
mod plot;
mod process;
mod report;
mod rounds;
mod strain;

use crate::bare::Server;
use crate::work::Work;
use cores::Cores;
use rounds::{Cell, Provider};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Open files that each process may need: 2,000 clients and as many connections to the provider.
const FILES: u64 = 16_384;

/// How much is measured.
pub(crate) struct Settings {
    is_quick: bool,
    rounds: usize,
    round: Duration,
    works: &'static [&'static str],
    connections: &'static [usize],
    /// Prompts where there are many, which 16 connections ask for.
    prompts: u64,
    /// Clients of each slow kind.
    slow_clients: usize,
}

/// Under ten minutes: 13 cells, 7 contenders.
const FULL: Settings = Settings {
    is_quick: false,
    rounds: 5,
    round: Duration::from_millis(700),
    works: &["4 KiB", "64 KiB", "1 MiB", "SSE"],
    connections: &[1, 16, 64],
    prompts: 5000,
    slow_clients: 1000,
};

const QUICK: Settings = Settings {
    is_quick: true,
    rounds: 2,
    round: Duration::from_millis(100),
    works: &["4 KiB", "1 MiB", "SSE"],
    connections: &[16],
    prompts: 200,
    slow_clients: 1000,
};

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let settings = match arguments {
        [] => FULL,
        [flag] if flag == "--quick" => QUICK,
        _ => {
            eprintln!("bench: `peers` knows `--quick` only");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match runtime.block_on(measure(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(settings: &Settings) -> Result<(), String> {
    let began = Instant::now();
    allow_files()?;
    let cores = Cores::divide()?;
    cores.to_load();
    let origin = Server::bare();
    let provider = Provider(origin.address.clone());
    let contenders = contender::all(&cores, &origin.address).await?;
    println!("peers: {} servers are up", contenders.len());

    let mut measured = Vec::new();
    for cell in settings.cells() {
        let figures = rounds::measure(&cell, &contenders, &provider, settings).await;
        println!("\n{}, {} connections", cell.name(), cell.connections);
        for (contender, figures) in contenders.iter().zip(&figures) {
            match figures {
                Ok(figures) => println!(
                    "  {:<34} {:>9.1} µs of CPU, p50 {:>7.0} µs, p99 {:>7.0} µs, {:>7.0}/s",
                    contender.name, figures.cpu, figures.p50, figures.p99, figures.rate
                ),
                Err(why) => println!("  {:<34} {why}", contender.name),
            }
        }
        measured.push((cell, figures));
    }
    println!("\nmisses");
    let misses = miss::measure(&contenders, &provider, settings).await?;
    println!("hits under strain");
    let strains = strain::measure(&contenders, &provider, settings).await?;

    let page = report::page(&contenders, &measured, &misses, &strains, settings);
    let folder = settings.folder();
    write(&folder, "peers.md", &page)?;
    write(&folder, "peers.svg", &plot::svg(&contenders, &measured))?;
    println!("{page}\n{} s in all", began.elapsed().as_secs());
    Ok(())
}

impl Settings {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &connections in self.connections {
            for name in self.works {
                cells.push(Cell {
                    work: Work::named(name),
                    connections,
                    prompts: 1,
                });
            }
            if connections == 16 {
                cells.push(Cell {
                    work: Work::named("4 KiB"),
                    connections,
                    prompts: self.prompts,
                });
            }
        }
        cells
    }

    /// Where the page goes.
    fn folder(&self) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        if self.is_quick {
            let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            root.join(target).join("peers/quick")
        } else {
            root.join("docs/bench")
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Raises this process' own bound of open files, which its children inherit.
fn allow_files() -> Result<(), String> {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(FILES, |most| most.min(FILES));
    if wanted < FILES {
        return Err(format!(
            "{FILES} open files are needed for each process, and the limit is {wanted}: raise it \
             (`ulimit -Hn`)"
        ));
    }
    let limit = Rlimit {
        current: Some(wanted.max(now.current.unwrap_or(wanted))),
        maximum: now.maximum,
    };
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("the limit of open files: {error}"))
}
