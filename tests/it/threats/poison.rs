//! A provider, or something before it, that sends what is meant for other clients: nothing of it becomes
//! another head, another response or another client's answer. And nothing is unpacked anywhere.

use std::io::Write as _;
use std::process::Command;

use http::Method;
use reflex_tests::client::{Ask, CHAT};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw::{Raw, read_request};
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// A good answer whose head has these lines.
fn answer(head: &str) -> Vec<u8> {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "mock",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "poisoned?"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Ways to have a stored header become two, or a response become two.
const SPLITS: [&str; 9] = [
    "x-note: a\r\n set-cookie: evil=1\r\n",
    "x-note: a\rset-cookie: evil=1\r\n",
    "x-note: a\nset-cookie: evil=1\r\n",
    "x-note: a\0b\r\n",
    "x-note: a%0d%0aset-cookie: evil=1\r\n",
    "x-note: \u{560d}\u{560a}set-cookie: evil=1\r\n",
    "x-note: a\r\n\tx: y\r\n",
    "x-note : a\r\n",
    "x-note: HTTP/1.1 200 OK\r\n",
];

/// The names of a head's lines, in order.
fn names(head: &str) -> Vec<String> {
    let lines = head.lines().skip(1).take_while(|line| !line.is_empty());
    let names = lines.map(|line| line.split(':').next().unwrap_or_default());
    names.map(str::to_ascii_lowercase).collect()
}

/// Whatever stands in a value is within that value for the client of the miss and for that of the hit, or the
/// answer is an error that nobody gets twice.
#[tokio::test]
async fn no_stored_value_becomes_another_header_or_response() {
    for split in SPLITS {
        let provider = Raw::start(move |_, mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                let _ = stream.write_all(&answer(split)).await;
            }
        })
        .await;
        let edge = Plan::new(&provider.url()).start().await;
        let mut heads = Vec::new();
        for _ in 0..2 {
            let mut client = RawClient::connect(&edge.url).await;
            client.send(http1(&Ask::chat("split?"))).await;
            client.end().await;
            let said = client.rest_text().await;
            let (head, body) = said.split_once("\r\n\r\n").expect("a response");
            // One head, and a body that is as long as it says.
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .and_then(|length| length.parse::<usize>().ok())
            });
            assert_eq!(length, Some(body.len()), "{split:?}: {said}");
            assert!(!head.contains('\0'), "{split:?}: {said}");
            for bare in ["\r", "\n"] {
                assert!(
                    !head.replace("\r\n", "").contains(bare),
                    "{split:?}: {said}"
                );
            }
            heads.push(names(head));
        }
        // A bare line feed ends a line for many: then the provider has sent two headers, and a cookie is no
        // one else's.
        let is_hit_with_cookie =
            heads[1].contains(&"age".into()) && heads[1].contains(&"set-cookie".into());
        assert!(!is_hit_with_cookie, "{split:?}: {heads:?}");
    }
}

/// Names of models and paths come from clients, and stand in entries, logs and metrics.
#[tokio::test]
async fn names_that_clients_choose_end_no_line() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("access_log = true\n")
        .start()
        .await;
    let model = "m\r\nset-cookie: evil=1\r\n\r\nHTTP/1.1 200 OK\r\n\"} 1\n# EOF\nforged 1";
    let ask = || {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "names"}]});
        Ask::to("/v1/chat/completions?x=%0d%0aset-cookie:%20evil", &body)
    };
    for status in ["MISS", "HIT_L1_EXACT"] {
        let mut client = RawClient::connect(&edge.url).await;
        client.send(http1(&ask())).await;
        let (head, _) = client.answer().await;
        assert!(head.contains(status), "{head}");
        assert_eq!(head.contains("set-cookie"), status == "MISS", "{head}");
        assert!(!head.contains("evil"), "{head}");
        edge.recorded(1, 0).await;
    }
    let metrics = edge.metrics_text().await;
    for line in metrics.lines().chain(edge.log().lines()) {
        assert!(
            !line.starts_with("forged") && !line.starts_with("set-cookie"),
            "{line}"
        );
    }
}

/// 10 MiB of zeros in 10 KiB.
fn bomb() -> Vec<u8> {
    let mut gzip = Command::new("sh")
        .args(["-c", "head -c 10485760 /dev/zero | gzip -9"])
        .output()
        .expect("gzip");
    assert!(gzip.status.success() && gzip.stdout.len() < 20_000);
    std::mem::take(&mut gzip.stdout)
}

/// There is nothing in the daemon that unpacks, so that no bomb goes off: what is compressed passes as it is,
/// in both directions, and is not kept.
#[tokio::test]
async fn a_bomb_of_compressed_bytes_passes_and_is_never_unpacked() {
    let bomb = bomb();
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let before = edge.memory();
    let ask = Ask::new(Method::POST, CHAT, bomb.clone())
        .key(Some("attacker"))
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    for round in 1..=20 {
        assert_eq!(edge.client.fetch(ask.clone()).await.reflex(), "BYPASS");
        assert_eq!(upstream.calls()[round - 1].body, bomb);
    }
    let grown = edge.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for 20 bombs of 10 MiB");

    let head = "content-encoding: gzip\r\n";
    let mut response = Vec::new();
    write!(
        response,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}content-length: {}\r\n\r\n",
        bomb.len()
    )
    .expect("memory");
    response.extend_from_slice(&bomb);
    let provider = Raw::start(move |_, mut stream| {
        let response = response.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                let _ = stream.write_all(&response).await;
            }
        }
    })
    .await;
    let edge = Plan::new(&provider.url()).start().await;
    for _ in 0..2 {
        let answer = edge.client.fetch(Ask::chat("a bomb")).await;
        assert_eq!((answer.reflex(), &answer.body[..]), ("MISS", &bomb[..]));
    }
}

/// No crate that unpacks anything is linked.
#[test]
fn the_daemon_has_no_decompressor() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args("tree --offline -p reflex-host -e normal --prefix none --format {p}".split(' '))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{tree:?}");
    let tree = String::from_utf8(tree.stdout).expect("text");
    assert!(tree.contains("hyper "), "no tree: {tree}");
    for package in tree.lines().filter_map(|line| line.split(' ').next()) {
        let unpacks = [
            "flate2",
            "miniz_oxide",
            "libdeflater",
            "zstd",
            "brotli",
            "lz4",
            "snap",
        ];
        assert!(!unpacks.contains(&package), "{package}");
    }
}
