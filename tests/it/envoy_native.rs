//! The native module in the real, unmodified Envoy: the whole cache inside it, without a daemon.

mod disks;
mod endings;
mod flow;
mod folders;
mod leaders;
mod limits;
mod panics;
mod restarts;
mod routes;
mod settings;
mod together;

use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use std::path::Path;

/// A provider, and an Envoy of one worker with its cache in memory.
async fn line() -> (Upstream, Envoy) {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url()).start().await;
    (upstream, envoy)
}

/// An Envoy of one worker with its answers in this folder.
fn in_folder(upstream: &Upstream, data: &Path) -> EnvoyPlan {
    EnvoyPlan::native(&upstream.url()).plugin("data_dir", data.to_str())
}

/// Whether answers are in memory although there is a folder.
fn is_in_memory(metrics: &Metrics) -> bool {
    figure(metrics, "reflex_memory_only", &[]) > 0.0
}

/// Tells it to end. It does so properly, and not by a fault.
async fn ended(mut envoy: Envoy) {
    envoy.terminate();
    let code = envoy.ended().await;
    let log = envoy.log();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("a panic at"), "{log}");
}

/// One of the module's figures, as Envoy shows it.
fn figure(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics.sum(&format!("envoy_dynamicmodulescustom_{name}"), labels)
}

fn hits(metrics: &Metrics) -> f64 {
    figure(metrics, "reflex_hits", &[])
}

/// Waits until so many answers are stored.
async fn stored(envoy: &Envoy, answers: u32) {
    envoy
        .until("answers stored", |metrics| {
            figure(metrics, "reflex_inserts", &[]) >= f64::from(answers)
        })
        .await;
}

/// Waits until so many requests are in Envoy.
async fn under_way(envoy: &Envoy, requests: usize) {
    envoy
        .until("requests in Envoy", |metrics| {
            let name = "envoy_http_downstream_rq_active";
            let labels = [("envoy_http_conn_manager_prefix", "llm")];
            metrics.sum(name, &labels) >= requests as f64
        })
        .await;
}

/// A request over a connection of its own, because Envoy's workers share out connections.
async fn apart(envoy: &Envoy, ask: Ask) -> Answer {
    Client::new(&envoy.url).fetch(ask).await
}

fn check_miss(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(answer.header("age"), "");
}

/// Whatever the provider says to such a request.
fn check_bypass(answer: &Answer, reason: &str) {
    let why = format!(r#"reflex; fwd=bypass; detail="{reason}""#);
    assert_eq!(answer.header("cache-status"), why);
}

fn check_hit(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, 200);
    let cache_status = answer.header("cache-status");
    assert!(
        cache_status.starts_with("reflex; hit; ttl="),
        "{cache_status}"
    );
    assert_eq!(answer.reflex(), "HIT_L1_EXACT");
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
    let age = answer.header("age").parse::<u64>();
    assert!(age.is_ok_and(|age| age <= 60));
    assert_eq!(answer.body, first.body);
}
