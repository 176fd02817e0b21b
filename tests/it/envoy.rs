//! The filter in the real, unmodified Envoy, with the real daemon behind it.

mod flow;

use reflex_tests::client::Answer;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;

/// A provider, a daemon and an Envoy of one worker between them.
async fn line() -> (Upstream, Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = Envoy::before(&upstream, &daemon.socket()).await;
    (upstream, daemon, envoy)
}

fn check_miss(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(answer.header("age"), "");
}

fn check_hit(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.reflex(), "HIT_L1_EXACT");
    let cache_status = answer.header("cache-status");
    assert!(
        cache_status.starts_with("reflex; hit; ttl="),
        "{cache_status}"
    );
    for name in ["content-type", "openai-version"] {
        assert_eq!(answer.header(name), first.header(name), "{name}");
    }
    for name in [
        "x-request-id",
        "set-cookie",
        "x-ratelimit-remaining-requests",
    ] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert!(
        answer
            .header("age")
            .parse::<u64>()
            .is_ok_and(|age| age <= 60)
    );
    assert_eq!(answer.body, first.body);
}
