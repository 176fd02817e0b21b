//! A request as it is recorded and looked for: what can change its answer, without credentials.

use super::body::Body;
use super::redact::Redactor;
use super::text::{self, Style, styled};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use reflex_llm::{Api, KeyHasher, canonical_body, telling_headers};

/// Says how a body is sent, and with each client in another way: the body shows what it is.
const CONTENT_TYPE_NAME: &str = "content-type";
/// Longest part of a path in the name of a file.
const SLUG_BYTES_MAX: usize = 40;

/// A request without what tells who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    /// Never events. JSON is in its canonical spelling.
    body: Body,
}

impl Asked {
    /// A request with its whole body; none if it holds a credential in what is no text.
    pub(super) fn of(parts: &Parts, body: &Bytes, redactor: &Redactor) -> Option<Self> {
        let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        let names = parts.headers.iter();
        let head: Vec<(&str, &[u8])> = names
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let headers = telling_headers(&head)
            .into_iter()
            .filter_map(|(name, value)| {
                let is_left_out = redactor.omits(&name) || name == CONTENT_TYPE_NAME;
                let value = String::from_utf8(value).ok().filter(|_| !is_left_out)?;
                let value = redactor.text(&value);
                Some((name, value))
            });
        let headers = headers.collect();
        let kind = parts.headers.get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body = match std::str::from_utf8(body) {
            Ok(form) if kind.starts_with("application/x-www-form-urlencoded") => {
                Body::Text(redactor.form(form))
            }
            Ok(json) if text::is_json(json) => json_body(path, &redactor.json(json)),
            _ => Body::of_answer(body, false, &[], redactor)?,
        };
        Some(Self {
            method: parts.method.as_str().to_owned(),
            path: redactor.path(path),
            headers,
            body,
        })
    }

    /// A request of a file, which a person may have spelled in another way.
    pub(super) fn of_file(
        method: String,
        path: String,
        mut headers: Vec<(String, String)>,
        body: Body,
    ) -> Self {
        headers.sort_by(|(one, _), (other, _)| one.cmp(other));
        let body = match body {
            Body::Json { json, .. } => json_body(&path, &json),
            body => body,
        };
        Self {
            method,
            path,
            headers,
            body,
        }
    }

    pub(super) fn method(&self) -> &str {
        &self.method
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    /// The JSON of its body.
    pub(super) fn json(&self) -> Option<&str> {
        match &self.body {
            Body::Json { json, .. } => Some(json),
            _ => None,
        }
    }

    /// Equal for requests that the same recording answers, and for no others.
    pub(super) fn identity(&self) -> [u8; 32] {
        let mut hasher = KeyHasher::new();
        hasher
            .field("recorded", self.method.as_bytes())
            .field("path", self.path.as_bytes());
        for (name, value) in &self.headers {
            hasher
                .field("header", name.as_bytes())
                .field("value", value.as_bytes());
        }
        let kind: &[u8] = match &self.body {
            Body::Json { .. } => b"json",
            _ => b"bytes",
        };
        hasher.field("kind", kind);
        match &self.body {
            Body::Json { json, .. } => {
                hasher.field("body", json.as_bytes());
            }
            body => {
                for (_, part) in body.restored() {
                    hasher.field("body", &part);
                }
            }
        }
        hasher.finish()
    }

    /// The name of the file of an exchange: the number of the request, the API or the path, and a hash.
    pub(super) fn file_name(&self, number: u32) -> String {
        let what = match Api::at(&self.path, &[]) {
            Some(api) => api.name().to_owned(),
            None => slug(&self.path),
        };
        let identity = self.identity();
        let hash: String = identity[..4].iter().map(|it| format!("{it:02x}")).collect();
        format!("{number:04}-{what}-{hash}.json")
    }
}

/// JSON in its canonical spelling: that of the API, if it is one.
fn json_body(path: &str, json: &str) -> Body {
    let api = Api::at(path, &[]);
    let canonical = api.and_then(|api| canonical_body(api, json.as_bytes()));
    let canonical = canonical.and_then(|canonical| String::from_utf8(canonical).ok());
    Body::Json {
        json: canonical.unwrap_or_else(|| styled(json, Style::Compact, "")),
        style: Style::Compact,
        tail: String::new(),
    }
}

/// Letters, digits and hyphens of a path.
fn slug(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let mut slug = String::new();
    for character in path.chars() {
        match character {
            'a'..='z' | '0'..='9' => slug.push(character),
            'A'..='Z' => slug.push(character.to_ascii_lowercase()),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
        if slug.len() == SLUG_BYTES_MAX {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    match slug.is_empty() {
        true => "root".into(),
        false => slug.into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::Request;
    use std::sync::Arc;

    pub(crate) fn asked(path: &str, headers: &[(&str, &str)], body: &str) -> Asked {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let redactor = Redactor::of(&Arc::default(), &parts.headers, path);
        let body = Bytes::copy_from_slice(body.as_bytes());
        Asked::of(&parts, &body, &redactor).expect("text")
    }

    const CHAT: &str = "/v1/chat/completions";
    const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn matching_ignores_who_asks_and_how() {
        let one = asked(
            CHAT,
            &[
                ("authorization", "Bearer sk-0123456789abcdef"),
                ("user-agent", "openai-python"),
                ("content-type", "application/json"),
                ("x-stainless-retry-count", "0"),
                ("cookie", "a=1"),
            ],
            BODY,
        );
        let spaced = BODY.replace(':', ": ").replace(',', ", ");
        let other = asked("/v1/chat/completions", &[("api-key", "other")], &spaced);
        assert_eq!(one, other);
        assert_eq!(one.identity(), other.identity());
        let google = "/v1beta/models/m:generateContent";
        let with_key = asked(&format!("{google}?key=k1"), &[], "{}");
        assert_eq!(with_key, asked(google, &[("x-goog-api-key", "k2")], "{}"));
        assert_eq!(with_key.path(), google);
    }

    #[test]
    fn everything_else_counts() {
        let one = asked(CHAT, &[("openai-beta", "a")], BODY);
        for other in [
            asked(CHAT, &[], BODY),
            asked(CHAT, &[("openai-beta", "b")], BODY),
            asked("/v1/responses", &[("openai-beta", "a")], BODY),
            asked(CHAT, &[("openai-beta", "a")], &BODY.replace("hi", "ho")),
            asked(
                CHAT,
                &[("openai-beta", "a")],
                &BODY.replace('}', ",\"stream\":true}"),
            ),
            asked(CHAT, &[("openai-beta", "a")], "hi"),
            asked(CHAT, &[("openai-beta", "a")], ""),
        ] {
            assert_ne!(one.identity(), other.identity(), "{other:?}");
        }
        let stored = asked("/v1/responses", &[], r#"{"input":"a","store":true}"#);
        let not_stored = asked("/v1/responses", &[], r#"{"input":"a"}"#);
        assert_ne!(stored.identity(), not_stored.identity());
    }

    #[test]
    fn names_of_files_follow_order_and_content_and_lead_nowhere_else() {
        let chat = asked(CHAT, &[], BODY);
        let name = chat.file_name(7);
        assert!(name.starts_with("0007-chat-completions-"), "{name}");
        assert_eq!(name, asked(CHAT, &[("api-key", "k")], BODY).file_name(7));
        for path in [
            "/../../etc/passwd",
            "/%2e%2e/x",
            "/",
            "/ü/\\..",
            "/a?../../b",
        ] {
            let name = asked(&path.replace(['ü', '\\'], "u"), &[], "").file_name(1);
            assert!(
                !name.contains(['/', '\\', '%', '?']) && !name.contains(".."),
                "{name}"
            );
        }
        assert_eq!(slug("/v1/Files/../a"), "v1-files-a");
        assert_eq!(slug("/../"), "root");
    }
}
