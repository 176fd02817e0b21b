//! The commands that talk to a running daemon, as the real binary.

use super::*;
use reflex_tests::edge::run;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The exit code, and what was said on each stream.
async fn command(edge: &Edge, arguments: &[&str]) -> (Option<i32>, String, String) {
    let token = edge.data_dir().join("admin-token");
    run_with(&edge.admin_url, Some(&token), arguments).await
}

async fn run_with(
    admin: &str,
    token: Option<&Path>,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let mut all = arguments.to_vec();
    all.extend(["--admin", admin.trim_start_matches("http://")]);
    if let Some(token) = token {
        all.extend(["--token-file", token.to_str().expect("text")]);
    }
    let output = run(&all).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn each_command_tells_people_and_programs() {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    for digest in 0..3 {
        put(&unix, 1, digest, "gpt-4o").await;
    }
    let (code, out, err) = command(&edge, &["stats"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("entries                3\n"), "{out}");
    let (_, out, _) = command(&edge, &["stats", "--json"]).await;
    let stats: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(stats["entries"], 3);
    let (code, out, err) = command(&edge, &["top", "--bytes", "--limit", "1"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("gpt-4o\n") && out.contains("chat-completions\n"),
        "{out}"
    );

    let key = format!("{}/{:064x}", "01".repeat(32), 1);
    let (code, out, err) = command(&edge, &["inspect", &key]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("model                  gpt-4o\n"), "{out}");
    let (code, out, _) = command(&edge, &["inspect", &key, "--payload"]).await;
    assert_eq!(code, Some(0));
    let stored = unix.fetch(Ask::get(&format!("/v1/entries/{key}"))).await;
    assert_eq!(out.as_bytes(), &stored.body[..]);
    for (wrong, expected) in [(&"0".repeat(64), 1), (&"x y".to_owned(), 2)] {
        let (code, _, err) = command(&edge, &["inspect", wrong]).await;
        assert_eq!(code, Some(expected), "{err}");
    }

    let (code, out, _) = command(&edge, &["purge", "--model", "gpt-*", "--dry-run"]).await;
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("3 entries, ") && out.ends_with(" would be removed\n"),
        "{out}"
    );
    let (_, out, _) = command(&edge, &["purge", "--key", &key, "--json"]).await;
    let done: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(done["entries"], 1);
    let (code, out, _) = command(&edge, &["purge", "--all"]).await;
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("2 entries, ") && out.ends_with(" removed\n"),
        "{out}"
    );
    for wrong in [&["purge"][..], &["purge", "--all", "--model", "x"]] {
        assert_eq!(command(&edge, wrong).await.0, Some(2));
    }
    let (code, _, err) = command(&edge, &["purge", "--route", "chat"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("chat-completions, "), "{err}");
}

#[tokio::test]
async fn an_export_is_for_its_owner_alone_and_comes_back() {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    for digest in 0..50 {
        put(&unix, 1, digest, "gpt-4o").await;
    }
    edge.written().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("export.jsonl");
    let path = file.to_str().expect("text");
    let (code, out, err) = command(&edge, &["export", path]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out, "50 entries written\n");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, out, _) = command(&edge, &["export"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(out, fs::read_to_string(&file).expect("text"));

    assert_eq!(command(&edge, &["purge", "--all"]).await.0, Some(0));
    let (code, out, err) = command(&edge, &["import", path]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("imported               50\n"), "{out}");
    // A part of it is no success.
    fs::write(&file, &out[..0]).expect("written");
    let (code, _, err) = command(&edge, &["import", path]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("not that of an export"), "{err}");
    let exported = get(&edge, "/v1/export").await.body;
    fs::write(&file, &exported[..exported.len() - 300]).expect("written");
    let (code, out, _) = command(&edge, &["import", path]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("complete               no\n"), "{out}");
    assert!(out.contains("line "), "{out}");
    let missing = folder.path().join("missing");
    let (code, _, err) = command(&edge, &["import", missing.to_str().expect("text")]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("missing"), "{err}");
}

#[tokio::test]
async fn what_went_wrong_has_a_code_and_says_what_to_do() {
    let edge = Plan::daemon().start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "w".repeat(64)).expect("written");
    let missing = folder.path().join("missing");
    let admin = edge.admin_url.clone();
    let purge = ["purge", "--all"];

    let (code, _, err) = run_with(&admin, None, &purge).await;
    assert_eq!(code, Some(4));
    assert!(err.contains("reflex-data/admin-token is missing"), "{err}");
    let (code, _, err) = run_with(&admin, Some(&wrong), &purge).await;
    assert_eq!(code, Some(4));
    assert!(err.contains("not this daemon's"), "{err}");
    assert!(!err.contains("wwww"), "{err}");
    let (code, _, err) = run_with(&admin, Some(&missing), &["stats"]).await;
    assert_eq!(code, Some(4));
    assert!(err.contains("No such file"), "{err}");
    // Reads need none.
    assert_eq!(run_with(&admin, None, &["stats"]).await.0, Some(0));

    let mut edge = edge;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
    let (code, _, err) = run_with(&admin, None, &["stats"]).await;
    assert_eq!(code, Some(3));
    assert!(err.contains("is it running?"), "{err}");
    // Another program answers there.
    let upstream = Upstream::start().await;
    let (code, _, err) = run_with(&upstream.url(), None, &["stats"]).await;
    assert_eq!(code, Some(1));
    assert!(err.starts_with("reflex-edge: "), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

/// With curl, as the page of the documentation does.
#[tokio::test]
async fn curl_does_what_the_documentation_says() {
    let edge = Plan::daemon().start().await;
    put(&Unix::http1(&edge.socket()), 1, 1, "m").await;
    let token = edge.data_dir().join("admin-token");
    let script = format!(
        "set -e\nadmin={}\n\
         curl -sS $admin/v1/stats\n\
         curl -sS -H \"authorization: Bearer $(cat {})\" $admin/v1/purge -d '{{\"all\":true}}'\n",
        edge.admin_url,
        token.display()
    );
    let mut shell = tokio::process::Command::new("sh");
    let output = shell.args(["-c", &script]).output().await;
    let output = output.expect("a shell");
    if output.status.code() == Some(127) {
        reflex_skip::skip("curl", "it is not installed");
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\"entries\":1,\"bytes\":"), "{said}");
}
