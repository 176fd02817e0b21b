//! The examples of `docs/cassettes.md` for Python and JavaScript run as they stand there, in front of a cassette that
//! is recorded first.
//!
//! The test runners are played by a few lines each, so that the examples need no packages beside the clients.

use super::player::Player;
use crate::{sdk, sdk_js};
use reflex_tests::client::Ask;
use reflex_tests::edge::binary;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cassettes.md");

/// Calls the example's fixture and test as pytest does.
const PYTEST: &str = r#"
import sys, types

sys.modules["pytest"] = types.SimpleNamespace(fixture=lambda **_: lambda function: function)
import test_sky

fixture = test_sky.base_url()
test_sky.test_sky(next(fixture))
for _ in fixture:
    sys.exit("a fixture yields once")
"#;

/// Calls the example's hooks and test as Vitest does.
const VITEST: &str = r#"
import assert from "node:assert/strict";

const hooks = { before: [], tests: [], after: [] };
export const beforeAll = (hook) => hooks.before.push(hook);
export const afterAll = (hook) => hooks.after.push(hook);
export const test = (name, body) => hooks.tests.push(body);
export const expect = (value) => ({
  toBe: (other) => assert.equal(value, other),
  toContain: (part) => assert.ok(value.includes(part), value),
});
export async function run() {
  for (const hook of [...hooks.before, ...hooks.tests, ...hooks.after]) await hook();
}
"#;

/// What the examples ask.
const SKY: &str = "Why is the sky blue?";

/// The code under a heading of the page.
fn example(heading: &str, language: &str) -> String {
    let page = fs::read_to_string(PAGE).expect("the page");
    let (_, section) = page
        .split_once(&format!("\n### {heading}\n"))
        .expect(heading);
    let (_, code) = section
        .split_once(&format!("```{language}\n"))
        .expect(language);
    code.split_once("```").expect("an end").0.to_owned()
}

/// Records what an example asks, in the folder where it looks for it.
async fn record(project: &Path, ask: Ask) {
    let upstream = Upstream::start().await;
    let folder = project.join("tests/cassettes/sky");
    let player = Player::record(&folder, &upstream.url()).await;
    player.client.fetch(ask).await;
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}

async fn check(mut command: Command, project: &Path, what: &'static str) {
    command
        .current_dir(project)
        .env("REFLEX_EDGE", binary())
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(what, command.output()).await.expect(what);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

#[tokio::test]
async fn the_example_for_pytest_runs() {
    let project = super::cassette();
    record(project.path(), Ask::chat(SKY)).await;
    fs::write(
        project.path().join("test_sky.py"),
        example("pytest", "python"),
    )
    .expect("a file");
    fs::write(project.path().join("run.py"), PYTEST).expect("a file");
    let mut command = Command::new(sdk::python());
    command.arg("run.py");
    check(command, project.path(), "the example for pytest").await;
}

#[tokio::test]
async fn the_example_for_vitest_runs() {
    let Some(packages) = sdk_js::packages() else {
        return;
    };
    let project = super::cassette();
    // Node names a language with each request.
    let ask = Ask::chat(SKY).header("accept-language", "*");
    record(project.path(), ask).await;
    // Packages are looked for beside the script.
    let modules = project.path().join("node_modules");
    std::os::unix::fs::symlink(packages.join("node_modules"), modules).expect("a link");
    let code = example("Vitest", "js").replace("\"vitest\"", "\"./vitest.mjs\"");
    let run = format!("{code}\nimport {{ run }} from \"./vitest.mjs\";\nawait run();\n");
    fs::write(project.path().join("sky.test.mjs"), run).expect("a file");
    fs::write(project.path().join("vitest.mjs"), VITEST).expect("a file");
    let mut command = Command::new("node");
    command.arg("sky.test.mjs");
    check(command, project.path(), "the example for Vitest").await;
}
