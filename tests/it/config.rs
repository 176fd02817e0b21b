//! The configuration: `reflex-edge config`, the environment, and reloads under requests.

mod reload;

use reflex_tests::client::Ask;
use reflex_tests::edge::{Plan, run};
use reflex_tests::upstream::Upstream;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A file with this text, and its path as an argument.
fn file(folder: &TempDir, name: &str, text: &[u8]) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a writable folder");
    path.to_str().expect("a path of letters").to_owned()
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal");
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn check_names_all_mistakes_of_a_file_with_their_lines() {
    let folder = folder();
    let bad = file(
        &folder,
        "bad.toml",
        b"idle_maxx = \"1s\"\n\ndisk_max = \"99999999TiB\"\n[[ttl]]\nlife = \"soon\"\n",
    );
    let (code, out, err) = told(&run(&["config", "check", &bad]).await);
    assert_eq!((code, out.as_str()), (2, ""));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    for (line, parts) in lines.iter().zip([
        ["line 1:", "`idle_max`"],
        ["line 3:", "disk_max"],
        ["line 4:", "soon"],
    ]) {
        assert!(line.contains("bad.toml"), "{line}");
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let binary = file(&folder, "binary.toml", b"\xff\xfe");
    let (code, _, err) = told(&run(&["config", "check", &binary]).await);
    assert!(
        code == 2 && err.contains("line 1: this is not UTF-8"),
        "{err}"
    );
    for path in ["no/such.toml", folder.path().to_str().expect("letters")] {
        let (code, _, err) = told(&run(&["config", "check", path]).await);
        assert!(code == 2 && err.contains(path), "{err}");
    }
}

#[tokio::test]
async fn check_accepts_the_default_file_and_warns_of_old_keys() {
    let folder = folder();
    let (code, default, err) = told(&run(&["config", "default"]).await);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(default.contains("#idle_max = \"10m\""), "{default}");
    let default = file(&folder, "default.toml", default.as_bytes());
    let (code, out, err) = told(&run(&["config", "check", &default]).await);
    assert!(
        code == 0 && out.contains("valid") && err.is_empty(),
        "{err}"
    );
    let old = file(&folder, "old.toml", b"idle_seconds_max = 60\n");
    let (code, _, err) = told(&run(&["config", "check", &old]).await);
    assert!(code == 0 && err.contains("idle_max = \"60s\""), "{err}");
    let both = file(
        &folder,
        "both.toml",
        b"idle_seconds_max = 60\nidle_max = \"1m\"\n",
    );
    let (code, _, err) = told(&run(&["config", "check", &both]).await);
    assert!(code == 2 && err.contains("line 2"), "{err}");
}

#[tokio::test]
async fn diff_says_whether_a_reload_is_enough() {
    let folder = folder();
    let a = file(&folder, "a.toml", b"samples = 1\n");
    let b = file(&folder, "b.toml", b"samples = 3\ndisk_max = \"1GiB\"\n");
    let (code, out, _) = told(&run(&["config", "diff", &a, &b]).await);
    assert_eq!(code, 1);
    assert!(out.contains("samples: 1 -> 3 (with a reload)"), "{out}");
    assert!(out.contains("\"1GiB\" (needs a restart)"), "{out}");
    let (code, out, _) = told(&run(&["config", "diff", &a, &a]).await);
    assert_eq!((code, out.as_str()), (0, ""));
    let (code, _, err) = told(&run(&["config", "diff", &a, "no/such.toml"]).await);
    assert!(code == 2 && err.contains("no/such.toml"), "{err}");
}

#[tokio::test]
async fn the_environment_goes_before_the_file() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("bypass_models = []\nallow_length = false");
    let plan = plan.environment("REFLEX_EDGE_ANONYMOUS", "share");
    let edge = plan.environment("REFLEX_EDGE_L1_MAX", "0").start().await;
    for expected in ["MISS", "HIT_L1_EXACT"] {
        let answer = edge.client.fetch(Ask::chat("who").key(None)).await;
        assert_eq!(answer.reflex(), expected);
        edge.recorded(1, 0).await;
    }
}

/// What a daemon says that does not start.
#[tokio::test]
async fn all_mistakes_of_a_start_are_told_at_once() {
    let folder = folder();
    assert!(Path::new(folder.path()).exists());
    let bad = file(&folder, "bad.toml", b"samples = 0\nreplay = \"slow\"\n");
    let (code, _, err) = told(&run(&["serve", "--upstream", "none", "--config", &bad]).await);
    assert_eq!(code, 2);
    for part in ["line 1: samples", "line 2: replay", "--upstream: `none`"] {
        assert!(err.contains(part), "{err}");
    }
}
