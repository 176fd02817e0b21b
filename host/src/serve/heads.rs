//! How large the head of a client's request may be, which is the same over HTTP/1.1 and HTTP/2.

use http::{HeaderMap, Request};

/// Headers of one request: twice what Envoy takes by default. Gateways and meshes add dozens. hyper
/// clears room for as many with each request over HTTP/1.1: for 2000, that took a seventh of a hit.
pub(super) const HEADERS_MAX: usize = 200;
/// Bytes of one request's head: credentials that are tokens of an identity provider have 20 KiB and
/// more, and proxies in front allow up to 64 KiB. wasmtime lets a guest read as much.
pub(super) const HEAD_BYTES_MAX: usize = 128 << 10;

/// Whether a request's head is within both bounds. Heads of somewhat more reach this, so
/// that the refusal can be an error of the API; past that, hyper and h2 answer 431 without a body.
pub(crate) fn fits<B>(request: &Request<B>) -> bool {
    let (uri, headers) = (request.uri(), request.headers());
    let path = uri.path_and_query().map_or(0, |it| it.as_str().len());
    headers.len() <= HEADERS_MAX && path + bytes_of(headers) <= HEAD_BYTES_MAX
}

fn bytes_of(headers: &HeaderMap) -> usize {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue, Request};

    fn check(headers: usize, value_bytes: usize, fits_in: bool) {
        let mut request = Request::new(());
        for index in 0..headers {
            let name = HeaderName::try_from(format!("x-{index}")).expect("a name");
            let value = HeaderValue::try_from("v".repeat(value_bytes)).expect("a value");
            request.headers_mut().append(name, value);
        }
        assert_eq!(fits(&request), fits_in, "{headers} of {value_bytes} bytes");
    }

    #[test]
    fn a_head_is_bounded_in_number_and_in_bytes() {
        check(0, 0, true);
        check(101, 1, true);
        check(1, 20 << 10, true);
        // The path is one byte, the name three.
        check(1, HEAD_BYTES_MAX - 4, true);
        check(1, HEAD_BYTES_MAX - 3, false);
        check(HEADERS_MAX, 1, true);
        check(HEADERS_MAX + 1, 1, false);
    }
}
