//! Our guest on hosts that are not ours: Node.js by way of `jco transpile`, and Python's `wasmtime`,
//! each with a cache of a few lines (`tests/hosts`).

use super::{languages, tool};
use std::path::Path;
use std::process::{Command, Stdio};

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn the_guest_runs_in_node() {
    let tools = tool::target().join("languages/node");
    let jco = tools.join("node_modules/.bin/jco");
    if !jco.exists() {
        let why = std::fs::read_to_string(tool::target().join("languages/ask-js.skipped"));
        let why = why.unwrap_or_else(|_| panic!("jco is missing: run `cargo xtask guests`"));
        eprintln!("skipped: the guest in Node.js: {why}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).expect("written");
    run(Command::new(jco)
        .arg("transpile")
        .arg(languages::RUST)
        .args(["--instantiation", "async", "--no-typescript"])
        .args(["--name", "ask", "--out-dir"])
        .arg(folder.path()));
    run(Command::new("node")
        .arg(script("ask.mjs"))
        .arg(folder.path().join("ask.js")));
}

#[test]
fn the_guest_runs_in_pythons_wasmtime() {
    let python = tool::target().join("python-wasm/bin/python");
    assert!(python.exists(), "run `cargo xtask guests` first");
    run(Command::new(python)
        .arg(script("ask.py"))
        .arg(languages::RUST));
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("hosts")
        .join(name)
}
