//! Clients that send their bodies only when they are asked for them: `Expect: 100-continue`.

use super::{line, patient};
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::raw_client::{HTTP2_PREFACE, RawClient, frame, http1, http2};
use reflex_tests::upstream::Upstream;
use serde_json::Value;

/// Leaves the request for the body to the provider.
fn left_to_provider(plan: EnvoyPlan) -> EnvoyPlan {
    plan.edit(|config| {
        let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
        let manager = config.pointer_mut(manager).expect("a manager");
        manager["proxy_100_continue"] = Value::Bool(true);
    })
}

fn ask() -> Ask {
    Ask::chat("Shall I?").header("expect", "100-continue")
}

/// A head, then, after a 100, the body, over HTTP/1.1.
async fn continued(envoy: &Envoy) -> String {
    let mut client = RawClient::connect(&envoy.url).await;
    let bytes = http1(&ask());
    let (head, body) = bytes.split_at(bytes.len() - ask().sent().len());
    client.send(head).await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send(body).await;
    let (head, body) = client.answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("chat.completion"));
    head
}

#[tokio::test]
async fn envoy_asks_for_the_body_and_the_answer_is_cached() {
    let (upstream, _daemon, envoy) = line().await;
    let head = continued(&envoy).await;
    assert!(head.contains("x-reflex-status: MISS"), "{head}");
    let head = continued(&envoy).await;
    assert!(head.contains("x-reflex-status: HIT"), "{head}");
    assert_eq!(upstream.call_count(), 1);
}

/// The filter held the head back for a body that the client sent only after the provider's 100.
#[tokio::test]
async fn a_body_that_the_provider_is_to_ask_for_does_not_wait() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = left_to_provider(patient(&upstream, &daemon)).start().await;
    for calls in 1..=2 {
        let head = continued(&envoy).await;
        assert!(head.contains("fwd=bypass; detail=\"expect\""), "{head}");
        assert_eq!(upstream.call_count(), calls);
    }
    // Other requests are cached as ever.
    let other = || Ask::chat("without");
    let first = envoy.client.fetch(other()).await;
    super::check_miss(&first);
    super::check_hit(&envoy.client.fetch(other()).await, &first);
}

#[tokio::test]
async fn the_same_over_http2() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = left_to_provider(patient(&upstream, &daemon)).start().await;
    let mut client = RawClient::connect(&envoy.url).await;
    let data = frame(0, 0x1, 1, ask().sent());
    let bytes = http2(&ask(), 1);
    let head = bytes.len() - data.len();
    client.send(HTTP2_PREFACE).await;
    client.send(&bytes[..head]).await;
    // A head of a response that goes on: the 100.
    client.until("\u{1}\u{4}\0\0\0\u{1}").await;
    client.send(&data).await;
    client.until("chat.completion").await;
    assert_eq!(upstream.call_count(), 1);
}
