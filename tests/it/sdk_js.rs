//! The official clients for JavaScript, of OpenAI and Anthropic, in front of the real binary. The
//! scripts stand in `tests/js`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use tokio::process::Command;

/// The folder with the clients' packages; none without Node.js, which was reported then.
pub(crate) fn packages() -> Option<PathBuf> {
    let folder = env::var_os("REFLEX_JS").map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            workspace.join(target).join("js")
        },
        PathBuf::from,
    );
    let there = folder.join("node_modules/openai").is_dir();
    if !there {
        reflex_skip::skip("the JavaScript clients", "run `cargo xtask test`");
    }
    there.then_some(folder)
}

/// Runs a script to its end, which must be a success; none without Node.js.
pub(crate) async fn run(name: &str, url: &str) -> Option<Output> {
    let packages = packages()?;
    // Packages are looked for beside the script: it runs as a copy beside them.
    let script = packages.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("js").join(name);
    std::fs::copy(source, &script).expect("a copy of the script");
    let mut command = Command::new("node");
    command
        .arg(&script)
        .arg(url)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(name, command.output()).await.expect("node runs");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output)
}

#[tokio::test]
async fn the_same_request_of_each_kind_by_javascript_is_one_call_and_the_hit_equals_the_miss() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    if let Some(output) = run("twice.js", &edge.url).await {
        let kinds = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(upstream.call_count().to_string(), kinds);
    }
}

#[tokio::test]
async fn errors_reach_javascript_as_its_own_exceptions_and_do_not_last() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    if run("errors.js", &edge.url).await.is_some() {
        assert_eq!(upstream.call_count(), 10);
    }
}
