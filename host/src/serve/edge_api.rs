//! The cache over HTTP, for edges that cannot link it: the Envoy filter, and anything else that
//! speaks HTTP. `docs/edge-api.md` describes it.
//!
//! ```text
//! GET /v1/entries/TENANT/DIGEST ─► fills: wait? ─► cache.lookup ─► 200, or 404 and fills: lead?
//! PUT                           ─► recorder ─► cache.insert ─► fills: end
//! DELETE                        ─► epoch + 1 ─► cache.remove
//! ```

mod fields;
mod insert;
mod refusal;
pub(crate) mod socket;

use super::place::StreamLimits;
use crate::cache::{Cache, CacheKey, Counted, Entry, Gone, Mark, Purges};
use crate::clock::Clock;
use crate::exchange::answer::StoredHead;
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::{Claim, Fills, Waited};
use crate::exchange::observer::RecordingObserver as _;
use crate::serve::admin::peer::Peer;
use crate::serve::admin::token::AdminToken;
use crate::serve::admin::{self, By};
use crate::serve::config::Config;
use crate::serve::metrics::Metrics;
use crate::serve::recent::Subject;
use crate::serve::tenants::{bytes32, short};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HeaderMap;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use fields::{
    AGE, ENTRY, EPOCH, FILL, PURGED, PURGED_SINCE, SAVED, TTL, WAIT, fill_id, hex, number, set,
};
use http_body_util::BodyExt as _;
use refusal::Refusal;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinError;

/// Requests of one HTTP/2 connection at once. An Envoy worker has one connection, and requests
/// that wait for a fill are among them.
const STREAMS_PER_CONNECTION_MAX: u16 = 4096;

/// For one edge's connection. After this process has slept, it finds all requests that the edge has
/// sent and reset meanwhile: that is no attack.
pub(crate) const STREAMS: StreamLimits = StreamLimits {
    max: STREAMS_PER_CONNECTION_MAX as u32,
    reset_max: STREAMS_PER_CONNECTION_MAX as usize,
};

/// Parts into which a path is split: one more than the longest path has.
const PATH_PARTS_MAX: usize = 7;

/// Bytes read of a refused body, so that its sender gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Upper bound of a lookup's wait for another request's fill.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Upper bound of the wait for a purge. The purge goes on, but a disk that hangs may never answer.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Bound of the purges and replacements that a reply tells one by one. An edge that has missed more
/// purges drops everything; of more replacements it learns with the next reply.
const PURGES_TOLD_MAX: usize = 64;

/// The state of the edge API.
pub(crate) struct EdgeApi {
    pub(crate) cache: Cache,
    pub(crate) namespace: String,
    /// Life of an entry without one of its own.
    pub(crate) ttl: Duration,
    pub(crate) allow_length: bool,
    /// Longest pause within a body.
    pub(crate) idle_max: Duration,
    /// The longest that an edge may take to send a body.
    pub(crate) request_max: Duration,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Shared with the reverse proxy.
    fills: Arc<Fills>,
    /// The memory budget of all requests.
    budget: Arc<Budget>,
    epoch: Epoch,
    /// For purges of a tenant and of everything.
    token: Arc<AdminToken>,
}

impl EdgeApi {
    pub(crate) fn new(
        cache: Cache,
        fills: Arc<Fills>,
        budget: Arc<Budget>,
        config: &Config,
        metrics: Arc<Metrics>,
        token: Arc<AdminToken>,
    ) -> Arc<Self> {
        Arc::new(Self {
            epoch: Epoch::new(&cache),
            cache,
            namespace: config.namespace.clone(),
            ttl: config.ttl,
            allow_length: config.allow_length,
            idle_max: config.net.idle_max,
            request_max: config.net.request_max,
            clock: Clock::system(),
            fills,
            budget,
            metrics,
            token,
        })
    }

    /// The same with another configuration. Edges drop their copies if it has another namespace: those
    /// are of the earlier one.
    pub(crate) fn again(&self, config: &Config) -> Arc<Self> {
        let cache = self.cache.clone();
        let (fills, budget) = (Arc::clone(&self.fills), Arc::clone(&self.budget));
        let (metrics, token) = (Arc::clone(&self.metrics), Arc::clone(&self.token));
        let mut again = Self::new(cache, fills, budget, config, metrics, token);
        // No other has it yet.
        if let Some(again) = Arc::get_mut(&mut again)
            && again.namespace == self.namespace
        {
            again.epoch.start = self.epoch.start;
        }
        again
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .fallback(answer)
            .layer(middleware::from_fn_with_state(Arc::clone(&self), counted))
            .with_state(self)
    }

    fn name(&self, tenant: &str, digest: &str) -> Result<Name, Refusal> {
        let (Some(tenant), Some(digest)) = (bytes32(tenant), bytes32(digest)) else {
            let why = "tenant and digest are 64 digits each, 0 to 9 and a to f";
            return Err(Refusal::bad("key", why));
        };
        Ok(Name {
            key: CacheKey::new(&self.namespace, &tenant, &digest),
            tenant,
            digest,
        })
    }

    /// The answer, if it is stored, and the epoch that it has at least survived.
    async fn find(&self, name: &Name, digest: &str) -> (String, Option<Response>) {
        // It is read before anything is looked up: a reply that a purge overtakes then tells the
        // epoch before it.
        let epoch = self.epoch.now();
        let now_ms = self.clock.now_ms();
        let found = self.cache.lookup_async(&name.key, now_ms).await.hit();
        (
            epoch,
            found.and_then(|entry| self.found(name, digest, &entry)),
        )
    }

    /// The same of the fleet, after this cache had nothing.
    async fn fetch(&self, name: &Name, digest: &str) -> (String, Option<Response>) {
        let epoch = self.epoch.now();
        let found = self.cache.fetch(&name.key, &name.tenant, None).await;
        (
            epoch,
            found.and_then(|entry| self.found(name, digest, &entry)),
        )
    }

    fn found(&self, name: &Name, digest: &str, entry: &Entry) -> Option<Response> {
        let mut response = self.replay(name, entry, self.clock.now_ms())?;
        set(response.headers_mut(), ENTRY, digest);
        Some(response)
    }
}

impl EdgeApi {
    /// The answer as it was stored; none if a component has stored something else under that key.
    fn replay(&self, name: &Name, entry: &Entry, now_ms: u64) -> Option<Response> {
        let head = StoredHead::read(entry.metadata())?;
        let mut response = Response::new(Body::from(entry.payload()));
        *response.status_mut() = head.status;
        let headers = response.headers_mut();
        *headers = head.headers()?;
        set(headers, AGE, &entry.age_seconds(now_ms).to_string());
        if let Some(ttl) = entry.ttl_seconds(now_ms) {
            set(headers, TTL, &ttl.to_string());
        }
        self.metrics.recent().hit(&Subject {
            model: head.model,
            ..name.subject()
        });
        if let Some(usage) = &head.usage {
            self.metrics.saved(usage, head.model);
            set(headers, SAVED, &usage.total_tokens.to_string());
        }
        Some(response)
    }
}

/// An entry as a path names it.
#[derive(Clone, Copy)]
struct Name {
    key: CacheKey,
    tenant: [u8; 32],
    digest: [u8; 32],
}

impl Name {
    /// An edge names neither route nor model when it looks up.
    fn subject(&self) -> Subject<'_> {
        Subject {
            model: None,
            route: Some(EDGES),
            tenant: Some(&self.tenant),
        }
    }
}

/// The route of lookups of edges, in lists of routes.
const EDGES: &str = "(edges)";

/// Counts the beginnings and the ends of purges, and replacements. Edges that keep copies compare it,
/// and drop what is gone since the epoch that they know, or everything if they are not told what
/// that was.
///
/// For inserts the beginning of a purge counts: answers fetched before it are refused. For copies
/// the end counts: until then a lookup may find what is about to be purged.
struct Epoch {
    /// Another one for each start of the daemon: earlier purges are not remembered.
    start: u64,
    purges: Arc<Purges>,
}

impl Epoch {
    fn new(cache: &Cache) -> Self {
        Self {
            start: RandomState::new().hash_one(0),
            purges: Arc::clone(cache.purges()),
        }
    }

    fn now(&self) -> String {
        self.of(self.purges.count())
    }

    fn of(&self, count: u64) -> String {
        format!("{:x}.{count}", self.start)
    }

    /// The mark of an epoch of this daemon, if it is spelled exactly as sent.
    fn mark(&self, epoch: &str) -> Option<Mark> {
        let (_, count) = epoch.split_once('.')?;
        let count = count.parse().ok()?;
        (epoch == self.of(count)).then(|| Mark::at(count))
    }

    /// What is gone since an epoch, one by one, and the epoch that covers just that, if that is not
    /// the newest; `None` if an edge with that epoch has to drop everything.
    fn told_since(&self, epoch: &str) -> Option<(String, Option<Mark>)> {
        let told = self.purges.gone_since(self.mark(epoch)?, PURGES_TOLD_MAX)?;
        let one = |gone: &Gone| match gone {
            Gone::Tenant(tenant) => format!("tenant={}", hex(tenant)),
            Gone::Digest(digest) => format!("digest={}", hex(digest)),
        };
        let gone: Vec<_> = told.gone.iter().map(one).collect();
        Some((gone.join(", "), told.up_to))
    }
}

/// Every reply tells the epoch, and is counted.
async fn counted(State(api): State<Arc<EdgeApi>>, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let known = request.headers().get(EPOCH).cloned();
    let mut response = next.run(request).await;
    api.metrics.edge_request(method, response.status().as_u16());
    let headers = response.headers_mut();
    // A lookup tells the epoch of its look; no other reply brings anything that it could be too
    // new for.
    if !headers.contains_key(EPOCH) {
        set(headers, EPOCH, &api.epoch.now());
    }
    if let Some(known) = known.filter(|known| headers.get(EPOCH) != Some(known))
        && let Ok(since) = known.to_str()
        && let Some((purged, up_to)) = api.epoch.told_since(since)
    {
        let tells = headers.get(EPOCH).and_then(|epoch| epoch.to_str().ok());
        let tells = tells.and_then(|epoch| api.epoch.mark(epoch));
        if let Some(up_to) = up_to.filter(|up_to| tells.is_none_or(|tells| tells > *up_to)) {
            set(headers, EPOCH, &api.epoch.of(up_to.count()));
        }
        set(headers, PURGED_SINCE, since);
        set(headers, PURGED, &purged);
    }
    response
}

async fn answer(State(api): State<Arc<EdgeApi>>, request: Request) -> Result<Response, Refusal> {
    let (head, mut body) = request.into_parts();
    let answered = route(api, &head, &mut body).await;
    // A client that is refused while it still sends must be able to finish, or its system drops our
    // reply when we close. HTTP/2 does not need this.
    if answered.is_err() && head.version != Version::HTTP_2 {
        let _ = tokio::time::timeout(DISCARD_TIME_MAX, discard(&mut body)).await;
    }
    answered
}

async fn discard(body: &mut Body) {
    let mut left = DISCARD_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, |part| part.len());
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Paths are compared as sent, so that each resource has one path. Methods are compared after the
/// path, so that every refusal has the same form.
async fn route(api: Arc<EdgeApi>, head: &Parts, body: &mut Body) -> Result<Response, Refusal> {
    let method = &head.method;
    let parts: Vec<&str> = head.uri.path().splitn(PATH_PARTS_MAX, '/').collect();
    match parts[..] {
        ["", "v1", "epoch"] => epoch(&api, method),
        ["", "v1", "entries"] => purge(api, head, None).await,
        ["", "v1", "entries", tenant] => {
            let why = "a tenant is 64 digits, 0 to 9 and a to f";
            let tenant = bytes32(tenant).ok_or_else(|| Refusal::bad("key", why))?;
            purge(api, head, Some(tenant)).await
        }
        ["", "v1", "entries", tenant, digest] => {
            let name = api.name(tenant, digest)?;
            match *method {
                Method::GET => look_up(&api, &name, digest, &head.headers).await,
                Method::PUT => insert::insert(&api, name, &head.headers, body).await,
                Method::DELETE => remove(api, name, peer(head)).await,
                _ => Err(Refusal::method("GET, PUT, DELETE")),
            }
        }
        ["", "v1", "entries", tenant, digest, "fill"] => {
            let name = api.name(tenant, digest)?;
            release(&api, &name, method, &head.headers)
        }
        _ => {
            let why = "no such path; this is version 1: /v1/entries/TENANT/DIGEST";
            Err(Refusal::new(StatusCode::NOT_FOUND, "path", why))
        }
    }
}

fn epoch(api: &EdgeApi, method: &Method) -> Result<Response, Refusal> {
    if method != Method::GET {
        return Err(Refusal::method("GET"));
    }
    let epoch = api.epoch.now();
    let mut response = Response::new(Body::from(format!("{epoch}\n")));
    set(response.headers_mut(), EPOCH, &epoch);
    Ok(response)
}

async fn look_up(
    api: &EdgeApi,
    name: &Name,
    digest: &str,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let began = Instant::now();
    let fill = fill_id(headers)?;
    let wait = number(headers, &WAIT)?.map(Duration::from_millis);
    let key = &name.key;

    // Look before waiting.
    let (mut epoch, mut found) = api.find(name, digest).await;
    let mut said = None;
    if found.is_none()
        && let Some(wait) = wait
    {
        match api.fills.wait(key, wait.min(WAIT_MAX)).await {
            Waited::NoFill => {}
            Waited::Ended => said = Some("collapsed"),
            Waited::StillRuns => said = Some("busy"),
        }
        (epoch, found) = api.find(name, digest).await;
    }
    if found.is_none()
        && let Some(fill) = fill
    {
        said = match api.fills.claim(key, &name.tenant, fill) {
            Claim::Yours => Some("leader"),
            Claim::Taken => Some("busy"),
            Claim::NotLed => None,
        };
        if said == Some("leader") {
            // A fill may have ended well since the look. It is not begun again.
            (epoch, found) = api.find(name, digest).await;
        }
    }
    // An edge that another one keeps waiting finds here what that one fetches.
    if found.is_none() && said != Some("busy") {
        (epoch, found) = api.fetch(name, digest).await;
    }
    api.metrics.edge_lookup(found.is_some(), began.elapsed());
    if found.is_none() {
        api.metrics.recent().asked(&name.subject());
    }
    let mut response = match found {
        Some(response) => {
            if let Some(fill) = fill {
                // The answer is here, so nothing is left to lead.
                api.fills.end_claim(key, fill);
            }
            said = said.filter(|said| *said == "collapsed");
            response
        }
        None => {
            let still = |said: &&str| match *said {
                "busy" => fill.is_some() || api.fills.runs(key),
                said => said == "leader",
            };
            said = said.filter(still);
            Refusal::miss().into_response()
        }
    };
    let headers = response.headers_mut();
    set(headers, EPOCH, &epoch);
    if let Some(said) = said {
        set(headers, FILL, said);
    }
    Ok(response)
}

/// Of the connection; none in tests without one.
fn peer(head: &Parts) -> Peer {
    let peer = head.extensions.get::<Peer>();
    peer.copied().unwrap_or(Peer::Unknown)
}

/// An edge that may replace an entry may remove it, too: that takes no token.
async fn remove(api: Arc<EdgeApi>, name: Name, peer: Peer) -> Result<Response, Refusal> {
    let removal = tokio::task::spawn_blocking(move || {
        let was_there = api.cache.remove_named(&name.key, &name.digest);
        let removed = Counted {
            entries: was_there.into(),
            bytes: 0,
        };
        let named = format!("key {}", short(name.key.as_bytes()));
        admin::note_change(peer, By::Socket, "remove", &named, removed, "done");
        was_there
    });
    match removal.await {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(false) => Err(Refusal::miss()),
        Err(error) => Err(failed(&error)),
    }
}

/// A purge is an operator's: an edge may connect, and may not purge without the admin token.
async fn purge(
    api: Arc<EdgeApi>,
    head: &Parts,
    tenant: Option<[u8; 32]>,
) -> Result<Response, Refusal> {
    if head.method != Method::DELETE {
        return Err(Refusal::method("DELETE"));
    }
    api.token.admit(&head.headers).await.map_err(|refused| {
        let (status, reason, why) = refused.into_parts();
        Refusal::new(status, reason, why)
    })?;
    let peer = peer(head);
    // To its end, also when the client is gone.
    let purge = tokio::task::spawn_blocking(move || {
        admin::purge::for_edge(&api.cache, tenant.as_ref(), peer)
    });
    let refusal = |reason, why| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason, why);
    match tokio::time::timeout(PURGE_WAIT_MAX, purge).await {
        Ok(Ok(Ok(()))) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "a purge is not durable yet");
            let why = match error.kind() {
                io::ErrorKind::NotConnected => {
                    "not purged: another daemon has the data folder by now"
                }
                _ => "purged, but not durable yet: the disk is in trouble",
            };
            Err(refusal("not-durable", why))
        }
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => {
            tracing::warn!("a purge waits for the disk, which hangs");
            let why = "not purged yet: the disk hangs; it is when the disk goes on";
            Err(refusal("purge", why))
        }
    }
}

fn failed(error: &JoinError) -> Refusal {
    tracing::warn!(%error, "a purge failed");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "purge", "it failed")
}

fn release(
    api: &EdgeApi,
    name: &Name,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    if method != Method::DELETE {
        return Err(Refusal::method("DELETE"));
    }
    let why = "x-reflex-fill-id says whose fill it is, and is missing";
    let fill = fill_id(headers)?.ok_or_else(|| Refusal::bad("fill", why))?;
    match api.fills.give_back(&name.key, fill) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => {
            let why = "no such fill";
            Err(Refusal::new(StatusCode::NOT_FOUND, "fill", why))
        }
    }
}

#[cfg(test)]
mod tests;
