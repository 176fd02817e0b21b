//! A request as Envoy shows it, before the route and after it.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;

use reflex_envoy_core::exchange::Request;
use reflex_envoy_core::routes::Route;

/// The request that Envoy is calling for.
pub(super) fn request() -> Request {
    let map = hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default();
    let mut request = Request {
        method: String::new(),
        path: String::new(),
        headers: Vec::with_capacity(map.len()),
        authority: String::new(),
        route: Route {
            cluster: property("cluster_name"),
            listener: listener(),
            virtual_host: property("virtual_host_name"),
            name: property("route_name"),
        },
        length: None,
    };
    let text = |value: Vec<u8>| String::from_utf8(value).unwrap_or_default();
    for (name, value) in map {
        match name.as_str() {
            ":method" => request.method = text(value),
            ":path" => request.path = text(value),
            ":authority" => request.authority = text(value),
            name if name.starts_with(':') => {}
            "content-length" => request.length = text(value).parse().ok(),
            _ => request.headers.push((name, value)),
        }
    }
    request
}

/// What Envoy has chosen for the request, by that name. It stays what it was where a filter in front
/// has had the choice made anew, until Envoy does so.
fn property(name: &str) -> String {
    let value = hostcalls::get_property(vec!["xds", name]).ok().flatten();
    value
        .and_then(|value| String::from_utf8(value).ok())
        .unwrap_or_default()
}

/// By which listener, and which of its filter chains, the request has come. Envoy does not tell the
/// listener's name, but its port.
fn listener() -> String {
    let port = hostcalls::get_property(vec!["destination", "port"])
        .ok()
        .flatten();
    let port = port.and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?)));
    let chain = property("filter_chain_name");
    format!("{} {chain}", port.unwrap_or_default())
}

/// Whether the answer that Envoy is calling for is the provider's: Envoy and other filters answer
/// too.
pub(super) fn is_providers() -> bool {
    let details = hostcalls::get_property(vec!["response", "code_details"]);
    details
        .ok()
        .flatten()
        .is_some_and(|details| details == b"via_upstream")
}
