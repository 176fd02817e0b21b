//! Settings that the daemon cannot run with are refused at the start: exit code 2, one line that
//! names the file or the flag, and nothing overwritten.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use reflex_tests::client::Ask;
use reflex_tests::edge::{self, Edge};
use reflex_tests::upstream::Upstream;
use tempfile::TempDir;

/// Runs `serve` in a fresh folder with these flags on top of good ones, and expects a refusal
/// that names each of `names`.
async fn check(flags: &[&str], names: &[&str]) {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let mut arguments = vec!["serve"];
    let defaults = [
        ("--listen", "127.0.0.1:0"),
        ("--admin", "127.0.0.1:0"),
        ("--upstream", "http://127.0.0.1:9"),
        ("--data-dir", data_dir.to_str().expect("a path of letters")),
    ];
    for (flag, value) in defaults {
        if !flags.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(flags);

    let output = edge::run(&arguments).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(
        output.stdout.is_empty(),
        "{arguments:?}: it said that it listens"
    );
    let ours: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("reflex-edge: "))
        .collect();
    assert_eq!(ours.len(), 1, "{arguments:?}: {stderr}");
    assert_eq!(
        stderr.lines().last(),
        ours.last().copied(),
        "{arguments:?}: {stderr}"
    );
    for name in names {
        assert!(ours[0].contains(name), "`{name}` is not named: {}", ours[0]);
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A file with these bytes, and its path as an argument.
fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a writable folder");
    path.to_str().expect("a path of letters").to_owned()
}

#[tokio::test]
async fn a_config_file_with_a_mistake() {
    let folder = folder();
    let unknown = file(
        &folder,
        "unknown.toml",
        b"ttl_seconds = 60\nttl_secs = 60\n",
    );
    check(
        &["--config", &unknown],
        &["unknown.toml", "ttl_secs", "line 2"],
    )
    .await;
    let broken = file(&folder, "broken.toml", b"listen = [");
    check(&["--config", &broken], &["broken.toml", "line 1"]).await;
    let zero = file(&folder, "zero.toml", b"ttl_seconds = 0");
    check(&["--config", &zero], &["zero.toml"]).await;
    check(&["--config", "no/such/file.toml"], &["no/such/file.toml"]).await;
}

#[tokio::test]
async fn an_upstream_that_is_no_url() {
    for url in [
        "",
        "api.openai.com",
        "ftp://api.openai.com",
        "not a url",
        "https://",
    ] {
        check(&["--upstream", url], &["--upstream"]).await;
    }
}

#[tokio::test]
async fn a_port_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    check(&["--listen", &address], &["--listen", &address]).await;
    check(&["--admin", &address], &["--admin", &address]).await;
}

#[tokio::test]
async fn a_component_that_does_not_fit() {
    let folder = folder();
    let text = file(&folder, "text.wasm", b"not wasm at all");
    check(&["--component", &text], &["--component", "text.wasm"]).await;
    let core = file(&folder, "core.wasm", b"\0asm\x01\0\0\0");
    check(&["--component", &core], &["--component", "core.wasm"]).await;
    let empty = file(&folder, "empty.wasm", b"\0asm\x0d\0\x01\0");
    check(&["--component", &empty], &["--component", "empty.wasm"]).await;
    let foreign = file(&folder, "foreign.wasm", IMPORTS_SOMETHING_FOREIGN);
    check(
        &["--component", &foreign],
        &["foreign.wasm", "unknown-thing"],
    )
    .await;
    check(
        &["--component", "no/such.wasm"],
        &["--component", "no/such.wasm"],
    )
    .await;
}

/// `(component (import "unknown-thing" (func)))`
const IMPORTS_SOMETHING_FOREIGN: &[u8] =
    b"\0asm\x0d\0\x01\0\x07\x05\x01\x40\x00\x01\x00\x0a\x12\x01\x00\x0dunknown-thing\x01\x00";

#[tokio::test]
async fn a_data_dir_of_another_program() {
    let folder = folder();
    let notes = file(&folder, "notes.txt", b"mine");
    let path = folder.path().to_str().expect("a path of letters");
    let before = contents(folder.path());
    check(&["--data-dir", path], &["--data-dir", path]).await;
    assert_eq!(contents(folder.path()), before);
    check(&["--data-dir", &notes], &["--data-dir", "notes.txt"]).await;
    assert_eq!(contents(folder.path()), before);
}

#[tokio::test]
async fn a_data_dir_that_is_damaged() {
    let upstream = Upstream::start().await;
    let mut edge = Edge::before(&upstream).await;
    edge.client.fetch(Ask::chat("something to lose")).await;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));

    let data_dir = edge.data_dir();
    let manifest = data_dir.join("manifest");
    let mut bytes = fs::read(&manifest).expect("a manifest");
    bytes[20] ^= 1;
    fs::write(&manifest, bytes).expect("a writable manifest");
    let before = contents(&data_dir);
    check(
        &["--data-dir", data_dir.to_str().expect("a path of letters")],
        &["manifest"],
    )
    .await;
    assert!(
        contents(&data_dir) == before,
        "the damaged folder was changed"
    );
}

#[tokio::test]
async fn a_data_dir_in_use() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let first = edge.client.fetch(Ask::chat("still mine")).await;
    let data_dir = edge.data_dir();
    let path = data_dir.to_str().expect("a path of letters");
    check(&["--data-dir", path], &["--data-dir", path, "in use"]).await;
    let again = edge.client.fetch(Ask::chat("still mine")).await;
    assert_eq!((again.reflex(), &again.body), ("HIT_L1_EXACT", &first.body));
}

/// Every file under a folder, with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            found.insert(name, Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(name, fs::read(&path).expect("a readable file"));
        }
    }
    found
}
