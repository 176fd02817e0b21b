//! Shadow mode gives clients the provider's answers and counts what would have been; verification
//! tells how stale the hits are.

use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan, run};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use serde_json::json;

async fn shadow(upstream: &Upstream, more: &str) -> Edge {
    let config = format!("mode = \"shadow\"\nhits = \"native\"\n{more}");
    Plan::new(&upstream.url()).config(&config).start().await
}

fn requests(metrics: &Metrics, status: &str) -> f64 {
    metrics.sum("reflex_requests_total", &[("status", status)])
}

fn is(count: f64, expected: u32) -> bool {
    (count - f64::from(expected)).abs() < 0.5
}

#[tokio::test]
async fn every_client_gets_the_providers_answer_and_what_would_have_been_is_counted() {
    let upstream = Upstream::start().await;
    let edge = shadow(&upstream, "").await;
    for (stored, ask) in (1..).zip([Ask::chat("hello"), Ask::stream("hello")]) {
        let before = upstream.call_count();
        let mut answers = Vec::new();
        for number in 1..=3 {
            let answer = edge.client.fetch(ask.clone()).await;
            assert_eq!(upstream.call_count(), before + number);
            answers.push(answer);
            if number == 1 {
                edge.recorded(stored, 0).await;
            }
        }
        let first = &answers[0];
        assert_eq!(first.reflex(), "BYPASS");
        let told = "reflex; fwd=bypass; detail=\"shadow\"";
        assert_eq!(first.header("cache-status"), told);
        for answer in &answers {
            // A would-be hit looks like its miss.
            let names = |it: &reflex_tests::client::Answer| {
                let mut names: Vec<_> = it.headers.keys().map(ToString::to_string).collect();
                names.sort();
                names
            };
            assert_eq!(names(answer), names(first));
            assert_eq!(answer.header("cache-status"), told);
        }
        assert_ne!(
            answers[0].body, answers[1].body,
            "each is the provider's own"
        );
    }
    edge.until("two misses and their hits", |metrics| {
        is(requests(metrics, "MISS"), 2) && is(requests(metrics, "HIT_L1_EXACT"), 4)
    })
    .await;
    let metrics = edge.metrics().await;
    assert!(metrics.sum("reflex_saved_tokens_total", &[]) > 1.0);
    // A hit is stored once, and not again with each answer.
    assert!(
        is(metrics.sum("reflex_recordings_total", &[]), 2),
        "{metrics:#?}"
    );
}

#[tokio::test]
async fn no_request_waits_for_another_and_no_client_gets_an_old_answer() {
    let upstream = Upstream::start().await;
    let edge = shadow(&upstream, "stale_if_error_seconds_max = 3600").await;
    let held = || Ask::chat("at once").header("x-hold", "1");
    let (one, other) = (edge.client.clone(), edge.client.clone());
    let one = tokio::spawn(async move { one.fetch(held()).await });
    let other = tokio::spawn(async move { other.fetch(held()).await });
    // Both are at the provider: none follows the other.
    upstream.called(2).await;
    upstream.release(2);
    for answer in [one.await, other.await] {
        assert_eq!(answer.expect("an answer").status, 200);
    }

    edge.client.fetch(Ask::chat("fails later")).await;
    upstream.behave(Behaviour::Status(503));
    let failed = edge.client.fetch(Ask::chat("fails later")).await;
    assert_eq!(failed.status, 503);

    upstream.behave(Behaviour::Answer);
    let before = upstream.call_count();
    let only = Ask::chat("never asked").header("cache-control", "only-if-cached");
    assert_eq!(edge.client.fetch(only).await.status, 200);
    assert_eq!(upstream.call_count(), before + 1);
}

#[tokio::test]
async fn what_would_answer_from_the_cache_all_the_same_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    for more in ["edge_socket = \"/nonexistent/s\"", "hits = \"component\""] {
        let text = format!("upstream = \"http://127.0.0.1:1\"\nmode = \"shadow\"\n{more}");
        std::fs::write(&config, text).expect("a file");
        let config = config.to_str().expect("text");
        let output = run(&["serve", "--config", config]).await;
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("shadow"), "{said}");
    }
}

/// How often a result was counted.
async fn verified(edge: &Edge, result: &str, model: &str, route: &str, count: u32) {
    let labels = [("result", result), ("model", model), ("route", route)];
    edge.until(&format!("{count} times {result}"), |metrics| {
        is(metrics.sum("reflex_verified_total", &labels), count)
    })
    .await;
}

async fn verifying(upstream: &Upstream) -> Edge {
    verifying_with(upstream, "native").await
}

async fn verifying_with(upstream: &Upstream, hits: &str) -> Edge {
    let config = format!("verify_fraction = 1.0\nhits = \"{hits}\"");
    Plan::new(&upstream.url()).config(&config).start().await
}

#[tokio::test]
async fn hits_are_asked_again_in_the_background_and_compared() {
    check_verified("native").await;
}

#[tokio::test]
async fn hits_that_a_component_answers_are_asked_again_too() {
    check_verified("component").await;
}

async fn check_verified(hits: &str) {
    let upstream = Upstream::start().await;
    let edge = verifying_with(&upstream, hits).await;
    for (number, ask) in [Ask::chat("same"), Ask::stream("same")]
        .into_iter()
        .enumerate()
    {
        edge.client.fetch(ask.clone()).await;
        edge.recorded(number as u32 + 1, 0).await;
        assert_eq!(edge.client.fetch(ask).await.reflex(), "HIT_L1_EXACT");
        // The ids differ, and so do the times.
        verified(
            &edge,
            "equal",
            "mock",
            "chat-completions",
            number as u32 + 1,
        )
        .await;
    }
    let calls = upstream.calls();
    assert_eq!(calls.len(), 4);
    // With the client's own credential.
    assert_eq!(calls[3].header("authorization"), "Bearer test");
    assert_eq!(calls[3].body, calls[2].body);
    // It counts as no client's request, and nothing of it is stored.
    let metrics = edge.metrics().await;
    assert!(
        is(metrics.sum("reflex_requests_total", &[]), 4),
        "{metrics:#?}"
    );
    assert!(
        is(metrics.sum("reflex_recordings_total", &[]), 2),
        "{metrics:#?}"
    );

    upstream.behave(Behaviour::Large(100));
    edge.client.fetch(Ask::chat("same")).await;
    verified(&edge, "different", "mock", "chat-completions", 1).await;
    upstream.behave(Behaviour::Status(500));
    edge.client.fetch(Ask::chat("same")).await;
    verified(&edge, "failed", "mock", "chat-completions", 1).await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_costs_no_hit_its_time() {
    let upstream = Upstream::start().await;
    let edge = verifying(&upstream).await;
    edge.client.fetch(Ask::chat("slow")).await;
    edge.recorded(1, 0).await;
    upstream.behave(Behaviour::Silent);
    // More than are verified at once: the rest is skipped.
    for _ in 0..6 {
        assert_eq!(
            edge.client.fetch(Ask::chat("slow")).await.reflex(),
            "HIT_L1_EXACT"
        );
    }
    verified(&edge, "skipped", "mock", "chat-completions", 2).await;
    upstream.called(5).await;
    assert_eq!(upstream.call_count(), 5);
}

/// The vectors of the mock tell which call has made them.
#[tokio::test]
async fn embeddings_are_compared_by_their_vectors() {
    let upstream = Upstream::start().await;
    let edge = verifying(&upstream).await;
    let ask = || {
        Ask::to(
            "/v1/embeddings",
            &json!({"model": "e", "input": ["a", "b"]}),
        )
    };
    edge.client.fetch(ask()).await;
    edge.recorded(1, 0).await;
    let hit = edge.client.fetch(ask()).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    verified(&edge, "different", "e", "embeddings", 1).await;
}
