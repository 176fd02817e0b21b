//! Our components on hosts that are not ours: Node.js by way of `jco transpile`, and Python's
//! `wasmtime`, each with a cache of a few lines (`tests/hosts`).

use super::{languages, tool};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn the_guest_runs_in_node() {
    in_node("node", Path::new(languages::RUST), "ask.mjs");
}

#[test]
fn the_guest_runs_in_pythons_wasmtime() {
    in_python(languages::RUST, "ask.py");
}

#[test]
fn the_policy_runs_in_node() {
    in_node("node", Path::new(POLICY), "policy.mjs");
}

#[test]
fn the_policy_runs_in_pythons_wasmtime() {
    in_python(POLICY, "policy.py");
}

#[test]
fn the_middleware_runs_in_node() {
    let Some(node) = suspending_node() else {
        let was_sought = ["hosts/made-of.txt", "languages/ask-js.skipped"];
        assert!(
            was_sought.iter().any(|it| tool::target().join(it).exists()),
            "run `cargo xtask guests` first"
        );
        let how = "get Node.js 24 and run `cargo xtask guests`";
        reflex_skip::skip("the middleware in Node.js", how);
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let component = folder.path().join("middleware.wasm");
    std::fs::write(&component, reflex_host::serve::MIDDLEWARE).expect("written");
    in_node(node, &component, "middleware.mjs");
}

const POLICY: &str = env!("REFLEX_POLICY_WASM");

/// Runs a script of `tests/hosts` with what `jco` makes of the component.
fn in_node(node: impl AsRef<Path>, component: &Path, name: &str) {
    let jco = tool::target().join("languages/node/node_modules/.bin/jco");
    if !jco.exists() {
        let why = std::fs::read_to_string(tool::target().join("languages/ask-js.skipped"));
        let why = why.unwrap_or_else(|_| panic!("jco is missing: run `cargo xtask guests`"));
        reflex_skip::skip(name, &why);
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).expect("written");
    run(Command::new(jco)
        .arg("transpile")
        .arg(component)
        .args(["--instantiation", "async", "--no-typescript"])
        .args(["--name", "guest", "--out-dir"])
        .arg(folder.path()));
    run(Command::new(node.as_ref())
        .arg(script(name))
        .arg(folder.path().join("guest.js")));
}

/// A Node.js in which WebAssembly can wait for promises: the one that `cargo xtask guests` got, or
/// the one in the search path; then none is installed beside it.
fn suspending_node() -> Option<PathBuf> {
    let got = tool::target().join("hosts/node_modules/.bin/node");
    let node = if got.exists() { got } else { "node".into() };
    let can_suspend = Command::new(&node)
        .args(["-e", "process.exit('Suspending' in WebAssembly ? 0 : 1)"])
        .status()
        .is_ok_and(|status| status.success());
    can_suspend.then_some(node)
}

/// Runs a script of `tests/hosts` with the component.
fn in_python(component: &str, name: &str) {
    let python = tool::target().join("python-wasm/bin/python");
    assert!(python.exists(), "run `cargo xtask guests` first");
    run(Command::new(python)
        // Nothing is written beside the scripts.
        .arg("-B")
        .arg(script(name))
        .arg(component));
}

fn run(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("hosts")
        .join(name)
}
