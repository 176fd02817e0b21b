//! The way to the providers: pooled connections, HTTP/1.1 and HTTP/2, TLS by rustls, through the
//! proxy that the environment names.
//!
//! ```text
//! route.rs    which provider a request is for
//! providers.rs ─► breaker.rs    whether it answers; who stands in for it
//!     └─► UpstreamClient ─► pool.rs ─► connect.rs, open.rs
//! ```

mod breaker;
mod connect;
mod environment;
mod meter;
mod open;
mod path;
mod pool;
mod providers;
mod route;
mod tls;

use super::held::hold;
use super::hop::strip_hop_by_hop;
use super::timed::Timed;
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::serve::config::{NetLimits, Upstream};
use crate::serve::metrics::Metrics;
use crate::serve::tls::Digest;
pub(crate) use providers::{Aim, Common, Providers, check_none_is_own};
pub(crate) use route::{NoProvider, Wanted, aimed, chosen};
pub(crate) use tls::ProviderTls;

use arc_swap::ArcSwap;
use bytes::Bytes;
use connect::{BoxError, Connector, NameError};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use open::Pings;
use path::stays_below;
use pool::{Lease, Pool, Stream, Wish};
use std::collections::hash_map::RandomState;
use std::error::Error as StdError;
use std::hash::BuildHasher as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// For this long after a request was sent, the end of its connection may have crossed it on the
/// way. Later than that the provider has worked on the request, and it is not sent again.
const MEETING_TIME_MAX: Duration = Duration::from_secs(5);

/// Sends requests to one provider and to no other place.
pub(crate) struct UpstreamClient(Arc<Client>);

struct Client {
    /// With the certificates that new connections use.
    way: ArcSwap<Way>,
    upstream: Upstream,
    /// The value of `Host`.
    host: HeaderValue,
    /// This process's own name in `Via`, to recognize a request that comes back.
    via: HeaderValue,
    limits: NetLimits,
    held_bytes_max: u64,
    /// The memory budget of all requests.
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

/// How connections are made, and those that are there.
struct Way {
    pool: Arc<Pool>,
    tls: Arc<ProviderTls>,
}

impl Way {
    fn new(upstream: &Upstream, tls: Arc<ProviderTls>, limits: &NetLimits) -> Result<Self, String> {
        let proxy = environment::proxy(upstream, |name| std::env::var(name).ok())?;
        if let Some(proxy) = &proxy {
            tracing::info!(?proxy, "the provider is reached through a proxy");
        }
        let connector = Connector::new(upstream, proxy, &tls, limits.connect_max)?;
        let pool = Pool::new(connector, Pings::within(limits));
        Ok(Self { pool, tls })
    }
}

impl UpstreamClient {
    /// A client of this provider. Of a request's body, at most `held_bytes_max` are kept to send it
    /// again.
    ///
    /// # Errors
    ///
    /// The environment names a proxy that is none.
    pub(crate) fn new(
        upstream: Upstream,
        tls: Arc<ProviderTls>,
        limits: NetLimits,
        held_bytes_max: u64,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let way = Way::new(&upstream, tls, &limits)?;
        let id = RandomState::new().hash_one(std::process::id());
        let text = |text: &str| HeaderValue::try_from(text).map_err(|error| error.to_string());
        Ok(Self(Arc::new(Client {
            way: ArcSwap::from_pointee(way),
            host: text(host(&upstream))?,
            via: text(&format!("1.1 reflex-edge-{id:016x}"))?,
            upstream,
            limits,
            held_bytes_max,
            budget,
            metrics,
        })))
    }

    /// A client of another provider, or with other limits, in this process: a request that has come
    /// through the earlier one is recognised.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn again(
        &self,
        upstream: Upstream,
        tls: Arc<ProviderTls>,
        limits: NetLimits,
        held_bytes_max: u64,
    ) -> Result<Self, String> {
        let budget = Arc::clone(&self.0.budget);
        let metrics = Arc::clone(&self.0.metrics);
        let mut client = Self::new(upstream, tls, limits, held_bytes_max, budget, metrics)?;
        // No other has it yet.
        if let Some(client) = Arc::get_mut(&mut client.0) {
            client.via = self.0.via.clone();
        }
        Ok(client)
    }

    /// The state of the certificate files that new connections use.
    pub(crate) fn tls_digest(&self) -> Digest {
        self.0.way.load().tls.digest()
    }

    /// Makes connections with these certificates from now on. Requests that run keep theirs.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(crate) fn renew(&self, tls: Arc<ProviderTls>) -> Result<(), String> {
        let client = &self.0;
        let way = Way::new(&client.upstream, tls, &client.limits)?;
        client.way.store(Arc::new(way));
        Ok(())
    }

    /// When the daemon's own certificate expires, in seconds since 1970.
    fn expiry(&self) -> Option<u64> {
        self.0.way.load().tls.expiry
    }

    fn limits(&self) -> &NetLimits {
        &self.0.limits
    }

    /// Whether a request has come through this process before: the provider's address leads back
    /// to it.
    pub(crate) fn has_passed(&self, headers: &HeaderMap) -> bool {
        let via = self.0.via.as_bytes();
        headers
            .get_all(header::VIA)
            .iter()
            .any(|value| value.as_bytes().windows(via.len()).any(|part| part == via))
    }

    /// Sends a request that asks for another protocol, with the headers that say so, on a
    /// connection of its own.
    pub(crate) async fn upgrade(
        &self,
        request: Request<BoxBody>,
    ) -> Result<Response<Incoming>, Error> {
        let client = &self.0;
        let limits = &client.limits;
        let sent = tokio::time::timeout(limits.response_max, client.upgrade(request)).await;
        let response = sent.unwrap_or(Err(Error::HttpResponseTimeout));
        response.inspect_err(|_| client.metrics.upstream_failed())
    }
}

/// Where a request for this path goes.
///
/// # Errors
///
/// It is no path below the provider's prefix.
fn target(upstream: &Upstream, path: Option<&PathAndQuery>) -> Result<Uri, NoTarget> {
    let Upstream {
        scheme,
        authority,
        prefix,
    } = upstream;
    let path = match path {
        Some(path) if prefix.is_empty() => path.clone(),
        path => {
            if path.is_some_and(|path| !stays_below(path.path())) {
                return Err(NoTarget);
            }
            let path = path.map_or("/", PathAndQuery::as_str);
            let path = PathAndQuery::try_from(format!("{prefix}{path}"));
            path.map_err(|_| NoTarget)?
        }
    };
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| NoTarget)
}

/// A request's path does not lead to the provider.
#[derive(Debug)]
pub(crate) struct NoTarget;

impl std::fmt::Debug for UpstreamClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamClient")
            .field("upstream", &self.0.upstream)
            .finish_non_exhaustive()
    }
}

/// Whether this process itself listens on the provider's address, with TLS or without, as far as its text
/// shows.
fn is_own(upstream: &Upstream, listens: SocketAddr, has_tls: bool) -> bool {
    let host = upstream.authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = match ip.parse::<IpAddr>() {
        Ok(ip) => ip == listens.ip() || listens.ip().is_unspecified() && ip.is_loopback(),
        Err(_) => {
            let ip = listens.ip();
            host.eq_ignore_ascii_case("localhost") && (ip.is_loopback() || ip.is_unspecified())
        }
    };
    let scheme = match has_tls {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    };
    upstream.scheme == scheme && upstream.port() == listens.port() && is_here
}

impl SendRequest for UpstreamClient {
    fn send(&self, request: Request<BoxBody>) -> ResponseFuture {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let head = *request.method() == Method::HEAD;
            let sent = client.send(request);
            let sent = tokio::time::timeout(client.limits.response_max, sent).await;
            let sent = sent.unwrap_or(Err(Error::HttpResponseTimeout));
            let (response, stream) = match sent {
                Ok(sent) => sent,
                // The guest's fault, and not the provider's.
                Err(Error::HttpRequestDenied) => return Err(Error::HttpRequestDenied),
                Err(error) => {
                    client.metrics.upstream_failed();
                    return Err(error);
                }
            };
            let (mut parts, body) = response.into_parts();
            strip_hop_by_hop(&mut parts.headers, &[]);
            // The body knows its own length. Left in place, the header would be checked a second
            // time on the way, by a layer that hides whose body it is; and beside chunks it is
            // wrong.
            if !head && parts.status != StatusCode::NOT_MODIFIED {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            let body = Timed::response(body, client.limits.idle_max);
            let body = match stream {
                Some(stream) => Streamed::new(body, stream).boxed_unsync(),
                None => body.boxed_unsync(),
            };
            Ok(Response::from_parts(parts, body))
        })
    }
}

type Sent = (Response<Incoming>, Option<Stream>);

impl Client {
    async fn send(&self, mut request: Request<BoxBody>) -> Result<Sent, Error> {
        let here = (request.uri().scheme(), request.uri().authority());
        if here != (Some(&self.upstream.scheme), Some(&self.upstream.authority)) {
            // A guest may talk to the provider, not to the network.
            return Err(Error::HttpRequestDenied);
        }
        strip_hop_by_hop(request.headers_mut(), &[]);
        self.pass_on(&mut request);
        let is_kept = request.body().size_hint().lower() <= self.held_bytes_max;
        let wish = match is_kept {
            true => Wish::Any,
            false => Wish::NotIdle,
        };
        let lease = self.lease(wish).await?;
        if !lease.is_reused {
            return self.send_on(lease, request).await.map_err(|it| it.error);
        }
        // The provider may be closing the connection just now.
        let (held, lent) = hold(request, self.held_bytes_max, &self.budget);
        let began = Instant::now();
        let failed = match self.send_on(lease, lent).await {
            Ok(sent) => return Ok(sent),
            Err(failed) => failed,
        };
        let again = match failed.is_unanswered && began.elapsed() < MEETING_TIME_MAX {
            true => held.take_back().ok(),
            false => None,
        };
        let Some(request) = again else {
            return Err(failed.error);
        };
        tracing::debug!("sent again: the provider had closed the connection");
        let lease = self.lease(Wish::MadeAfter(began)).await?;
        self.send_on(lease, request).await.map_err(|it| it.error)
    }

    /// A connection within `connect_max`, however many steps it takes to have one.
    async fn lease(&self, wish: Wish) -> Result<Lease, Error> {
        let pool = Arc::clone(&self.way.load().pool);
        self.connected(pool.lease(wish)).await
    }

    async fn connected<T>(
        &self,
        connecting: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.limits.connect_max, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(connect_failure(&*error)),
            Err(_) => {
                tracing::warn!("the provider cannot be reached: connecting took too long");
                Err(Error::ConnectionTimeout)
            }
        }
    }

    async fn send_on(&self, lease: Lease, mut request: Request<BoxBody>) -> Result<Sent, Unsent> {
        match lease.is_http2() {
            true => *request.version_mut() = Version::HTTP_2,
            false => {
                let way = self.way.load_full();
                self.write_for_http1(&mut request, &way.pool.connector().forwarded);
            }
        }
        let (response, stream) = lease.send(request).await.map_err(|failed| Unsent {
            error: send_failure(&failed.error),
            is_unanswered: failed.is_unanswered,
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            tracing::warn!("the provider switched protocols unasked");
            return Err(Unsent {
                error: Error::HttpProtocolError,
                is_unanswered: false,
            });
        }
        Ok((response, stream))
    }

    async fn upgrade(&self, mut request: Request<BoxBody>) -> Result<Response<Incoming>, Error> {
        self.pass_on(&mut request);
        let pool = Arc::clone(&self.way.load().pool);
        let io = self.connected(pool.connector().connect_for_upgrade());
        let io = io.await?;
        self.write_for_http1(&mut request, &None);
        let response = open::upgrade(io, request).await;
        response.map_err(|error| send_failure(&error))
    }

    /// Says that the request came through here.
    fn pass_on(&self, request: &mut Request<BoxBody>) {
        request.headers_mut().append(header::VIA, self.via.clone());
    }

    /// HTTP/1.1 names the host in a header, and a proxy that forwards needs the whole URL.
    fn write_for_http1(
        &self,
        request: &mut Request<BoxBody>,
        forwarded: &Option<Option<HeaderValue>>,
    ) {
        *request.version_mut() = Version::HTTP_11;
        request
            .headers_mut()
            .insert(header::HOST, self.host.clone());
        match forwarded {
            Some(None) => {}
            Some(Some(auth)) => {
                request
                    .headers_mut()
                    .insert(header::PROXY_AUTHORIZATION, auth.clone());
            }
            None => {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
            }
        }
    }
}

/// A request that got no response.
struct Unsent {
    error: Error,
    is_unanswered: bool,
}

/// The provider's host, and its port if that is not its scheme's own.
fn host(upstream: &Upstream) -> &str {
    let usual = match upstream.scheme == Scheme::HTTPS {
        true => ":443",
        false => ":80",
    };
    let authority = upstream.authority.as_str();
    authority.strip_suffix(usual).unwrap_or(authority)
}

/// An error of connecting, by its name.
fn connect_failure(error: &(dyn StdError + 'static)) -> Error {
    tracing::warn!(error = text(error), "the provider cannot be reached");
    if causes(error).any(|cause| cause.is::<NameError>()) {
        return Error::DnsError;
    }
    if causes(error).any(|cause| cause.is::<rustls::Error>()) {
        return Error::TlsProtocolError;
    }
    let mut io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.find_map(|io| match (io.kind(), io.raw_os_error()) {
        (io::ErrorKind::ConnectionRefused, _) => Some(Error::ConnectionRefused),
        (io::ErrorKind::TimedOut, _) => Some(Error::ConnectionTimeout),
        (_, Some(EMFILE | ENFILE)) => Some(Error::ConnectionLimitReached),
        _ => None,
    })
    .unwrap_or(Error::DestinationUnroutable)
}

/// No file descriptor is left, for the process or for the system.
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();

/// An error after the request was sent.
fn send_failure(error: &hyper::Error) -> Error {
    tracing::warn!(error = text(error), "the provider did not answer");
    match error.is_parse() {
        true => Error::HttpProtocolError,
        false => Error::ConnectionTerminated,
    }
}

fn text(error: &(dyn StdError + 'static)) -> String {
    let texts: Vec<_> = causes(error).map(ToString::to_string).collect();
    texts.join(": ")
}

/// An error and its causes, including those that `io::Error` hides.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| {
        let hidden = cause.downcast_ref().and_then(io::Error::get_ref);
        hidden.map_or_else(|| cause.source(), |hidden| Some(hidden as _))
    })
}

/// A body that holds its stream of a shared connection.
struct Streamed {
    inner: Timed,
    /// Gone at the end.
    stream: Option<Stream>,
}

impl Streamed {
    fn new(inner: Timed, stream: Stream) -> Self {
        let stream = (!inner.is_end_stream()).then_some(stream);
        Self { inner, stream }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.inner.is_end_stream() {
            self.stream = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_is_ourselves_is_known() {
        let check = |url: &str, listens: &str, expected: bool| {
            let upstream = url.parse().expect("a URL");
            let listens = listens.parse().expect("an address");
            let has_tls = url.starts_with("https:");
            assert_eq!(is_own(&upstream, listens, has_tls), expected, "{url}");
            assert!(!is_own(&upstream, listens, !has_tls), "{url} {listens}");
        };
        check("http://127.0.0.1:8080", "127.0.0.1:8080", true);
        check("http://127.0.0.1:8080/v1", "0.0.0.0:8080", true);
        check("http://localhost:8080", "127.0.0.1:8080", true);
        check("http://LOCALHOST:8080", "[::]:8080", true);
        check("http://[::1]:8080", "[::1]:8080", true);
        check("http://127.0.0.1", "127.0.0.1:80", true);
        check("http://127.0.0.1:8081", "127.0.0.1:8080", false);
        check("http://127.0.0.2:8080", "127.0.0.1:8080", false);
        check("https://127.0.0.1:8080", "127.0.0.1:8080", true);
        check("https://127.0.0.1", "0.0.0.0:443", true);
        check("http://models.test:8080", "0.0.0.0:8080", false);
        check("http://localhost:8080", "192.0.2.1:8080", false);
    }
}
