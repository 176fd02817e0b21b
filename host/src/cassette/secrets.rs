//! What a credential looks like: names of headers, parameters and fields, and key-like strings in text.

/// Stands for what was redacted.
pub(super) const REDACTED: &str = "[redacted]";

/// Words in the names of headers and of parameters that hold credentials.
const SECRET_WORDS: [&str; 17] = [
    "apikey",
    "auth",
    "authentication",
    "authorization",
    "bearer",
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
];

/// Names of fields whose text is a credential, in small letters without marks between the words. A bare `token`
/// is none: log probabilities have it.
const SECRET_FIELDS: [&str; 21] = [
    "accesskey",
    "accesskeyid",
    "accesstoken",
    "apikey",
    "authorization",
    "authorizationtoken",
    "authtoken",
    "bearertoken",
    "clientsecret",
    "connectionstring",
    "credentials",
    "idtoken",
    "passwd",
    "password",
    "privatekey",
    "refreshtoken",
    "secret",
    "secretaccesskey",
    "secretkey",
    "sessiontoken",
    "xapikey",
];

/// How keys begin, and how long one is at least.
const KEYS: [(&str, usize); 36] = [
    ("sk-", 16),
    ("sk_", 20),
    ("pk_live_", 20),
    ("rk_live_", 20),
    ("whsec_", 20),
    ("AIza", 30),
    ("ya29.", 20),
    ("1//0", 40),
    ("GOCSPX-", 20),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxa-", 16),
    ("xoxb-", 16),
    ("xoxe-", 16),
    ("xoxp-", 16),
    ("xoxs-", 16),
    ("xapp-", 16),
    ("AKIA", 20),
    ("ASIA", 20),
    ("hf_", 20),
    ("gsk_", 20),
    ("xai-", 20),
    ("pplx-", 20),
    ("r8_", 20),
    ("nvapi-", 20),
    ("tvly-", 16),
    ("SG.", 30),
    ("npm_", 30),
    ("pypi-", 30),
    ("lsv2_", 20),
    ("sess-", 20),
];

/// How a JSON Web Token begins: `{"` in base64. It has dots, and is long.
const JWT: (&str, usize) = ("eyJ", 40);

/// Words before a credential, and how long the credential is at least.
const SCHEMES: [(&str, usize); 2] = [("bearer ", 8), ("basic ", 8)];

/// Headers of answers that name the account.
const ACCOUNT_HEADERS: [&str; 4] = [
    "anthropic-organization-id",
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
];

/// The words of a name: parts between marks, and parts that begin with a capital letter.
fn words(name: &str) -> impl Iterator<Item = &[u8]> {
    let parts = name.split(|it: char| !it.is_ascii_alphanumeric());
    parts.flat_map(|part| {
        part.as_bytes()
            .chunk_by(|before, after| !(before.is_ascii_lowercase() && after.is_ascii_uppercase()))
    })
}

/// Whether a header or a parameter of this name holds a credential.
pub(super) fn is_secret_name(name: &str) -> bool {
    words(name).any(|word| {
        let is = |secret: &&str| secret.as_bytes().eq_ignore_ascii_case(word);
        SECRET_WORDS.iter().any(is)
    })
}

/// Whether a header of an answer names the account.
pub(super) fn is_account_header(name: &str) -> bool {
    ACCOUNT_HEADERS.contains(&name)
}

/// Whether a field of this name has a credential as its text.
pub(super) fn is_secret_field(name: &str) -> bool {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = letters.map(|it| it.to_ascii_lowercase()).collect();
    SECRET_FIELDS.contains(&plain.as_str())
}

/// Whether a character may stand in a key; stars, because providers show keys with their middle hidden.
pub(super) fn is_of_key(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '*' | '~')
}

/// The text with each key-like string replaced; none if it has none. `is_own` says which further words are to go.
pub(super) fn without_keys(text: &str, is_own: impl Fn(&str) -> bool) -> Option<String> {
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    let mut cut = |start: usize, end: usize| {
        out.push_str(&text[copied..start]);
        out.push_str(REDACTED);
        copied = end;
    };
    let mut before = ' ';
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        let is_begin = !before.is_ascii_alphanumeric();
        let length = match character {
            '-' if rest.starts_with("-----BEGIN ") => private_key(rest),
            ':' => user_of_url(rest),
            _ if is_begin && is_of_key(character) => key(rest, &is_own),
            _ => None,
        };
        match length {
            Some((skipped, length)) => {
                cut(at + skipped, at + length);
                at += length;
                before = ' ';
            }
            None => {
                before = character;
                at += character.len_utf8();
            }
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// A key that a text begins with: where what is to go begins and ends.
fn key(text: &str, is_own: &impl Fn(&str) -> bool) -> Option<(usize, usize)> {
    for (scheme, length) in SCHEMES {
        let start = text.as_bytes().get(..scheme.len());
        if start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes())) {
            let is_of_value = |it: char| is_of_key(it) || matches!(it, '+' | '/' | '=');
            let value = &text[scheme.len()..];
            let end = value.find(|it| !is_of_value(it)).unwrap_or(value.len());
            let has_digit = value[..end].bytes().any(|byte| byte.is_ascii_digit());
            if end >= length && has_digit {
                return Some((scheme.len(), scheme.len() + end));
            }
        }
    }
    let end = text.find(|it| !is_of_key(it)).unwrap_or(text.len());
    let word = text[..end].trim_end_matches(['.', '-', '~']);
    let begins = |(start, length): &(&str, usize)| word.starts_with(start) && word.len() >= *length;
    let is_jwt = begins(&JWT) && word.contains('.');
    let is_key = is_jwt || KEYS.iter().any(begins) || is_own(word);
    is_key.then_some((0, word.len()))
}

/// A private key in PEM, up to its end or that of the text.
fn private_key(text: &str) -> Option<(usize, usize)> {
    let head = text.find('\n').unwrap_or(text.len());
    if !text[..head].contains("PRIVATE KEY-----") {
        return None;
    }
    const END: &str = "-----END ";
    let end = text.find(END).map_or(text.len(), |at| {
        let tail = &text[at + END.len()..];
        let marks = tail
            .find("-----")
            .map_or(tail.len(), |it| it + "-----".len());
        at + END.len() + marks
    });
    Some((0, end))
}

/// The name and password of a URL, behind `://` and up to the `@`.
fn user_of_url(text: &str) -> Option<(usize, usize)> {
    let rest = text.strip_prefix("://")?;
    let end = rest.find(['/', '@', ' ', '"', '\n', '?', '#'])?;
    let is_user = rest[end..].starts_with('@') && rest[..end].contains(':');
    is_user.then_some(("://".len(), "://".len() + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        without_keys(text, |word| word == "own-word").unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn keys_go_wherever_they_stand_in_a_text() {
        for key in [
            "sk-proj-abcdefgh12345678",
            "sk-ant-api03-abcdefgh_12345678",
            "AIzaSyA0123456789abcdefghijklmnopqrstu",
            "ghp_0123456789abcdefghij",
            "AKIA0123456789ABCDEF",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
            "sk-proj-********************5678",
            "own-word",
        ] {
            for (before, after) in [
                ("", ""),
                ("key=", "&x"),
                ("(", ")."),
                ("say ", "."),
                ("ü-", "ü"),
            ] {
                let text = format!("{before}{key}{after}");
                assert_eq!(
                    redacted(&text),
                    format!("{before}{REDACTED}{after}"),
                    "{text}"
                );
            }
        }
        assert_eq!(redacted("Bearer abcdefg8!"), "Bearer [redacted]!");
        assert_eq!(
            redacted("postgres://u:p@host/db"),
            "postgres://[redacted]@host/db"
        );
        let pem = "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b";
        assert_eq!(redacted(pem), "a [redacted] b");
        assert_eq!(redacted("-----BEGIN PRIVATE KEY-----\nMII"), "[redacted]");
    }

    #[test]
    fn other_text_stays() {
        for text in [
            "risk-free and task-based",
            "sk-test",
            "a bearer of good news",
            "the basic question",
            "https://example.com/a:b@c",
            "https://example.com:8080/",
            "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
            "eyJ short",
            "日本語",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn names_tell_of_credentials() {
        for name in [
            "Authorization",
            "x-api-key",
            "x-acme-token",
            "accessToken",
            "sig",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "x-ratelimit-limit-tokens",
            "access-control-allow-origin",
            "x-request-id",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(is_secret_field("apiKey") && is_secret_field("client_secret"));
        assert!(!is_secret_field("token") && !is_secret_field("prompt_cache_key"));
    }
}
