//! Answers that must never be served again: errors, refusals, parts. The client gets each of
//! them as the provider gave it, and the next request asks the provider anew.

use reflex_tests::client::{Ask, Streaming};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;

/// Asks twice, and expects two calls of the provider and nothing stored.
async fn check(behaviour: &str, stream: bool, status: u16, reason: &str) {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = if stream {
        Ask::stream("never again")
    } else {
        Ask::chat("never again")
    };
    for asked in 1..=2 {
        let answer = edge.client.fetch(ask.clone().mock(behaviour)).await;
        assert_eq!(answer.status, status, "{behaviour}");
        assert_eq!(answer.reflex(), "MISS", "{behaviour}");
        edge.recorded(0, asked).await;
        assert_eq!(upstream.call_count(), asked as usize, "{behaviour}");
    }
    let metrics = edge.metrics().await;
    let rejected = metrics.sum("reflex_not_kept_total", &[("reason", reason)]);
    assert!(
        (rejected - 2.0).abs() < 0.5,
        "{behaviour} for another reason: {metrics:?}"
    );
    assert!(metrics.sum("reflex_inserts", &[]) < 0.5, "{behaviour}");
}

#[tokio::test]
async fn an_error_of_the_provider_is_not_stored() {
    check("status=500", false, 500, "status").await;
    check("status=500", true, 500, "status").await;
}

#[tokio::test]
async fn a_rate_limit_is_not_stored() {
    check("status=429", false, 429, "status").await;
}

/// Aharshi3614/Devwhisper#293: an error text was cached past the outage.
#[tokio::test]
async fn an_error_with_status_200_is_not_stored() {
    check("error", false, 200, "error").await;
    check("error", true, 200, "error").await;
}

/// HKUDS/LightRAG#3446: `finish_reason: length` was cached.
#[tokio::test]
async fn an_answer_that_ran_into_its_limit_is_not_stored() {
    check("length", false, 200, "length").await;
    check("length", true, 200, "length").await;
}

#[tokio::test]
async fn the_operator_may_allow_answers_that_ran_into_their_limit() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("allow_length = true")
        .start()
        .await;
    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = edge
            .client
            .fetch(Ask::chat("at length").mock("length"))
            .await;
        assert_eq!(answer.reflex(), status);
    }
}

#[tokio::test]
async fn a_refusal_is_not_stored() {
    check("refusal", false, 200, "refusal").await;
    check("refusal", true, 200, "refusal").await;
}

#[tokio::test]
async fn a_compressed_answer_is_not_stored() {
    check("gzip", false, 200, "content-encoding").await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_stored() {
    // The default limit is 16 MiB.
    check("large=17000000", false, 200, "too-large").await;
}

/// Reads to the end, which must not look like one.
async fn check_cut(mut answer: Streaming) {
    loop {
        match answer.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cut body ended as a whole one does"),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn an_answer_that_the_provider_cuts_is_cut_for_the_client_and_not_stored() {
    for ask in [Ask::stream("half of it"), Ask::chat("half of it")] {
        let upstream = Upstream::start().await;
        let edge = Edge::before(&upstream).await;
        for asked in 1..=2 {
            // Where the head comes together with the cut, there may be no response at all.
            if let Ok(answer) = edge.client.try_send(ask.clone().mock("cut")).await {
                if answer.status == 200 {
                    check_cut(answer).await;
                } else {
                    assert_eq!(answer.status, 502);
                }
            }
            edge.recorded(0, asked).await;
            assert_eq!(upstream.call_count(), asked as usize);
        }
        assert!(edge.metrics().await.sum("reflex_inserts", &[]) < 0.5);
    }
}

#[tokio::test]
async fn an_answer_that_the_client_leaves_is_not_stored() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = || Ask::stream("never mind").mock("gated");
    let mut stream = edge.client.send(ask()).await;
    upstream.release(1);
    stream.until("assistant").await;
    drop(stream);
    // The call of the provider ends as well: an answer without a reader is not paid for.
    upstream.abandoned(1).await;
    edge.recorded(0, 1).await;

    upstream.release_all();
    let answer = edge.client.fetch(ask()).await;
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(upstream.call_count(), 2);
}
