//! Answers that are renewed in the background, shortly before or after their end: served at once, asked
//! for once, and never to a client that wants a fresh one.

use http::Method;
use reflex_tests::PATIENCE;
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use std::time::Instant;

use crate::stale::expired;

/// Longer than a test takes.
const ON: &str = "stale_while_revalidate = \"1h\"";

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    let plan = Plan::new(&upstream.url()).edge_socket(true);
    plan.config(config).start().await
}

fn renewals(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("reflex_renewals_total", &[("outcome", outcome)])
}

async fn until_renewals(edge: &Edge, outcome: &str, count: f64) {
    let is_so = |metrics: &Metrics| renewals(metrics, outcome) >= count;
    edge.until(&format!("{count} {outcome}"), is_so).await;
}

#[track_caller]
fn check_overdue(answer: &Answer, kept: &Answer) {
    assert_eq!(
        (answer.status.as_u16(), answer.reflex()),
        (200, "HIT_STALE")
    );
    assert_eq!(answer.body, kept.body);
    let said = answer.header("cache-status");
    let ttl = said
        .strip_prefix("reflex; hit; ttl=")
        .and_then(|rest| rest.strip_suffix("; detail=renewing"));
    let ttl: Option<i64> = ttl.and_then(|ttl| ttl.parse().ok());
    assert!(ttl.is_some_and(|ttl| ttl <= 0), "{said}");
}

#[tokio::test]
async fn an_expired_answer_is_served_at_once_and_renewed_once() {
    for ask in [Ask::chat("what is new?"), Ask::stream("what is new?")] {
        let upstream = Upstream::start().await;
        let edge = edge_with(&upstream, ON).await;
        let ask = ask.header("x-hold", "1");
        upstream.release(1);
        let old = expired(&edge, &ask).await;
        // The provider has not answered yet: none of these waits for it.
        for _ in 0..4 {
            check_overdue(&edge.client.fetch(ask.clone()).await, &old);
        }
        upstream.called(2).await;
        upstream.release(1);
        until_renewals(&edge, "renewed", 1.0).await;
        let new = edge.client.fetch(ask).await;
        assert_eq!(new.reflex(), "HIT_L1_EXACT");
        assert_ne!(new.body, old.body);
        assert_eq!(upstream.call_count(), 2);
        let metrics = edge.metrics().await;
        let labels = [("status", "HIT_STALE"), ("detail", "renewing")];
        assert!((metrics.sum("reflex_requests_total", &labels) - 4.0).abs() < 0.5);
    }
}

#[tokio::test]
async fn an_answer_is_renewed_in_the_last_part_of_its_life() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "refresh_ahead = 0.9").await;
    let ask = Ask::chat("how much is left?").header("x-reflex-ttl", "5");
    let began = Instant::now();
    let old = loop {
        let answer = edge.client.fetch(ask.clone()).await;
        if answer.header("cache-status").ends_with("; detail=renewing") {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "it is not renewed");
    };
    assert_eq!((old.status.as_u16(), old.reflex()), (200, "HIT_L1_EXACT"));
    until_renewals(&edge, "renewed", 1.0).await;
    assert_ne!(edge.client.fetch(ask).await.body, old.body);
}

#[tokio::test]
async fn a_client_that_wants_a_fresh_answer_is_not_given_an_expired_one() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("fresh, please");
    for control in ["no-cache", "max-age=9999", "min-fresh=0", "no-store"] {
        let old = expired(&edge, &ask).await;
        let strict = ask.clone().header("cache-control", control);
        let answer = edge.client.fetch(strict).await;
        assert!(["MISS", "BYPASS"].contains(&answer.reflex()), "{control}");
        assert_ne!(answer.body, old.body, "{control}");
        let again = ask.clone().header("cache-control", "no-cache");
        edge.client.fetch(again.header("x-reflex-ttl", "0")).await;
        let everything = Ask::new(Method::DELETE, "/v1/entries", "").key(Some(&edge.token()));
        let purged = Unix::http1(&edge.socket()).fetch(everything).await;
        assert_eq!(purged.status, 204);
    }
    assert!(renewals(&edge.metrics().await, "renewed") < 0.5);
}

#[tokio::test]
async fn another_tenants_and_purged_answers_are_not_served() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, ON).await;
    let ask = Ask::chat("mine");
    let old = expired(&edge, &ask).await;
    let theirs = edge.client.fetch(ask.clone().key(Some("another"))).await;
    assert_eq!(theirs.reflex(), "MISS");
    assert_ne!(theirs.body, old.body);
    let everything = Ask::new(Method::DELETE, "/v1/entries", "").key(Some(&edge.token()));
    let purged = Unix::http1(&edge.socket()).fetch(everything).await;
    assert_eq!(purged.status, 204);
    let after = edge.client.fetch(ask).await;
    assert_eq!(after.reflex(), "MISS");
    assert_ne!(after.body, old.body);
}

/// What the provider forbids is not served.
#[tokio::test]
async fn a_provider_that_wants_to_be_asked_is_asked() {
    let upstream = Upstream::start().await;
    upstream.also_send(&[("cache-control", "max-age=1, must-revalidate")]);
    let edge = edge_with(&upstream, &format!("{ON}\nprovider_control = \"obey\"")).await;
    let ask = Ask::chat("may I?");
    let old = expired(&edge, &ask).await;
    let new = edge.client.fetch(ask).await;
    assert_eq!(new.reflex(), "MISS");
    assert_ne!(new.body, old.body);
}

#[tokio::test]
async fn a_renewal_that_fails_changes_nothing_and_is_not_tried_with_each_hit() {
    for behaviour in [
        Behaviour::Status(503),
        Behaviour::Status(429),
        Behaviour::Cut,
        Behaviour::Error,
        Behaviour::Length,
    ] {
        let upstream = Upstream::start().await;
        let edge = edge_with(&upstream, ON).await;
        let ask = Ask::chat("are you well?");
        let old = expired(&edge, &ask).await;
        upstream.behave(behaviour);
        check_overdue(&edge.client.fetch(ask.clone()).await, &old);
        until_renewals(&edge, "failed", 1.0).await;
        let (began, calls) = (Instant::now(), upstream.call_count());
        for _ in 0..20 {
            check_overdue(&edge.client.fetch(ask.clone()).await, &old);
        }
        // Ten seconds after a failure it may be tried again.
        let most = calls as u64 + began.elapsed().as_secs() / 10 + 1;
        assert!(upstream.call_count() as u64 <= most, "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_tenant_at_its_limit_is_served_and_renews_nothing() {
    let upstream = Upstream::start().await;
    let limit = "[[limit]]\nrequests_per_second = 0.0001\nburst = 1";
    let edge = edge_with(&upstream, &format!("{ON}\n{limit}")).await;
    let ask = Ask::chat("how often?");
    let old = expired(&edge, &ask).await;
    check_overdue(&edge.client.fetch(ask).await, &old);
    until_renewals(&edge, "skipped", 1.0).await;
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn rules_decide_by_path_and_model() {
    let upstream = Upstream::start().await;
    let rule = "[[renew]]\nmodel = \"mock\"\nstale_while_revalidate = \"0s\"";
    let edge = edge_with(&upstream, &format!("{ON}\n{rule}")).await;
    let ask = Ask::chat("by which rule?");
    let old = expired(&edge, &ask).await;
    let new = edge.client.fetch(ask.clone()).await;
    assert_eq!(new.reflex(), "MISS");
    // A reload decides anew.
    let rule = "[[renew]]\npath = \"/v1/chat/*\"\nstale_while_revalidate = \"1h\"";
    edge.reload(rule, "applied").await;
    let other = Ask::chat("by this one");
    let kept = expired(&edge, &other).await;
    check_overdue(&edge.client.fetch(other).await, &kept);
    assert_ne!(new.body, old.body);
}
