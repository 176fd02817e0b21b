//! New connections to the provider: its name, TCP, a proxy where the environment names one, TLS.

use super::environment::{Kind, Proxy, with_port};
use super::tls::ProviderTls;
use crate::serve::config::Upstream;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Scheme};
use http::{Uri, uri};
use hyper::rt::{Read, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use rustls::ClientConfig;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// A peer that has vanished is detected after this and a few probes. NATs and load balancers forget
/// connections after minutes, and a model may think for that long.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE_RETRIES: u32 = 3;
/// How long sent data may stay unacknowledged; the system's own bound is a quarter of an hour.
const TCP_UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection that speaks HTTP, with or without TLS.
pub(super) trait Io: Read + Write + Connection + Send + Unpin {}

impl<T: Read + Write + Connection + Send + Unpin> Io for T {}

type Dialing = Pin<Box<dyn Future<Output = Result<Box<dyn Io>, BoxError>> + Send>>;
type Dial = Box<dyn Fn() -> Dialing + Send + Sync>;

/// Makes connections to one provider.
pub(super) struct Connector {
    usual: Dial,
    for_upgrades: Dial,
    /// Whether usual requests go to a proxy that forwards them, and with which credentials.
    pub(super) forwarded: Option<Option<HeaderValue>>,
}

impl Connector {
    /// A connector to the provider, through `proxy` if given.
    ///
    /// # Errors
    ///
    /// The provider's URL has no host or an impossible port.
    pub(super) fn new(
        upstream: &Upstream,
        proxy: Option<Proxy>,
        tls: &ProviderTls,
        connect_max: Duration,
    ) -> Result<Self, String> {
        let tcp = tcp(connect_max);
        let target = target(upstream).ok_or("not a host and a port")?;
        let direct = |tls: &Arc<ClientConfig>| HttpsConnector::from((tcp.clone(), Arc::clone(tls)));
        // The connector depends on the protocols that the connection to the provider may speak.
        let connector = match proxy {
            None => Self {
                usual: dial(direct(&tls.any), target.clone()),
                for_upgrades: dial(direct(&tls.http1), target),
                forwarded: None,
            },
            Some(Proxy { kind, uri, .. }) => match kind {
                Kind::Http(auth) => {
                    let mut tunnel = Tunnel::new(uri.clone(), direct(&tls.proxy));
                    if let Some(auth) = &auth {
                        tunnel = tunnel.with_auth(auth.clone());
                    }
                    let secure = upstream.scheme == Scheme::HTTPS;
                    Self {
                        // Proxies forward plain HTTP and tunnel the rest; many tunnel to no
                        // other port than 443.
                        usual: match secure {
                            true => over(tunnel.clone(), &tls.any, &target),
                            false => dial(direct(&tls.proxy), uri),
                        },
                        for_upgrades: over(tunnel, &tls.http1, &target),
                        forwarded: (!secure).then_some(auth),
                    }
                }
                Kind::Socks4 => {
                    let socks = SocksV4::new(uri, tcp);
                    Self {
                        usual: over(socks.clone(), &tls.any, &target),
                        for_upgrades: over(socks, &tls.http1, &target),
                        forwarded: None,
                    }
                }
                Kind::Socks5(auth) => {
                    let mut socks = SocksV5::new(uri, tcp);
                    if let Some((user, password)) = auth {
                        socks = socks.with_auth(user, password);
                    }
                    Self {
                        usual: over(socks.clone(), &tls.any, &target),
                        for_upgrades: over(socks, &tls.http1, &target),
                        forwarded: None,
                    }
                }
            },
        };
        Ok(connector)
    }

    /// A connection that speaks HTTP/2 if the provider accepts it.
    pub(super) async fn connect(&self) -> Result<Box<dyn Io>, BoxError> {
        (self.usual)().await
    }

    /// A connection that speaks HTTP/1.1, all the way to the provider.
    pub(super) async fn connect_for_upgrade(&self) -> Result<Box<dyn Io>, BoxError> {
        (self.for_upgrades)().await
    }
}

/// TLS to the provider over what `inner` connects, where the provider has TLS.
fn over<S>(inner: S, config: &Arc<ClientConfig>, target: &Uri) -> Dial
where
    S: Service<Uri> + Clone + Send + Sync + 'static,
    S::Response: Io + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
{
    let connector = HttpsConnector::from((inner, Arc::clone(config)));
    dial(connector, target.clone())
}

fn dial<S>(service: S, target: Uri) -> Dial
where
    S: Service<Uri> + Clone + Send + Sync + 'static,
    S::Response: Io + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
{
    Box::new(move || {
        let (mut service, target) = (service.clone(), target.clone());
        Box::pin(async move {
            std::future::poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            let io = service.call(target).await.map_err(Into::into)?;
            Ok(Box::new(io) as Box<dyn Io>)
        })
    })
}

/// Scheme, host and port of the provider. The port is spelled out, because tunnels take 443 for a
/// missing one.
fn target(upstream: &Upstream) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(upstream.scheme.clone());
    parts.authority = Some(with_port(&upstream.authority, upstream.port())?);
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).ok()
}

fn tcp(connect_max: Duration) -> HttpConnector<Resolver> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    // Shared among the addresses of a name, so that an address without an answer leaves time for
    // the next. The caller bounds the whole.
    tcp.set_connect_timeout(Some(connect_max));
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(TCP_UNACKNOWLEDGED_MAX));
    tcp
}

/// The system's resolver, with errors that differ from those of connections.
#[derive(Clone)]
struct Resolver(GaiResolver);

/// A name that has no address, or none that the resolver could learn.
#[derive(Debug)]
pub(super) struct NameError(io::Error);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name resolution: {}", self.0)
    }
}

impl std::error::Error for NameError {}

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = NameError;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, NameError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NameError>> {
        self.0.poll_ready(cx).map_err(NameError)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move { found.await.map_err(NameError) })
    }
}
