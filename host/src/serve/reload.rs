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
use super::tls::watch::{LOOK_EVERY, Watch};
use super::tls::{Digest, Listeners, Loaded, Side, Tls};
use super::upstream::{self, ProviderTls, Providers};
use super::{Parts, encryption, proxy};
use crate::sync::lock;
use arc_swap::ArcSwap;
use axum::Router;
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Puts another configuration in place. A clone is the same.
#[derive(Clone)]
pub struct Reload(Arc<Shared>);

struct Shared {
    /// What the daemon runs with.
    running: Arc<ArcSwap<Config>>,
    live: Arc<Live>,
    parts: Parts,
    tls: Listeners,
    keys: encryption::Keys,
    /// What is known of the files of each listener.
    watches: Mutex<[Watch; 2]>,
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
    pub(crate) fn new(running: Config, live: Arc<Live>, parts: Parts, tls: Listeners) -> Self {
        let keys = encryption::Keys::new(running.cache.encryption_keys.clone());
        Self(Arc::new(Shared {
            keys,
            running: Arc::new(ArcSwap::from_pointee(running)),
            live,
            parts,
            tls,
            watches: Mutex::default(),
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
        let failed = |error| {
            Err(vec![ConfigError::of_no_file(
                "",
                &format!("the reload failed: {error}"),
            )])
        };
        applied.await.unwrap_or_else(failed)
    }

    /// Looks at the files of certificates again and again, and uses those that have changed. Never
    /// resolves.
    pub(crate) async fn keep_certificates(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let shared = Arc::clone(&self.0);
            let permit = Arc::clone(&shared.one).acquire_owned().await.ok();
            // A folder on a network may take its time: there is one look at a time.
            let looked = tokio::task::spawn_blocking(move || {
                shared.renew_certificates();
                drop(permit);
            });
            if let Err(error) = looked.await {
                tracing::warn!(%error, "the files of certificates were not looked at");
            }
        }
    }
}

/// The certificates of a configuration, read and not yet in use.
struct Certificates {
    listeners: Vec<(Arc<Tls>, Loaded)>,
    /// In the order of the providers.
    providers: Vec<Arc<ProviderTls>>,
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
        let certificates = self.read_certificates(&next)?;
        let refused = |error: String| vec![ConfigError::of_no_file("", &error)];
        let keys = encryption::read(&next).map_err(refused)?;
        let put_keys = || self.keys.put(&self.parts.cache, keys).map_err(refused);
        let report = Report {
            needs_restart,
            changed,
            warnings: wanted.warnings,
        };
        if report.changed.is_empty() {
            put_keys()?;
            self.put_certificates(certificates);
            return Ok(report);
        }
        let Live { proxy, edges } = &*self.live;
        let next_proxy = proxy.as_ref().map(|old| {
            let old = old.load_full();
            let tls = certificates.providers.clone();
            self.proxy(&old, &next, tls).map_err(refused)
        });
        let next_proxy = next_proxy.transpose()?;
        put_keys()?;
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
        if next.limits != running.limits {
            self.parts.fills.limits().set(next.limits.asked.clone());
            self.parts.cache.bound_tenants(next.limits.stored.clone());
        }
        if next.prices != running.prices {
            self.parts.metrics.price(next.prices.clone());
        }
        self.running.store(Arc::new(next));
        self.put_certificates(certificates);
        Ok(report)
    }

    /// The proxy of another configuration. Its connections to a provider stay, unless the configuration
    /// is about them.
    fn proxy(
        &self,
        old: &Proxy,
        next: &Config,
        tls: Vec<Arc<ProviderTls>>,
    ) -> Result<Arc<Proxy>, String> {
        upstream::check_none_is_own(next, self.parts.listens)?;
        let providers = Providers::new(next, tls, &self.parts.common(), Some(&old.providers))?;
        proxy(next, Arc::new(providers), &self.parts)
    }

    /// Reads all files of certificates.
    ///
    /// # Errors
    ///
    /// All mistakes.
    fn read_certificates(&self, next: &Config) -> Result<Certificates, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut failed = |side: Side, error: String| {
            self.parts.metrics.tls_reloaded(side.name(), false);
            errors.push(ConfigError::of_no_file("", &error));
        };
        let mut listeners = Vec::new();
        for tls in self.tls.each() {
            match tls.read_again() {
                Ok(loaded) => listeners.push((Arc::clone(tls), loaded)),
                Err(error) => failed(tls.side(), error),
            }
        }
        let mut providers = Vec::new();
        if self.live.proxy.is_some() {
            match ProviderTls::read_all(&next.providers) {
                Ok(all) => providers = all,
                Err(errors) => errors
                    .lines()
                    .for_each(|error| failed(Side::Provider, error.to_owned())),
            }
        }
        match errors.is_empty() {
            true => Ok(Certificates {
                listeners,
                providers,
            }),
            false => Err(errors),
        }
    }

    /// Uses certificates for connections from now on, if they are other ones.
    fn put_certificates(&self, certificates: Certificates) {
        for (tls, loaded) in certificates.listeners {
            if tls.put(loaded) {
                self.parts.metrics.tls_reloaded(tls.side().name(), true);
            }
        }
        let Some(proxy) = &self.live.proxy else {
            return;
        };
        let proxy = proxy.load_full();
        for (member, tls) in proxy.providers.as_configured().zip(certificates.providers) {
            if member.client().tls_digest() == tls.digest() {
                continue;
            }
            let renewed = member.client().renew(tls);
            let side = Side::Provider.name();
            self.parts.metrics.tls_reloaded(side, renewed.is_ok());
            if let Err(error) = renewed {
                tracing::error!(side, error, "the changed certificate is not used");
            }
        }
        proxy.providers.tell_expiry();
    }

    /// Looks at all files of certificates, and uses those that have changed.
    fn renew_certificates(&self) {
        for tls in self.tls.each() {
            let mut watches = lock(&self.watches);
            let watch = &mut watches[tls.side() as usize];
            self.look(watch, tls.side(), tls.digest(), tls.digest_now(), || {
                tls.put(tls.read_again()?);
                Ok(())
            });
        }
        let Some(proxy) = &self.live.proxy else {
            return;
        };
        let proxy = proxy.load_full();
        for member in proxy.providers.as_configured() {
            let (client, files) = (member.client(), &member.provider().tls);
            let now = ProviderTls::digest_now(files);
            let watch = &mut lock(&member.watch);
            self.look(watch, Side::Provider, client.tls_digest(), now, || {
                client.renew(Arc::new(ProviderTls::read(files)?))?;
                proxy.providers.tell_expiry();
                Ok(())
            });
        }
    }

    /// Has files renewed whose state is another one than that in use.
    fn look(
        &self,
        watch: &mut Watch,
        side: Side,
        in_use: Digest,
        now: Digest,
        renew: impl FnOnce() -> Result<(), String>,
    ) {
        if now == in_use {
            return watch.is_good();
        }
        if !watch.wants(now) {
            return;
        }
        let (metrics, side) = (&self.parts.metrics, side.name());
        match renew() {
            Ok(()) => {
                watch.is_good();
                metrics.tls_reloaded(side, true);
                tracing::info!(side, "the certificate has changed and was read again");
            }
            Err(error) if watch.is_broken(now) => {
                metrics.tls_reloaded(side, false);
                tracing::error!(
                    side,
                    error,
                    "the changed certificate is not used, the earlier one stays"
                );
            }
            // It may be half written.
            Err(_) => {}
        }
    }

    fn tell(&self, applied: &Result<Report, Vec<ConfigError>>) {
        self.parts.metrics.reloaded(applied.is_ok());
        // Of the configuration that the reload has left running.
        if let Some(proxy) = &self.live.proxy {
            self.parts
                .metrics
                .only_upstreams(&proxy.load().providers.names());
        }
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
