//! Which requests reach the admin API: those with the token, and harmless ones. None that a browser makes for
//! a page of another site.
//!
//! | address | reads | changes and contents |
//! |---|---|---|
//! | loopback | open | token |
//! | any other | token | token |
//!
//! `/health` and `/ready` are always open: probes come from elsewhere, and bring neither a token nor a host
//! name that we know.

use super::refusal::Refusal;
use super::token::AdminToken;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Upper bound of a request's body; an import is read in parts, and has bounds of its own.
pub(crate) const BODY_BYTES_MAX: u64 = 64 << 10;

/// Paths that probes ask for.
const OPEN: [&str; 2] = ["/health", "/ready"];
/// The one path that takes a long body.
pub(crate) const IMPORT: &str = "/v1/import";

/// What the guard knows.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) token: Arc<AdminToken>,
    /// Only programs on this machine can connect.
    pub(crate) is_loopback: bool,
}

/// Refuses what must not come in. Refuses before the body is read.
pub(crate) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match guard.check(&head).await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Guard {
    async fn check(&self, head: &Parts) -> Result<(), Refusal> {
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        let is_open = OPEN.contains(&uri.path());
        if !is_open {
            self.check_page(method, uri, headers)?;
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        if changes || !is_open && !self.is_loopback {
            self.token.admit(headers).await?;
        }
        let length = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
        let length = length.and_then(|length| length.ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length > BODY_BYTES_MAX && uri.path() != IMPORT => {
                Err(Refusal::too_large(BODY_BYTES_MAX))
            }
            _ => Ok(()),
        }
    }

    /// Refuses requests that a browser makes for a page of another site. Such a page may also have its own
    /// name resolve to this address; then `Host` has that name.
    fn check_page(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => text(headers, &HOST).unwrap_or_default(),
        };
        // Where reads need the token, too, a page of another site gets nothing.
        if self.is_loopback && !is_an_address(host) {
            let why = "on loopback, `Host` is an IP address or localhost";
            return Err(Refusal::forbidden("host", why));
        }
        if headers.contains_key(ORIGIN) {
            let origin = text(headers, &ORIGIN).unwrap_or_default();
            let of = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            if headers.get_all(ORIGIN).iter().count() > 1 || of != Some(host) {
                let why = "this request is made for a page of another site";
                return Err(Refusal::forbidden("origin", why));
            }
        }
        let fetch = |name| text(headers, &HeaderName::from_static(name));
        // A link that a person follows is not made for another page.
        let follows_link = *method == Method::GET
            && fetch("sec-fetch-mode") == Some("navigate")
            && fetch("sec-fetch-dest") == Some("document");
        match fetch("sec-fetch-site") {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if follows_link => Ok(()),
            Some(_) => {
                let why = "this request is made for a page of another site";
                Err(Refusal::forbidden("origin", why))
            }
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a host, perhaps with a port, is an IP address or `localhost`: no site's own name.
fn is_an_address(host: &str) -> bool {
    // HTTP/1.0 clients send none, and browsers always do.
    if host.is_empty() {
        return true;
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sites_are_no_addresses() {
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]",
            "10.0.0.1:1",
            "localhost",
            "LocalHost:8081",
        ] {
            assert!(is_an_address(host), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:8081",
            "127.0.0.1.evil.test",
            "localhost.evil.test:8081",
            "[evil.test]",
            "[",
            ":8081",
            "localhost:8081:1",
        ] {
            assert!(!is_an_address(host), "{host}");
        }
    }
}
