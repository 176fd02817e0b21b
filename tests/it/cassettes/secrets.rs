//! No credential is ever written: secrets are planted wherever a client may have one, and looked for in all files.

use super::player::Player;
use super::{cassette, files};
use reflex_tests::client::Ask;
use reflex_tests::upstream::Upstream;
use serde_json::json;
use std::fs;

const KEY: &str = "sk-planted-0123456789abcdefghij";
const OTHERS: [&str; 6] = [
    "plain-words-as-a-key",
    "AIzaPlanted0123456789abcdefghijklmnopqr",
    "session-planted-42",
    "query-planted-42",
    "ghp_planted0123456789abcdefghij",
    "acme-planted",
];

#[tokio::test]
async fn planted_secrets_are_in_no_file() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let rules = "version = 1\n[[redact]]\ntext = \"acme-*\"\n";
    fs::write(folder.path().join("cassette.toml"), rules).expect("rules");
    let [words, google, session, query, github, acme] = OTHERS;
    let ask = |stream: bool| {
        // The provider of the tests repeats the prompt in its answer.
        let prompt = format!("{KEY}, {words}, \n{github} and {acme}");
        let arguments = json!({"api_key": "whatever-it-is"}).to_string();
        let body = json!({
            "model": "mock",
            "stream": stream,
            "messages": [{"role": "user", "content": prompt}],
            "tools": [{"type": "mcp", "headers": {"Authorization": "whatever-it-is"}}],
            "metadata": {"arguments": arguments},
        });
        Ask::to(&format!("/v1/chat/completions?api_key={query}"), &body)
            .key(Some(KEY))
            .header("x-api-key", words)
            .header("x-goog-api-key", google)
            .header("cookie", &format!("id={session}"))
    };
    let player = Player::record(folder.path(), &upstream.url()).await;
    for stream in [false, true] {
        player.client.fetch(ask(stream)).await;
    }
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(upstream.call_count(), 2);
    let files = files(folder.path());
    assert_eq!(files.len(), 3, "{files:?}");
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".json")) {
        for secret in OTHERS.iter().chain([&KEY, &"whatever-it-is"]) {
            assert!(!text.contains(secret), "{name} has {secret}: {text}");
        }
        assert!(text.contains("[redacted]"), "{text}");
    }
    // With other keys, it is the same request.
    let player = Player::replay(folder.path(), &["--ci"]).await;
    for stream in [false, true] {
        let answer = player.client.fetch(ask(stream)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let unknown = player.client.fetch(Ask::chat(KEY).key(Some(words))).await;
    let told = String::from_utf8_lossy(&unknown.body).into_owned();
    assert!(unknown.status == 504 && !told.contains(KEY), "{told}");
    let (_, said) = player.ends().await;
    assert!(!said.contains(KEY) && !said.contains(words), "{said}");
}
