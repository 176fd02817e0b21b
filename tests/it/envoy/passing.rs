//! Requests that pass through Envoy as without the filter.

use super::{check_hit, check_miss, cold_line, count, line, stored};
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;
use serde_json::json;

/// A chat completion with a prompt of so many bytes.
fn long(bytes: usize) -> Ask {
    Ask::chat(&"p".repeat(bytes))
}

#[tokio::test]
async fn the_client_sees_the_first_chunk_before_the_last_was_sent() {
    let (upstream, _daemon, envoy) = line().await;
    let mut stream = envoy.client.send(Ask::stream("slowly").mock("gated")).await;
    upstream.release(1);
    let start = stream.until("assistant").await;
    upstream.release_all();
    let rest = stream.whole().await;
    let rest = String::from_utf8_lossy(&rest.body).into_owned();
    assert!(!start.contains("[DONE]"));
    assert!(rest.ends_with("data: [DONE]\n\n"));
}

/// Envoy answers a body that it cannot buffer with 413; the filter stops buffering before.
#[tokio::test]
async fn a_long_request_goes_to_the_provider_untouched() {
    let (upstream, _daemon, envoy) = line().await;
    for bytes in [1_048_577, 1_200_000, 3_000_000] {
        let answer = envoy.client.fetch(long(bytes)).await;
        assert_eq!(answer.status, 200, "{bytes}");
        let why = r#"reflex; fwd=bypass; detail="body-too-large""#;
        assert_eq!(answer.header("cache-status"), why, "{bytes}");
        let sent = upstream.calls().pop().expect("a call").body;
        assert_eq!(sent, *long(bytes).sent(), "{bytes}");
    }
}

/// The same when the client does not say how long its body is.
#[tokio::test]
async fn a_long_request_of_unknown_length_goes_to_the_provider_untouched() {
    let (upstream, _daemon, envoy) = line().await;
    for bytes in [100_000, 1_200_000, 3_000_000] {
        let answer = envoy.client.fetch(long(bytes).chunked(10_000)).await;
        assert_eq!(answer.status, 200, "{bytes}");
        let expected = if bytes > 1_048_576 { "BYPASS" } else { "MISS" };
        assert_eq!(answer.reflex(), expected, "{bytes}");
        let sent = upstream.calls().pop().expect("a call").body;
        assert_eq!(sent, *long(bytes).sent(), "{bytes}");
    }
}

#[tokio::test]
async fn a_request_within_the_bound_is_looked_at() {
    let (upstream, daemon, envoy) = line().await;
    for (bytes, calls) in [(900_000, 1), (1_000_000, 2), (1_048_000, 3)] {
        let first = envoy.client.fetch(long(bytes)).await;
        check_miss(&first);
        // The longest answer, which repeats the prompt, is too long for the hot tier.
        stored(&daemon, calls).await;
        check_hit(
            &envoy.client.fetch(long(bytes).chunked(10_000)).await,
            &first,
        );
        assert_eq!(upstream.call_count(), calls as usize);
    }
}

/// To the byte, and whether or not the client says how long its body is.
#[tokio::test]
async fn a_request_of_a_mebibyte_is_looked_at_and_one_byte_more_passes_through() {
    let (_upstream, daemon, envoy) = line().await;
    let around = long(0).sent().len();
    let of = |bytes: usize| {
        let ask = || long(bytes - around);
        assert_eq!(ask().sent().len(), bytes);
        [ask(), ask().chunked(1 << 16), ask().chunked(999)]
    };
    let [first, ..] = of(1 << 20);
    let first = envoy.client.fetch(first).await;
    check_miss(&first);
    stored(&daemon, 1).await;
    for ask in of(1 << 20) {
        check_hit(&envoy.client.fetch(ask).await, &first);
    }
    for ask in of((1 << 20) + 1) {
        let answer = envoy.client.fetch(ask).await;
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "BYPASS"));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_passes_through_unstored() {
    let (upstream, _daemon, envoy) = line().await;
    let ask = || Ask::chat("a picture").mock("large=20971520");
    for calls in 1..=2 {
        let answer = envoy.client.fetch(ask()).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 20 << 20);
        assert_eq!(upstream.call_count(), calls);
    }
    envoy
        .until("the long answers are rejected", |metrics| {
            metrics.sum("reflex_not_kept_total", &[("reason", "too-large")]) == 2.0
        })
        .await;
}

/// Larger than the hot tier takes, and than Envoy buffers.
#[tokio::test]
async fn a_large_answer_is_replayed_whole_by_the_daemon() {
    let (_upstream, daemon, envoy) = line().await;
    let ask = || Ask::chat("a small picture").mock("large=5000000");
    let first = envoy.client.fetch(ask()).await;
    check_miss(&first);
    stored(&daemon, 1).await;
    check_hit(&envoy.client.fetch(ask()).await, &first);
}

/// A reply of this size does not reach the filter, and the client must not notice.
#[tokio::test]
async fn a_reply_of_the_daemon_that_is_too_long_is_a_miss() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .edge_socket(true)
        .config("entry_bytes_max = 67108864")
        .start()
        .await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .daemon(&edge.socket())
        .plugin("lookup_timeout_ms", 10_000)
        .start()
        .await;
    let ask = || Ask::chat("a film").mock("large=41943040");
    check_miss(&edge.client.fetch(ask()).await);
    edge.recorded(1, 0).await;
    let answer = envoy.client.fetch(ask()).await;
    check_miss(&answer);
    assert!(answer.body.len() > 40 << 20);
    assert_eq!(upstream.call_count(), 2);
    // And Envoy still runs.
    check_miss(&envoy.client.fetch(Ask::chat("something small")).await);
}

/// A recorded answer is not compressed, so that each client can read the replay.
#[tokio::test]
async fn answers_stay_readable_by_every_client() {
    let (upstream, daemon, envoy) = cold_line().await;
    let ask = || Ask::chat("compressed?");
    let first = envoy
        .client
        .fetch(ask().header("accept-encoding", "gzip, br"))
        .await;
    check_miss(&first);
    assert_eq!(first.header("content-encoding"), "");
    let asked = upstream.calls().pop().expect("a call");
    assert_eq!(asked.header("accept-encoding"), "identity");
    stored(&daemon, 1).await;
    check_hit(&envoy.client.fetch(ask()).await, &first);

    // The answer of a provider that compresses anyway is not stored, and passes unchanged.
    let stubborn = || Ask::chat("stubborn").mock("gzip");
    for calls in 2..=3 {
        let answer = envoy.client.fetch(stubborn()).await;
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!(upstream.call_count(), calls);
    }
}

#[tokio::test]
async fn other_paths_and_bad_bodies_go_to_the_provider() {
    let (upstream, _daemon, envoy) = line().await;
    let models = envoy.client.fetch(Ask::get("/v1/models")).await;
    assert_eq!(models.status, 200);
    assert_eq!(
        models.header("cache-status"),
        r#"reflex; fwd=bypass; detail="path""#
    );
    for (body, reason) in [
        ("{", "not-json"),
        ("", "not-json"),
        (
            r#"{"model":"m","model":"n","messages":[]}"#,
            "duplicate-key",
        ),
        (r#"{"messages":[]} x"#, "trailing-data"),
    ] {
        let answer = envoy.client.fetch(Ask::body(body)).await;
        let why = format!(r#"reflex; fwd=bypass; detail="{reason}""#);
        assert_eq!(answer.header("cache-status"), why, "{body}");
        assert_eq!(upstream.calls().pop().expect("a call").body, body);
    }
    let searching = json!({"messages": [], "model": "m", "web_search_options": {}});
    let answer = envoy.client.fetch(Ask::body(searching.to_string())).await;
    assert_eq!(answer.reflex(), "BYPASS");
    assert_eq!(count(&envoy.metrics().await, "reflex_misses"), 0.0);
}
