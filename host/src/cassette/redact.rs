//! Takes credentials out of an exchange before anything of it is written or compared.
//!
//! Three things go: what a name says is a credential, what looks like one, and each text that was the credential of
//! this very request, wherever it stands. Redacting what is redacted changes nothing.

use super::rules::Rules;
use super::secrets::{REDACTED, is_account_header, is_secret_field, is_secret_name, without_keys};
use super::text::{self, Change};
use http::HeaderMap;
use std::sync::Arc;

/// Shortest credential that is looked for in bodies: a shorter one may be an ordinary word.
const KNOWN_BYTES_MIN: usize = 8;
/// JSON in strings of JSON is read so deep: arguments of a tool that are JSON are one level.
const NESTED_MAX: u32 = 3;

/// Headers that say who asks, and not what.
const CALLER_HEADERS: [&str; 9] = [
    "forwarded-user",
    "from",
    "origin",
    "referer",
    "remote-user",
    "x-forwarded-email",
    "x-forwarded-user",
    "x-goog-user-project",
    "x-user",
];

/// What redacts one exchange.
#[derive(Debug)]
pub(super) struct Redactor {
    rules: Arc<Rules>,
    /// Credentials of this request, the longest first.
    known: Vec<String>,
}

impl Redactor {
    /// For a request with these credentials.
    pub(super) fn of(rules: &Arc<Rules>, headers: &HeaderMap, path: &str) -> Self {
        let mut known = Vec::new();
        for (name, value) in headers {
            if is_secret_name(name.as_str())
                && let Ok(value) = value.to_str()
            {
                // A scheme goes before a credential, a name before a cookie; a cookie ends at a semicolon.
                let parts = value.split([' ', ';', ',']);
                known.extend(parts.map(|part| part.split_once('=').map_or(part, |(_, it)| it)));
                known.push(value);
            }
        }
        let (_, query) = path.split_once('?').unwrap_or((path, ""));
        for (name, value) in query.split('&').filter_map(|it| it.split_once('=')) {
            if is_secret_name(name) {
                known.push(value);
            }
        }
        known.retain(|value| value.len() >= KNOWN_BYTES_MIN);
        known.sort_by_key(|value| std::cmp::Reverse(value.len()));
        known.dedup();
        let known = known.into_iter().map(str::to_owned).collect();
        let rules = Arc::clone(rules);
        Self { rules, known }
    }

    /// For a request without credentials.
    #[cfg(test)]
    pub(super) fn of_none() -> Self {
        Self::of(&Arc::default(), &HeaderMap::new(), "/")
    }

    /// A path with its query. Parameters that hold credentials are left out: replaying does not need them.
    pub(super) fn path(&self, path: &str) -> String {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let mut told = self.text(path);
        let mut mark = '?';
        for parameter in query.into_iter().flat_map(|query| query.split('&')) {
            let name = parameter.split('=').next().unwrap_or_default();
            if is_secret_name(name) || self.rules.has_query(name) || parameter.is_empty() {
                continue;
            }
            told.push(mark);
            told.push_str(&self.text(parameter));
            mark = '&';
        }
        told
    }

    /// Whether a request's header is left out: it says who asks, or a rule names it.
    pub(super) fn omits(&self, name: &str) -> bool {
        is_secret_name(name) || CALLER_HEADERS.contains(&name) || self.rules.has_header(name)
    }

    /// The value of an answer's header.
    pub(super) fn header(&self, name: &str, value: &str) -> String {
        // `access-control-allow-credentials` has none.
        let is_secret = is_secret_name(name) && !name.starts_with("access-control-");
        match is_secret || is_account_header(name) || self.rules.has_header(name) {
            true => REDACTED.into(),
            false => self.text(value),
        }
    }

    /// A text that is no JSON.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for known in &self.known {
            if text.contains(known) {
                text = text.replace(known, REDACTED);
            }
        }
        without_keys(&text, |word| self.rules.has_word(word)).unwrap_or(text)
    }

    /// The body of a form.
    pub(super) fn form(&self, form: &str) -> String {
        let parameters = form
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some((name, _)) if is_secret_name(name) || self.rules.has_field(name) => {
                    format!("{name}={REDACTED}")
                }
                _ => self.text(parameter),
            });
        parameters.collect::<Vec<_>>().join("&")
    }

    /// A JSON text. All that is not redacted stays as it is spelled.
    pub(super) fn json(&self, json: &str) -> String {
        self.nested(json, NESTED_MAX)
            .unwrap_or_else(|| json.to_owned())
    }

    fn nested(&self, json: &str, deeper: u32) -> Option<String> {
        let changed = text::changed(json, |way, value| self.change(way, value, deeper));
        // Names of members may hold anything, too: a map of keys to their owners.
        let text = changed.as_deref().unwrap_or(json);
        match self.redacts_names(text) {
            Some(changed) => Some(changed),
            None => changed,
        }
    }

    fn change(&self, way: &str, value: Option<&str>, deeper: u32) -> Change {
        if !way.is_empty() && self.rules.has_field(way) {
            return match value {
                Some(REDACTED) => Change::Stays,
                _ => Change::Becomes(REDACTED.into()),
            };
        }
        let Some(value) = value else {
            return Change::Stays;
        };
        let name = way.rsplit('.').next().unwrap_or_default();
        if !value.is_empty() && value != REDACTED && is_secret_field(name) {
            return Change::Becomes(REDACTED.into());
        }
        let begins = value.trim_start().starts_with(['{', '[']);
        let changed = match deeper > 0 && begins && text::is_json(value) {
            true => self.nested(value, deeper - 1),
            false => Some(self.text(value)).filter(|it| it != value),
        };
        changed.map_or(Change::Stays, Change::Becomes)
    }

    /// Replaces credentials that stand in the text still: in names of members.
    fn redacts_names(&self, json: &str) -> Option<String> {
        let mut text: Option<String> = None;
        for known in &self.known {
            let current = text.as_deref().unwrap_or(json);
            if current.contains(known.as_str()) {
                let without = current.replace(known.as_str(), REDACTED);
                // Without a part of a number, it may be JSON no more.
                if text::is_json(&without) {
                    text = Some(without);
                }
            }
        }
        text
    }

    /// Whether bytes that are no text hold a credential of this request.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let is_in = |known: &String| {
            let known = known.as_bytes();
            bytes.windows(known.len()).any(|part| part == known)
        };
        self.known.iter().any(is_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const SECRET: &str = "correct-horse-battery";

    fn with<T>(rules: &str, test: impl FnOnce(&Redactor) -> T) -> T {
        let rules = Rules::parse(&format!("version = 1\n{rules}")).expect("rules");
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {SECRET}")).expect("a value");
        headers.insert("authorization", value);
        headers.insert(
            "cookie",
            HeaderValue::from_static("theme=dark-and-blue; id=session-secret"),
        );
        test(&Redactor::of(
            &Arc::new(rules),
            &headers,
            "/v1?key=query-secret-1&alt=sse",
        ))
    }

    #[test]
    fn what_was_this_requests_credential_goes_wherever_it_stands() {
        with("", |redactor| {
            let json = format!(r#"{{"a": "x{SECRET}y", "{SECRET}":[1.0, "query-secret-1\n"]}}"#);
            let expected = r#"{"a": "x[redacted]y", "[redacted]":[1.0, "[redacted]\n"]}"#;
            assert_eq!(redactor.json(&json), expected);
            assert_eq!(redactor.json(expected), expected, "a second time");
            assert_eq!(redactor.text("id=session-secret"), "id=[redacted]");
            assert!(redactor.is_in(format!("\u{0}{SECRET}").as_bytes()));
            assert!(!redactor.is_in(b"other"));
        });
    }

    #[test]
    fn what_looks_like_a_credential_goes_and_all_else_stays_to_the_byte() {
        with("", |redactor| {
            for (json, expected) in [
                (
                    r#"{"headers" : {"Authorization":"x"},"n":1e5}"#,
                    r#"{"headers" : {"Authorization":"[redacted]"},"n":1e5}"#,
                ),
                (
                    r#"{"a":"\nsk-0123456789abcdefgh"}"#,
                    r#"{"a":"\n[redacted]"}"#,
                ),
                (
                    r#"{"a":"{\"api_key\":\"x\"}"}"#,
                    r#"{"a":"{\"api_key\":\"[redacted]\"}"}"#,
                ),
                (
                    r#"{"a":"\u0073k-0123456789abcdefgh"}"#,
                    r#"{"a":"[redacted]"}"#,
                ),
                (
                    r#"{"logprobs":[{"token":"\u00fc","bytes":null}]}"#,
                    r#"{"logprobs":[{"token":"\u00fc","bytes":null}]}"#,
                ),
            ] {
                assert_eq!(redactor.json(json), expected);
                assert_eq!(redactor.json(expected), expected, "a second time");
            }
        });
    }

    #[test]
    fn rules_add_to_it() {
        let rules = "[[redact]]\nfield = \"metadata.*\"\n[[redact]]\ntext = \"acme-*\"\n\
                     [[redact]]\nheader = \"x-team\"\n[[redact]]\nquery = \"run\"";
        with(rules, |redactor| {
            let json = r#"{"metadata":{"run":{"id":[7]}},"a":"of acme-12, you"}"#;
            let expected = r#"{"metadata":{"run":"[redacted]"},"a":"of [redacted], you"}"#;
            assert_eq!(redactor.json(json), expected);
            assert_eq!(redactor.json(expected), expected, "a second time");
            assert!(redactor.omits("x-team") && redactor.omits("x-api-key"));
            assert!(!redactor.omits("anthropic-version"));
            assert_eq!(
                redactor.path("/v1/a?key=k&run=1&alt=sse&b"),
                "/v1/a?alt=sse&b"
            );
            assert_eq!(redactor.header("x-team", "red"), REDACTED);
            assert_eq!(redactor.header("openai-organization", "org"), REDACTED);
            assert_eq!(redactor.header("x-request-id", "r-1"), "r-1");
            let cors = "access-control-allow-credentials";
            assert_eq!(redactor.header(cors, "true"), "true");
            assert_eq!(
                redactor.form("a=1&client_secret=x"),
                "a=1&client_secret=[redacted]"
            );
        });
    }
}
