//! Builds the programs and components, and the benchmark, which is built the same way.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace::{BINARIES, PROGRAMS, RELEASE, cargo, cargo_optimised, folder_of, step};
use crate::{envoy, instructions, native, peers, wasm};

/// From the root of the workspace.
const COMPARE: &str = "tests/compare/Cargo.toml";

/// The daemon as it is shipped, the component, the filter and the native module; their paths go to
/// stdout, one a line.
pub(crate) fn build() -> Result<()> {
    wasm::set_up()?;
    step(cargo(&["build", "--profile", DIST]).args(PROGRAMS))?;
    println!("{}", Programs::within(&folder_of(DIST)).daemon.display());
    wasm::guests()?;
    println!("{}", native::module(DIST)?.display());
    Ok(())
}

/// A profile, and the folder that cargo names after it: what is shipped.
const DIST: &str = "dist";

/// The same for what `run` starts first.
const EARLY: &str = "early";

/// What `run` starts, compiled.
pub(crate) struct Programs {
    pub(crate) daemon: PathBuf,
    pub(crate) demo: PathBuf,
}

impl Programs {
    /// In the folder where cargo leaves programs of a profile.
    fn within(folder: &Path) -> Self {
        Self {
            daemon: folder.join("reflex-edge"),
            demo: folder.join("demo-provider"),
        }
    }

    fn exist(&self) -> bool {
        self.daemon.exists() && self.demo.exists()
    }
}

/// Compiles the daemon and the demo provider.
pub(crate) fn programs() -> Result<Programs> {
    step(cargo(&["build", "--release"]).args(PROGRAMS))?;
    Ok(Programs::within(&folder_of(RELEASE)))
}

/// Whether they were compiled before, so that compiling them anew is quick.
pub(crate) fn are_known() -> bool {
    Programs::within(&folder_of(RELEASE)).exist()
}

/// Compiles the daemon without its component runtime, and the demo provider: minutes less. They go
/// to a folder of their own, where [`are_known`] does not take them for the others.
pub(crate) fn early_programs() -> Result<Programs> {
    let target = folder_of(EARLY);
    let packages = ["-p", "reflex-host", "-p", "reflex-tests", "--bins"];
    let features = ["--no-default-features", "--features", "reflex-host/serve"];
    let mut build = cargo(&["build", "--profile", EARLY]);
    build.args(packages).args(features);
    step(build.arg("--target-dir").arg(&target))?;
    Ok(Programs::within(&target.join(EARLY)))
}

/// Runs the benchmark, compiled as it is shipped. `compare` is a program of its own, in a workspace of its own, and
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
    let module = match part {
        None => Some(native::module(DIST)?),
        Some((part, _)) if part == "envoy" => Some(native::module(DIST)?),
        Some(_) => None,
    };
    step(cargo_optimised(&["build", "--profile", DIST]).args(BINARIES))?;
    let folder = folder_of(DIST);
    let mut bench = Command::new(folder.join("bench"));
    bench.current_dir(reflex_guest_build::workspace());
    if let Some(peers) = peers {
        bench.env("REFLEX_PEERS", peers);
    }
    if let Some(module) = module {
        bench.env("REFLEX_ENVOY_NATIVE", module);
    }
    step(
        bench
            .args(arguments)
            .env("REFLEX_EDGE_BIN", Programs::within(&folder).daemon)
            .env("REFLEX_ENVOY_BIN", envoy)
            .env("REFLEX_ENVOY_WASM", filter),
    )
}

/// Measures what a repeated request costs. Compiled without wasmtime.
fn l1() -> Result<()> {
    let run = ["run", "--profile", DIST, "--package", "reflex-instructions"];
    step(cargo_optimised(&run).args(["--bin", "reflex-hot"]))
}

/// Compiles and runs what measures the store at several sizes, which needs no wasmtime.
fn store(arguments: &[String]) -> Result<()> {
    let bench = ["bench", "--profile", DIST, "--package", "reflex-host"];
    let mut bench = cargo_optimised(&bench);
    step(
        bench
            .args(["--no-default-features", "--features", "encryption"])
            .args(["--bench", "store", "--"])
            .args(arguments),
    )
}

/// Compiles and runs what compares us with others.
fn compare(arguments: &[String]) -> Result<()> {
    let run = ["run", "--release", "--manifest-path", COMPARE, "--"];
    step(cargo(&run).args(arguments))
}
