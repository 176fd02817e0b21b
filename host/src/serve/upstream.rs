//! The way to the provider: one pooled client, HTTP/1.1 and HTTP/2, TLS by rustls.

use super::timed::Timed;
use crate::config::{NetLimits, Upstream};
use crate::metrics::Metrics;
use crate::runtime::{ResponseFuture, SendRequest};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use wasmtime_wasi_http::{Error, WasiBody};

/// Idle connections to the provider that are kept for the next request.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long. Providers close theirs after a minute or more; ours go first.
const IDLE_SECONDS_MAX: u64 = 50;

/// Sends requests to one provider and to nobody else.
pub(crate) struct UpstreamClient {
    client: Client<HttpsConnector<HttpConnector>, WasiBody>,
    upstream: Upstream,
    limits: NetLimits,
    metrics: Arc<Metrics>,
}

impl UpstreamClient {
    /// # Errors
    ///
    /// Fails if TLS cannot be set up.
    pub(crate) fn new(
        upstream: Upstream,
        limits: NetLimits,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(limits.connect_max));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // The system's trust store lets operators add a CA of their own; a machine without one
        // still reaches public providers.
        let tls = match HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(Arc::clone(&provider))
        {
            Ok(tls) => tls,
            Err(error) => {
                tracing::info!(%error, "no system trust store: using the built-in one");
                HttpsConnectorBuilder::new()
                    .with_provider_and_webpki_roots(provider)
                    .map_err(|error| error.to_string())?
            }
        };
        let connector = tls
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECONDS_MAX))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Self {
            client,
            upstream,
            limits,
            metrics,
        })
    }

    /// Where a request for this path goes.
    ///
    /// # Errors
    ///
    /// Together with the provider's prefix it is no path.
    pub(crate) fn target(&self, path: Option<&PathAndQuery>) -> Result<Uri, http::Error> {
        let Upstream {
            scheme,
            authority,
            prefix,
        } = &self.upstream;
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone());
        let uri = match path {
            Some(path) if prefix.is_empty() => uri.path_and_query(path.clone()),
            path => {
                let path = path.map_or("/", PathAndQuery::as_str);
                uri.path_and_query(format!("{prefix}{path}"))
            }
        };
        uri.build()
    }
}

impl std::fmt::Debug for UpstreamClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamClient")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl SendRequest for UpstreamClient {
    fn send(&self, mut request: Request<WasiBody>) -> ResponseFuture {
        let here = (request.uri().scheme(), request.uri().authority());
        if here != (Some(&self.upstream.scheme), Some(&self.upstream.authority)) {
            // A guest may talk to the provider, not to the network.
            return Box::pin(std::future::ready(Err(Error::HttpRequestDenied)));
        }
        strip_hop_by_hop(request.headers_mut());
        request
            .headers_mut()
            .append(header::VIA, HeaderValue::from_static("1.1 reflex-edge"));
        let head = *request.method() == Method::HEAD;
        let response = self.client.request(request);
        let NetLimits {
            response_max,
            idle_max,
            ..
        } = self.limits;
        let metrics = Arc::clone(&self.metrics);
        Box::pin(async move {
            let answered = tokio::time::timeout(response_max, response).await;
            let response = match answered {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    metrics.upstream_failed();
                    return Err(failure(&error));
                }
                Err(_) => {
                    metrics.upstream_failed();
                    return Err(Error::HttpResponseTimeout);
                }
            };
            let (mut parts, body) = response.into_parts();
            strip_hop_by_hop(&mut parts.headers);
            // The body knows its own length. Left in place, the header would be checked a second
            // time on the way, by a layer that hides whose body it is.
            if !head && body.size_hint().exact().is_some() {
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            let body = Timed::new(body, idle_max)
                .map_err(Error::from)
                .boxed_unsync();
            Ok(Response::from_parts(parts, body))
        })
    }
}

/// What went wrong before there was a response, in the words of `wasi:http`.
fn failure(error: &hyper_util::client::legacy::Error) -> Error {
    let text = causes(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    tracing::warn!(error = text, "the provider did not answer");
    let io = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
        Some(std::io::ErrorKind::TimedOut) => Error::ConnectionTimeout,
        Some(std::io::ErrorKind::InvalidData) => Error::TlsProtocolError,
        _ if error.is_connect() => Error::DestinationUnavailable,
        _ => Error::ConnectionTerminated,
    }
}

/// An error and its causes.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

/// Headers that speak of one connection, RFC 9110 section 7.6.1, and those that `Connection`
/// names itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Takes out what must not go past this hop.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_end_to_end_headers_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private , keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("authorization", "Bearer k"),
            ("x-public", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-public"]);
    }
}
