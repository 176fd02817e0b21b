//! A component that misbehaves costs nobody an answer: the request goes to the provider, and
//! the next one is served as if nothing had been.
//!
//! The guest under test is the middleware with a switch: the header `x-test-guest` makes it
//! misbehave, without it it behaves.

use std::path::Path;

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;

/// Long for a guest, short for a test.
const CONFIG: &str = "guest_milliseconds_max = 300";
/// Long enough to fill a guest's memory on a busy machine.
const PATIENT: &str = "guest_milliseconds_max = 20000";

pub(crate) async fn edge_with_test_guest(upstream: &Upstream, config: &str) -> Edge {
    let guest = Path::new(env!("REFLEX_TEST_GUEST_WASM"));
    Plan::new(&upstream.url())
        .component(guest)
        .config(config)
        .start()
        .await
}

/// Has the guest misbehave, and expects the provider's answer to the untouched request.
async fn check(behaviour: &str, reason: &str) {
    let config = if reason == "timeout" { CONFIG } else { PATIENT };
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, config).await;
    for _ in 0..3 {
        let ask = Ask::chat("despite of it").header("x-test-guest", behaviour);
        let body = ask.sent().clone();
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.status, 200, "{behaviour}");
        assert_eq!(answer.reflex(), "BYPASS", "{behaviour}");
        let expected = r#"reflex; fwd=bypass; detail="unavailable""#;
        assert_eq!(answer.header("cache-status"), expected, "{behaviour}");
        assert_eq!(answer.json()["object"], "chat.completion", "{behaviour}");
        assert_eq!(
            upstream.calls().last().map(|call| call.body.clone()),
            Some(body)
        );
    }
    // The guest may have asked before it failed.
    let per_request = if behaviour == "trap-with-the-answer" {
        2
    } else {
        1
    };
    assert_eq!(upstream.call_count(), 3 * per_request, "{behaviour}");
    let metrics = edge.metrics().await;
    let failures = metrics.sum("reflex_guest_failures_total", &[("reason", reason)]);
    assert!((failures - 3.0).abs() < 0.5, "{behaviour}: {metrics:#?}");
    assert!(edge.log().contains("guest failed"), "{behaviour}");

    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = edge.client.fetch(Ask::chat("afterwards")).await;
        assert_eq!(answer.reflex(), status, "after {behaviour}");
    }
}

#[tokio::test]
async fn a_guest_that_traps_costs_no_answer() {
    check("trap", "trap").await;
}

#[tokio::test]
async fn a_guest_that_spins_costs_no_answer() {
    check("spin", "timeout").await;
}

#[tokio::test]
async fn a_guest_that_allocates_without_end_costs_no_answer() {
    check("allocate", "trap").await;
}

#[tokio::test]
async fn a_guest_that_recurses_without_end_costs_no_answer() {
    check("recurse", "trap").await;
}

#[tokio::test]
async fn a_guest_that_traps_with_the_body_in_hand_costs_no_answer() {
    check("trap-after-reading", "trap").await;
}

#[tokio::test]
async fn a_guest_that_traps_with_an_entry_in_hand_costs_no_answer() {
    check("trap-with-an-entry", "trap").await;
}

#[tokio::test]
async fn a_guest_that_traps_when_others_may_wait_for_it_costs_no_answer() {
    check("trap-as-leader", "trap").await;
}

#[tokio::test]
async fn a_guest_that_traps_with_the_answer_in_hand_costs_no_answer() {
    check("trap-with-the-answer", "trap").await;
}

#[tokio::test]
async fn a_guest_that_inserts_a_gigabyte_costs_no_answer() {
    check("insert-a-gigabyte", "trap").await;
}

#[tokio::test]
async fn a_guest_that_drops_a_handle_twice_costs_no_answer() {
    check("drop-twice", "trap").await;
}

#[tokio::test]
async fn a_guest_that_spins_holds_up_nobody_else() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, CONFIG).await;
    let known = edge.client.fetch(Ask::chat("known")).await;
    let mut spinning = tokio::task::JoinSet::new();
    for number in 0..8 {
        let client = edge.client.clone();
        let ask = Ask::chat(&format!("spin {number}")).header("x-test-guest", "spin");
        spinning.spawn(async move { client.fetch(ask).await });
    }
    let hit = edge.client.fetch(Ask::chat("known")).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &known.body));
    while let Some(answer) = spinning.join_next().await {
        assert_eq!(answer.expect("an answer").status, 200);
    }
}
