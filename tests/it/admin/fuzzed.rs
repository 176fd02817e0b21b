//! The admin API under a fuzzer that has read its description.

use super::*;
use crate::deploy::tool;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long the fuzzer goes on, in seconds.
const SECONDS: &str = "25";
/// It starts slowly, and the machine may be busy.
const END_MAX: Duration = Duration::from_secs(300);

/// schemathesis makes requests that the description allows and others that it does not. No answer is an error
/// of the server, each has a status and a form that the description names, and none that needs the token
/// comes without it. Whatever it purges and imports, the daemon goes on.
#[tokio::test]
async fn a_fuzzer_finds_nothing_that_the_description_does_not_say() {
    let Some(program) = tool("schemathesis", "the fuzzer of the admin API") else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = filled(&upstream, &["fuzzed"]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/hooks.py");
    let mut fuzzer = Command::new(program);
    fuzzer
        .arg("run")
        .arg(format!("{}/v1/openapi.json", edge.admin_url))
        .args(["--max-time", SECONDS, "--max-examples", "15", "--seed", "1"])
        .args(["--continue-on-failure", "--generation-database", "none"])
        // A key has to be there, and a purge names one thing: JSON Schema would say so at length.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--warnings", "off", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", hooks)
        .env("REFLEX_ADMIN_TOKEN", edge.token())
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(END_MAX, fuzzer.output()).await;
    let output = output
        .expect("an end")
        .expect("a fuzzer that can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", edge.log());
    assert!(said.contains("10 selected"), "not each path: {said}");
    assert_eq!(edge.health().await["status"], "green");
    assert!(!edge.log().contains("panicked"), "{}", edge.log());
}
