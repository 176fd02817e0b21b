//! The filter in the real, unmodified Envoy, with the real daemon behind it.

mod chain;
mod compression;
mod expect;
mod explained;
mod flow;
mod heads;
mod leaders;
mod memory;
mod not_stored;
mod passing;
mod reloads;
mod routes;
mod rules;
mod settings;
mod together;
mod trouble;
mod upgrades;

use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;

/// A provider, a daemon, and an Envoy of one worker that knows both.
async fn line() -> (Upstream, Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = patient(&upstream, &daemon).start().await;
    (upstream, daemon, envoy)
}

/// An Envoy that waits for its daemon: the machine may be busy with a build.
pub(crate) fn patient(upstream: &Upstream, daemon: &Edge) -> EnvoyPlan {
    EnvoyPlan::new(&upstream.url())
        .daemon(&daemon.socket())
        .plugin("lookup_timeout_ms", 10_000)
        .plugin("insert_timeout_ms", 10_000)
        .plugin("fill_wait_ms", 60_000)
        .edit(|config| {
            let clusters = config.pointer_mut("/static_resources/clusters");
            let clusters = clusters.and_then(|clusters| clusters.as_array_mut());
            for cluster in clusters.expect("clusters") {
                cluster["connect_timeout"] = "10s".into();
            }
        })
}

/// The same without a hot tier: every hit comes from the daemon.
async fn cold_line() -> (Upstream, Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let plan = patient(&upstream, &daemon).plugin("hot_bytes_max", 0);
    let envoy = plan.start().await;
    (upstream, daemon, envoy)
}

fn hits(metrics: &Metrics, tier: &str) -> f64 {
    metrics.sum("reflex_hits", &[("tier", tier)])
}

fn count(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(name, &[])
}

/// Waits until the daemon has stored so many answers that Envoy has sent it.
async fn stored(daemon: &Edge, answers: u32) {
    let put = [("method", "PUT"), ("code", "201")];
    daemon
        .until("answers of Envoy stored", |metrics| {
            metrics.sum("reflex_edge_requests_total", &put) >= f64::from(answers)
        })
        .await;
}

/// Waits until so many requests are in Envoy.
pub(crate) async fn under_way(envoy: &Envoy, requests: usize) {
    envoy
        .until("requests in Envoy", |metrics| {
            let name = "envoy_http_downstream_rq_active";
            let labels = [("envoy_http_conn_manager_prefix", "llm")];
            metrics.sum(name, &labels) >= requests as f64
        })
        .await;
}

/// A request over a connection of its own, because Envoy's workers share out connections.
pub(crate) async fn apart(envoy: &Envoy, ask: Ask) -> Answer {
    Client::new(&envoy.url).fetch(ask).await
}

pub(crate) fn check_miss(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    assert_eq!(answer.reflex(), "MISS");
    assert_eq!(answer.header("age"), "");
}

pub(crate) fn check_hit(answer: &Answer, first: &Answer) {
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
