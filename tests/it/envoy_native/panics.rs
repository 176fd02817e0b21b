//! A panic in any hook costs one request its cache, and Envoy goes on.

use super::{apart, check_hit, check_miss, figure};
use reflex_tests::client::Ask;
use reflex_tests::envoy::{EnvoyPlan, panicking_native};
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use serde_json::json;

#[tokio::test]
async fn a_panic_in_any_hook_costs_that_request_its_cache_and_nothing_else() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .filter(&panicking_native())
        .workers(2)
        .start()
        .await;
    let first = apart(&envoy, Ask::chat("before")).await;
    check_miss(&first);
    for hook in [
        "new",
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
        "stream_complete",
        "destroy",
    ] {
        let ask = Ask::chat(hook).header("x-test-panic", hook);
        let answer = apart(&envoy, ask).await;
        assert_eq!(answer.status, 200, "{hook}");
        assert!(!answer.body.is_empty(), "{hook}");
        // With `new`, this is the one that has no stream.
        let next = apart(&envoy, Ask::chat("between")).await;
        assert_eq!(next.status, 200, "{hook}");
        envoy
            .until(&format!("a panic in {hook}"), |metrics| {
                figure(metrics, "reflex_panics_total", &[("hook", hook)]) >= 1.0
            })
            .await;
        check_hit(&apart(&envoy, Ask::chat("before")).await, &first);
    }
    let log = envoy.log();
    assert!(log.contains("reflex: a panic at "), "{log}");
    assert!(!log.contains("planted"), "the text of a panic stays inside");
}

/// The request is held while it follows another one, and must go on.
#[tokio::test]
async fn a_follower_whose_wake_up_panics_goes_to_the_provider() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .filter(&panicking_native())
        .plugin("fill_wait_ms", 600_000)
        // Part of a key, it would make two of these requests.
        .plugin("ignored_headers", json!(["x-test-panic"]))
        .start()
        .await;
    let ask = Ask::chat("follow").mock("gated");
    let mut leader = RawClient::connect(&envoy.url).await;
    leader.send(http1(&ask)).await;
    upstream.called(1).await;
    let follower = ask.header("x-test-panic", "scheduled");
    let mut follows = RawClient::connect(&envoy.url).await;
    follows.send(http1(&follower)).await;
    super::under_way(&envoy, 2).await;
    drop(leader);
    upstream.called(2).await;
    upstream.release_all();
    follows.until("HTTP/1.1 200").await;
    envoy
        .until("the panic is counted", |metrics| {
            figure(metrics, "reflex_panics_total", &[("hook", "scheduled")]) == 1.0
        })
        .await;
}
