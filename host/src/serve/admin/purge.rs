//! `POST /v1/purge`: by tenant, model, route, key, or everything.
//!
//! A purge of a tenant or of everything looks at no entry, and takes milliseconds. One by model or route
//! reads the metadata of each entry, on a thread of its own, and takes as long as that.

use super::Admin;
use super::audit::{self, By};
use super::peer::Peer;
use super::refusal::{Refusal, json};
use super::route::{self, Route};
use crate::cache::{Cache, CacheKey, Counted, EntryHead, Folder};
use crate::exchange::answer::StoredHead;
use crate::serve::tenants::{bytes32, short};
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use reflex_llm::is_like;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Upper bound of the wait for a purge that looks at no entry. Past it, the purge goes on, but the caller
/// does not wait for a disk that hangs.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Upper bound of a purge's wait for a folder that is being read, or that another daemon is about to give up.
/// Less than `WAIT_MAX`.
const FOLDER_WAIT_MAX: Duration = Duration::from_secs(20);

/// Upper bound of the wait for the other daemons of a fleet. One that listens follows within a second; the
/// others do when they listen again.
#[cfg(feature = "fleet")]
const FLEET_WAIT_MAX: Duration = Duration::from_secs(10);

/// The body of a request. Exactly one field says what to purge.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    tenant: Option<String>,
    model: Option<String>,
    route: Option<String>,
    key: Option<String>,
    all: Option<bool>,
    #[serde(default)]
    dry_run: bool,
    /// Whether to wait until the other daemons of the fleet have followed.
    #[serde(default)]
    wait: bool,
}

/// What to purge.
#[derive(Debug)]
enum Subject {
    All,
    Tenant([u8; 32]),
    /// A name in which `*` stands for any text.
    Model(String),
    Route(Route),
    /// The key, and the digest that it was made of, where that is known.
    Entry(CacheKey, Option<[u8; 32]>),
}

#[derive(Debug, Serialize)]
struct Done {
    dry_run: bool,
    entries: u64,
    bytes: u64,
    /// If the caller waits, and the daemon takes part in a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<Followed>,
}

/// Which daemons of the fleet have not followed yet.
#[derive(Debug, Serialize)]
#[cfg_attr(
    not(feature = "fleet"),
    allow(dead_code, reason = "only a fleet follows")
)]
struct Followed {
    behind: Vec<String>,
}

/// What was purged, and whether that is durable.
type Purged = (Counted, io::Result<()>);

pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Response, Refusal> {
    let most = super::guard::BODY_BYTES_MAX;
    let body = to_bytes(body, most as usize).await;
    let body = body.map_err(|_| Refusal::too_large(most))?;
    let ask: Ask = serde_json::from_slice(&body).map_err(|error| Refusal::bad("body", error))?;
    let (dry_run, waits) = (ask.dry_run, ask.wait);
    let (subject, named) = admin.subject(ask)?;
    let reads_all = subject.reads_all();
    let permit = match reads_all {
        true => Some(admin.scan_permit()?),
        false => None,
    };
    let (cache, tallies) = (admin.cache.clone(), Arc::clone(&admin.tallies));
    let now_ms = admin.clock.now_ms();
    // To its end, also when the caller is gone; then its audit line is the only word of it.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        if dry_run {
            return (subject.count(&cache, now_ms), Ok(()));
        }
        let (counted, durable) = subject.purge_with_folder(&cache, now_ms);
        tallies.forget();
        let outcome = match &durable {
            Ok(()) => "done",
            Err(_) => "not durable yet",
        };
        audit::note(peer, By::Token, "purge", &named, counted, outcome);
        (counted, durable)
    });
    let (counted, durable) = finished(work, reads_all).await?;
    if let Err(error) = durable {
        tracing::warn!(%error, "a purge is not durable yet");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(Refusal::new(status, "not-durable", error));
    }
    Ok(json(&Done {
        dry_run,
        entries: counted.entries,
        bytes: counted.bytes,
        fleet: match waits && !dry_run {
            true => admin.followed().await,
            false => None,
        },
    }))
}

/// A purge that reads all entries may take minutes, and its caller may leave. Another one takes long only when
/// the disk hangs.
async fn finished(work: JoinHandle<Purged>, reads_all: bool) -> Result<Purged, Refusal> {
    if reads_all {
        return work.await.map_err(Refusal::failed);
    }
    match tokio::time::timeout(WAIT_MAX, work).await {
        Ok(done) => done.map_err(Refusal::failed),
        Err(_) => {
            let why = "not done yet: the disk hangs; it is when the disk goes on";
            Err(Refusal::unavailable("purge", why))
        }
    }
}

impl Admin {
    /// Waits until the other daemons of the fleet have followed; none without a fleet.
    #[cfg(feature = "fleet")]
    async fn followed(&self) -> Option<Followed> {
        let fleet = self.metrics.fleet()?;
        let behind = fleet.acknowledged(FLEET_WAIT_MAX).await.err();
        Some(Followed {
            behind: behind.unwrap_or_default(),
        })
    }

    #[cfg(not(feature = "fleet"))]
    async fn followed(&self) -> Option<Followed> {
        None
    }

    /// What to purge, and how the audit log names it.
    fn subject(&self, ask: Ask) -> Result<(Subject, String), Refusal> {
        let why = "one of tenant, model, route, key and all says what to purge";
        let asked = match ask {
            Ask {
                tenant: Some(tenant),
                model: None,
                route: None,
                key: None,
                all: None,
                ..
            } => {
                let tenant = self.names().tenant(&tenant).ok_or_else(|| {
                    let why = "a tenant is 64 digits, as `reflex-edge tenant` prints, or the name \
                               of a group";
                    Refusal::bad("tenant", why)
                })?;
                let named = format!("tenant {}", self.names().of_tenant(&tenant));
                (Subject::Tenant(tenant), named)
            }
            Ask {
                tenant: None,
                model: Some(model),
                route: None,
                key: None,
                all: None,
                ..
            } if !model.is_empty() => {
                let named = format!("model {model}");
                (Subject::Model(model), named)
            }
            Ask {
                tenant: None,
                model: None,
                route: Some(route),
                key: None,
                all: None,
                ..
            } => {
                let known = Route::parse(&route).ok_or_else(|| {
                    let why = format!("a route is one of: {}", route::all());
                    Refusal::bad("route", why)
                })?;
                (Subject::Route(known), format!("route {route}"))
            }
            Ask {
                tenant: None,
                model: None,
                route: None,
                key: Some(key),
                all: None,
                ..
            } => {
                let (key, digest) = self.key(&key)?;
                let named = format!("key {}", short(key.as_bytes()));
                (Subject::Entry(key, digest), named)
            }
            Ask {
                tenant: None,
                model: None,
                route: None,
                key: None,
                all: Some(true),
                ..
            } => (Subject::All, "all".into()),
            _ => return Err(Refusal::bad("body", why)),
        };
        Ok(asked)
    }

    /// A key as operators write it: its 64 digits, or `TENANT/DIGEST` as edges do.
    pub(super) fn key(&self, text: &str) -> Result<(CacheKey, Option<[u8; 32]>), Refusal> {
        let parsed = match text.split_once('/') {
            None => bytes32(text).map(|key| (CacheKey::from_bytes(key), None)),
            Some((tenant, digest)) => {
                bytes32(tenant)
                    .zip(bytes32(digest))
                    .map(|(tenant, digest)| {
                        let key = CacheKey::new(&self.config().namespace, &tenant, &digest);
                        (key, Some(digest))
                    })
            }
        };
        let why = "a key is 64 digits, 0 to 9 and a to f, or TENANT/DIGEST";
        parsed.ok_or_else(|| Refusal::bad("key", why))
    }
}

impl Subject {
    /// Whether each entry has to be looked at.
    fn reads_all(&self) -> bool {
        matches!(self, Self::Model(_) | Self::Route(_))
    }

    /// How much would be purged. Changes nothing.
    fn count(&self, cache: &Cache, now_ms: u64) -> Counted {
        match self {
            Self::All => cache.count_of(None),
            Self::Tenant(tenant) => cache.count_of(Some(tenant)),
            Self::Entry(key, _) => match cache.peek(key, now_ms) {
                Some(entry) => Counted {
                    entries: 1,
                    bytes: entry.record_bytes(),
                },
                None => Counted::default(),
            },
            Self::Model(_) | Self::Route(_) => {
                let mut counted = Counted::default();
                cache.for_each_head(|head| {
                    if self.has(head) {
                        counted.entries += 1;
                        counted.bytes += head.record_bytes;
                    }
                    ControlFlow::Continue(())
                });
                counted
            }
        }
    }

    /// Purges now, and waits for a folder that comes soon: its entries are purged before any is found.
    fn purge_with_folder(&self, cache: &Cache, now_ms: u64) -> Purged {
        let is_expected = cache.folder() != Folder::Settled;
        if is_expected && self.reads_all() {
            // What is not there cannot be looked at.
            cache.wait_for_folder(FOLDER_WAIT_MAX);
        }
        let (counted, durable) = self.purge(cache, now_ms);
        let durable = match durable {
            Err(_) if is_expected && cache.wait_for_folder(FOLDER_WAIT_MAX) => cache.sync(),
            durable => durable,
        };
        match cache.has_left() {
            Some(error) => (counted, Err(error)),
            None => (counted, durable),
        }
    }

    fn purge(&self, cache: &Cache, now_ms: u64) -> Purged {
        match self {
            Self::All => cache.purge_all_counted(),
            Self::Tenant(tenant) => cache.purge_tenant_counted(tenant),
            Self::Entry(key, digest) => {
                let counted = self.count(cache, now_ms);
                let noted = cache.peek(key, now_ms).and_then(|entry| {
                    let head = StoredHead::read(entry.metadata())?;
                    head.digest.copied()
                });
                // Edges drop that one, and not all that they have.
                match digest.or(noted) {
                    Some(digest) => cache.remove_named(key, &digest),
                    None => cache.remove(key),
                };
                (counted, cache.sync())
            }
            Self::Model(_) | Self::Route(_) => match cache.purge_where(|head| self.has(head)) {
                Ok(counted) => (counted, Ok(())),
                Err(error) => (Counted::default(), Err(error)),
            },
        }
    }

    fn has(&self, head: &EntryHead<'_>) -> bool {
        let stored = StoredHead::read(head.metadata);
        match self {
            Self::Model(pattern) => stored
                .and_then(|stored| stored.model)
                .is_some_and(|model| is_like(pattern, model)),
            Self::Route(route) => Route::of(stored.as_ref()) == *route,
            Self::All | Self::Tenant(_) | Self::Entry(..) => false,
        }
    }
}

/// Purges a tenant or everything for an edge, with a line in the audit log. Waits for the disk.
pub(crate) fn for_edge(cache: &Cache, tenant: Option<&[u8; 32]>, peer: Peer) -> io::Result<()> {
    let (subject, named) = match tenant {
        Some(tenant) => (
            Subject::Tenant(*tenant),
            format!("tenant {}", short(tenant)),
        ),
        None => (Subject::All, "all".into()),
    };
    // Neither asks for the time.
    let (counted, durable) = subject.purge_with_folder(cache, 0);
    let outcome = match &durable {
        Ok(()) => "done",
        Err(_) => "not durable yet",
    };
    audit::note(peer, By::Token, "purge", &named, counted, outcome);
    durable
}
