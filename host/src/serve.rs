//! The daemon: an HTTP reverse proxy in front of one provider, with the cache in between; and the
//! same cache for edges that have a proxy of their own.
//!
//! ```text
//! listener ─► proxy ─► component::Handler (guest) ─► cache ◄─ edge_api ◄─ Unix socket (Envoy)
//!                └─► upstream ◄──────┘ miss, bypass, or the guest has failed
//! ```

pub mod config;
pub mod inherited;
pub mod metrics;
pub mod tenants;

mod connection;
mod delivery;
mod line;
mod listen;
mod place;
mod wire;

#[cfg(feature = "middleware")]
mod guests;
mod heads;
mod held;
mod hop;
mod own_error;
mod proxy;
mod reasons;
mod timed;
mod tunnel;
mod upstream;

mod edge_api;

mod admin;

use crate::cache::Cache;
use crate::clock::Clock;
#[cfg(feature = "middleware")]
use crate::component::Handler;
use crate::exchange::NativeFlow;
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::policy::HttpPolicy;
use crate::exchange::reply::samples::Samples;
use crate::grant::Grant;
use crate::grant::ctx::ReflexCtx;
#[cfg(feature = "middleware")]
use crate::serve::config::OnComponentFailure;
use crate::serve::config::{Config, EdgeSocket, NetLimits, Upstream};
use crate::serve::inherited::Inherited;
use crate::serve::metrics::Metrics;
use edge_api::EdgeApi;
use edge_api::socket::Socket;
#[cfg(feature = "middleware")]
use guests::Guests;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use place::StreamLimits;
use proxy::Proxy;
use reasons::Reasons;
use reflex_llm::Anonymous;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "middleware")]
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use upstream::UpstreamClient;

/// The middleware component that is built in.
#[cfg(feature = "middleware")]
pub const MIDDLEWARE: &[u8] = include_bytes!(env!("REFLEX_MIDDLEWARE_WASM"));

/// For one client's connection. Any program may be a client, so resets are bounded, as hyper does.
const CLIENT_STREAMS: StreamLimits = StreamLimits {
    max: 256,
    reset_max: 20,
};

/// Operators at once: probes and scrapers. Both have a connection or two.
const ADMIN_CONNECTIONS_MAX: usize = 64;
const ADMIN_STREAMS: StreamLimits = StreamLimits {
    max: 16,
    reset_max: 20,
};

/// A daemon that listens, but answers no request yet.
#[derive(Debug)]
pub struct Server {
    front: Option<Front>,
    edge: Option<Socket>,
    admin: TcpListener,
    config: Config,
    cache: Cache,
    /// Shared by the proxy and the edges.
    fills: Arc<Fills>,
    /// The memory budget of the requests of both.
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// The reverse proxy. A daemon that serves only edges has none.
#[derive(Debug)]
struct Front {
    listener: TcpListener,
    proxy: Arc<Proxy>,
}

impl Server {
    /// Opens the store, compiles the component, and binds all addresses but those that `inherited`
    /// sockets listen at.
    ///
    /// # Errors
    ///
    /// One line that names the flag or the file, and what is wrong with it. Nothing has been
    /// changed in a data folder that could not be opened.
    pub async fn prepare(config: Config, mut inherited: Inherited) -> Result<Self, String> {
        let listener = match &config.upstream {
            Some(upstream) => {
                let listener = bind("--listen", config.listen, &mut inherited).await?;
                Some((upstream, listener))
            }
            None => None,
        };
        if let Some((upstream, listener)) = &listener
            && let Ok(listens) = listener.local_addr()
            && upstream::is_own(upstream, listens)
        {
            return Err(format!(
                "--upstream: {listens} is where this daemon itself listens (--listen)"
            ));
        }
        let admin = bind("--admin", config.admin, &mut inherited).await?;
        inherited.all_claimed()?;
        let cache = Cache::open_even_without_disk(&config.cache)
            .map_err(|error| format!("--data-dir: {error}"))?;
        // Only now, so that a second daemon on the same folder does not touch the first one's
        // socket.
        let edge = config.edge.as_ref().map(bind_edge).transpose()?;

        let fills = Fills::new(&cache);
        let budget = Budget::new(config.inflight_bytes_max);
        let metrics = Arc::new(Metrics::new(
            config.prices.clone(),
            Arc::clone(&fills),
            Arc::clone(&budget),
            Arc::default(),
        ));
        let front = match listener {
            Some((upstream, listener)) => Some(Front {
                listener,
                proxy: proxy(&config, upstream, &cache, &fills, &budget, &metrics)?,
            }),
            None => None,
        };
        Ok(Self {
            front,
            edge,
            admin,
            config,
            cache,
            fills,
            budget,
            metrics,
        })
    }

    /// Where clients connect, the port resolved; none if the daemon only serves edges.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn address(&self) -> std::io::Result<Option<SocketAddr>> {
        let front = self.front.as_ref();
        front.map(|front| front.listener.local_addr()).transpose()
    }

    /// Where operators connect, the port resolved.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where edges connect, if they may.
    pub fn edge_socket(&self) -> Option<&Path> {
        self.edge.as_ref().map(|socket| &*socket.path)
    }

    /// Answers requests until `stop` resolves, then lets running requests end.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(());
        let net = &self.config.net;
        let router = admin::router(self.cache.clone(), Arc::clone(&self.metrics));
        let admin = serve_admin(self.admin, router, net, stopped.clone());
        let clients = serve_clients(self.front, net, stopped.clone());
        let listener = self.edge.as_mut().and_then(|edge| edge.listener.take());
        let edges = listener.map(|listener| {
            let metrics = Arc::clone(&self.metrics);
            let api = EdgeApi::new(
                self.cache.clone(),
                self.fills,
                self.budget,
                &self.config,
                metrics,
            );
            serve_edges(listener, api, net, stopped)
        });
        let edges = async {
            if let Some(edges) = edges {
                edges.await;
            }
        };
        let stop = async {
            stop.await;
            tracing::info!("stopping: running requests come to their end");
            drop(stopping);
        };
        tokio::join!(clients, edges, admin, stop);
        sync_now(&self.cache).await;
    }
}

async fn serve_clients(front: Option<Front>, net: &NetLimits, stopped: watch::Receiver<()>) {
    let Some(Front { listener, proxy }) = front else {
        return;
    };
    let service = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    listen::answer(listener, service, net, CLIENT_STREAMS, stopped).await;
}

async fn serve_edges(
    listener: UnixListener,
    api: Arc<EdgeApi>,
    net: &NetLimits,
    stopped: watch::Receiver<()>,
) {
    let service = TowerToHyperService::new(api.router());
    listen::answer(listener, service, net, edge_api::STREAMS, stopped).await;
}

fn proxy(
    config: &Config,
    upstream: &Upstream,
    cache: &Cache,
    fills: &Arc<Fills>,
    budget: &Arc<Budget>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Proxy>, String> {
    let upstream = UpstreamClient::new(
        upstream.clone(),
        config.net.clone(),
        config.request_bytes_max,
        Arc::clone(budget),
        Arc::clone(metrics),
    );
    let upstream = Arc::new(upstream.map_err(|error| format!("--upstream: {error}"))?);

    let anonymous = if config.share_anonymous {
        Anonymous::Share
    } else {
        Anonymous::Bypass
    };
    let reflex = ReflexCtx {
        cache: cache.clone(),
        grant: Grant {
            namespace: config.namespace.clone(),
            anonymous,
            tenant_header: config.tenant_header.clone(),
            request_bytes_max: config.request_bytes_max,
            temperature_max: config.temperature_max,
            paths: Arc::clone(&config.paths),
            rules: Arc::clone(&config.rules),
            groups: Arc::clone(&config.groups),
            lifetimes: Arc::clone(&config.lifetimes),
            allowance: metrics.allowance(),
            ..Grant::default()
        },
        clock: Clock::system(),
    };
    let reasons = Reasons::new(
        reflex.grant.clone(),
        config.client_control,
        Arc::clone(metrics),
    );
    let policy = Arc::new(HttpPolicy {
        allow_length: config.allow_length,
        client_control: config.client_control,
        provider_control: config.provider_control,
        replay: config.replay,
        samples: Samples::new(config.samples),
        fill_wait_max: config.fill_wait_max,
        stale_if_error_max: config.stale_if_error_max,
        fills: Arc::clone(fills),
        budget: Arc::clone(budget),
        l1_bytes_max: config.l1_bytes_max,
        observer: Arc::clone(metrics) as _,
    });

    Ok(Arc::new(Proxy {
        #[cfg(feature = "middleware")]
        guests: guests(config, &reflex, &policy, &upstream, metrics)?,
        flow: NativeFlow::new(reflex, policy, Arc::clone(&upstream) as _),
        upstream,
        metrics: Arc::clone(metrics),
        reasons,
        paths: Arc::clone(&config.paths),
        // The configuration takes only names of headers.
        tenant_header: config
            .tenant_header
            .as_deref()
            .and_then(|name| name.parse().ok()),
        idle_max: config.net.idle_max,
        request_max: config.net.request_max,
    }))
}

/// The component that handles requests: the built-in one, or the operator's.
#[cfg(feature = "middleware")]
fn guests(
    config: &Config,
    reflex: &ReflexCtx,
    policy: &Arc<HttpPolicy>,
    upstream: &Arc<UpstreamClient>,
    metrics: &Arc<Metrics>,
) -> Result<Guests, String> {
    let (name, component) = match &config.component {
        None => ("the built-in component".to_owned(), MIDDLEWARE.to_vec()),
        Some(path) => {
            let name = format!("--component {}", path.display());
            let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
            (name, bytes)
        }
    };
    let mut limits = config.guest.clone();
    if config.component.is_none() && config.on_component_failure == OnComponentFailure::Native {
        // The native flow gives the same answer at once.
        limits.instance_wait_max = Duration::ZERO;
    }
    let handler = Handler::with_policy(
        &component,
        reflex.clone(),
        Arc::clone(policy),
        Arc::clone(upstream) as _,
        limits,
    );
    Ok(Guests {
        handler: handler.map_err(|error| format!("{name}: {error}"))?,
        is_built_in: config.component.is_none(),
        hits: config.hits,
        on_failure: config.on_component_failure,
        held_bytes_max: config.request_bytes_max,
        budget: Arc::clone(&policy.budget),
        metrics: Arc::clone(metrics),
    })
}

async fn bind(
    flag: &str,
    address: SocketAddr,
    inherited: &mut Inherited,
) -> Result<TcpListener, String> {
    let bound = match inherited.claim(address) {
        Some(socket) => socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|error| format!("{flag} {address}: {error}"))
}

fn bind_edge(edge: &EdgeSocket) -> Result<Socket, String> {
    Socket::bind(&edge.path, edge.mode)
        .map_err(|error| format!("--edge-socket {}: {error}", edge.path.display()))
}

async fn serve_admin(
    listener: TcpListener,
    router: axum::Router,
    net: &NetLimits,
    stopped: watch::Receiver<()>,
) {
    let net = NetLimits {
        connections_max: ADMIN_CONNECTIONS_MAX,
        ..net.clone()
    };
    let service = TowerToHyperService::new(router);
    listen::answer(listener, service, &net, ADMIN_STREAMS, stopped).await;
}

async fn sync_now(cache: &Cache) {
    let cache = cache.clone();
    match tokio::task::spawn_blocking(move || cache.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store could not be synced"),
        Err(error) => tracing::warn!(%error, "the sync of the store failed"),
    }
}
