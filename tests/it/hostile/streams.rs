//! The middleware that misbehaves when its response has begun, or keeps handles too long.

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;

use crate::guest::edge_with_test_guest;

async fn told(edge: &Edge, behaviour: &str) -> Answer {
    let ask = Ask::chat("whatever").header("x-test-guest", behaviour);
    edge.client.fetch(ask).await
}

/// As many requests as the instance that answers has had.
async fn served(edge: &Edge) -> String {
    let answer = told(edge, "count").await;
    String::from_utf8(answer.body.to_vec()).expect("a number")
}

/// Asks as a client that behaves.
async fn others_are_unharmed(edge: &Edge) {
    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = edge.client.fetch(Ask::chat("beside it")).await;
        assert_eq!(answer.reflex(), status);
        assert_eq!(answer.json()["object"], "chat.completion");
    }
}

#[tokio::test]
async fn an_instance_that_trapped_is_never_used_again() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, "").await;
    assert_eq!(served(&edge).await, "1");
    assert_eq!(served(&edge).await, "2");
    for behaviour in ["trap", "trap-with-an-entry", "drop-twice", "recurse"] {
        assert_eq!(told(&edge, behaviour).await.reflex(), "BYPASS");
        assert_eq!(served(&edge).await, "1", "after {behaviour}");
    }
}

/// Has it stream an invalid body, and expects the client to notice.
async fn check_stream(behaviour: &str, reason: &str) {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, "").await;
    let ask = Ask::chat("whatever").header("x-test-guest", behaviour);
    if let Ok(mut answer) = edge.client.try_send(ask).await {
        loop {
            match answer.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{behaviour}: it passes for a whole body"),
                Err(_) => break,
            }
        }
    }
    edge.until("a failed stream is counted", |metrics| {
        metrics.sum("reflex_guest_failures_total", &[("reason", reason)]) > 0.5
    })
    .await;
    assert!(edge.log().contains("guest"), "{}", edge.log());
    if reason == "stream-trap" {
        assert_eq!(served(&edge).await, "1");
    }
    others_are_unharmed(&edge).await;
}

#[tokio::test]
async fn a_guest_that_traps_while_it_streams_passes_for_no_whole_body() {
    check_stream("trap-while-streaming", "stream-trap").await;
}

#[tokio::test]
async fn a_stream_that_is_shorter_than_it_said_passes_for_no_whole_body() {
    check_stream("stream-too-short", "stream-body").await;
}

#[tokio::test]
async fn a_stream_that_is_longer_than_it_said_passes_for_no_whole_body() {
    check_stream("stream-too-long", "stream-body").await;
}

#[tokio::test]
async fn a_stream_that_ends_in_an_error_passes_for_no_whole_body() {
    check_stream("stream-failing", "stream-body").await;
}

/// It holds as many entries as it may have handles, and is refused the rest of a million. Then it
/// has no handle left for a response, and the client gets the provider's.
#[tokio::test]
async fn a_guest_that_opens_a_million_entries_is_refused_most() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, "guest_milliseconds_max = 20000").await;
    let answer = told(&edge, "open").await;
    assert_eq!(answer.reflex(), "BYPASS");
    assert_eq!(answer.json()["object"], "chat.completion");
    edge.until("the refusal is counted", |metrics| {
        metrics.sum("reflex_guest_refusals", &[("reason", "open")]) > 0.5
    })
    .await;
    assert_eq!(served(&edge).await, "1");
    others_are_unharmed(&edge).await;
}
