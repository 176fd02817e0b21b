//! The provider behind a cluster.

/// Where a cluster leads: the same words as the daemon's `--upstream`, so that both compute the
/// same keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `https://api.openai.com`
    pub origin: String,
    /// `api.openai.com`, which the provider is asked as.
    pub authority: String,
    /// What stands before each request's path at the provider; empty, or from slash to no slash.
    pub prefix: String,
}

impl Upstream {
    /// Origin and prefix.
    pub fn url(&self) -> String {
        format!("{}{}", self.origin, self.prefix)
    }

    /// The path at the provider of a request with this path.
    pub fn path(&self, path: &str) -> String {
        [&self.prefix, path].concat()
    }

    /// Whether a request to this authority is one to this upstream.
    pub fn is_host(&self, authority: &str) -> bool {
        let port = match self.origin.starts_with("https:") {
            true => ":443",
            false => ":80",
        };
        let [own, other] =
            [&*self.authority, authority].map(|it| it.strip_suffix(port).unwrap_or(it));
        own.eq_ignore_ascii_case(other)
    }

    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url
            .split_once("://")
            .filter(|(scheme, _)| ["http", "https"].contains(scheme))
            .ok_or("it begins with neither http:// nor https://")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.is_empty() {
            return Err("it names no host");
        }
        if authority.contains('@') {
            return Err("credentials belong into the clients' headers");
        }
        if url.contains(['?', '#']) || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it has a query, a fragment or a character that no URL has");
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            authority: authority.into(),
            prefix: path.trim_end_matches('/').into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_knows_its_host_in_any_spelling() {
        let check = |url: &str, authority: &str, is_host: bool| {
            let upstream = Upstream::parse(url).expect("a URL");
            assert_eq!(upstream.is_host(authority), is_host, "{url} {authority}");
        };
        check("https://api.openai.com/v2", "api.openai.com", true);
        check("https://api.openai.com", "API.OpenAI.com:443", true);
        check("https://api.openai.com:443", "api.openai.com", true);
        check("http://10.0.0.1:8000", "10.0.0.1:8000", true);
        check("http://10.0.0.1", "10.0.0.1:80", true);
        check("http://10.0.0.1", "10.0.0.1:443", false);
        check("https://api.openai.com", "api.openai.com:80", false);
        check("https://api.openai.com", "openai.com", false);
        check("https://api.openai.com", "", false);
    }
}
