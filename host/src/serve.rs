//! The daemon: an HTTP reverse proxy in front of one provider, with the cache in between.
//!
//! ```text
//! listener ─► proxy ─► runtime::Handler (guest) ─► cache
//!                └─► upstream ◄──────┘ miss, bypass, or the guest has failed
//! ```

mod admin;
mod held;
mod proxy;
mod timed;
mod upstream;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{Config, NetLimits};
use crate::metrics::Metrics;
use crate::runtime::{Grant, Handler, HttpPolicy, ReflexCtx};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use proxy::Proxy;
use reflex_llm::Anonymous;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use upstream::UpstreamClient;

/// The middleware component that is built in.
pub const MIDDLEWARE: &[u8] = include_bytes!(env!("REFLEX_MIDDLEWARE_WASM"));

/// Streams of one HTTP/2 connection at once.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// What may be lost if the machine stops: the time between two syncs.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A daemon that has all it needs and listens, but answers nobody yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    admin: TcpListener,
    proxy: Arc<Proxy>,
    cache: Cache,
    metrics: Arc<Metrics>,
    net: NetLimits,
}

impl Server {
    /// Opens the store, compiles the component, and binds both addresses.
    ///
    /// # Errors
    ///
    /// One line that names the flag or the file, and what is wrong with it. Nothing has been
    /// changed in a data folder that could not be opened.
    pub async fn prepare(config: Config) -> Result<Self, String> {
        let listener = bind("--listen", config.listen).await?;
        let admin = bind("--admin", config.admin).await?;
        let cache = Cache::open(&config.cache).map_err(|error| format!("--data-dir: {error}"))?;

        let metrics = Arc::new(Metrics::default());
        let upstream =
            UpstreamClient::new(config.upstream, config.net.clone(), Arc::clone(&metrics));
        let upstream = Arc::new(upstream.map_err(|error| format!("--upstream: TLS: {error}"))?);

        let (name, component) = match &config.component {
            None => ("the built-in component".to_owned(), MIDDLEWARE.to_vec()),
            Some(path) => {
                let name = format!("--component {}", path.display());
                let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
                (name, bytes)
            }
        };
        let anonymous = if config.share_anonymous {
            Anonymous::Share
        } else {
            Anonymous::Bypass
        };
        let reflex = ReflexCtx {
            cache: cache.clone(),
            grant: Grant {
                namespace: config.namespace,
                anonymous,
                tenant_header: config.tenant_header,
                request_bytes_max: config.request_bytes_max,
                ttl: Some(config.ttl),
                ttl_max: None,
            },
            clock: Clock::system(),
        };
        let policy = HttpPolicy {
            allow_length: config.allow_length,
            observer: Arc::clone(&metrics) as _,
        };
        let handler = Handler::new(
            &component,
            reflex,
            policy,
            Arc::clone(&upstream) as _,
            config.guest,
        )
        .map_err(|error| format!("{name}: {error}"))?;

        let proxy = Arc::new(Proxy {
            handler,
            upstream,
            metrics: Arc::clone(&metrics),
            held_bytes_max: config.request_bytes_max,
            idle_max: config.net.idle_max,
        });
        Ok(Self {
            listener,
            admin,
            proxy,
            cache,
            metrics,
            net: config.net,
        })
    }

    /// Where clients connect, the port resolved.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators connect, the port resolved.
    ///
    /// # Errors
    ///
    /// Fails as the operating system does.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Answers requests until `stop` resolves, then lets those that run come to their end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(());
        let admin = tokio::spawn(run_admin(
            self.admin,
            admin::router(self.cache.clone(), self.metrics),
            stopped.clone(),
        ));
        let sync = tokio::spawn(keep_synced(self.cache.clone()));

        tokio::select! {
            () = accept(self.listener, self.proxy, &self.net, stopped) => {}
            () = async {
                stop.await;
                drop(stopping);
                std::future::pending().await
            } => {}
        }

        sync.abort();
        let _ = admin.await;
        sync_now(&self.cache).await;
    }
}

async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("{flag} {address}: {error}"))
}

/// Accepts connections, at most `connections_max` at once, until `stopped`; then drains.
async fn accept(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    net: &NetLimits,
    mut stopped: watch::Receiver<()>,
) {
    let connections = Arc::new(Semaphore::new(net.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(net.header_read_max)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);

    loop {
        let next = async {
            // The semaphore is never closed; were it, there would be nothing left to bound.
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = stopped.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end give some back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection without TCP_NODELAY");
        }
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop(permit);
        });
    }

    drop(listener);
    tracing::info!("stopping: running requests come to their end");
    if tokio::time::timeout(net.drain_max, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("stopping: some requests took too long and were cut");
    }
}

async fn run_admin(listener: TcpListener, router: axum::Router, mut stopped: watch::Receiver<()>) {
    let stop = async move {
        let _ = stopped.changed().await;
    };
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
    {
        tracing::warn!(%error, "the admin address is out of order");
    }
}

async fn keep_synced(cache: Cache) {
    let mut interval = tokio::time::interval(SYNC_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        sync_now(&cache).await;
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
