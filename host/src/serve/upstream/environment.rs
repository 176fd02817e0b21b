//! The proxy that the environment names for connections to the provider.
//!
//! `HTTPS_PROXY` or `HTTP_PROXY` by the provider's scheme, else `ALL_PROXY`; `NO_PROXY` excepts
//! hosts. Names may be in lower case. A provider on this machine is always reached directly.

use crate::serve::config::Upstream;
use http::header::HeaderValue;
use http::uri::{Authority, Scheme};
use http::{Uri, uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use std::fmt;
use std::net::IpAddr;

/// A proxy on the way to the provider.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    /// Scheme, host and port, without credentials.
    pub(super) uri: Uri,
    /// The variable that names it.
    pub(super) variable: &'static str,
}

/// How a proxy is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP, with TLS if the proxy's scheme says so, and the value of `Proxy-Authorization`.
    Http(Option<HeaderValue>),
    Socks4,
    /// With user and password.
    Socks5(Option<(String, String)>),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.uri, self.variable)
    }
}

const HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
const NONE: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Where SOCKS proxies listen, if their URL does not say.
const SOCKS_PORT: u16 = 1080;

/// The proxy for this provider, if the environment names one.
///
/// # Errors
///
/// The value of a variable is no proxy's URL. The text names the variable and not its value, which
/// may hold a password.
pub(super) fn proxy(
    upstream: &Upstream,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let set = |names: &[&'static str]| {
        let values = names.iter().map(|name| (*name, variable(name)));
        values
            .filter_map(|(name, value)| Some((name, value?)))
            .find(|(_, value)| !value.is_empty())
    };
    let names = match upstream.scheme == Scheme::HTTPS {
        true => HTTPS,
        false => HTTP,
    };
    let Some((name, value)) = set(&names) else {
        return Ok(None);
    };
    if is_local(&upstream.authority) {
        return Ok(None);
    }
    let because = |why: &str| format!("{name}: {why}");
    let refused = || because("not the URL of an HTTP or SOCKS proxy");
    let target = uri::Builder::new()
        .scheme(upstream.scheme.clone())
        .authority(upstream.authority.clone())
        .path_and_query("/")
        .build()
        .map_err(|_| refused())?;
    let all = || Matcher::builder().all(value.clone());
    let found = all().build().intercept(&target).ok_or_else(refused)?;
    let excepted = set(&NONE).map(|(_, hosts)| all().no(hosts).build());
    if excepted.is_some_and(|matcher| matcher.intercept(&target).is_none()) {
        return Ok(None);
    }
    let proxy = Proxy::of(&found, name).ok_or_else(refused)?;
    if proxy.kind == Kind::Socks4 {
        if found.raw_auth().is_some() {
            return Err(because("SOCKS 4 knows no password: use socks5://"));
        }
        if upstream.authority.host().starts_with('[') {
            return Err(because("SOCKS 4 knows no IPv6 address: use socks5://"));
        }
    }
    Ok(Some(proxy))
}

impl Proxy {
    fn of(found: &Intercept, variable: &'static str) -> Option<Self> {
        let uri = found.uri();
        let (kind, port) = match uri.scheme_str()? {
            "http" => (Kind::Http(found.basic_auth().cloned()), 80),
            "https" => (Kind::Http(found.basic_auth().cloned()), 443),
            "socks4" | "socks4a" => (Kind::Socks4, SOCKS_PORT),
            "socks5" | "socks5h" => {
                let owned = |(user, password): (&str, &str)| (user.into(), password.into());
                (Kind::Socks5(found.raw_auth().map(owned)), SOCKS_PORT)
            }
            _ => return None,
        };
        let authority = with_port(uri.authority()?, port)?;
        let mut parts = uri.clone().into_parts();
        parts.authority = Some(authority);
        Some(Self {
            kind,
            uri: Uri::from_parts(parts).ok()?,
            variable,
        })
    }
}

/// The authority with its port spelled out.
pub(super) fn with_port(authority: &Authority, default: u16) -> Option<Authority> {
    match authority.port() {
        Some(_) => Some(authority.clone()),
        None => format!("{}:{default}", authority.host()).parse().ok(),
    }
}

/// Whether the host is this machine. As in Go, such a provider needs no exception.
fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy for `upstream` with this environment.
    fn found(upstream: &str, environment: &[(&str, &str)]) -> Result<Option<Proxy>, String> {
        let variable = |name: &str| {
            let set = environment.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| (*value).to_owned())
        };
        proxy(&upstream.parse().expect("an upstream"), variable)
    }

    #[test]
    fn the_environment_names_the_proxy() {
        let check = |upstream: &str, environment: &[(&str, &str)], expected: &str| {
            let found = found(upstream, environment).expect("valid");
            let shown = found.map_or_else(String::new, |proxy| format!("{proxy:?}"));
            assert_eq!(shown, expected, "{upstream} {environment:?}");
        };
        let (secure, plain) = ("https://a.test", "http://a.test");
        check(secure, &[], "");
        let https = ("HTTPS_PROXY", "http://p:3128");
        check(secure, &[https], "http://p:3128/ of HTTPS_PROXY");
        check(plain, &[https], "");
        check(plain, &[("http_proxy", "p")], "http://p:80/ of http_proxy");
        check(
            secure,
            &[("https_proxy", "https://p")],
            "https://p:443/ of https_proxy",
        );
        let all = ("ALL_PROXY", "socks5://p");
        check(secure, &[all], "socks5://p:1080/ of ALL_PROXY");
        check(secure, &[all, https], "http://p:3128/ of HTTPS_PROXY");
        check(
            secure,
            &[all, ("HTTPS_PROXY", "")],
            "socks5://p:1080/ of ALL_PROXY",
        );
        check("https://127.0.0.1:9", &[https], "");
        check("https://localhost", &[https], "");
        check("https://[::1]:9", &[https], "");
        for hosts in ["a.test", ".test", "*", "b.test, a.test"] {
            check(secure, &[https, ("NO_PROXY", hosts)], "");
            check(secure, &[https, ("no_proxy", hosts)], "");
        }
        check(
            secure,
            &[https, ("NO_PROXY", "b.test,aa.test")],
            "http://p:3128/ of HTTPS_PROXY",
        );
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let named = [("HTTPS_PROXY", "http://user:secret@p:1")];
        let proxy = found("https://a.test", &named).expect("valid");
        let proxy = proxy.expect("a proxy");
        assert!(!format!("{proxy:?}").contains("secret"));
        assert!(
            matches!(&proxy.kind, Kind::Http(Some(value)) if *value == "Basic dXNlcjpzZWNyZXQ=")
        );
        // It would be left out, and the proxy would refuse each connection without a reason.
        for value in ["socks4://user:secret@p", "socks4a://user@p"] {
            let error = found("https://a.test", &[("ALL_PROXY", value)]).expect_err(value);
            assert!(
                error.contains("ALL_PROXY: SOCKS 4 knows no password"),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
        let six = found("https://[2001:db8::1]", &[("ALL_PROXY", "socks4://p")]);
        assert!(six.expect_err("no address for it").contains("IPv6"));
        for value in ["ftp://user:secret@p", "http://", "user:secret@"] {
            let error = found("https://a.test", &[("ALL_PROXY", value)]).expect_err(value);
            assert!(error.contains("ALL_PROXY"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
