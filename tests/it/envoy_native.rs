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

use crate::envoy::{apart, check_hit, check_miss, under_way};
use reflex_tests::client::Answer;
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

/// Whatever the provider says to such a request.
fn check_bypass(answer: &Answer, reason: &str) {
    let why = format!(r#"reflex; fwd=bypass; detail="{reason}""#);
    assert_eq!(answer.header("cache-status"), why);
}
