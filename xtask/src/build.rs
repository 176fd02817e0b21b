//! Builds the programs and components, and the benchmark, which is built the same way.

use std::process::Command;

use anyhow::Result;

use crate::workspace::{BINARIES, binary, cargo, cargo_optimised, step};
use crate::{envoy, instructions, peers, wasm};

/// From the root of the workspace.
const COMPARE: &str = "tests/compare/Cargo.toml";

/// The release binary, the component and the filter; their paths go to stdout, one a line.
pub(crate) fn build() -> Result<()> {
    wasm::set_up()?;
    binaries()?;
    println!("{}", binary("reflex-edge").display());
    wasm::guests()
}

/// Compiles the daemon and the demo provider.
pub(crate) fn binaries() -> Result<()> {
    step(cargo(&["build", "--release"]).args(BINARIES))
}

/// Runs the benchmark. `compare` is a program of its own, in a workspace of its own, and
/// `instructions` one that valgrind runs.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let part = arguments.split_first();
    match part.map(|(part, rest)| (part.as_str(), rest)) {
        Some(("compare", rest)) => return compare(rest),
        Some(("instructions", rest)) => return instructions::bench(rest),
        Some(("l1", _)) => return l1(),
        Some(("store", rest)) if !rest.is_empty() => return store(rest),
        None => l1()?,
        _ => {}
    }
    let peers = match part {
        Some((part, _)) if part == "peers" => Some(peers::set_up()?),
        _ => None,
    };
    wasm::set_up()?;
    let envoy = envoy::set_up()?;
    let filter = wasm::filter()?;
    step(cargo_optimised(&["build", "--release"]).args(BINARIES))?;
    let mut bench = Command::new(binary("bench"));
    bench.current_dir(reflex_guest_build::workspace());
    if let Some(peers) = peers {
        bench.env("REFLEX_PEERS", peers);
    }
    step(
        bench
            .args(arguments)
            .env("REFLEX_EDGE_BIN", binary("reflex-edge"))
            .env("REFLEX_ENVOY_BIN", envoy)
            .env("REFLEX_ENVOY_WASM", filter),
    )
}

/// Measures what a repeated request costs. Compiled without wasmtime.
fn l1() -> Result<()> {
    let run = ["run", "--release", "--package", "reflex-instructions"];
    step(cargo_optimised(&run).args(["--bin", "reflex-hot"]))
}

/// Compiles and runs what measures the store at several sizes, which needs no wasmtime.
fn store(arguments: &[String]) -> Result<()> {
    let bench = ["bench", "--package", "reflex-host", "--no-default-features"];
    let mut bench = cargo_optimised(&bench);
    step(bench.args(["--bench", "store", "--"]).args(arguments))
}

/// Compiles and runs what compares us with others.
fn compare(arguments: &[String]) -> Result<()> {
    let run = ["run", "--release", "--manifest-path", COMPARE, "--"];
    step(cargo(&run).args(arguments))
}
