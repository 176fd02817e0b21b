//! The provider's URL, as `--upstream` and the file give it.

use http::Uri;
use http::uri::{Authority, Scheme};

/// Where the provider is: scheme, authority, and a path that goes before each request's.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port, without user and password.
    pub authority: Authority,
    /// Empty, or a path that starts with a slash and does not end with one.
    pub prefix: String,
}

impl Upstream {
    /// Its port, also if the URL names none.
    pub(crate) fn port(&self) -> u16 {
        let usual = match self.scheme == Scheme::HTTPS {
            true => 443,
            false => 80,
        };
        self.authority.port_u16().unwrap_or(usual)
    }

    /// Whether both are the same server. Their paths may differ.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let host = Authority::host;
        self.scheme == other.scheme
            && host(&self.authority).eq_ignore_ascii_case(host(&other.authority))
            && self.port() == other.port()
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl std::str::FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        let parts = uri.into_parts();
        let scheme = parts
            .scheme
            .filter(|it| *it == Scheme::HTTP || *it == Scheme::HTTPS);
        let (Some(scheme), Some(authority)) = (scheme, parts.authority) else {
            return Err(format!("`{text}` is not an http:// or https:// URL"));
        };
        if authority.as_str().contains('@') {
            return Err(format!(
                "`{text}`: credentials belong into the clients' headers"
            ));
        }
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|it| it.query().is_some()) {
            return Err(format!(
                "`{text}`: a query cannot be put before each request's path"
            ));
        }
        let prefix = path
            .map_or("", |it| it.path())
            .trim_end_matches('/')
            .to_owned();
        Ok(Self {
            scheme,
            authority,
            prefix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_urls_of_a_provider() {
        let ok = |text: &str, prefix: &str| {
            assert_eq!(
                text.parse::<Upstream>().expect(text).prefix,
                prefix,
                "{text}"
            );
        };
        ok("https://api.openai.com", "");
        ok("https://api.openai.com/", "");
        ok("http://127.0.0.1:9000/openai/", "/openai");
        let refused = |text: &str| {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        };
        refused("");
        refused("api.openai.com");
        refused("ftp://api.openai.com");
        refused("https://user:secret@api.openai.com");
        refused("https://api.openai.com/?a=1");
        refused("https://");
        refused("not a url");
    }
}
