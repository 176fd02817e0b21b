//! The daemon: an HTTP reverse proxy in front of one provider, with the cache in between; and the
//! same cache for edges that have a proxy of their own.
//!
//! ```text
//! listener ─► proxy ─► component::Handler (guest) ─► cache ◄─ edge_api ◄─ Unix socket (Envoy)
//!                └─► upstream ◄──────┘ miss, bypass, or the guest has failed
//! ```

pub mod config;
pub mod explain;
pub mod inherited;
pub mod logs;

mod recent;

pub mod metrics;
pub mod reload;
pub mod tenants;

mod access;
mod history;
#[cfg(feature = "otlp")]
mod otlp;
mod trace;

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
mod shadow;
mod timed;
mod tunnel;
mod upstream;

mod admin;
mod page;

mod edge_api;

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
use crate::serve::config::{Config, EdgeSocket, Mode, NetLimits};
use crate::serve::inherited::Inherited;
use crate::serve::metrics::Metrics;
use admin::Admin;
use admin::peer::{FromPeer, Peer};
use admin::token::AdminToken;
use arc_swap::ArcSwap;
use edge_api::EdgeApi;
use edge_api::socket::Socket;
#[cfg(feature = "middleware")]
use guests::Guests;
use history::History;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use place::StreamLimits;
use proxy::Proxy;
use reasons::Reasons;
use reload::{Edges, Live, Reload};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "middleware")]
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
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
    /// Where clients connect. A daemon that serves only edges has none.
    front: Option<TcpListener>,
    edge: Option<Socket>,
    admin: TcpListener,
    config: Config,
    cache: Cache,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    reload: Reload,
    token: Arc<AdminToken>,
    #[cfg(feature = "otlp")]
    export: Option<otlp::Export>,
}

/// What all configurations of one process have in common.
pub(crate) struct Parts {
    cache: Cache,
    /// Shared by the proxy and the edges.
    fills: Arc<Fills>,
    /// The memory budget of the requests of both.
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    #[cfg(feature = "otlp")]
    spans: Option<Arc<otlp::Spans>>,
    /// Where clients connect.
    listens: Option<SocketAddr>,
    #[cfg(feature = "middleware")]
    component: Component,
}

/// A component in its binary form, as it was at the start, and its name for messages.
#[cfg(feature = "middleware")]
struct Component {
    name: String,
    bytes: Vec<u8>,
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
        let token_file = config.admin_token_file.as_deref();
        let token = AdminToken::prepare(token_file, &config.cache.data_dir)?;

        let fills = Fills::new(&cache);
        let budget = Budget::new(config.inflight_bytes_max);
        let metrics = Arc::new(Metrics::new(
            config.prices.clone(),
            config.cache.disk_bytes_max,
            Arc::clone(&fills),
            Arc::clone(&budget),
            Arc::default(),
        ));
        #[cfg(feature = "otlp")]
        let (spans, export) = spans(&config, &metrics)?;
        let listens = listener.as_ref().map(|(_, it)| it.local_addr());
        let parts = Parts {
            cache: cache.clone(),
            fills,
            budget,
            metrics: Arc::clone(&metrics),
            #[cfg(feature = "otlp")]
            spans,
            listens: listens.and_then(Result::ok),
            #[cfg(feature = "middleware")]
            component: component(&config)?,
        };
        let (front, proxy) = match listener {
            Some((upstream, listener)) => {
                let client = UpstreamClient::new(
                    upstream.clone(),
                    config.net.clone(),
                    config.request_bytes_max,
                    Arc::clone(&parts.budget),
                    Arc::clone(&metrics),
                );
                let client = client.map_err(|error| format!("--upstream: {error}"))?;
                let proxy = proxy(&config, Arc::new(client), &parts)?;
                (Some(listener), Some(ArcSwap::new(proxy)))
            }
            None => (None, None),
        };
        let edges = edge.as_ref().map(|_| {
            let (fills, budget) = (Arc::clone(&parts.fills), Arc::clone(&parts.budget));
            let (metrics, token) = (Arc::clone(&metrics), Arc::clone(&token));
            let api = EdgeApi::new(cache.clone(), fills, budget, &config, metrics, token);
            ArcSwap::from_pointee(Edges::new(api))
        });
        let live = Arc::new(Live { proxy, edges });
        Ok(Self {
            front,
            edge,
            admin,
            cache,
            metrics,
            token,
            reload: Reload::new(config.clone(), Arc::clone(&live), parts),
            live,
            config,
            #[cfg(feature = "otlp")]
            export,
        })
    }

    /// Where clients connect, the port resolved; none if the daemon only serves edges.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn address(&self) -> std::io::Result<Option<SocketAddr>> {
        let front = self.front.as_ref();
        front.map(TcpListener::local_addr).transpose()
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

    /// Puts another configuration in place while the daemon runs.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Answers requests until `stop` resolves, then lets running requests end.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(());
        let net = &self.config.net;
        let running = self.reload.running();
        let operators = Admin::new(
            self.cache.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.token),
            Arc::clone(&running),
            reload_of(self.reload),
        );
        let history = History::new(
            self.cache.clone(),
            Arc::clone(&self.metrics),
            Clock::system(),
            running,
        );
        let router = admin::router(
            operators,
            page::router(Arc::clone(&history)),
            self.config.admin,
        );
        let admin = serve_admin(self.admin, router, net, stopped.clone());
        let live = Arc::clone(&self.live);
        let clients = serve_clients(self.front, live, net, stopped.clone());
        let listener = self.edge.as_mut().and_then(|edge| edge.listener.take());
        let edges = listener.map(|listener| serve_edges(listener, self.live, net, stopped));
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
        let answered = async { tokio::join!(clients, edges, admin, stop) };
        tokio::select! {
            _ = answered => {}
            () = history.keep() => {}
        }
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            export.end().await;
        }
        sync_now(&self.cache).await;
    }
}

/// What takes the spans of requests, and what sends them, if the configuration names a receiver.
#[cfg(feature = "otlp")]
fn spans(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Option<Arc<otlp::Spans>>, Option<otlp::Export>), String> {
    let begin = |receiver| otlp::begin(receiver, metrics.spans());
    let begun = config.otlp_endpoint.as_ref().map(begin).transpose();
    let begun = begun.map_err(|error| format!("otlp_endpoint: {error}"))?;
    Ok(begun.unzip())
}

/// A reload as the admin API calls it, on a thread that may wait.
fn reload_of(reload: Reload) -> admin::Reload {
    let runtime = Handle::current();
    Arc::new(move || {
        let applied = runtime.block_on(reload.apply());
        let report = applied.map_err(|errors| config::lines(&errors))?;
        serde_json::to_string(&report).map_err(|error| error.to_string())
    })
}

async fn serve_clients(
    front: Option<TcpListener>,
    live: Arc<Live>,
    net: &NetLimits,
    stopped: watch::Receiver<()>,
) {
    let Some(listener) = front else {
        return;
    };
    let service = service_fn(move |request| {
        let proxy = live.proxy.as_ref().map(ArcSwap::load_full);
        async move {
            let Some(proxy) = proxy else {
                // There is a proxy where clients connect.
                return std::future::pending().await;
            };
            Ok::<_, Infallible>(proxy.answer(request).await)
        }
    });
    let of = |_: &_| service.clone();
    listen::answer(listener, of, net, CLIENT_STREAMS, stopped).await;
}

async fn serve_edges(
    listener: UnixListener,
    live: Arc<Live>,
    net: &NetLimits,
    stopped: watch::Receiver<()>,
) {
    let Some(edges) = &live.edges else {
        return;
    };
    let first = edges.load().router.clone();
    let of = move |stream: &UnixStream| {
        let (live, first) = (Arc::clone(&live), first.clone());
        let service = service_fn(move |request| {
            let edges = live.edges.as_ref().map(ArcSwap::load_full);
            // There is an API where edges connect.
            let router = edges.map_or_else(|| first.clone(), |edges| edges.router.clone());
            TowerToHyperService::new(router).call(request)
        });
        FromPeer {
            service,
            peer: Peer::of_unix(stream),
        }
    };
    listen::answer(listener, of, net, edge_api::STREAMS, stopped).await;
}

/// The proxy of this configuration. The requests that it is given belong to it to their end.
fn proxy(
    config: &Config,
    upstream: Arc<UpstreamClient>,
    parts: &Parts,
) -> Result<Arc<Proxy>, String> {
    let Parts {
        cache,
        fills,
        budget,
        metrics,
        ..
    } = parts;
    let reflex = ReflexCtx {
        cache: cache.clone(),
        grant: Grant {
            allowance: metrics.allowance(),
            ..explain::grant(config)
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
        is_shadow: config.mode == Mode::Shadow,
        verify_fraction: config.verify_fraction,
        observer: Arc::clone(metrics) as _,
    });

    Ok(Arc::new(Proxy {
        #[cfg(feature = "middleware")]
        guests: guests(
            config,
            &parts.component,
            &reflex,
            &policy,
            &upstream,
            metrics,
        )?,
        flow: NativeFlow::new(reflex, policy, Arc::clone(&upstream) as _),
        upstream,
        metrics: Arc::clone(metrics),
        reasons,
        told: access::Told {
            in_log: config.access_log,
            #[cfg(feature = "otlp")]
            in_spans: parts.spans.clone(),
        },
        is_shadow: config.mode == Mode::Shadow,
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

/// Reads the component: the built-in one, or the operator's.
#[cfg(feature = "middleware")]
fn component(config: &Config) -> Result<Component, String> {
    let (name, bytes) = match &config.component {
        None => ("the built-in component".to_owned(), MIDDLEWARE.to_vec()),
        Some(path) => {
            let name = format!("--component {}", path.display());
            let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
            (name, bytes)
        }
    };
    Ok(Component { name, bytes })
}

/// The component in the way of requests, compiled for this configuration.
#[cfg(feature = "middleware")]
fn guests(
    config: &Config,
    component: &Component,
    reflex: &ReflexCtx,
    policy: &Arc<HttpPolicy>,
    upstream: &Arc<UpstreamClient>,
    metrics: &Arc<Metrics>,
) -> Result<Guests, String> {
    let Component { name, bytes } = component;
    let mut limits = config.guest.clone();
    if config.component.is_none() && config.on_component_failure == OnComponentFailure::Native {
        // The native flow gives the same answer at once.
        limits.instance_wait_max = Duration::ZERO;
    }
    let handler = Handler::with_policy(
        bytes,
        reflex.clone(),
        Arc::clone(policy),
        Arc::clone(upstream) as _,
        limits,
    );
    Ok(Guests {
        handler: handler.map_err(|error| format!("{name}: {error}"))?,
        is_built_in: config.component.is_none(),
        hits: config.hits,
        is_shadow: config.mode == Mode::Shadow,
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
    let of = |stream: &TcpStream| FromPeer {
        service: service.clone(),
        peer: Peer::of_tcp(stream),
    };
    listen::answer(listener, of, &net, ADMIN_STREAMS, stopped).await;
}

async fn sync_now(cache: &Cache) {
    let cache = cache.clone();
    match tokio::task::spawn_blocking(move || cache.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store could not be synced"),
        Err(error) => tracing::warn!(%error, "the sync of the store failed"),
    }
}
