//! A request to classify, built from one that is cacheable.

use reflex_llm::embeddings::Batch;
use reflex_llm::{
    Anonymous, Bypass, Classified, Exchange, Head, Policy, Rules, candidate, classify,
};
use std::sync::Arc;

/// A small chat completion.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}"#;

#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) upstream: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) tenant_header: Option<String>,
    pub(crate) anonymous: Anonymous,
    pub(crate) temperature_max: Option<f64>,
    pub(crate) rules: Arc<Rules>,
}

/// A request of one user for a small chat completion.
pub(crate) fn chat() -> Request {
    Request {
        method: "POST".into(),
        upstream: "https://api.openai.com".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![("authorization".into(), b"Bearer sk-one".into())],
        body: CHAT.into(),
        tenant_header: None,
        anonymous: Anonymous::Bypass,
        temperature_max: None,
        rules: Arc::default(),
    }
}

/// A request of the same user for a small completion.
pub(crate) fn completion() -> Request {
    chat()
        .path("/v1/completions")
        .body(r#"{"model":"gpt-3.5-turbo-instruct","prompt":"hi"}"#)
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn rules(mut self, rules: Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    pub(crate) fn upstream(mut self, upstream: &str) -> Self {
        self.upstream = upstream.into();
        self
    }

    pub(crate) fn without_headers(mut self) -> Self {
        self.headers.clear();
        self
    }

    pub(crate) fn path(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().into();
        self
    }

    /// The same body with more fields, as they are spelled in JSON.
    pub(crate) fn fields(self, fields: &str) -> Self {
        let body = str::from_utf8(&self.body).unwrap();
        let body = format!("{},{fields}}}", body.strip_suffix('}').unwrap());
        self.body(body)
    }

    pub(crate) fn classify(&self) -> Classified {
        self.with_head(|head, policy| classify(head, policy, &self.body))
    }

    /// The parts of the batch that this request is; none if it is no batch.
    pub(crate) fn batch<T>(&self, know: impl FnOnce(Batch<'_>) -> T) -> Option<T> {
        self.with_head(|head, policy| {
            let candidate = candidate(head, policy).ok()?;
            candidate.batch(&self.body).map(know)
        })
    }

    pub(crate) fn with_head<T>(&self, then: impl FnOnce(&Head<'_>, &Policy<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let head = Head {
            method: &self.method,
            upstream: &self.upstream,
            path: &self.path,
            headers: &headers,
        };
        let policy = Policy {
            anonymous: self.anonymous,
            tenant_header: self.tenant_header.as_deref(),
            temperature_max: self.temperature_max,
            rules: Some(&self.rules),
            ..Policy::default()
        };
        then(&head, &policy)
    }

    #[track_caller]
    pub(crate) fn exchange(&self) -> Exchange {
        match self.classify() {
            Classified::Cacheable(exchange) => exchange,
            Classified::Bypass(bypass) => panic!("bypass: {bypass}"),
        }
    }

    #[track_caller]
    pub(crate) fn bypass(&self) -> Bypass {
        match self.classify() {
            Classified::Cacheable(_) => panic!("cacheable"),
            Classified::Bypass(bypass) => bypass,
        }
    }
}

/// The request and the request with these fields are two.
#[track_caller]
pub(crate) fn counts(request: &Request, fields: &str) {
    differ(request, &request.clone().fields(fields));
}

/// The request and the request with these fields are one.
#[track_caller]
pub(crate) fn ignored(request: &Request, fields: &str) {
    same(request, &request.clone().fields(fields));
}

/// Both are cacheable, and one's answer must not be given to the other.
#[track_caller]
pub(crate) fn differ(a: &Request, b: &Request) {
    assert_ne!(a.exchange().key.digest, b.exchange().key.digest);
}

/// Both are cacheable, and one's answer serves the other.
#[track_caller]
pub(crate) fn same(a: &Request, b: &Request) {
    assert_eq!(a.exchange().key.digest, b.exchange().key.digest);
}

/// A body with more values than are listed has the key that it has otherwise, and bypasses for the
/// same reason: told by a field that does not count.
pub(crate) fn many_values_change_nothing(request: &Request) {
    let Some(members) = request.body.trim_ascii_start().strip_prefix(b"{") else {
        return;
    };
    let rules = Rules {
        ignored_fields: vec!["pad".into()],
        ..Rules::default()
    };
    let request = request.clone().rules(rules);
    let is_empty = members.trim_ascii_start().starts_with(b"}");
    let [few, many] = [1, 40_000].map(|count| {
        let pad = format!(r#"{{"pad":[{}]"#, vec!["0"; count].join(","));
        let comma: &[u8] = if is_empty { b"" } else { b"," };
        let body = [pad.as_bytes(), comma, members].concat();
        request.clone().body(body).classify()
    });
    assert_eq!(few, many, "{}", String::from_utf8_lossy(&request.body));
}
