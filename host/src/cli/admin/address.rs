//! Where a daemon's operators connect: an address, or a URL.

use hyper::Uri;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// `--admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Without a slash at its end.
    url: String,
    /// As it was given.
    text: String,
}

impl Address {
    /// The URL of a path.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(super) fn has_tls(&self) -> bool {
        self.url.starts_with("https://")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = |url: String| Self {
            url,
            text: text.to_owned(),
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(of(format!("http://{address}")));
        }
        let uri: Option<Uri> = text.parse().ok();
        let is_admin = uri.is_some_and(|uri| {
            let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            let host = uri.authority().is_some_and(|it| !it.as_str().contains('@'));
            has_scheme && host && uri.path() == "/" && uri.query().is_none()
        });
        match is_admin {
            true => Ok(of(text.trim_end_matches('/').to_owned())),
            false => Err("neither an address with a port nor a URL without a path".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_url_leads_to_the_daemon() {
        let check = |text: &str, url: &str| {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.at("/v1/stats"), format!("{url}/v1/stats"));
            assert_eq!(address.has_tls(), url.starts_with("https"), "{text}");
            assert_eq!(address.to_string(), text);
        };
        check("127.0.0.1:8081", "http://127.0.0.1:8081");
        check("[::1]:8081", "http://[::1]:8081");
        check("http://127.0.0.1:8081/", "http://127.0.0.1:8081");
        check("https://edge.test:8081", "https://edge.test:8081");
        for wrong in [
            "",
            "8081",
            "edge:8081",
            "ftp://edge",
            "https://u:p@edge",
            "https://edge/a",
        ] {
            wrong.parse::<Address>().expect_err(wrong);
        }
    }
}
