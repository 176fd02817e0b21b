//! The filter's own answers, and its status in the provider's.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;
use reflex_llm::{ERROR_HEADERS, Status, status};

use reflex_envoy_core::exchange::Served;

/// Answers the client.
pub(super) fn answer(served: &Served) {
    let told: Vec<_> = served.status.headers(served.age_seconds).collect();
    let mut headers: Vec<(&str, &str)> = Vec::with_capacity(8);
    let absent;
    let (code, body) = match &served.answer {
        Some(answer) => {
            let kept = answer.headers.iter();
            headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_str())));
            (200, answer.body.as_slice())
        }
        None => {
            headers.extend(ERROR_HEADERS);
            absent = served.shape.not_cached_body();
            (status::NOT_CACHED_STATUS, absent.as_bytes())
        }
    };
    headers.extend(told.iter().map(|(name, value)| (*name, value.as_ref())));
    let _ = hostcalls::send_http_response(code.into(), headers, Some(body));
}

/// Sets the status headers of the provider's answer.
pub(super) fn mark(status: Status) {
    let headers = MapType::HttpResponseHeaders;
    let own = status.cache_status();
    let first = hostcalls::get_map_value_bytes(headers, status::CACHE_STATUS);
    let list = match first {
        // Envoy returns only the first of several headers of a name.
        Ok(Some(first)) if !first.is_empty() => {
            let map = hostcalls::get_map_bytes(headers).unwrap_or_default();
            let others = map.iter().filter(|(name, _)| name == status::CACHE_STATUS);
            status::cache_status_after(others.map(|(_, value)| value.as_slice()), &own).into()
        }
        _ => own,
    };
    for (name, value) in [
        (status::X_REFLEX_STATUS, status.x_reflex_status()),
        (status::CACHE_STATUS, &list),
    ] {
        let _ = hostcalls::set_map_value(headers, name, Some(value));
    }
}
