//! The meaning of a request, through the real binary: the operator's lists reach the component, and
//! no spelling of a path evades a rule.

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    Plan::new(&upstream.url()).config(config).start().await
}

async fn check(client: &Client, ask: Ask, expected: &str, why: &str) {
    let answer = client.fetch(ask).await;
    assert_eq!(answer.reflex(), expected, "{why}");
}

/// A chat with one field more.
fn with(name: &str, value: Value) -> Ask {
    let mut body = json!({"model": "mock", "messages": [{"role": "user", "content": "hi"}]});
    body[name] = value;
    Ask::to("/v1/chat/completions", &body)
}

#[tokio::test]
async fn the_operators_lists_count() {
    let upstream = Upstream::start().await;
    let config = r#"
        ignored_headers = ["x-acme-*"]
        ignored_cookies = ["acme_*"]
        ignored_query = ["acme_*"]
        ignored_fields = ["user"]
        keyed_fields = ["session_id"]
        bypass_fields = ["live"]
        bypass_models = ["*-live"]
    "#;
    let edge = edge_with(&upstream, config).await;
    let client = &edge.client;
    let ask = || Ask::chat("listed");
    check(client, ask(), "MISS", "new").await;
    check(
        client,
        ask().header("x-acme-call", "1"),
        "HIT_L1_EXACT",
        "header",
    )
    .await;
    check(
        client,
        ask().header("cookie", "acme_1=a; AWSALB=b"),
        "HIT_L1_EXACT",
        "cookies",
    )
    .await;
    check(
        client,
        ask().header("cookie", "acme_1=a; other=b"),
        "MISS",
        "a cookie",
    )
    .await;
    let at = |query: &str| {
        let body = json!({"model": "mock", "messages": [{"role": "user", "content": "at"}]});
        Ask::to(&format!("/v1/chat/completions?{query}"), &body)
    };
    check(client, at("v=1&acme_call=1"), "MISS", "new").await;
    check(client, at("acme_call=2&v=1"), "HIT_L1_EXACT", "query").await;
    check(client, at("acme_call=2&v=2"), "MISS", "a parameter").await;
    check(client, with("user", "a".into()), "MISS", "new").await;
    check(client, with("user", "b".into()), "HIT_L1_EXACT", "user").await;
    check(
        client,
        with("metadata", json!({"tags": ["a"]})),
        "MISS",
        "metadata",
    )
    .await;
    check(
        client,
        with("metadata", json!({"tags": ["b"]})),
        "MISS",
        "metadata",
    )
    .await;
    check(client, with("session_id", "a".into()), "MISS", "session").await;
    check(client, with("session_id", "b".into()), "MISS", "session").await;
    check(
        client,
        with("session_id", "a".into()),
        "HIT_L1_EXACT",
        "session",
    )
    .await;
    check(client, with("thread_id", "a".into()), "BYPASS", "state").await;
    check(client, with("live", true.into()), "BYPASS", "a field").await;
    check(client, with("live", false.into()), "MISS", "switched off").await;
    check(
        client,
        with("model", "gpt-live".into()),
        "BYPASS",
        "a model",
    )
    .await;
}

#[tokio::test]
async fn no_spelling_of_a_path_evades_a_rule_and_the_provider_gets_it_as_sent() {
    let upstream = Upstream::start().await;
    let config = "[[path]]\npath = \"/private/*\"\napi = \"none\"\n\
                  [[ttl]]\npath = \"/fleeting/*\"\nseconds = 0";
    let edge = edge_with(&upstream, config).await;
    let body = json!({"model": "mock", "messages": [{"role": "user", "content": "hi"}]});
    for path in [
        "/private/v1/chat/completions",
        "//private/v1/chat/completions",
        "/./private/v1/chat/completions",
        "/%70rivate/v1/chat/completions",
        "/a/../private/v1/chat/completions",
    ] {
        check(&edge.client, Ask::to(path, &body), "BYPASS", path).await;
    }
    for path in [
        "/fleeting/v1/chat/completions",
        "//%66leeting/v1/chat/completions",
    ] {
        check(&edge.client, Ask::to(path, &body), "MISS", path).await;
        check(&edge.client, Ask::to(path, &body), "MISS", path).await;
    }
    let path = "//v1/%63hat/completions";
    check(&edge.client, Ask::to(path, &body), "MISS", path).await;
    check(&edge.client, Ask::to(path, &body), "HIT_L1_EXACT", path).await;
    let last = upstream.calls().pop().expect("called");
    assert_eq!(last.path, path);
}
