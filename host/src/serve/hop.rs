//! Headers that concern one connection.

use http::header::{self, HeaderMap, HeaderName};

/// Whether a header is about one connection: RFC 9110, section 7.6.1.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Headers that no `Connection` may remove: they decide the tenant and the meaning of a request.
/// RFC 9110, section 7.6.1, forbids naming such headers there. A request without them would be
/// another request, for the provider and for the cache.
const END_TO_END: [&str; 20] = [
    "accept",
    "accept-encoding",
    "age",
    "api-key",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "host",
    "origin",
    "range",
    "set-cookie",
    "vary",
    "via",
    "x-api-key",
    "x-goog-api-key",
];

/// Removes the headers that must not go past this hop: headers of connections, and headers that
/// `Connection` names. Of the latter, `kept` stay, and those defined for the other end.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, kept: &[HeaderName]) {
    strip(headers, kept, is_hop_by_hop);
}

/// The same, where `is_ours` says which headers are of this hop.
///
/// Each request has this done. Most have one such header or none: a look at each name costs less than a search
/// for each of a list.
pub(crate) fn strip(
    headers: &mut HeaderMap,
    kept: &[HeaderName],
    is_ours: impl Fn(&HeaderName) -> bool,
) {
    let named: Vec<HeaderName> = named(headers)
        .filter_map(|name| name.parse().ok())
        .filter(|name: &HeaderName| !kept.contains(name) && !END_TO_END.contains(&name.as_str()))
        .collect();
    for name in named {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| is_ours(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether `Connection` names this.
pub(crate) fn connection_names(headers: &HeaderMap, option: &str) -> bool {
    named(headers).any(|name| name.eq_ignore_ascii_case(option))
}

fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn left(headers: &[(&'static str, &'static str)], kept: &[HeaderName]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut map, kept);
        let mut left: Vec<_> = map.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn only_end_to_end_headers_pass() {
        let headers = [
            ("connection", "close, X-Private , keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("authorization", "Bearer k"),
            ("x-public", "1"),
        ];
        assert_eq!(left(&headers, &[]), ["authorization", "x-public"]);
    }

    #[test]
    fn a_client_cannot_take_away_whose_request_it_is() {
        let headers = [
            ("connection", "X-Team, authorization,x-api-key"),
            ("connection", "Cookie, x-other"),
            ("x-team", "red"),
            ("x-other", "1"),
            ("authorization", "Bearer k"),
            ("x-api-key", "k"),
            ("cookie", "a=1"),
        ];
        let team = HeaderName::from_static("x-team");
        let kept = ["authorization", "cookie", "x-api-key", "x-team"];
        assert_eq!(left(&headers, &[team]), kept);
        assert_eq!(left(&headers, &[]), kept[..3]);
    }
}
