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

/// Sets the status headers of the provider's answer, which has these headers.
pub(super) fn mark(status: Status, headers: &[(&str, &[u8])]) {
    let own = status.cache_status();
    let others = headers
        .iter()
        .filter(|(name, _)| *name == status::CACHE_STATUS);
    let mut others = others.map(|(_, value)| *value).peekable();
    let list = match others.peek() {
        Some(first) if !first.is_empty() => status::cache_status_after(others, &own).into(),
        _ => own,
    };
    for (name, value) in [
        (status::X_REFLEX_STATUS, status.x_reflex_status()),
        (status::CACHE_STATUS, &list),
    ] {
        let _ = hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value));
    }
}
