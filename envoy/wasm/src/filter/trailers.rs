//! Trailers of a request that are none of the client's.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;

/// What Envoy's decompressor begins the names of its trailers with. It adds two to each body that
/// it has decompressed, which tell how long the body was before and after.
const DECOMPRESSOR: &str = "x-envoy-decompressor-";

/// Whether the trailers that Envoy is calling for say nothing to the provider: there are none, or
/// they are those of the decompressor.
pub(super) fn say_nothing() -> bool {
    let trailers = hostcalls::get_map_bytes(MapType::HttpRequestTrailers);
    trailers.is_ok_and(|trailers| {
        let mut names = trailers.iter().map(|(name, _)| name);
        names.all(|name| name.starts_with(DECOMPRESSOR))
    })
}
