//! Builds the programs and components, and the benchmark, which is built the same way.

use anyhow::Result;

use crate::workspace::{BINARIES, binary, cargo, step};
use crate::{envoy, wasm};

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

/// Runs the benchmark. `compare` is a program of its own, in a workspace of its own.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    if let Some((part, arguments)) = arguments.split_first()
        && part == "compare"
    {
        return compare(arguments);
    }
    wasm::set_up()?;
    let envoy = envoy::set_up()?;
    let filter = wasm::filter()?;
    binaries()?;
    let bench = [
        "run",
        "--release",
        "-p",
        "reflex-tests",
        "--bin",
        "bench",
        "--",
    ];
    step(
        cargo(&bench)
            .args(arguments)
            .env("REFLEX_EDGE_BIN", binary("reflex-edge"))
            .env("REFLEX_ENVOY_BIN", envoy)
            .env("REFLEX_ENVOY_WASM", filter),
    )
}

/// Compiles and runs what compares us with others.
fn compare(arguments: &[String]) -> Result<()> {
    let run = ["run", "--release", "--manifest-path", COMPARE, "--"];
    step(cargo(&run).args(arguments))
}
