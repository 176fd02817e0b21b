//! The main line: a repeated request is answered from the cache, byte for byte, and only for
//! its tenant.

use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::completion::Prompt;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::json;

/// All headers of a hit: those needed to read it, and our own. Request
/// ids, rate limits and cookies belong to the first exchange, and the key itself is never shown.
const HIT_HEADERS: [&str; 9] = [
    "age",
    "cache-control",
    "cache-status",
    "content-length",
    "content-type",
    "date",
    "openai-version",
    "x-reflex-saved-tokens",
    "x-reflex-status",
];

fn check_miss(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    assert_eq!(answer.header("age"), "");
}

fn check_hit(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.reflex(), "HIT_L1_EXACT");
    let cache_status = answer.header("cache-status");
    let ttl = cache_status
        .strip_prefix("reflex; hit; ttl=")
        .map(str::parse::<u64>);
    assert!(matches!(ttl, Some(Ok(1..=3600))), "{cache_status}");
    let age = answer.header("age").parse::<u64>();
    assert!(matches!(age, Ok(0..=60)), "{age:?}");
    for name in answer.headers.keys() {
        assert!(HIT_HEADERS.contains(&name.as_str()), "{name} on a hit");
    }
    for name in ["content-type", "openai-version"] {
        assert_eq!(answer.header(name), first.header(name), "{name}");
    }
    assert_eq!(answer.body, first.body);
}

#[tokio::test]
async fn a_repeated_completion_is_answered_without_the_provider() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let first = edge.client.fetch(Ask::chat("Why is the sky blue?")).await;
    let second = edge.client.fetch(Ask::chat("Why is the sky blue?")).await;
    check_miss(&first);
    assert_eq!(first.header("x-request-id"), "req_1");
    check_hit(&second, &first);
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn a_repeated_stream_is_replayed_byte_for_byte() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let with_usage = json!({
        "model": "mock",
        "messages": [{"role": "user", "content": "Count to ten."}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    for ask in [
        Ask::stream("Count to ten."),
        Ask::body(with_usage.to_string()),
    ] {
        let calls = upstream.call_count();
        let first = edge.client.fetch(ask.clone()).await;
        let second = edge.client.fetch(ask).await;
        check_miss(&first);
        check_hit(&second, &first);
        assert!(first.body.ends_with(b"data: [DONE]\n\n"));
        assert_eq!(upstream.call_count(), calls + 1);
    }
}

/// The pace itself is measured beside its code; here the bytes are the same, and in parts.
#[tokio::test]
async fn a_paced_replay_comes_in_parts_and_is_the_same() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("replay = \"paced\"")
        .start()
        .await;
    let ask = || Ask::stream("slowly again").mock("paced=50");
    let first = edge.client.fetch(ask()).await;
    check_miss(&first);
    let mut again = edge.client.send(ask()).await;
    let mut parts = Vec::new();
    while let Some(part) = again.chunk().await.expect("a body that is not cut") {
        parts.push(part);
    }
    // A busy machine may see several parts of the stream at once.
    assert!(parts.len() > 2, "{} parts", parts.len());
    assert_eq!(parts.concat(), first.body);
    let document = || Ask::chat("slowly again");
    let first = edge.client.fetch(document()).await;
    check_hit(&edge.client.fetch(document()).await, &first);
}

#[tokio::test]
async fn http2_clients_are_answered_too() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let client = Client::http2(&edge.url);
    let first = client.fetch(Ask::stream("over HTTP/2")).await;
    let second = client.fetch(Ask::stream("over HTTP/2")).await;
    check_miss(&first);
    check_hit(&second, &first);
    check_hit(&edge.client.fetch(Ask::stream("over HTTP/2")).await, &first);
}

#[tokio::test]
async fn a_large_answer_is_replayed_whole() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = Ask::chat("a megabyte").mock("large=1000000");
    let first = edge.client.fetch(ask.clone()).await;
    check_miss(&first);
    // It is stored beside the client's path, so the client may have it a moment earlier.
    edge.recorded(1, 0).await;
    check_hit(&edge.client.fetch(ask).await, &first);
}

#[tokio::test]
async fn the_client_sees_the_first_chunk_before_the_last_was_sent() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut stream = edge.client.send(Ask::stream("slowly").mock("gated")).await;
    upstream.release(1);
    let start = stream.until("assistant").await;
    upstream.release_all();
    let rest = stream.whole().await;
    let rest = String::from_utf8_lossy(&rest.body).into_owned();
    assert!(!start.contains("[DONE]"));
    assert!(rest.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stream_and_a_document_are_two_answers() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let document = edge.client.fetch(Ask::chat("same prompt")).await;
    let stream = edge.client.fetch(Ask::stream("same prompt")).await;
    check_miss(&stream);
    assert_eq!(document.header("content-type"), "application/json");
    assert!(
        stream
            .header("content-type")
            .starts_with("text/event-stream")
    );
    assert_eq!(upstream.call_count(), 2);
}

/// maximhq/bifrost#2791 and #3190: the same JSON in another key order never hit.
#[tokio::test]
async fn the_same_json_in_another_key_order_or_spelling_hits() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let spellings = [
        r#"{"model":"mock","messages":[{"role":"user","content":"A\u00e9/"}]}"#,
        r#"{ "messages" : [ { "content" : "Aé\/", "role" : "user" } ], "model" : "mock" }"#,
        r#"{"model":"mock","messages":[{"role":"user","content":"Aé/"}],"store":false,"stream":false}"#,
    ];
    let first = edge.client.fetch(Ask::body(spellings[0])).await;
    check_miss(&first);
    for spelling in &spellings[1..] {
        check_hit(&edge.client.fetch(Ask::body(*spelling)).await, &first);
    }
}

/// BerriAI/litellm#894 and its like: parameters that were missing in the key.
#[tokio::test]
async fn whatever_may_change_the_answer_makes_another_key() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let plain = json!({"model": "mock", "messages": [{"role": "user", "content": "one"}]});
    let with = |field: &str, value: serde_json::Value| {
        let mut body = plain.clone();
        body[field] = value;
        Ask::body(body.to_string())
    };
    let asks = [
        Ask::body(plain.to_string()),
        with("model", json!("other")),
        with("temperature", json!(0)),
        with("temperature", json!(0.0)),
        with("max_tokens", json!(9)),
        with("n", json!(2)),
        with("stop", json!(["x"])),
        with("seed", json!(1)),
        with("logit_bias", json!({"1": 2})),
        with("response_format", json!({"type": "json_object"})),
        with("tool_choice", json!("none")),
        with("some_field_of_tomorrow", json!(true)),
        with(
            "messages",
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]),
        ),
        Ask::body(plain.to_string()).header("openai-beta", "x"),
    ];
    for (index, ask) in asks.into_iter().enumerate() {
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.reflex(), "MISS", "case {index}");
    }
}

/// BerriAI/litellm#29955: one team received another team's answer.
#[tokio::test]
async fn another_credential_gets_an_answer_of_its_own() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = || Ask::chat("whose is it?");
    let first = edge.client.fetch(ask().key(Some("alice"))).await;
    let other = edge.client.fetch(ask().key(Some("bob"))).await;
    let organization = ask()
        .key(Some("alice"))
        .header("openai-organization", "org-2");
    let in_organization = edge.client.fetch(organization).await;
    check_miss(&first);
    check_miss(&other);
    check_miss(&in_organization);
    check_hit(&edge.client.fetch(ask().key(Some("alice"))).await, &first);
    check_hit(&edge.client.fetch(ask().key(Some("bob"))).await, &other);
}

#[tokio::test]
async fn a_request_without_a_credential_is_not_cached() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for _ in 0..2 {
        let answer = edge.client.fetch(Ask::chat("who am I?").key(None)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.reflex(), "BYPASS");
        let why = r#"reflex; fwd=bypass; detail="no-credential""#;
        assert_eq!(answer.header("cache-status"), why);
    }
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn the_operator_may_let_those_without_credential_share() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("anonymous = \"share\"")
        .start()
        .await;
    let first = edge.client.fetch(Ask::chat("who are we?").key(None)).await;
    check_miss(&first);
    check_hit(
        &edge.client.fetch(Ask::chat("who are we?").key(None)).await,
        &first,
    );
}

/// BerriAI/litellm#3199: the request's `no-cache` was ignored.
#[tokio::test]
async fn cache_control_of_a_request_is_obeyed() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = |control: &str| Ask::chat("controlled").header("cache-control", control);

    let absent = edge.client.fetch(ask("only-if-cached")).await;
    assert_eq!(absent.status, 504);
    assert_eq!(upstream.call_count(), 0);

    let unstored = edge.client.fetch(ask("no-store")).await;
    assert_eq!(unstored.reflex(), "BYPASS");

    let first = edge.client.fetch(Ask::chat("controlled")).await;
    check_miss(&first);
    check_hit(&edge.client.fetch(ask("only-if-cached")).await, &first);
    check_hit(&edge.client.fetch(ask("max-age=3600")).await, &first);

    let fresh = edge.client.fetch(ask("no-cache")).await;
    assert_eq!(fresh.reflex(), "MISS");
    assert_ne!(fresh.body, first.body);
    check_hit(&edge.client.fetch(Ask::chat("controlled")).await, &fresh);
}

#[tokio::test]
async fn concurrent_requests_get_their_own_answers() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for status in ["MISS", "HIT_L1_EXACT"] {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..64 {
            let client = edge.client.clone();
            running.spawn(async move {
                let ask = Ask::chat(&format!("request number {number} of many"));
                let prompt = Prompt::parse(ask.sent()).expect("a prompt");
                (prompt.text, client.fetch(ask).await)
            });
        }
        while let Some(answered) = running.join_next().await {
            let (prompt, answer) = answered.expect("an answer");
            assert_eq!(answer.reflex(), status, "{prompt}");
            let said = answer.json()["choices"][0]["message"]["content"].to_string();
            assert!(said.contains(&prompt), "{said} for {prompt}");
        }
    }
    assert_eq!(upstream.call_count(), 64);
}
