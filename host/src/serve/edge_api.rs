//! The cache over HTTP, for edges that cannot link it: the Envoy filter, and anything else that
//! speaks HTTP. What is offered stands in `docs/edge-api.md`.
//!
//! ```text
//! GET /v1/entries/TENANT/DIGEST ─► fills: wait? ─► cache.lookup ─► 200, or 404 and fills: lead?
//! PUT                           ─► recorder ─► cache.insert ─► fills: end
//! DELETE                        ─► epoch + 1 ─► cache.remove
//! ```

mod fields;
mod fills;
mod insert;
mod refusal;
pub(crate) mod socket;

use crate::answer::AnswerHead;
use crate::cache::{Cache, CacheKey, Entry, Lookup};
use crate::clock::Clock;
use crate::metrics::Metrics;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::HeaderMap;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use fields::{AGE, ENTRY, EPOCH, FILL, TTL, WAIT, fill_id, number, set};
use fills::{Fills, Lead, Waited};
use refusal::Refusal;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests of one HTTP/2 connection at once. An Envoy worker has one connection, and requests
/// that wait for a fill are among them.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 4096;

/// The longest that a lookup waits for somebody else's fill, whatever it asks.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the edge API works with.
pub(crate) struct EdgeApi {
    pub(crate) cache: Cache,
    pub(crate) namespace: String,
    /// Life of an entry that says nothing of its own.
    pub(crate) ttl: Duration,
    pub(crate) allow_length: bool,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    fills: Fills,
    epoch: Epoch,
}

impl EdgeApi {
    pub(crate) fn new(
        cache: Cache,
        namespace: String,
        ttl: Duration,
        allow_length: bool,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            cache,
            namespace,
            ttl,
            allow_length,
            clock: Clock::system(),
            metrics,
            fills: Fills::default(),
            epoch: Epoch::new(),
        })
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        // Methods are told apart by the handlers, so that every refusal has the same form.
        Router::new()
            .route("/v1/epoch", get(epoch))
            .route("/v1/entries", any(everything))
            .route("/v1/entries/{tenant}", any(of_tenant))
            .route("/v1/entries/{tenant}/{digest}", any(entry))
            .route("/v1/entries/{tenant}/{digest}/fill", any(fill))
            .fallback(async || {
                let why = "there is no such path; this is version 1: /v1/entries/TENANT/DIGEST";
                Refusal::new(StatusCode::NOT_FOUND, "path", why)
            })
            .layer(middleware::from_fn_with_state(Arc::clone(&self), counted))
            .with_state(self)
    }

    fn name(&self, tenant: &str, digest: &str) -> Result<Name, Refusal> {
        let (Some(tenant), Some(digest)) = (unhex(tenant), unhex(digest)) else {
            let why = "tenant and digest are 64 digits each, 0 to 9 and a to f";
            return Err(Refusal::bad("key", why));
        };
        Ok(Name {
            key: CacheKey::new(&self.namespace, &tenant, &digest),
            tenant,
        })
    }
}

/// An entry as a path names it.
struct Name {
    key: CacheKey,
    tenant: [u8; 32],
}

/// Counts purges. Those who keep answers of their own compare it, and let go what is older.
struct Epoch {
    /// Another one each time that the daemon starts: what was purged before, nobody remembers.
    start: u64,
    purges: AtomicU64,
}

impl Epoch {
    fn new() -> Self {
        Self {
            start: RandomState::new().hash_one(0),
            purges: AtomicU64::new(0),
        }
    }

    fn now(&self) -> String {
        format!("{:x}.{}", self.start, self.purges.load(Ordering::SeqCst))
    }

    fn advance(&self) {
        self.purges.fetch_add(1, Ordering::SeqCst);
    }
}

/// Every reply tells the epoch, and is counted. It is read before anything is looked up: a reply
/// that a purge overtakes then carries the epoch before it.
async fn counted(State(api): State<Arc<EdgeApi>>, request: Request, next: Next) -> Response {
    let epoch = api.epoch.now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let mut response = next.run(request).await;
    api.metrics.edge_request(method, response.status().as_u16());
    let headers = response.headers_mut();
    // A purge tells the epoch that it has begun.
    if !headers.contains_key(EPOCH) {
        set(headers, EPOCH, &epoch);
    }
    response
}

async fn epoch(State(api): State<Arc<EdgeApi>>) -> Response {
    Response::new(Body::from(api.epoch.now() + "\n"))
}

async fn entry(
    State(api): State<Arc<EdgeApi>>,
    Path((tenant, digest)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let name = api.name(&tenant, &digest)?;
    match *request.method() {
        Method::GET => look_up(&api, &name, &digest, request.headers()).await,
        Method::PUT => insert::insert(&api, &name, request).await,
        Method::DELETE => remove(&api, &name),
        _ => Err(Refusal::method("GET, PUT, DELETE")),
    }
}

async fn look_up(
    api: &EdgeApi,
    name: &Name,
    digest: &str,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let fill = fill_id(headers)?;
    let wait = number(headers, &WAIT)?.map(Duration::from_millis);
    let key = &name.key;

    let mut said = None;
    if let Some(wait) = wait {
        // What is there already is not waited for.
        match api.fills.wait(key, wait.min(WAIT_MAX)).await {
            Waited::NoFill => {}
            Waited::Ended => said = Some("collapsed"),
            Waited::StillRuns => said = Some("busy"),
        }
    }
    let now_ms = api.clock.now_ms();
    if let Lookup::Hit(entry) = api.cache.lookup(key, now_ms)
        && let Some(mut response) = replay(&entry, now_ms)
    {
        let headers = response.headers_mut();
        set(headers, ENTRY, digest);
        if said == Some("collapsed") {
            set(headers, FILL, "collapsed");
        }
        return Ok(response);
    }
    let mut response = Refusal::miss().into_response();
    let said = match fill {
        Some(fill) => match api.fills.lead(key, fill) {
            Lead::Yours => Some("leader"),
            Lead::Taken => Some("busy"),
            Lead::Nobody => None,
        },
        None => said.filter(|said| *said == "busy" && api.fills.runs(key)),
    };
    if let Some(said) = said {
        set(response.headers_mut(), FILL, said);
    }
    Ok(response)
}

/// The answer as it was stored; none if that is no answer, because a component has stored
/// something of its own under that key.
fn replay(entry: &Entry, now_ms: u64) -> Option<Response> {
    let head = AnswerHead::decode(entry.metadata())?;
    let mut response = Response::new(Body::from(entry.payload()));
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    *headers = head.headers;
    set(headers, AGE, &entry.age_seconds(now_ms).to_string());
    if let Some(ttl) = entry.ttl_seconds(now_ms) {
        set(headers, TTL, &ttl.to_string());
    }
    Some(response)
}

fn remove(api: &EdgeApi, name: &Name) -> Result<Response, Refusal> {
    // First the epoch: an insert that comes after the removal then sees it.
    api.epoch.advance();
    match api.cache.remove(&name.key) {
        true => Ok(purged(api)),
        false => Err(Refusal::miss()),
    }
}

async fn of_tenant(
    State(api): State<Arc<EdgeApi>>,
    Path(tenant): Path<String>,
    method: Method,
) -> Result<Response, Refusal> {
    let why = "a tenant is 64 digits, 0 to 9 and a to f";
    let tenant = unhex(&tenant).ok_or_else(|| Refusal::bad("key", why))?;
    purge(api, &method, move |cache| cache.purge_tenant(&tenant)).await
}

async fn everything(State(api): State<Arc<EdgeApi>>, method: Method) -> Result<Response, Refusal> {
    purge(api, &method, Cache::purge_all).await
}

async fn purge(
    api: Arc<EdgeApi>,
    method: &Method,
    what: impl FnOnce(&Cache) -> std::io::Result<()> + Send + 'static,
) -> Result<Response, Refusal> {
    if method != Method::DELETE {
        return Err(Refusal::method("DELETE"));
    }
    api.epoch.advance();
    let cache = api.cache.clone();
    let failed = |reason, why| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason, why);
    match tokio::task::spawn_blocking(move || what(&cache)).await {
        Ok(Ok(())) => Ok(purged(&api)),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a purge is not durable yet");
            let why = "purged, but not durable yet: the disk is in trouble";
            Err(failed("not-durable", why))
        }
        Err(error) => {
            tracing::warn!(%error, "a purge failed");
            Err(failed("purge", "it failed"))
        }
    }
}

/// Done, and from this epoch on.
fn purged(api: &EdgeApi) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set(response.headers_mut(), EPOCH, &api.epoch.now());
    response
}

async fn fill(
    State(api): State<Arc<EdgeApi>>,
    Path((tenant, digest)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    if method != Method::DELETE {
        return Err(Refusal::method("DELETE"));
    }
    let name = api.name(&tenant, &digest)?;
    let why = "x-reflex-fill-id says whose fill it is, and is missing";
    let fill = fill_id(&headers)?.ok_or_else(|| Refusal::bad("fill", why))?;
    match api.fills.end(&name.key, fill) {
        true => Ok(StatusCode::NO_CONTENT),
        false => {
            let why = "there is no such fill";
            Err(Refusal::new(StatusCode::NOT_FOUND, "fill", why))
        }
    }
}

/// 32 bytes from 64 digits in lower case: one spelling for each key.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
