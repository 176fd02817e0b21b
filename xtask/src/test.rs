//! All checks. CI runs this and nothing else.

use std::process::Command;

use anyhow::Result;
use reflex_skip::Skips;

use crate::workspace::{RELEASE, binary, cargo, step};
use crate::{
    collector, compose, engine, envoy, fuzz, instructions, languages, machine, native, node,
    python, schedules, wasm,
};

/// Sets up what the tests need, then formatting, lints, tests.
///
/// # Errors
///
/// A check failed, or its tools cannot be installed. A part that cannot run on this machine is an
/// error if skips are refused.
pub(crate) fn test(skips: Skips) -> Result<()> {
    // Checks that take a second come before checks that take minutes.
    step(&mut cargo(&["fmt", "--all", "--check"]))?;
    machine::set_up(skips)?;
    let python = python::set_up()?;
    let tools = python::set_up_tools(skips)?;
    let clients = node::set_up(skips)?;
    let collector = collector::set_up(skips)?;
    let engine = engine::set_up(skips)?;
    let envoy = envoy::set_up()?;
    wasm::set_up()?;
    let filter = wasm::filter()?;
    let panicking_filter = wasm::panicking_filter()?;
    let panicking_module = native::panicking_module(RELEASE)?;
    let module = native::module(RELEASE)?;
    let compose = compose::set_up()?;
    languages::set_up(&compose, skips)?;

    let clippy = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step(&mut cargo(&clippy))?;
    docs()?;
    // All targets, because the tests run the binary and cargo would build it for them with
    // other features of its dependencies: everything would be compiled twice.
    step(&mut cargo(&[
        "build",
        "--release",
        "--workspace",
        "--all-targets",
    ]))?;
    let path = node::search_path()?;
    let tests = |arguments: &[&str]| {
        let mut tests = cargo(&["test", "--release", "--workspace"]);
        if let Some(packages) = &clients {
            tests.env("REFLEX_JS", packages);
        }
        if let Some(tools) = &tools {
            tests.env("REFLEX_TOOLS_PYTHON", tools);
        }
        if let Some(collector) = &collector {
            tests.env("REFLEX_COLLECTOR", collector);
        }
        if let Some(engine) = &engine {
            tests.env("REFLEX_ENGINE", engine);
        }
        if let Ok(path) = &path {
            tests.env("PATH", path);
        }
        if skips == Skips::Refused {
            tests.env(reflex_skip::VARIABLE, "1");
        }
        tests
            .args(arguments)
            .env("REFLEX_COMPOSE", &compose)
            .env("REFLEX_EDGE_BIN", binary("reflex-edge"))
            .env("REFLEX_ENVOY_BIN", &envoy)
            .env("REFLEX_ENVOY_WASM", &filter)
            .env("REFLEX_ENVOY_PANIC_WASM", &panicking_filter)
            .env("REFLEX_ENVOY_NATIVE", &module)
            .env("REFLEX_ENVOY_PANIC_NATIVE", &panicking_module)
            .env("REFLEX_PYTHON", &python);
        tests
    };
    step(&mut tests(&[]))?;
    // A client sees the same in both modes.
    let mut again = tests(&["--test", "it", "--"]);
    for part in WITHOUT_A_PROXY {
        again.args(["--skip", part]);
    }
    step(again.env("REFLEX_TEST_HITS", "component"))?;
    features()?;
    instructions::check(skips)?;
    schedules::try_them()?;
    fuzz::fuzz_if_able(skips)
}

/// Tests that do not go through the daemon's proxy, for which nothing differs; and of what components do
/// not do.
const WITHOUT_A_PROXY: [&str; 15] = [
    "admin::fuzzed",
    "cassettes::",
    "compose::",
    "deploy::",
    "edge_api::",
    "embedding::",
    "envoy",
    "hostile::",
    "imports::",
    "renewal::",
    "store_cli::",
    "tidy::",
    "transparent::",
    "vectors::",
    "wasi02::",
];

/// What a program may take of the host without wasmtime, whose other features would be compiled anew.
/// The default is what all else here is built with.
const FEATURES: [&str; 3] = ["", "encryption", "serve"];

/// The lean choices of features compile without a warning.
fn features() -> Result<()> {
    for features in FEATURES {
        step(&mut cargo(&[
            "clippy",
            "--release",
            "-p",
            "reflex-host",
            "--lib",
            "--bins",
            "--no-default-features",
            "--features",
            features,
            "--",
            "-D",
            "warnings",
        ]))?;
    }
    Ok(())
}

/// Builds the documentation; a broken link is an error. Clippy has just checked nearly all of the
/// code, so this takes seconds.
fn docs() -> Result<()> {
    // Without features, some links of the crate's page lead nowhere. This build is only a check, so
    // it goes elsewhere.
    let alone = ["-p", "reflex-host", "--lib", "--no-default-features"];
    let elsewhere = reflex_guest_build::target_dir().join("doc-of-the-cache-alone");
    step(doc(&alone).env("CARGO_TARGET_DIR", elsewhere))?;
    step(&mut doc(&["--workspace"]))
}

fn doc(what: &[&str]) -> Command {
    let mut command = cargo(&["doc", "--release", "--no-deps", "--locked"]);
    command.args(what).env("RUSTDOCFLAGS", "-D warnings");
    command
}
