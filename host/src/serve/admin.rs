//! For operators: `/health` and `/metrics`, on an address of their own.

use crate::cache::Cache;
use crate::serve::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;

#[derive(Clone)]
struct Admin {
    cache: Cache,
    metrics: Arc<Metrics>,
}

pub(crate) fn router(cache: Cache, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { cache, metrics })
}

/// Always 200: a daemon that has lost its disk still forwards, and must not be restarted for that.
/// The body has the details.
async fn health(State(admin): State<Admin>) -> impl IntoResponse {
    let stats = admin.cache.stats();
    let status = if stats.healthy { "green" } else { "yellow" };
    let body = format!(
        r#"{{"status":"{status}","entries":{},"disk_bytes":{}}}"#,
        stats.entries, stats.disk_bytes
    );
    (
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/json")],
        body,
    )
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        admin.metrics.text(&admin.cache),
    )
}
