//! What is in the cache: counts, and one entry's metadata.

use super::Admin;
use super::query;
use super::refusal::{Refusal, json};
use super::route::Route;
use crate::exchange::answer::StoredHead;
use crate::serve::tenants;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Serialize)]
struct Stats {
    version: &'static str,
    uptime_seconds: u64,
    healthy: bool,
    trouble: Option<String>,
    entries: u64,
    payload_bytes: u64,
    disk_bytes: u64,
    disk_bytes_max: u64,
    dead_bytes: u64,
    queued_bytes: u64,
    segments: u64,
    inserts: u64,
    inserts_in_memory: u64,
    inserts_refused: u64,
    evictions: u64,
    lookups_given_up: u64,
    store_errors: u64,
    corrupt: u64,
    /// By `x-reflex-status`, since the start.
    requests: BTreeMap<String, u64>,
    /// By `input` and `output`, since the start.
    saved_tokens: BTreeMap<String, u64>,
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Response {
    let stats = admin.cache.stats();
    let metrics = admin.metrics.text(&admin.cache);
    json(&Stats {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: admin.started.elapsed().as_secs(),
        healthy: stats.healthy,
        trouble: stats.trouble,
        entries: stats.entries,
        payload_bytes: stats.payload_bytes,
        disk_bytes: stats.disk_bytes,
        disk_bytes_max: admin.config().cache.disk_bytes_max,
        dead_bytes: stats.dead_bytes,
        queued_bytes: stats.queued_bytes,
        segments: stats.segments,
        inserts: stats.inserts,
        inserts_in_memory: stats.inserts_in_memory,
        inserts_refused: stats.inserts_refused,
        evictions: stats.evictions,
        lookups_given_up: stats.lookups_given_up,
        store_errors: stats.store_errors,
        corrupt: stats.corrupt,
        requests: by_label(&metrics, "reflex_requests_total", "status"),
        saved_tokens: by_label(&metrics, "reflex_saved_tokens_total", "kind"),
    })
}

/// The sums of a counter by one of its labels. All values of these labels are words of ours.
fn by_label(metrics: &str, name: &str, label: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let samples = metrics.lines().filter_map(|line| {
        let labels = line.strip_prefix(name)?.strip_prefix('{')?;
        let (labels, value) = labels.rsplit_once("} ")?;
        let (_, rest) = labels.split_once(&format!("{label}=\""))?;
        let (value_of_label, _) = rest.split_once('"')?;
        Some((value_of_label.to_owned(), value.parse::<u64>().ok()?))
    });
    for (label, value) in samples {
        *sums.entry(label).or_default() += value;
    }
    sums
}

#[derive(Serialize)]
struct Inspected {
    key: String,
    tenant: String,
    /// The group's name, or the beginning of the tenant's hash.
    tenant_name: String,
    digest: Option<String>,
    model: Option<String>,
    route: &'static str,
    shape: Option<String>,
    status: Option<u16>,
    content_type: Option<String>,
    payload_bytes: u64,
    record_bytes: u64,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    stored_at_ms: u64,
    age_seconds: u64,
    expires_at_ms: Option<u64>,
    expired: bool,
    /// From when on it is not served stale either.
    ends_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

pub(super) async fn entry(
    State(admin): State<Arc<Admin>>,
    Path(key): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let mut with_payload = false;
    query::read(&uri, |name, value| {
        with_payload = query::flag(name == "payload", value)?;
        Some(())
    })?;
    let (key, _) = admin.key(&key)?;
    if with_payload {
        admin.token.admit(&headers).await?;
    }
    let now_ms = admin.clock.now_ms();
    let cache = admin.cache.clone();
    let looked = tokio::task::spawn_blocking(move || cache.peek(&key, now_ms));
    let found = looked.await.map_err(Refusal::failed)?;
    let entry = found.ok_or_else(|| {
        let why = "there is no such entry";
        Refusal::new(StatusCode::NOT_FOUND, "miss", why)
    })?;
    let stored = StoredHead::read(entry.metadata());
    let stored = stored.as_ref();
    let shape = stored.and_then(StoredHead::shape);
    let answer_headers = stored.and_then(StoredHead::headers);
    let content_type = answer_headers.and_then(|headers| {
        let value = headers.get(CONTENT_TYPE)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let usage = stored.and_then(|stored| stored.usage);
    let tenant = entry.tenant();
    let hex = |bytes: &[u8; 32]| tenants::text(&reflex_llm::Tenant(*bytes));
    Ok(json(&Inspected {
        key: hex(key.as_bytes()),
        tenant: hex(&tenant),
        tenant_name: admin.names().of_tenant(&tenant),
        digest: stored.and_then(|stored| stored.digest).map(hex),
        model: stored.and_then(|stored| Some(stored.model?.to_owned())),
        route: Route::of(stored).name(),
        shape: shape.map(|shape| shape.token().into_owned()),
        status: stored.map(|stored| stored.status.as_u16()),
        content_type,
        payload_bytes: entry.payload_bytes(),
        record_bytes: entry.record_bytes(),
        input_tokens: usage.as_ref().map(|usage| usage.input_tokens),
        output_tokens: usage.as_ref().map(|usage| usage.output_tokens),
        stored_at_ms: entry.stored_at_ms(),
        age_seconds: entry.age_seconds(now_ms),
        expires_at_ms: entry.expires_at_ms(),
        expired: entry.is_expired(now_ms),
        ends_at_ms: stored.and_then(|stored| stored.ends_at_ms),
        payload_base64: with_payload.then(|| STANDARD.encode(entry.payload())),
    }))
}
