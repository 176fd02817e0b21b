//! Names that come from outside and could become paths of files: none does.

use std::fs;
use std::path::Path;

use http::Method;
use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::Plan;
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use serde_json::json;

const CLIMBS: [&str; 7] = [
    "../../escaped",
    "..%2f..%2fescaped",
    "/tmp/escaped",
    "....//escaped",
    "..\\..\\escaped",
    "%2e%2e/%2e%2e/escaped",
    "escaped\0.json",
];

/// All files below a folder, as paths from there.
fn files(folder: &Path, all: &mut Vec<String>, root: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, all, root);
        } else {
            let path = path.strip_prefix(root).expect("below");
            all.push(path.to_string_lossy().into_owned());
        }
    }
}

/// The files of a data folder: each has a name of the daemon's own.
fn is_ours(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte));
    is_plain && ["", "segments"].contains(&folder)
}

#[tokio::test]
async fn no_name_that_comes_from_outside_becomes_a_path() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("a/b/data");
    let groups = CLIMBS.iter().enumerate().map(|(number, climb)| {
        let tenant = format!("{number:064x}");
        let name = climb.escape_default().to_string().replace("\\u{0}", "");
        format!(
            "[[group]]\nname = {}\ntenants = [\"{tenant}\"]\n",
            json!(name)
        )
    });
    let config = format!(
        "tenant_header = \"x-team\"\nnamespace = \"../../escaped\"\n{}",
        groups.collect::<String>()
    );
    let plan = Plan::new(&upstream.url())
        .data_dir(&data)
        .config(&config)
        .edge_socket(true);
    let edge = plan.start().await;
    let unix = Unix::http1(&edge.socket());
    let admin = Client::new(&edge.admin_url);
    let token = edge.token();
    for climb in CLIMBS {
        let visible = climb.replace('\0', "");
        // As a client: the model, the tenant's name and the path.
        let body = json!({"model": climb, "messages": [{"role": "user", "content": climb}]});
        let ask = Ask::to("/v1/chat/completions", &body).header("x-team", &visible);
        assert_eq!(edge.client.fetch(ask).await.status, 200, "{climb:?}");
        let path = format!("/v1/{}", visible.replace('\\', "%5c"));
        let status = edge.client.fetch(Ask::get(&path)).await.status;
        assert!(!status.is_server_error(), "{path}: {status}");
        // As an edge: tenant, digest, fill and model.
        for path in [
            format!(
                "/v1/entries/{}/{}",
                visible.replace('\\', "%5c"),
                "0".repeat(64)
            ),
            format!(
                "/v1/entries/{}/{}",
                "0".repeat(64),
                visible.replace('\\', "%5c")
            ),
        ] {
            let put = Ask::new(Method::PUT, &path, "{}").header("content-type", "application/json");
            let status = unix.fetch(put).await.status;
            assert!(status.is_client_error(), "{path}: {status}");
        }
        let path = format!("/v1/entries/{}/{}", "1".repeat(64), "1".repeat(64));
        let put = Ask::new(Method::PUT, &path, "{}")
            .header("content-type", "application/json")
            .header("x-reflex-model", &visible)
            .header("x-reflex-fill-id", &visible);
        assert!(!unix.fetch(put).await.status.is_server_error(), "{climb:?}");
        // As an operator.
        let path = format!("/v1/entries/{}", visible.replace('\\', "%5c"));
        let looked = admin.fetch(Ask::get(&path)).await;
        assert!(looked.status.is_client_error(), "{path}: {}", looked.status);
        for what in ["tenant", "model", "route", "key"] {
            let body = json!({ what: climb }).to_string();
            let purge = Ask::new(Method::POST, "/v1/purge", body).key(Some(&token));
            let status = admin.fetch(purge).await.status;
            assert!(!status.is_server_error(), "{what} {climb:?}: {status}");
        }
    }
    edge.written().await;
    let mut all = Vec::new();
    files(folder.path(), &mut all, folder.path());
    assert!(all.len() > 3, "{all:?}");
    for path in all {
        let inside = path.strip_prefix("a/b/data/");
        assert!(inside.is_some_and(is_ours), "{path}");
    }
    assert!(!Path::new("/tmp/escaped").exists());
}
