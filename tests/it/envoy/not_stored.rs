//! Answers that Envoy's clients get once and never again: cut, refused or wrong ones.

use super::{cold_line, count, line};
use reflex_tests::client::Ask;

/// After this behaviour of the provider, the next equal request goes to the provider again.
#[tokio::test]
async fn what_is_not_good_is_not_stored() {
    let (upstream, _daemon, envoy) = line().await;
    let check = async |behaviour: &str, reason: &str| {
        for ask in [Ask::chat(behaviour), Ask::stream(behaviour)] {
            for _ in 0..2 {
                let calls = upstream.call_count();
                let sent = envoy.client.try_send(ask.clone().mock(behaviour)).await;
                if let Ok(mut answer) = sent {
                    while let Ok(Some(_)) = answer.chunk().await {}
                }
                assert_eq!(upstream.call_count(), calls + 1, "{behaviour}");
            }
        }
        envoy
            .until(&format!("{behaviour} is rejected"), |metrics| {
                metrics.sum("reflex_not_kept_total", &[("reason", reason)]) >= 4.0
            })
            .await;
    };
    check("status=500", "status").await;
    check("status=429", "status").await;
    check("length", "length").await;
    check("refusal", "refusal").await;
    check("cut", "cut").await;
    assert_eq!(count(&envoy.metrics().await, "reflex_inserts"), 0.0);
}

#[tokio::test]
async fn an_aborted_client_leaves_nothing() {
    let (upstream, _daemon, envoy) = cold_line().await;
    let ask = || Ask::stream("half").mock("gated");
    let mut left = envoy.client.send(ask()).await;
    upstream.release(2);
    left.until("assistant").await;
    drop(left);
    upstream.abandoned(1).await;
    envoy
        .until("the cut answer is rejected", |metrics| {
            metrics.sum("reflex_not_kept_total", &[("reason", "cut")]) == 1.0
        })
        .await;
    upstream.release_all();
    let again = envoy.client.fetch(ask()).await;
    assert_eq!(again.reflex(), "MISS");
    assert!(again.body.ends_with(b"data: [DONE]\n\n"));
}
