//! The daemon: an HTTP reverse proxy in front of one provider or several, with the cache in between; and the
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
pub mod plain;
pub mod reload;
pub mod tenants;

mod access;
mod history;
#[cfg(feature = "otlp")]
mod otlp;
mod trace;

mod connection;
mod delivery;
mod encryption;
#[cfg(feature = "fleet")]
mod fleet;
mod handover;
mod line;
pub(crate) mod listen;
mod listeners;
pub(crate) mod place;
pub(crate) mod stop;
mod wire;

pub(crate) mod aim;
#[cfg(feature = "middleware")]
mod guests;
pub(crate) mod heads;
mod held;
mod hop;
pub(crate) mod own_error;
mod proxy;
mod reasons;
mod shadow;
pub(crate) mod timed;
pub mod tls;
pub(crate) mod tunnel;
pub(crate) mod upstream;

mod admin;
mod page;

mod edge_api;

use crate::cache::{Cache, Folder};
use crate::clock::Clock;
#[cfg(feature = "middleware")]
use crate::component::Handler;
use crate::exchange::NativeFlow;
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::policy::HttpPolicy;
use crate::exchange::reply::samples::Samples;
#[cfg(feature = "fleet")]
use crate::fleet::Fleet;
use crate::grant::Grant;
use crate::grant::ctx::ReflexCtx;
#[cfg(feature = "middleware")]
use crate::serve::config::OnComponentFailure;
use crate::serve::config::{Config, Mode};
use crate::serve::inherited::{Inherited, Role};
use crate::serve::metrics::Metrics;
use admin::Admin;
use admin::token::AdminToken;
use aim::Aimer;
use arc_swap::ArcSwap;
use edge_api::EdgeApi;
use edge_api::socket::Socket;
#[cfg(feature = "middleware")]
use guests::Guests;
use handover::{Offer, Predecessor};
use history::History;
use http::HeaderName;
use listeners::{bind, bind_edge, serve_admin, serve_clients, serve_edges, tcp};
use proxy::Proxy;
use reasons::Reasons;
use reload::{Edges, Live, Reload};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stop::{Stop, Stopped};
use tls::{Listeners, Tcp};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use upstream::{Common, ProviderTls, Providers};

/// The middleware component that is built in.
#[cfg(feature = "middleware")]
pub const MIDDLEWARE: &[u8] = include_bytes!(env!("REFLEX_MIDDLEWARE_WASM"));

/// A daemon that listens, but answers no request yet.
#[derive(Debug)]
pub struct Server {
    /// Where clients connect. A daemon that serves only edges has none.
    front: Option<Tcp>,
    edge: Option<Socket>,
    admin: Tcp,
    config: Config,
    cache: Cache,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    reload: Reload,
    token: Arc<AdminToken>,
    /// What the next daemon may take, if the configuration says so.
    offer: Option<Offer>,
    /// The daemon that this one takes over from.
    predecessor: Option<Predecessor>,
    #[cfg(feature = "otlp")]
    export: Option<otlp::Export>,
    #[cfg(feature = "fleet")]
    fleet: Option<Arc<Fleet>>,
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

impl Parts {
    fn common(&self) -> Common<'_> {
        Common {
            budget: &self.budget,
            metrics: &self.metrics,
        }
    }
}

/// A component in its binary form, as it was at the start, and its name for messages.
#[cfg(feature = "middleware")]
struct Component {
    name: String,
    bytes: Vec<u8>,
}

impl Server {
    /// Opens the store, compiles the component, and binds all addresses but those that `inherited`
    /// sockets listen at. With `take_over`, a daemon that has the folder hands its sockets over, and goes on
    /// until this one [runs](Self::run).
    ///
    /// # Errors
    ///
    /// A line that names the flag or the file, and what is wrong with it; of certificates, one for each
    /// mistake. Nothing has been changed in a data folder that could not be opened.
    pub async fn prepare(mut config: Config, mut inherited: Inherited) -> Result<Self, String> {
        config.cache.encryption_keys = encryption::read(&config)?;
        let certificates = Listeners::read(&config);
        let provider_tls = ProviderTls::read_all(&config.providers);
        let (certificates, provider_tls) = match (certificates, provider_tls) {
            (Ok(certificates), Ok(provider_tls)) => (certificates, provider_tls),
            (Err(one), Err(other)) => return Err(format!("{one}\n{other}")),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let predecessor = match config.take_over {
            true => handover::ask(&config.cache.data_dir).await?,
            false => None,
        };
        let predecessor = predecessor.map(|(predecessor, handed)| {
            inherited.add(handed);
            predecessor
        });
        let listener = match config.providers.is_empty() {
            false => Some(bind(Role::Listen, config.listen, &mut inherited).await?),
            true => None,
        };
        let listens = listener.as_ref().map(TcpListener::local_addr);
        let listens = listens.and_then(Result::ok);
        upstream::check_none_is_own(&config, listens)?;
        let admin = bind(Role::Admin, config.admin, &mut inherited).await?;
        inherited.all_claimed()?;
        let cache = match predecessor {
            Some(_) => Cache::open_after_another(&config.cache),
            None => Cache::open_even_without_disk(&config.cache),
        };
        let cache = cache.map_err(|error| format!("--data-dir: {error}"))?;
        // Only now, so that a second daemon on the same folder does not touch the first one's
        // socket.
        let edge = config.edge.as_ref();
        let edge = edge.map(|edge| bind_edge(edge, &mut inherited));
        let edge = edge.transpose()?;
        let token_file = config.admin_token_file.as_deref();
        let token = AdminToken::prepare(token_file, &config.cache.data_dir)?;

        let fills = Fills::new(&cache);
        fills.limits().set(config.limits.asked.clone());
        let budget = Budget::new(config.inflight_bytes_max);
        let metrics = Arc::new(Metrics::new(
            config.prices.clone(),
            config.cache.disk_bytes_max,
            Arc::clone(&fills),
            Arc::clone(&budget),
            Arc::default(),
        ));
        #[cfg(feature = "fleet")]
        let fleet = fleet::join(&config, &cache).await?;
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &fleet {
            metrics.takes_part(fleet);
        }
        let tls = Listeners::new(&config, certificates, &metrics);
        #[cfg(feature = "otlp")]
        let (spans, export) = spans(&config, &metrics)?;
        let parts = Parts {
            cache: cache.clone(),
            fills,
            budget,
            metrics: Arc::clone(&metrics),
            #[cfg(feature = "otlp")]
            spans,
            listens,
            #[cfg(feature = "middleware")]
            component: component(&config)?,
        };
        let (front, proxy) = match listener {
            Some(listener) => {
                let providers = Providers::new(&config, provider_tls, &parts.common(), None)?;
                let proxy = proxy(&config, Arc::new(providers), &parts)?;
                let front = tcp("--listen", listener, &tls.clients, "tls_cert");
                (Some(front), Some(ArcSwap::new(proxy)))
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
        let admin = tcp("--admin", admin, &tls.operators, "admin_tls_cert");
        let offer = match config.take_over {
            true => Offer::of(&config, front.as_ref(), &admin, edge.as_ref()),
            false => None,
        };
        Ok(Self {
            front,
            edge,
            admin,
            offer,
            predecessor,
            cache,
            metrics,
            token,
            reload: Reload::new(config.clone(), Arc::clone(&live), parts, tls),
            live,
            config,
            #[cfg(feature = "otlp")]
            export,
            #[cfg(feature = "fleet")]
            fleet,
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

    /// The scheme of the URL of [`address`](Self::address).
    pub fn scheme(&self) -> &'static str {
        scheme(self.front.as_ref().is_some_and(|front| front.tls.is_some()))
    }

    /// Where operators connect, the port resolved.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.listener.local_addr()
    }

    /// The scheme of the URL of [`admin_address`](Self::admin_address).
    pub fn admin_scheme(&self) -> &'static str {
        scheme(self.admin.tls.is_some())
    }

    /// Where edges connect, if they may.
    pub fn edge_socket(&self) -> Option<&Path> {
        self.edge.as_ref().map(|socket| &*socket.path)
    }

    /// Tells what the cache knows of its data folder.
    pub fn folder(&self) -> impl Fn() -> Folder + Send + use<> {
        let cache = self.cache.clone();
        move || cache.folder()
    }

    /// Puts another configuration in place while the daemon runs.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Answers requests until `stop` resolves or another daemon takes over, then lets running requests end.
    /// After `stop`, the admin address goes on meanwhile: probes see that the daemon drains, and scrapers see
    /// its last requests.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = stop::channel();
        let (serving, served) = stop::channel();
        let net = &self.config.net;
        let certificates = self.reload.clone();
        let running = self.reload.running();
        let operators = Admin::new(
            self.cache.clone(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.token),
            Arc::clone(&running),
            reload_of(self.reload),
            stopped.clone(),
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
        let admin = serve_admin(self.admin, router, net, served);
        let admin = until_drained(admin, stopped.clone(), net.drain_max);
        let live = Arc::clone(&self.live);
        let names_tenants = self
            .config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.names_tenants);
        let clients = serve_clients(self.front, names_tenants, live, net, stopped.clone());
        let listener = self.edge.as_mut().and_then(|edge| edge.listener.take());
        let edges = listener.map(|listener| serve_edges(listener, self.live, net, stopped));
        let edges = async {
            if let Some(edges) = edges {
                edges.await;
            }
        };
        let predecessor = self.predecessor.take();
        let inheriting = predecessor.map(|it| tokio::spawn(it.take(self.cache.clone())));
        let socket = self.edge.as_ref();
        if let Some(socket) = socket {
            socket.own();
        }
        let taken = handover::taken(self.offer, &self.cache);
        let cache = &self.cache;
        let (stopping, serving) = (&stopping, &serving);
        let stop = async move {
            tokio::select! {
                () = stop => {
                    tracing::info!("stopping: running requests come to their end");
                    stopping.stop(Stop::Closes);
                    cache.expects_no_folder();
                }
                successor = taken => {
                    tracing::info!("another daemon takes over: running requests come to their end");
                    if let Some(socket) = socket {
                        socket.leave();
                    }
                    // Operators reach the other one.
                    serving.stop(Stop::HandsOver);
                    stopping.stop(Stop::HandsOver);
                    successor.inherits(cache).await;
                }
            }
            if let Some(inheriting) = inheriting {
                // What the daemon before this one still stores would be lost.
                let _ = tokio::time::timeout(net.drain_max, inheriting).await;
            }
        };
        let others = async {
            tokio::join!(clients, edges, stop);
            serving.stop(Stop::Closes);
        };
        let answered = async { tokio::join!(others, admin) };
        tokio::select! {
            _ = answered => {}
            () = history.keep() => {}
            () = certificates.keep_certificates() => {}
        }
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            export.end().await;
        }
        #[cfg(feature = "fleet")]
        fleet::leave(self.fleet).await;
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

/// The proxy of this configuration. The requests that it is given belong to it to their end.
fn proxy(config: &Config, providers: Arc<Providers>, parts: &Parts) -> Result<Arc<Proxy>, String> {
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
        renewals: Arc::clone(&config.renewals),
        fills: Arc::clone(fills),
        budget: Arc::clone(budget),
        l1_bytes_max: config.l1_bytes_max,
        is_shadow: config.mode == Mode::Shadow,
        verify_fraction: config.verify_fraction,
        observer: Arc::clone(metrics) as _,
    });

    // The configuration takes only names of headers.
    let tenant_header = config.tenant_header.as_deref();
    let tenant_header: Option<HeaderName> = tenant_header.and_then(|name| name.parse().ok());
    Ok(Arc::new(Proxy {
        #[cfg(feature = "middleware")]
        guests: guests(
            config,
            &parts.component,
            &reflex,
            &policy,
            &providers,
            metrics,
        )?,
        flow: NativeFlow::new(reflex, policy, Arc::clone(&providers) as _),
        aimer: Aimer {
            providers: Arc::clone(&providers),
            budget: Arc::clone(budget),
            paths: Arc::clone(&config.paths),
            tenant_header: tenant_header.clone(),
            idle_max: config.net.idle_max,
            request_max: config.net.request_max,
        },
        providers,
        metrics: Arc::clone(metrics),
        reasons,
        told: access::Told {
            in_log: config.access_log,
            #[cfg(feature = "otlp")]
            in_spans: parts.spans.clone(),
        },
        is_shadow: config.mode == Mode::Shadow,
        tenant_header,
        idle_max: config.net.idle_max,
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
    providers: &Arc<Providers>,
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
        Arc::clone(providers) as _,
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

fn scheme(has_tls: bool) -> &'static str {
    match has_tls {
        true => "https",
        false => "http",
    }
}

/// Runs `admin` to its end, for at most so long after the stop as all requests have together.
async fn until_drained(admin: impl Future<Output = ()>, stopped: Stopped, drain_max: Duration) {
    let deadline = async {
        stopped.wait().await;
        tokio::time::sleep(drain_max).await;
    };
    tokio::select! {
        () = admin => {}
        () = deadline => {}
    }
}

async fn sync_now(cache: &Cache) {
    let cache = cache.clone();
    match tokio::task::spawn_blocking(move || cache.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store could not be synced"),
        Err(error) => tracing::warn!(%error, "the sync of the store failed"),
    }
}
