//! A request as Envoy shows it, before the route and after it.

use std::rc::Rc;

use reflex_envoy_core::exchange::Request;
use reflex_envoy_core::pairs;
use reflex_envoy_core::routes::Route;

/// Hands over the request with these headers, as Envoy has written them. Headers that cannot be read
/// are none, and the request bypasses.
pub(super) fn with_request<T>(
    headers: &[u8],
    route: &Rc<Route>,
    take: impl FnOnce(Request<'_>) -> T,
) -> T {
    let mut headers = pairs::headers(headers).unwrap_or_default();
    let mut request = Request {
        method: "",
        path: "",
        headers: &[],
        authority: "",
        route,
        length: None,
    };
    headers.retain(|(name, value)| {
        match *name {
            ":method" => request.method = text(value),
            ":path" => request.path = text(value),
            ":authority" => request.authority = text(value),
            name if name.starts_with(':') => {}
            "content-length" => request.length = text(value).parse().ok(),
            _ => return true,
        }
        false
    });
    take(Request {
        headers: &headers,
        ..request
    })
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}
