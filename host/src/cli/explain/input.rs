//! Reads a request in one of the forms that people have at hand.

use super::asked::{Asked, bytes};
use super::{curl, dump};
use std::path::Path;

/// Reads a file, or standard input for `-`.
///
/// # Errors
///
/// One line that names the input and says what is wrong, without its content.
pub(super) fn read(input: &Path, path: &str) -> Result<Asked, String> {
    let named = |error: String| format!("{}: {error}", input.display());
    parse(&bytes(input).map_err(named)?, path).map_err(named)
}

fn parse(text: &[u8], path: &str) -> Result<Asked, String> {
    let trimmed = text.trim_ascii_start();
    let is_curl = |text: &[u8]| {
        let text = text.strip_prefix(b"$ ").unwrap_or(text);
        text.starts_with(b"curl") && text.get(4).is_none_or(u8::is_ascii_whitespace)
    };
    if is_curl(trimmed) {
        let text = str::from_utf8(trimmed).map_err(|_| "the command is not UTF-8")?;
        return curl::read(text.strip_prefix("$ ").unwrap_or(text));
    }
    if dump::is_one(trimmed) {
        return dump::read(trimmed);
    }
    // What is meant to be JSON and is not has its reason as well.
    const BEGINNINGS: [&[u8]; 3] = [b"{", b"[", b"\xef\xbb\xbf"];
    if BEGINNINGS.iter().any(|it| trimmed.starts_with(it)) {
        let mut asked = Asked {
            body: text.to_vec(),
            is_bare: true,
            ..Asked::to(path)
        };
        asked.header("content-type", "application/json");
        asked.header("authorization", "Bearer assumed");
        return Ok(asked);
    }
    Err("this is no JSON body, no HTTP request and no curl command".into())
}

#[cfg(test)]
mod tests {

    #[test]
    fn each_form_is_recognised() {
        let parse = |text: &str| super::parse(text.as_bytes(), "/v1/assumed");
        let bare = parse("\n {\"model\": 1}").expect("a body");
        assert!(bare.is_bare && bare.url == "/v1/assumed");
        let broken = parse("{\"model\"").expect("it has a reason to pass by");
        assert!(broken.is_bare);
        let dumped = parse("GET /v1/models\nhost: a\n\n").expect("a dump");
        assert_eq!(dumped.method, "GET");
        let curl = parse("$ curl https://a.test/v1/x -d 1").expect("a command");
        assert_eq!(curl.url, "https://a.test/v1/x");
        let error = parse("sk-secret").expect_err("nothing known");
        assert!(!error.contains("secret"), "{error}");
    }
}
