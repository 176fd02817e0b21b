//! The filter's own settings: what is refused at load, and what some of them do.

use super::{check_hit, check_miss, count};
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const UPSTREAM: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn a_bad_setting_is_refused_at_load_and_named() {
    let check = async |field: &str, value: Value, named: &str| {
        let plan = EnvoyPlan::new(UPSTREAM).plugin(field, value);
        let output = plan.validate().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{field}: {said}");
        assert!(said.contains("reflex: configuration: "), "{field}: {said}");
        assert!(said.contains(named), "{field}: {said}");
    };
    check("ttl_secons", json!(1), "unknown field `ttl_secons`").await;
    check("ttl_seconds", json!("1"), "ttl_seconds").await;
    check("hot_bytes_max", json!(1_u64 << 40), "hot_bytes_max").await;
    check("anonymous", json!("maybe"), "anonymous").await;
    check("upstreams", json!({}), "upstreams").await;
    check("tenant_header", json!("X-Team"), "tenant_header").await;
    let good = EnvoyPlan::new(UPSTREAM).plugin("ttl_seconds", 60);
    assert!(good.validate().await.status.success());
}

/// A cluster that Envoy does not have: dispatching a call fails at once.
#[tokio::test]
async fn a_daemon_cluster_that_is_not_there_costs_nothing() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("daemon_cluster", "no_such_cluster")
        .start()
        .await;
    let first = envoy.client.fetch(Ask::chat("alone")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(Ask::chat("alone")).await, &first);
    envoy
        .until("a lookup failed", |metrics| {
            count(metrics, "reflex_lookup_failures") >= 1.0
        })
        .await;
}

#[tokio::test]
async fn the_trusted_header_names_the_tenant_and_stays_here() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .daemon(&daemon.socket())
        .plugin("tenant_header", "x-team")
        .start()
        .await;
    let ask = |team: &str, key: &str| Ask::chat("of a team").key(Some(key)).header("x-team", team);
    let first = envoy.client.fetch(ask("red", "key-1")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(ask("red", "key-2")).await, &first);
    check_miss(&envoy.client.fetch(ask("blue", "key-1")).await);
    assert!(
        upstream
            .calls()
            .iter()
            .all(|call| call.header("x-team").is_empty())
    );
}

#[tokio::test]
async fn only_the_paths_that_are_named_are_looked_at() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("paths", json!(["/elsewhere/"]))
        .start()
        .await;
    let answer = envoy.client.fetch(Ask::chat("here")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("cache-status"),
        r#"reflex; fwd=bypass; detail="path""#
    );
}
