//! `reflex-edge record`, `replay` and `auto`: an episode is recorded once and replayed without a provider, through
//! the official clients and to the byte.

mod docs;
mod hostile;
mod player;
mod sdks;
mod secrets;

use player::Player;
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Ask, CHAT, Client, Streaming};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The files of a cassette by their names; delays differ with each recording.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let files = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).expect("text");
        let lines = text
            .lines()
            .map(|line| match line.split_once("\"after_ms\": ") {
                Some((before, rest)) => {
                    let rest = rest.trim_start_matches(|it: char| it.is_ascii_digit());
                    format!("{before}\"after_ms\": 0{rest}\n")
                }
                None => format!("{line}\n"),
            });
        let text = lines.collect();
        (name, text)
    });
    files.collect()
}

/// What comes of an answer that breaks off.
async fn broken(mut answer: Streaming) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => panic!("it came to an end: {}", String::from_utf8_lossy(&body)),
            Err(_) => return body,
        }
    }
}

fn cassette() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// What a test wants is what happened: also what the cache lets pass.
fn episode() -> Vec<Ask> {
    let stored = json!({"model": "mock", "input": "stored", "store": true});
    let hosted = json!({"model": "mock", "input": "hosted", "tools": [{"type": "web_search"}]});
    vec![
        Ask::chat("one"),
        Ask::stream("one"),
        Ask::chat("busy").mock("status=429"),
        Ask::chat("broken").mock("status=500"),
        Ask::to("/v1/responses", &stored),
        Ask::to("/v1/responses", &hosted),
        Ask::chat("call").mock("tool"),
        Ask::chat("no key").key(None),
    ]
}

#[tokio::test]
async fn an_episode_replays_to_the_byte_without_a_provider() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let mut recorded = Vec::new();
    for ask in episode() {
        recorded.push(player.client.fetch(ask).await);
    }
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(upstream.call_count(), recorded.len());
    drop(upstream);

    for flags in [&["--ci"][..], &["--ci", "--pace", "recorded"]] {
        let player = Player::replay(folder.path(), flags).await;
        for (ask, before) in episode().into_iter().zip(&recorded) {
            let again = player.client.fetch(ask.key(Some("another"))).await;
            assert_eq!((again.status, &again.body), (before.status, &before.body));
            assert_eq!(again.header("content-type"), before.header("content-type"));
        }
        let (code, said) = player.ends().await;
        assert_eq!(code, Some(0), "{said}");
    }
}

#[tokio::test]
async fn recording_twice_yields_the_same_files() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let mut names = Vec::new();
    for _ in 0..2 {
        let player = Player::record(folder.path(), &upstream.url()).await;
        for ask in episode() {
            player.client.fetch(ask).await;
        }
        player.ends().await;
        names.push(files(folder.path()).into_keys().collect::<Vec<_>>());
    }
    assert_eq!(names[0], names[1]);
    assert_eq!(names[0].len(), episode().len() + 1, "{names:?}");
    assert!(
        names[0][0].starts_with("0001-chat-completions-"),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_flaky_provider_replays_as_it_went() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let ask = || Ask::chat("flaky");
    upstream.behave(Behaviour::Status(500));
    let first = player.client.fetch(ask()).await;
    upstream.behave(Behaviour::Answer);
    let second = player.client.fetch(ask()).await;
    player.ends().await;

    let player = Player::replay(folder.path(), &["--ci"]).await;
    for before in [first, second] {
        let again = player.client.fetch(ask()).await;
        assert_eq!((again.status, again.body), (before.status, before.body));
    }
    let third = player.client.fetch(ask()).await;
    assert_eq!(third.status, 504);
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(1));
    assert!(said.contains("was recorded 2 times"), "{said}");
}

#[tokio::test]
async fn a_cut_answer_replays_as_cut_and_never_as_whole() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let ask = || Ask::stream("cut").mock("cut");
    let before = broken(player.client.send(ask()).await).await;
    player.ends().await;
    let text = files(folder.path()).into_values().collect::<String>();
    assert!(text.contains("\"cut\": true"), "{text}");

    let player = Player::replay(folder.path(), &["--ci"]).await;
    let again = broken(player.client.send(ask()).await).await;
    assert_eq!(again, before);
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}

/// The provider's whole answer is in the file, and the next run gets as far as it wants.
#[tokio::test]
async fn an_answer_whose_client_left_is_recorded_to_its_end() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let mut stream = player.client.send(Ask::stream("leave").mock("gated")).await;
    upstream.release(1);
    stream.until("assistant").await;
    drop(stream);
    upstream.release_all();
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
    let text = files(folder.path()).into_values().collect::<String>();
    assert!(
        text.contains("[DONE]") && !text.contains("\"cut\""),
        "{text}"
    );
}

#[tokio::test]
async fn an_unknown_request_is_told_with_what_differs_in_the_words_of_its_api() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    player.client.fetch(Ask::chat("Why is the sky blue?")).await;
    let message = |prompt: &str| {
        let messages = json!([{"role": "user", "content": prompt}]);
        let body = json!({"model": "mock", "max_tokens": 9, "messages": messages});
        Ask::to("/v1/messages", &body).header("anthropic-version", "2023-06-01")
    };
    player.client.fetch(message("one")).await;
    player.ends().await;

    let junit = folder.path().join("report.xml");
    let flags = ["--ci", "--junit", junit.to_str().expect("text")];
    let player = Player::replay(folder.path(), &flags).await;
    let answer = player.client.fetch(Ask::chat("Why is the sea blue?")).await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.header("x-should-retry"), "false");
    let told = answer.json()["error"]["message"]
        .as_str()
        .expect("text")
        .to_owned();
    for part in [
        "messages[0].content",
        "the sky blue",
        "the sea blue",
        "0001-chat-completions-",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let answer = player.client.fetch(message("two")).await;
    assert_eq!(answer.json()["type"], "error", "{answer:?}");
    let answer = player.client.fetch(Ask::get("/v1/models")).await;
    assert_eq!(answer.status, 504);
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(1));
    assert_eq!(said.matches("not found: ").count(), 3, "{said}");
    assert_eq!(said.matches("not used: ").count(), 2, "{said}");
    let junit = fs::read_to_string(junit).expect("a report");
    assert!(junit.contains("failures=\"5\""), "{junit}");
}

#[tokio::test]
async fn auto_replays_what_is_known_and_records_the_rest() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let one = player.client.fetch(Ask::chat("one")).await;
    player.ends().await;
    let player = Player::auto(folder.path(), &upstream.url(), &["--all"]).await;
    assert_eq!(player.client.fetch(Ask::chat("one")).await.body, one.body);
    assert_eq!(upstream.call_count(), 1);
    let two = player.client.fetch(Ask::chat("two")).await;
    let models = player.client.fetch(Ask::get("/v1/models")).await;
    player.ends().await;
    let player = Player::replay(folder.path(), &["--ci"]).await;
    for (ask, body) in [
        (Ask::get("/v1/models"), models.body),
        (Ask::chat("two"), two.body),
        (Ask::chat("one"), one.body),
    ] {
        assert_eq!(player.client.fetch(ask).await.body, body);
    }
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn without_all_other_paths_pass_unrecorded() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    assert_eq!(
        player.client.fetch(Ask::get("/v1/models")).await.status,
        200
    );
    player.ends().await;
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    assert_eq!(names, ["cassette.toml"]);
}

/// A file is what a reviewer reads.
#[tokio::test]
async fn a_file_is_indented_json_with_an_event_a_line() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    player.client.fetch(Ask::stream("readable")).await;
    player.ends().await;
    let files = files(folder.path());
    let (_, text) = files.iter().next().expect("a file");
    let file: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(file["cassette"], 1);
    assert_eq!(file["request"]["path"], CHAT);
    assert_eq!(
        file["request"]["json"]["messages"][0]["content"],
        "readable"
    );
    let events = file["answer"]["events"].as_array().expect("events");
    let lines = text.lines().filter(|line| line.contains("\"after_ms\""));
    assert_eq!(lines.count(), events.len());
    assert_eq!(events.last().expect("an end")["data"], "[DONE]");
}

/// In the process of a Rust test.
#[tokio::test]
async fn the_library_does_the_same() {
    use reflex_host::cassette::{Cassette, Options};

    let upstream = Upstream::start().await;
    let folder = cassette();
    let recording = Cassette::start(Options::record(folder.path(), upstream.url())).await;
    let recording = recording.expect("a cassette");
    let before = Client::new(&recording.url()).fetch(Ask::chat("one")).await;
    let report = recording.finish().await;
    assert!(report.is_clean() && report.recorded == 1, "{report}");
    let replay = Cassette::start(Options::replay(folder.path())).await;
    let replay = replay.expect("a cassette");
    let again = Client::new(&replay.url()).fetch(Ask::chat("one")).await;
    assert_eq!(again.body, before.body);
    let report = replay.finish().await;
    assert!(report.is_clean() && report.replayed == 1, "{report}");
}
