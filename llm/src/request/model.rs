//! The model of a request, for operators' rules about models. Keys cover it anyway, with path and
//! body.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::json::{self, Value};
use crate::request::body::BODY_BYTES_MAX;
use crate::rules::path::Readings;

/// The longest name that is reported. Providers' own stay below 100.
pub const MODEL_BYTES_MAX: usize = 256;

/// The model's name, by the path or else by the body.
pub(crate) fn named(in_path: Option<&str>, body: Value<'_>) -> Option<String> {
    let name = match in_path {
        Some(name) => name.into(),
        None => {
            let name = body.get("model")?.string()?.into_owned();
            String::from_utf8(name).ok()?
        }
    };
    (!name.is_empty() && name.len() <= MODEL_BYTES_MAX).then_some(name)
}

/// The model that a request asks for, of any API: the path's, or else the body's. None if it
/// names none, or none for certain: the body is no JSON object, has a member twice, or is over
/// [`BODY_BYTES_MAX`]; the name is no text, empty, or over [`MODEL_BYTES_MAX`].
pub fn model_of(path: &str, body: &[u8]) -> Option<String> {
    if let Some(name) = model_in_path(path) {
        return Some(name);
    }
    let body = Some(body).filter(|body| body.len() <= BODY_BYTES_MAX)?;
    let document = json::read(body).ok()?;
    named(None, document.root())
}

/// The model that a path names, as at Azure and Google. It counts whatever the body says.
pub fn model_in_path(path: &str) -> Option<String> {
    in_path(path).filter(|name| (1..=MODEL_BYTES_MAX).contains(&name.len()))
}

/// The name after `deployments`, as at Azure, or before a method, as at Google. All spellings of a
/// path give the same name.
pub(crate) fn in_path(path: &str) -> Option<String> {
    let readings = Readings::of(path)?;
    let mut segments = readings.segments();
    if segments.any(|segment| segment.eq_ignore_ascii_case("deployments")) {
        return segments.next().map(Cow::into_owned);
    }
    let last = readings.segments().next_back()?;
    last.split_once(':').map(|(name, _)| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_model_is_named_for_certain_or_not_at_all() {
        let check = |path: &str, body: &str, expected: Option<&str>| {
            let found = model_of(path, body.as_bytes());
            assert_eq!(found.as_deref(), expected, "{path} {body}");
        };
        let chat = "/v1/chat/completions";
        check(chat, r#"{"messages": [], "model": "gpt-5"}"#, Some("gpt-5"));
        check(chat, r#"{"mod\u0065l": "gpt-5"}"#, Some("gpt-5"));
        check(chat, r#"{"model": "gpt-5", "model": "claude"}"#, None);
        check(chat, r#"{"model": "gpt-5", "mod\u0065l": "claude"}"#, None);
        check(chat, r#"{"model": ["gpt-5"]}"#, None);
        check(chat, r#"{"model": 5}"#, None);
        check(chat, r#"{"model": ""}"#, None);
        check(chat, r#"{"inner": {"model": "gpt-5"}}"#, None);
        check(chat, r#"["model"]"#, None);
        check(chat, "model", None);
        check(chat, "", None);
        let long = "m".repeat(MODEL_BYTES_MAX + 1);
        check(chat, &format!(r#"{{"model": "{long}"}}"#), None);
        check(&format!("/v1/models/{long}:generateContent"), "", None);
        let google = "/v1beta/models/gemini-3:generateContent?key=a";
        check(google, r#"{"model": "gpt-5"}"#, Some("gemini-3"));
        check(
            "/openai/deployments/mine/chat/completions",
            "{}",
            Some("mine"),
        );
    }
}
