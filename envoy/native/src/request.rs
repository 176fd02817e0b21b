//! A request as Envoy shows it, before the route has changed it and after.

use crate::abi::{Envoy, Map, Number, Text};
use reflex_envoy_core::request::Request;
use reflex_envoy_core::routes::Route;
use std::sync::Arc;

/// What Envoy's decompressor begins the names of its trailers with. It adds two to each body that
/// it has decompressed, which tell how long the body was before and after.
const DECOMPRESSOR: &[u8] = b"x-envoy-decompressor-";

/// The route that Envoy has chosen for the request that it is calling for.
pub(crate) fn route(envoy: &Envoy<'_>) -> Route {
    Route {
        cluster: text(envoy.cluster()).to_owned(),
        listener: listener(envoy),
        virtual_host: text(envoy.text(Text::VirtualHostName)).to_owned(),
        name: text(envoy.text(Text::RouteName)).to_owned(),
    }
}

/// Hands over the request that Envoy is calling for, by this route.
pub(crate) fn with_request<T>(
    envoy: &Envoy<'_>,
    route: &Arc<Route>,
    take: impl FnOnce(&Request<'_>) -> T,
) -> T {
    let mut request = Request {
        method: "",
        path: "",
        headers: &[],
        authority: "",
        route,
        length: None,
    };
    let all = envoy.headers(Map::Request);
    let mut headers = Vec::with_capacity(all.len());
    for (name, value) in all {
        match name {
            b":method" => request.method = text(Some(value)),
            b":path" => request.path = text(Some(value)),
            b":authority" => request.authority = text(Some(value)),
            [b':', ..] => {}
            b"content-length" => request.length = text(Some(value)).parse().ok(),
            name => headers.push((text(Some(name)), value)),
        }
    }
    take(&Request {
        headers: &headers,
        ..request
    })
}

/// By which listener, and which of its filter chains, the request has come.
fn listener(envoy: &Envoy<'_>) -> String {
    let port = envoy.number(Number::DestinationPort).unwrap_or_default();
    let chain = text(envoy.text(Text::FilterChainName));
    format!("{port} {chain}")
}

/// What is no text is none: such a request bypasses, because its method or path is unknown.
fn text(bytes: Option<&[u8]>) -> &str {
    let text = bytes.and_then(|bytes| str::from_utf8(bytes).ok());
    text.unwrap_or_default()
}

/// Whether the answer that Envoy is calling for is the provider's: Envoy and other filters answer
/// too.
pub(crate) fn is_providers(envoy: &Envoy<'_>) -> bool {
    envoy.text(Text::ResponseCodeDetails) == Some(b"via_upstream")
}

/// Envoy's response flags UT, LR, UR, UF, UC, UMSDR and UPE: the provider's time is up, its stream was
/// reset, its connection has failed or ended, or what it says is no HTTP. A body that is shorter than
/// promised counts as the last one.
const PROVIDER_FAILED: u64 = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x8_0000 | 0x80_0000;

/// Whether the provider, or the connection to it, has ended the answer.
pub(crate) fn has_broken(envoy: &Envoy<'_>) -> bool {
    let flags = envoy.number(Number::ResponseFlags).unwrap_or_default();
    flags & PROVIDER_FAILED > 0
}

/// The number of the request's connection, if that brings one request after the other.
pub(crate) fn connection(envoy: &Envoy<'_>) -> Option<u64> {
    let protocol = envoy.text(Text::Protocol)?;
    let is_serial = protocol.starts_with(b"HTTP/1");
    envoy.number(Number::ConnectionId).filter(|_| is_serial)
}

/// Whether the trailers that Envoy is calling for say nothing to the provider: there are none, or
/// they are those of the decompressor.
pub(crate) fn trailers_say_nothing(envoy: &Envoy<'_>) -> bool {
    let trailers = envoy.headers(Map::RequestTrailers);
    let mut names = trailers.iter().map(|(name, _)| name);
    trailers.len() == envoy.headers_count(Map::RequestTrailers)
        && names.all(|name| name.starts_with(DECOMPRESSOR))
}
