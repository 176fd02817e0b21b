//! Another configuration in a running daemon, at SIGHUP or by a call: all of it or none.
//!
//! ```text
//! file, environment, flags ─► wanted ─► within what cannot change ─► proxy, edge API ─► swapped
//! ```
//!
//! Everything that a request reads of the configuration hangs on one `Proxy` or one `EdgeApi`. A
//! request takes the current one when it begins and keeps it to its end. A reload makes new ones, and
//! only when all of them are there puts them in place. What examining a request gave is known to the
//! L1 of one proxy, so none of it outlives the rules it was made under. Keys cover the namespace, the
//! tenant or its group, and the rules about what they leave out (`llm/src/request/prepared.rs`): two
//! configurations that disagree about them never find each other's answers.

use super::config::{Change, Config, ConfigError};
use super::edge_api::EdgeApi;
use super::proxy::Proxy;
use super::{Parts, proxy, upstream};
use arc_swap::ArcSwap;
use axum::Router;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Puts another configuration in place. A clone is the same.
#[derive(Clone)]
pub struct Reload(Arc<Shared>);

struct Shared {
    /// What the daemon runs with.
    running: Arc<ArcSwap<Config>>,
    live: Arc<Live>,
    parts: Parts,
    /// One reload at a time; the others wait.
    one: Arc<Semaphore>,
}

/// What requests take when they begin.
pub(crate) struct Live {
    /// None if the daemon serves only edges.
    pub(crate) proxy: Option<ArcSwap<Proxy>>,
    /// None if it serves no edges.
    pub(crate) edges: Option<ArcSwap<Edges>>,
}

/// The edge API, and the router that leads to it.
pub(crate) struct Edges {
    api: Arc<EdgeApi>,
    pub(crate) router: Router,
}

impl Edges {
    pub(crate) fn new(api: Arc<EdgeApi>) -> Self {
        Self {
            router: Arc::clone(&api).router(),
            api,
        }
    }
}

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Settings that have another value now.
    pub changed: Vec<Change>,
    /// Settings that have another value in the configuration, and keep the running one until the next
    /// start.
    pub needs_restart: Vec<Change>,
    /// What the operator should change in the file.
    pub warnings: Vec<ConfigError>,
}

impl fmt::Display for Report {
    /// One change a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed.is_empty() && self.needs_restart.is_empty() {
            return f.write_str("nothing has changed\n");
        }
        for change in &self.changed {
            writeln!(f, "applied: {change}")?;
        }
        for change in &self.needs_restart {
            writeln!(f, "not applied: {change}")?;
        }
        Ok(())
    }
}

impl Reload {
    pub(crate) fn new(running: Config, live: Arc<Live>, parts: Parts) -> Self {
        Self(Arc::new(Shared {
            running: Arc::new(ArcSwap::from_pointee(running)),
            live,
            parts,
            one: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The configuration that the daemon runs with, now and after each reload.
    pub(crate) fn running(&self) -> Arc<ArcSwap<Config>> {
        Arc::clone(&self.0.running)
    }

    /// Reads the configuration again and puts it in place for all requests that begin from now on. With
    /// an error, everything stays as it is. Counted in the metrics, and written to the log.
    ///
    /// # Errors
    ///
    /// All mistakes of the configuration; or it is valid, and what it asks for cannot be had.
    ///
    /// # Cancellation
    ///
    /// Dropping the future does not stop a reload that has begun.
    pub async fn apply(&self) -> Result<Report, Vec<ConfigError>> {
        let shared = Arc::clone(&self.0);
        // It is never closed.
        let permit = Arc::clone(&shared.one).acquire_owned().await.ok();
        let applied = tokio::task::spawn_blocking(move || {
            let applied = shared.apply();
            shared.tell(&applied);
            drop(permit);
            applied
        });
        let failed = |error| Err(vec![no_line(format!("the reload failed: {error}"))]);
        applied.await.unwrap_or_else(failed)
    }
}

impl Shared {
    fn apply(&self) -> Result<Report, Vec<ConfigError>> {
        let running = self.running.load_full();
        let wanted = running.read_again()?;
        let next = wanted.within(&running)?;
        let (needs_restart, changed): (Vec<_>, Vec<_>) = running
            .changes(&wanted)
            .into_iter()
            .partition(|change| change.needs_restart);
        let report = Report {
            needs_restart,
            changed,
            warnings: wanted.warnings,
        };
        if report.changed.is_empty() {
            return Ok(report);
        }
        let refused = |error| vec![no_line(error)];
        let Live { proxy, edges } = &*self.live;
        let next_proxy = proxy.as_ref().map(|old| {
            let old = old.load_full();
            self.proxy(&old, &running, &next).map_err(refused)
        });
        let next_proxy = next_proxy.transpose()?;
        // Nothing fails from here on.
        if let (Some(proxy), Some(next)) = (proxy, next_proxy) {
            // Requests that are under way may know it still, and it would count twice.
            proxy.swap(next).flow.forget();
        }
        if let Some(edges) = edges {
            let api = edges.load_full().api.again(&next);
            edges.store(Arc::new(Edges::new(api)));
        }
        self.parts.cache.keep_expired(next.cache.stale_seconds_max);
        if next.prices != running.prices {
            self.parts.metrics.price(next.prices.clone());
        }
        self.running.store(Arc::new(next));
        Ok(report)
    }

    /// The proxy of another configuration. Its connections to the provider stay, unless the
    /// configuration is about them.
    fn proxy(&self, old: &Proxy, running: &Config, next: &Config) -> Result<Arc<Proxy>, String> {
        let is_same = running.upstream == next.upstream
            && running.net == next.net
            && running.request_bytes_max == next.request_bytes_max;
        let client = match &next.upstream {
            Some(provider) if !is_same => {
                if let Some(listens) = self.parts.listens
                    && upstream::is_own(provider, listens)
                {
                    return Err(format!("upstream: {listens} is where this daemon listens"));
                }
                let (net, held) = (next.net.clone(), next.request_bytes_max);
                let client = old.upstream.again(provider.clone(), net, held);
                Arc::new(client.map_err(|error| format!("upstream: {error}"))?)
            }
            _ => Arc::clone(&old.upstream),
        };
        proxy(next, client, &self.parts)
    }

    fn tell(&self, applied: &Result<Report, Vec<ConfigError>>) {
        self.parts.metrics.reloaded(applied.is_ok());
        match applied {
            Ok(report) => {
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
                for line in report.to_string().lines() {
                    tracing::info!("reload: {line}");
                }
            }
            Err(errors) => {
                for error in errors {
                    tracing::error!("reload refused, nothing has changed: {error}");
                }
            }
        }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

fn no_line(message: String) -> ConfigError {
    ConfigError {
        file: String::new(),
        line: 0,
        setting: String::new(),
        message,
    }
}
