//! What an operator deploys from: units, image, manifests, chart, packages and the release, each checked
//! by the program that reads it where this machine can have that.

mod container;
mod kubernetes;
mod pages;
mod release;
mod systemd;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use reflex_tests::within;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
fn file(path: &str) -> String {
    let read = fs::read_to_string(root().join(path));
    read.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of the packages in `tests/deploy/requirements.txt`, or nothing where they are missing: then
/// `part` is skipped.
pub(crate) fn tool(name: &str, part: &str) -> Option<PathBuf> {
    let python = env::var_os("REFLEX_TOOLS_PYTHON").map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            root().join(target).join("tools/bin/python")
        },
        PathBuf::from,
    );
    let tool = python.with_file_name(name);
    if tool.exists() {
        return Some(tool);
    }
    let how = "`cargo xtask test` installs the packages of tests/deploy/requirements.txt with pip";
    reflex_skip::skip(part, &format!("{} is missing: {how}", tool.display()));
    None
}

/// Runs a program to its end, in the root of the repository.
async fn run(command: &mut Command) -> Output {
    command
        .current_dir(root())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within("the end of a program", command.output()).await;
    output.expect("a program that can be started")
}

/// Runs one that has to succeed, and returns what it said on both streams.
async fn succeeds(command: &mut Command) -> String {
    let output = run(command).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}
