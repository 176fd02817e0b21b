//! Every miss can explain itself: the metrics and the log say why the hit rate is zero.

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use serde_json::json;

/// By what keys have split, and how often.
fn splits(metrics: &Metrics, by: &str, name: &str) -> f64 {
    metrics.sum("reflex_key_splits_total", &[("by", by), ("name", name)])
}

async fn misses(client: &Client, ask: Ask) {
    let answer = client.fetch(ask).await;
    assert_eq!(answer.reflex(), "MISS");
}

#[tokio::test]
async fn a_header_a_cookie_a_parameter_or_a_field_that_differs_each_time_is_named() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for number in 0..3 {
        let value = format!("private-{number}");
        let header = Ask::chat("header").header("x-acme-call", &value);
        misses(&edge.client, header).await;
        let cookie = format!("theme=dark; acme-sticky={value}");
        let cookie = Ask::chat("cookie").header("cookie", &cookie);
        misses(&edge.client, cookie).await;
        let body = |prompt| {
            let messages = json!([{ "role": "user", "content": prompt }]);
            json!({ "model": "m", "messages": messages })
        };
        let query = format!("/v1/chat/completions?acme-trace={value}");
        misses(&edge.client, Ask::to(&query, &body("query"))).await;
        let mut body = body("field");
        body["acme_call"] = value.into();
        misses(&edge.client, Ask::to("/v1/chat/completions", &body)).await;
    }
    let metrics = edge.metrics().await;
    let parts = [
        ("header", "x-acme-call"),
        ("cookie", "acme-sticky"),
        ("query", "acme-trace"),
        ("field", "acme_call"),
    ];
    let log = edge.log();
    for (by, name) in parts {
        let count = splits(&metrics, by, name);
        assert!((count - 2.0).abs() < 0.5, "{by} {name}: {metrics:#?}");
        assert_eq!(log.matches(&format!("`{name}`")).count(), 1, "{log}");
    }
    for list in ["headers", "cookies", "query", "fields"] {
        assert!(log.contains(&format!("ignored_{list}")), "{log}");
    }
    assert!(!log.contains("private"), "{log}");
    assert!(!format!("{metrics:?}").contains("private"), "{metrics:#?}");
}

#[tokio::test]
async fn neither_other_questions_nor_other_tenants_are_splits() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for prompt in ["one", "two"] {
        misses(&edge.client, Ask::chat(prompt)).await;
        misses(&edge.client, Ask::stream(prompt)).await;
        let other = Ask::chat(prompt).key(Some("sk-other"));
        misses(&edge.client, other.header("x-acme-call", prompt)).await;
    }
    let metrics = edge.metrics().await;
    assert!(
        metrics.sum("reflex_key_splits_total", &[]) < 0.5,
        "{metrics:#?}"
    );
}

/// sashabaranov/go-openai says `no-cache` on every stream.
#[tokio::test]
async fn clients_that_always_say_no_cache_on_streams_are_counted_and_have_a_remedy() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = |ask: Ask, control| {
        let ask = ask.header("cache-control", control);
        ask.header("accept", "text/event-stream")
    };
    let stream = || ask(Ask::stream("hello"), "no-cache");
    for _ in 0..2 {
        misses(&edge.client, stream()).await;
    }
    misses(&edge.client, ask(Ask::chat("hello"), "no-cache")).await;
    let kept_out = ask(Ask::stream("hello"), "no-store");
    assert_eq!(edge.client.fetch(kept_out).await.reflex(), "BYPASS");
    let metrics = edge.metrics().await;
    for (directive, stream, count) in [
        ("no-cache", "true", 2.0),
        ("no-cache", "false", 1.0),
        ("no-store", "true", 1.0),
    ] {
        let labels = [("directive", directive), ("stream", stream)];
        let counted = metrics.sum("reflex_client_control_total", &labels);
        assert!((counted - count).abs() < 0.5, "{labels:?}: {metrics:#?}");
    }
    assert_eq!(edge.log().matches("client_control").count(), 1);

    let plan = Plan::new(&upstream.url()).config("client_control = \"no-refresh\"");
    let edge = plan.start().await;
    misses(&edge.client, stream()).await;
    edge.recorded(1, 0).await;
    assert_eq!(edge.client.fetch(stream()).await.reflex(), "HIT_L1_EXACT");
    let metrics = edge.metrics().await;
    assert!(metrics.sum("reflex_client_control_total", &[]) < 0.5);
}

#[tokio::test]
async fn bypasses_and_answers_that_are_not_kept_are_counted_by_reason() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    edge.client.fetch(Ask::get("/v1/models")).await;
    edge.client.fetch(Ask::chat("hi").key(None)).await;
    edge.client.fetch(Ask::chat("hi").mock("status=500")).await;
    edge.client.fetch(Ask::chat("hi").mock("length")).await;
    let unwanted = Ask::chat("hi").header("x-reflex-ttl", "0");
    misses(&edge.client, unwanted).await;
    edge.recorded(0, 2).await;
    let metrics = edge.metrics().await;
    for (name, reason) in [
        ("reflex_bypasses_total", "path"),
        ("reflex_bypasses_total", "no-credential"),
        ("reflex_not_kept_total", "status"),
        ("reflex_not_kept_total", "length"),
        ("reflex_not_kept_total", "ttl"),
    ] {
        let counted = metrics.sum(name, &[("reason", reason)]);
        assert!((counted - 1.0).abs() < 0.5, "{name} {reason}: {metrics:#?}");
    }
}
