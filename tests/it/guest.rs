//! A component that misbehaves costs no client its answer: the request goes to the provider, and
//! the next one is served as usual.
//!
//! The guest under test is the middleware with a switch: the header `x-test-guest` makes it
//! misbehave, without it the guest behaves.

use std::path::Path;

use http::Method;
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
    // Whether the guest has asked before it failed or not.
    assert_eq!(upstream.call_count(), 3, "{behaviour}");
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
async fn a_guest_that_traps_after_it_has_sent_the_request_costs_no_second_call() {
    check("trap-after-sending", "trap").await;
}

#[tokio::test]
async fn a_guest_that_traps_with_the_answer_dropped_costs_no_second_call() {
    check("trap-without-the-answer", "trap").await;
}

#[tokio::test]
async fn a_guest_that_spins_after_it_has_sent_the_request_costs_no_second_call() {
    check("spin-after-sending", "timeout").await;
}

#[tokio::test]
async fn a_guest_that_traps_with_the_answer_read_costs_no_second_call() {
    check("read-the-answer", "trap").await;
}

#[tokio::test]
async fn a_guest_that_spins_with_the_answer_in_hand_costs_no_second_call() {
    check("spin-with-the-answer", "timeout").await;
}

/// An upload is sent once, however large it is and wherever the guest fails.
#[tokio::test]
async fn an_upload_reaches_the_provider_once() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, PATIENT).await;
    let file: Vec<u8> = (0_u32..3 << 18).flat_map(u32::to_le_bytes).collect();
    for (behaviour, calls) in [
        ("trap-after-sending", 1),
        ("trap-with-the-answer", 2),
        ("trap-without-the-answer", 3),
    ] {
        for part in [None, Some(1000)] {
            let mut ask =
                Ask::new(Method::POST, "/v1/files", file.clone()).header("x-test-guest", behaviour);
            if let Some(part) = part {
                ask = ask.chunked(part);
            }
            let answer = edge.client.fetch(ask).await;
            // The provider knows no files, and says so.
            assert_eq!(answer.status, 404, "{behaviour}");
            assert_eq!(answer.reflex(), "BYPASS", "{behaviour}");
        }
        assert_eq!(upstream.call_count(), 2 * calls, "{behaviour}");
        let last = upstream.calls().pop().expect("a call");
        assert!(last.body == file, "{behaviour}: another body arrived");
    }
}

/// Requests of a guest's own are its own. The host adds no call to them, and takes no
/// answer to another request for the client's.
#[tokio::test]
async fn a_guest_that_fails_after_calls_of_its_own_costs_no_further_one() {
    let upstream = Upstream::start().await;
    let edge = edge_with_test_guest(&upstream, PATIENT).await;
    for (behaviour, status, calls) in [
        ("trap-after-sending-twice", 200, 2),
        ("trap-after-sending-another", 502, 3),
        ("refuse-the-answer", 502, 4),
    ] {
        let ask = Ask::chat("once").header("x-test-guest", behaviour);
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.status, status, "{behaviour}");
        assert_eq!(upstream.call_count(), calls, "{behaviour}");
    }
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
async fn a_guest_that_spins_holds_up_no_other_request() {
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
