//! A request as a recording of it is told apart from others: all of its body, and of its head what can change
//! the answer.
//!
//! A recording also has requests that the cache lets pass. So nothing of the body is left out, not even what an
//! answer in the cache does not depend on: a test asks for the answer to exactly this request.

use alloc::string::String;
use alloc::vec::Vec;

use crate::json::spans;
use crate::json::{self, Kind};
use crate::key::canonical;
use crate::request::headers::{self, Counting};
use crate::request::keyed::{Bodies, Differences};
use crate::request::outline::Outline;
use crate::rules::path;
use crate::tenant::SCOPES;
use crate::{Api, BODY_BYTES_MAX, KeyHasher, PathRule};

impl Api {
    /// The API that answers at a path as sent, if it is a known one.
    pub fn at(path: &str, rules: &[PathRule]) -> Option<Self> {
        path::api_at(path, rules).ok()
    }
}

/// The headers that can change an answer, for any client: names in lower case, in order, the values of a repeated
/// one in the order they came. Neither credentials nor cookies are among them.
pub fn telling_headers<'h>(head: &[(&'h str, &'h [u8])]) -> Vec<(String, Vec<u8>)> {
    let counting = Counting {
        rules: None,
        upstream: "",
        named_by: None,
    };
    let mut telling = Vec::new();
    headers::significant(head, counting, |name, value| {
        if name != "cookie" && !SCOPES.contains(&name) && !headers::names_a_session(name) {
            telling.push((name.into(), value.into()));
        }
    });
    telling
}

/// The canonical spelling of the whole body: members that the API defines are sorted, strings have one spelling.
/// None for what is no JSON object that reading a request would take.
pub fn canonical_body(api: Api, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > BODY_BYTES_MAX {
        return None;
    }
    let document = json::read(body).ok()?;
    if document.root().kind() != Kind::Object {
        return None;
    }
    let mut hasher = KeyHasher::recording(body.len());
    canonical::write(document.root(), Outline::whole(api), &mut hasher);
    // The record is complete once the digest is made.
    let _ = hasher.close();
    Some(hasher.into_record())
}

/// The fields in which two JSON bodies in their canonical spelling differ.
pub fn body_differences(left: &[u8], right: &[u8]) -> Differences {
    let mut differences = Differences::default();
    if let (Some(left_root), Some(right_root)) = (spans::root(left), spans::root(right)) {
        Bodies { left, right }.compare("", left_root, right_root, &mut differences);
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn canonical(body: &str) -> Option<String> {
        let canonical = canonical_body(Api::Responses, body.as_bytes())?;
        Some(String::from_utf8_lossy(&canonical).into_owned())
    }

    #[test]
    fn the_whole_body_counts_in_one_spelling() {
        let one = canonical(r#"{ "stream": true, "store" : true, "input":"\u0061", "model":"m"}"#);
        let same = r#"{"input":"a","model":"m","store":true,"stream":true}"#.to_string();
        assert_eq!(one, Some(same));
        assert_eq!(canonical("[1]"), None);
        assert_eq!(canonical("{\"a\":1,\"a\":2}"), None);
    }

    #[test]
    fn headers_tell_of_the_answer_and_not_of_who_asks() {
        let head: [(&str, &[u8]); 8] = [
            ("authorization", b"Bearer k"),
            ("x-api-key", b"k"),
            ("cookie", b"session=1"),
            ("openai-organization", b"org"),
            ("session_id", b"1"),
            ("user-agent", b"openai"),
            ("anthropic-version", b"2023-06-01"),
            ("accept", b"application/json"),
        ];
        let telling = telling_headers(&head);
        let names: Vec<&str> = telling.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["anthropic-version"]);
    }

    #[test]
    fn differences_name_the_whole_way_to_a_field() {
        let left = br#"{"messages":[{"content":"a"}],"model":"m"}"#;
        let right = br#"{"messages":[{"content":"b"}],"n":2}"#;
        let found = body_differences(left, right).found;
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["messages[0].content", "model", "n"]);
        assert!(body_differences(left, left).found.is_empty());
    }

    #[test]
    fn an_api_is_known_by_its_path() {
        assert_eq!(Api::at("/v1/responses?x=1", &[]), Some(Api::Responses));
        assert_eq!(Api::at("/v1/models", &[]), None);
    }
}
