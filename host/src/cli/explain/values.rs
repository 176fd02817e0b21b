//! Which values may be shown with `--show-values`. Credentials never are, and neither are values that
//! may be one: a part of which the name says so, and cookies.

use reflex_host::serve::plain::plain;
use reflex_llm::KeyedKind;

/// Words in the names of parts that hold credentials.
const SECRET_WORDS: [&str; 20] = [
    "access",
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "code",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passwd",
    "password",
    "secret",
    "session",
    "sig",
    "signature",
    "token",
    "tenant",
    "user",
];

/// Longest value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 200;

/// Stands for a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// A value as it may be shown. `tenant_header` is the operator's.
pub(super) fn shown(
    kind: KeyedKind,
    name: &str,
    value: &[u8],
    tenant_header: Option<&str>,
) -> String {
    let text = String::from_utf8_lossy(value);
    let is_hidden = match kind {
        KeyedKind::Tenant | KeyedKind::Cookie => true,
        KeyedKind::Header => {
            tenant_header == Some(name) || is_secret_name(name) || is_secret_value(&text)
        }
        KeyedKind::Query => is_secret_name(name),
        // Of each part of the way, and of what is inside.
        KeyedKind::Field => is_secret_name(name) || holds_secret(value),
        _ => false,
    };
    if is_hidden {
        return HIDDEN.into();
    }
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let more = if end < text.len() { "…" } else { "" };
    format!("{}{more}", plain(&text[..end]))
}

fn is_secret_name(name: &str) -> bool {
    let parts = name.split(|it: char| !it.is_ascii_alphanumeric());
    let mut words = parts.flat_map(|part| {
        part.as_bytes()
            .chunk_by(|before, after| !(before.is_ascii_lowercase() && after.is_ascii_uppercase()))
    });
    words.any(|word| {
        let is = |secret: &&str| secret.as_bytes().eq_ignore_ascii_case(word);
        SECRET_WORDS.iter().any(is)
    })
}

fn is_secret_value(value: &str) -> bool {
    let lower = value.trim_start().to_ascii_lowercase();
    ["basic ", "bearer ", "sk-", "eyj"]
        .iter()
        .any(|it| lower.starts_with(it))
}

/// Whether an object further in has a member with such a name.
fn holds_secret(value: &[u8]) -> bool {
    fn holds(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(members) => members
                .iter()
                .any(|(name, value)| is_secret_name(name) || holds(value)),
            serde_json::Value::Array(elements) => elements.iter().any(holds),
            _ => false,
        }
    }
    // What cannot be read may hold anything.
    serde_json::from_slice(value).map_or(true, |value| holds(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_credential_is_never_shown() {
        for (kind, name, value) in [
            (KeyedKind::Tenant, "", ""),
            (KeyedKind::Cookie, "theme", "secret"),
            (KeyedKind::Header, "x-team", "secret"),
            (KeyedKind::Header, "x-acme-key", "secret"),
            (KeyedKind::Header, "x-acme", "Bearer secret"),
            (KeyedKind::Header, "x-acme", "sk-secret"),
            (KeyedKind::Query, "accessToken", "secret"),
            (KeyedKind::Field, "api_key", "\"secret\""),
            (
                KeyedKind::Field,
                "tools[0].headers.Authorization",
                "\"secret\"",
            ),
            (
                KeyedKind::Field,
                "tools",
                r#"[{"headers":{"X-Api-Key":"secret"}}]"#,
            ),
        ] {
            assert_eq!(
                shown(kind, name, value.as_bytes(), Some("x-team")),
                HIDDEN,
                "{name}"
            );
        }
    }

    #[test]
    fn other_values_are_shown_as_plain_bounded_text() {
        let show = |value: &str| shown(KeyedKind::Header, "x", value.as_bytes(), None);
        assert_eq!(show("de"), "de");
        assert_eq!(show("a\x1b[31m\u{202e}"), "a\\u{1b}[31m\\u{202e}");
        let long = show(&"ü".repeat(VALUE_BYTES_MAX));
        assert!(long.len() <= VALUE_BYTES_MAX + '…'.len_utf8() && long.ends_with('…'));
        let field = |name: &str, value: &str| shown(KeyedKind::Field, name, value.as_bytes(), None);
        assert_eq!(field("max_tokens", "7"), "7");
        assert_eq!(field("messages[0].content", "\"hi\""), "\"hi\"");
    }
}
