//! The request to explain, in the form that the user gave.

use http::Request;
use std::io::Read as _;
use std::path::Path;

/// Bytes of one input: as many as the longest body that the cache reads, and a head.
const INPUT_BYTES_MAX: u64 = (reflex_llm::BODY_BYTES_MAX + (1 << 20)) as u64;

/// A request as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) method: String,
    /// A path, or a whole URL.
    pub(super) url: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// It is a body without a head: `path` and credential are assumed.
    pub(super) is_bare: bool,
}

impl Asked {
    pub(super) fn to(url: &str) -> Self {
        Self {
            method: "POST".into(),
            url: url.into(),
            ..Self::default()
        }
    }

    pub(super) fn header(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
    }

    /// The provider that the URL names, if it names one that is not this machine.
    pub(super) fn provider(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_here = matches!(name, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0");
        (!is_here).then(|| format!("{scheme}://{host}"))
    }

    /// The request as the daemon gets it.
    ///
    /// # Errors
    ///
    /// The part that HTTP does not allow, without its value.
    pub(super) fn to_http(&self) -> Result<Request<bytes::Bytes>, String> {
        let path = match self.url.split_once("://") {
            None => self.url.as_str(),
            Some((_, rest)) => match rest.find(['/', '?']) {
                Some(at) => &rest[at..],
                None => "/",
            },
        };
        let path = path.split('#').next().unwrap_or_default();
        let path = match path.starts_with('?') {
            true => format!("/{path}"),
            false => path.to_owned(),
        };
        let mut request = Request::new(bytes::Bytes::from(self.body.clone()));
        *request.method_mut() = self
            .method
            .parse()
            .map_err(|_| "the method is none of HTTP")?;
        *request.uri_mut() = path.parse().map_err(|_| "the path is none of HTTP")?;
        for (name, value) in &self.headers {
            let header: http::HeaderName = name
                .parse()
                .map_err(|_| "the name of a header is none of HTTP")?;
            let value = http::HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| format!("the value of the header `{header}` is none of HTTP"))?;
            request.headers_mut().append(header, value);
        }
        Ok(request)
    }
}

/// The content of a file, or of standard input for `-`.
pub(super) fn bytes(input: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = match input == Path::new("-") {
        true => {
            let input = std::io::stdin().lock();
            input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)
        }
        false => std::fs::File::open(input)
            .and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| error.to_string())?;
    match bytes.len() as u64 > INPUT_BYTES_MAX {
        true => Err(format!("longer than {INPUT_BYTES_MAX} bytes")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_gets_the_path_and_the_url_names_the_provider() {
        let check = |url: &str, path: &str, provider: Option<&str>| {
            let asked = Asked::to(url);
            let request = asked.to_http().expect(url);
            assert_eq!(request.uri().to_string(), path, "{url}");
            assert_eq!(asked.provider().as_deref(), provider, "{url}");
        };
        check("/v1/x?a=1", "/v1/x?a=1", None);
        check("http://localhost:8080/v1/x#y", "/v1/x", None);
        check("http://127.0.0.1:1", "/", None);
        check("https://u:p@a.test?b", "/?b", Some("https://a.test"));
        let mut wrong = Asked::to("/");
        wrong.header("x", "sk-\nsecret");
        let error = wrong.to_http().expect_err("no header");
        assert!(!error.contains("secret"), "{error}");
    }
}
