//! The same request several times at once: all workers together ask the provider once.

use super::{apart, check_hit, check_miss, figure, hits, under_way};
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;
use tokio::task::JoinSet;

/// Past [`reflex_tests::PATIENCE`], so a test that waits for it fails.
const FOREVER_MS: u64 = 600_000;

async fn workers(upstream: &Upstream, workers: u32) -> Envoy {
    EnvoyPlan::native(&upstream.url())
        .workers(workers)
        .plugin("fill_wait_ms", FOREVER_MS)
        .start()
        .await
}

/// The same request so many times, each over a connection of its own.
fn at_once(envoy: &Envoy, ask: &Ask, count: usize) -> JoinSet<Answer> {
    let mut all = JoinSet::new();
    for _ in 0..count {
        let (client, ask) = (Client::new(&envoy.url), ask.clone());
        all.spawn(async move { client.fetch(ask).await });
    }
    all
}

/// envoyproxy/envoy#34595: a thundering herd on one cold key.
#[tokio::test]
async fn identical_misses_at_once_cause_one_call_over_all_workers() {
    const AT_ONCE: usize = 1000;
    for (count, ask) in [(1, Ask::chat("all")), (4, Ask::stream("all"))] {
        let upstream = Upstream::start().await;
        let envoy = workers(&upstream, count).await;
        let ask = ask.mock("gated");
        let mut all = at_once(&envoy, &ask, AT_ONCE);
        // All have come in before the first is answered: a request not held asks the provider.
        under_way(&envoy, AT_ONCE).await;
        upstream.release_all();
        let first = all.join_next().await.expect("one").expect("no panic");
        while let Some(answer) = all.join_next().await {
            let answer = answer.expect("no panic");
            assert_eq!(answer.status, 200);
            let status = answer.header("cache-status");
            assert_eq!(answer.body, first.body, "{status}");
        }
        assert_eq!(upstream.call_count(), 1, "{count} workers");
        envoy
            // A worker that reads a request after the answer was stored finds a hit.
            .until("the rest are collapsed into it, or hits", |metrics| {
                let collapsed = figure(metrics, "reflex_collapsed", &[]);
                collapsed > 0.0 && collapsed + hits(metrics) == AT_ONCE as f64 - 1.0
            })
            .await;
    }
}

/// When the answer is not kept, the followers ask for themselves.
#[tokio::test]
async fn a_follower_of_an_answer_that_is_not_kept_asks_again() {
    const AT_ONCE: usize = 50;
    let upstream = Upstream::start().await;
    let envoy = workers(&upstream, 2).await;
    let mut all = at_once(&envoy, &Ask::chat("refused").mock("refusal"), AT_ONCE);
    while let Some(answer) = all.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.reflex(), "MISS");
    }
    assert_eq!(upstream.call_count(), AT_ONCE);
}

#[tokio::test]
async fn what_one_worker_has_asked_is_a_hit_in_every_other() {
    let upstream = Upstream::start().await;
    let envoy = workers(&upstream, 4).await;
    let first = apart(&envoy, Ask::chat("once")).await;
    check_miss(&first);
    // Connections are shared out, so some of these are another worker's.
    for _ in 0..32 {
        check_hit(&apart(&envoy, Ask::chat("once")).await, &first);
    }
    assert_eq!(upstream.call_count(), 1);
    let refresh = Ask::chat("once").header("cache-control", "no-cache");
    let fresh = apart(&envoy, refresh).await;
    for _ in 0..32 {
        check_hit(&apart(&envoy, Ask::chat("once")).await, &fresh);
    }
}

/// A follower that has waited for as long as it may asks for itself.
#[tokio::test]
async fn followers_do_not_wait_for_ever() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .workers(2)
        .plugin("fill_wait_ms", 50)
        .start()
        .await;
    let mut all = at_once(&envoy, &Ask::chat("slow").mock("gated"), 8);
    upstream.called(8).await;
    upstream.release_all();
    while let Some(answer) = all.join_next().await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
}
