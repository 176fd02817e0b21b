//! For operators, on an address of their own: health, metrics, and the admin API, which
//! `docs/admin-api.md` describes.
//!
//! ```text
//! request ─► guard: host, origin, token, length ─► /health /ready /metrics
//!                                               └► /v1/…: stats, top, entries, purge, export, import
//! ```

mod audit;
mod export;
mod guard;
mod import;
mod line;
mod look;
pub(crate) mod peer;
pub(crate) mod purge;
mod query;
mod refusal;
mod route;
pub(crate) mod token;
mod top;

pub(crate) use audit::{By, note as note_change};
pub(crate) use refusal::Refusal;

use crate::cache::{Cache, Counted, Folder};
use crate::clock::Clock;
use crate::serve::config::Config;
use crate::serve::metrics::{Metrics, UpstreamHealth};
use crate::serve::stop::Stopped;
use crate::serve::tenants::Names;
use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router, middleware};
use guard::{Guard, guard};
use import::Importing;
use peer::Peer;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use token::AdminToken;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use top::Tallies;

/// Scans of all entries at once, exports included. Each has a thread, and reads the disk.
const SCANS_MAX: usize = 2;
/// One import keeps a disk busy.
const IMPORTS_MAX: usize = 1;

/// The description of the API, as it is served.
const OPENAPI: &str = include_str!("admin/openapi.json");

/// Reads the configuration again, all of it or nothing, and returns what changed, as JSON.
///
/// # Errors
///
/// Why nothing changed, for people.
pub(crate) type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// The state of the admin API.
pub(crate) struct Admin {
    cache: Cache,
    metrics: Arc<Metrics>,
    token: Arc<AdminToken>,
    /// What the daemon runs with; a reload changes it.
    running: Arc<ArcSwap<Config>>,
    clock: Clock,
    started: Instant,
    scans: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    importing: Arc<Importing>,
    tallies: Arc<Tallies>,
    reload: Reload,
    stopped: Stopped,
}

impl Admin {
    pub(crate) fn new(
        cache: Cache,
        metrics: Arc<Metrics>,
        token: Arc<AdminToken>,
        running: Arc<ArcSwap<Config>>,
        reload: Reload,
        stopped: Stopped,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            metrics,
            token,
            running,
            clock: Clock::system(),
            started: Instant::now(),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            imports: Arc::new(Semaphore::new(IMPORTS_MAX)),
            importing: Arc::default(),
            tallies: Arc::new(Tallies::new()),
            reload,
            stopped,
        })
    }

    fn is_draining(&self) -> bool {
        self.stopped.is_told()
    }

    fn config(&self) -> Arc<Config> {
        self.running.load_full()
    }

    fn names(&self) -> Names {
        Names::new(&self.config().group_names)
    }

    /// A place for a scan of all entries.
    fn scan_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.scans).try_acquire_owned();
        permit.map_err(|_| Refusal::busy("other requests read all entries"))
    }

    fn import_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.imports).try_acquire_owned();
        permit.map_err(|_| Refusal::busy("another import is under way"))
    }
}

/// Everything on the admin address, behind one guard.
pub(crate) fn router(admin: Arc<Admin>, page: Router, address: SocketAddr) -> Router {
    let behind = Guard {
        token: Arc::clone(&admin.token),
        is_loopback: address.ip().is_loopback(),
    };
    Router::new()
        .merge(api(admin))
        .merge(page)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::new(behind), guard))
}

/// A path of the API, its methods, and what answers them.
type Route = (
    &'static str,
    &'static [&'static str],
    MethodRouter<Arc<Admin>>,
);

fn routes() -> Vec<Route> {
    vec![
        ("/health", &["get"], get(health)),
        ("/ready", &["get"], get(ready)),
        ("/metrics", &["get"], get(metrics_text)),
        ("/v1/openapi.json", &["get"], get(openapi)),
        ("/v1/stats", &["get"], get(look::stats)),
        ("/v1/top", &["get"], get(top::top)),
        ("/v1/entries/{*key}", &["get"], get(look::entry)),
        ("/v1/export", &["get"], get(export::export)),
        ("/v1/purge", &["post"], post(purge::purge)),
        (guard::IMPORT, &["post"], post(import::import)),
        ("/v1/reload", &["post"], post(reload)),
    ]
}

fn api(admin: Arc<Admin>) -> Router {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, _, method)| {
            router.route(path, method.fallback(other_method))
        });
    router.with_state(admin)
}

async fn unknown() -> Refusal {
    let why = "there is no such path; /v1/openapi.json lists those of version 1";
    Refusal::new(StatusCode::NOT_FOUND, "path", why)
}

async fn other_method() -> Refusal {
    let why = "this path has another method; /v1/openapi.json lists them";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", why)
}

/// Always 200: a daemon that has lost its disk still forwards, and must not be restarted for that.
/// The body has the details.
async fn health(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let stats = admin.cache.stats();
    let status = if stats.healthy { "green" } else { "yellow" };
    let folder = admin.cache.folder();
    let state = match (admin.is_draining(), folder) {
        (true, _) => "stopping",
        (_, Folder::OfAnother) => "handover",
        (_, Folder::Reading { .. }) => "recovering",
        _ => "running",
    };
    let recovery = match folder {
        Folder::Reading { read, segments } => Some(Recovery {
            segments_read: read,
            segments,
        }),
        _ => None,
    };
    let lines = admin.importing.now();
    refusal::json(&Health {
        status,
        state,
        entries: stats.entries,
        disk_bytes: stats.disk_bytes,
        recovery,
        upstreams: admin.metrics.upstream_health(),
        import: lines.map(|lines_read| Running { lines_read }),
        #[cfg(feature = "fleet")]
        fleet: admin.metrics.fleet().map(|fleet| FleetHealth::of(fleet)),
    })
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    state: &'static str,
    entries: u64,
    disk_bytes: u64,
    upstreams: Vec<UpstreamHealth>,
    /// While the folder is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<Recovery>,
    /// While an import is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    import: Option<Running>,
    /// If the daemon takes part in one.
    #[cfg(feature = "fleet")]
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<FleetHealth>,
}

/// How the daemon's part in a fleet stands. Trouble with it is no client's, and changes no status.
#[cfg(feature = "fleet")]
#[derive(Serialize)]
struct FleetHealth {
    connected: bool,
    /// Whether lookups go on without it.
    open: bool,
    edges: u64,
    /// Since the last news of purges; none before the first.
    unheard_seconds: Option<u64>,
}

#[cfg(feature = "fleet")]
impl FleetHealth {
    fn of(fleet: &crate::fleet::Fleet) -> Self {
        let counts = fleet.counts();
        Self {
            connected: counts.is_connected,
            open: counts.is_open,
            edges: counts.edges,
            unheard_seconds: counts.unheard.map(|unheard| unheard.as_secs()),
        }
    }
}

#[derive(Serialize)]
struct Recovery {
    segments_read: u64,
    /// 0 until that is known.
    segments: u64,
}

#[derive(Serialize)]
struct Running {
    lines_read: u64,
}

/// 503 while the data folder is read at the start, or another daemon still has it, so that a rollout may wait for a warm cache. The daemon
/// answers meanwhile, and a folder that cannot be used does not keep it from being ready. 503 as well while
/// the daemon drains: it takes no new connections then.
async fn ready(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let reason = match (admin.is_draining(), admin.cache.folder()) {
        (true, _) => "the daemon is stopping",
        (_, Folder::OfAnother) => "another process still has the data folder",
        (_, Folder::Reading { .. }) => "the data folder is being read",
        _ => return json_text(StatusCode::OK, r#"{"ready":true}"#.into()),
    };
    let body = format!(r#"{{"ready":false,"reason":"{reason}"}}"#);
    json_text(StatusCode::SERVICE_UNAVAILABLE, body)
}

async fn openapi() -> impl IntoResponse {
    json_text(StatusCode::OK, OPENAPI.into())
}

fn json_text(status: StatusCode, body: String) -> impl IntoResponse {
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

async fn metrics_text(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        admin.metrics.text(&admin.cache),
    )
}

/// The configuration is read on a thread that may wait for the disk.
async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, Refusal> {
    let reload = Arc::clone(&admin.reload);
    let done = tokio::task::spawn_blocking(move || reload()).await;
    let done = done.map_err(Refusal::failed)?;
    let outcome = if done.is_ok() { "done" } else { "refused" };
    let counted = Counted::default();
    note_change(peer, By::Token, "reload", "configuration", counted, outcome);
    match done {
        Ok(changes) => Ok(json_text(StatusCode::OK, changes).into_response()),
        Err(error) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Refusal::new(status, "configuration", error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_has_each_route_and_no_other() {
        let described: Value = serde_json::from_str(OPENAPI).expect("JSON");
        assert_eq!(described["openapi"], "3.1.0");
        let paths = described["paths"].as_object().expect("paths");
        let of_description: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.map(move |method| (path.clone(), method.clone()))
            })
            .collect();
        let of_router: BTreeSet<(String, String)> = routes()
            .into_iter()
            .flat_map(|(path, methods, _)| {
                let path = path.replace("{*", "{");
                methods
                    .iter()
                    .map(move |method| (path.clone(), (*method).to_owned()))
            })
            .collect();
        assert_eq!(of_description, of_router);
    }
}
