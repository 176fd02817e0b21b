//! An HTTP request as tools dump it: request line, headers, a blank line, body. `curl -v` puts `> `
//! before each line of the head.

use super::asked::Asked;

/// Whether a text begins with a request line.
pub(super) fn is_one(text: &[u8]) -> bool {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = first.strip_prefix(b"> ").unwrap_or(first);
    let Ok(first) = str::from_utf8(first) else {
        return false;
    };
    let mut words = first.split_whitespace();
    let is_method = |word: &str| !word.is_empty() && word.bytes().all(|it| it.is_ascii_uppercase());
    let is_target = |word: &str| word.starts_with('/') || word.contains("://");
    words.next().is_some_and(is_method)
        && words.next().is_some_and(is_target)
        && words
            .next()
            .is_none_or(|version| version.starts_with("HTTP/"))
        && words.next().is_none()
}

/// Reads a request.
///
/// # Errors
///
/// A line of the head is no header.
pub(super) fn read(text: &[u8]) -> Result<Asked, String> {
    let mut rest = text;
    let mut lines = std::iter::from_fn(|| {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = match line {
            b">" => b"",
            line => line.strip_prefix(b"> ").unwrap_or(line),
        };
        (!line.is_empty()).then(|| String::from_utf8_lossy(line).into_owned())
    });
    let first = lines.next().unwrap_or_default();
    let mut words = first.split_whitespace();
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        ..Asked::to(words.next().unwrap_or_default())
    };
    for (number, line) in lines.enumerate() {
        let header = line.split_once(':').filter(|(name, _)| !name.is_empty());
        let (name, value) =
            header.ok_or_else(|| format!("line {} of the request is no header", number + 2))?;
        asked.header(name.trim(), value.trim());
    }
    let is_chunked = asked.headers.iter().any(|(name, value)| {
        name == "transfer-encoding" && value.trim().eq_ignore_ascii_case("chunked")
    });
    // Most tools have put the chunks of a dump together already.
    let body = is_chunked.then(|| joined(rest)).flatten();
    asked.body = body.unwrap_or_else(|| rest.to_vec());
    Ok(asked)
}

/// The chunks of a body, joined; none if it is not in chunks.
fn joined(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let size = str::from_utf8(&rest[..end]).ok()?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 1..];
        if size == 0 {
            return Some(body);
        }
        let (chunk, after) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r").unwrap_or(after);
        rest = rest.strip_prefix(b"\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_a_request() {
        for text in [
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n{\"a\":\n1}",
            "> POST /v1/x HTTP/2\n> Host: a\n> x-a: 1\n>\n{\"a\":\n1}",
        ] {
            assert!(is_one(text.as_bytes()), "{text}");
            let asked = read(text.as_bytes()).expect(text);
            assert_eq!(
                (asked.method.as_str(), asked.url.as_str()),
                ("POST", "/v1/x")
            );
            assert_eq!(asked.headers[1], ("x-a".into(), "1".into()));
            assert_eq!(asked.body, b"{\"a\":\n1}");
        }
    }

    #[test]
    fn chunks_are_joined_if_there_are_any() {
        let head = "POST /v1/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        for (body, whole) in [
            ("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", "abc0123456789"),
            ("{}", "{}"),
            ("5\r\nabc", "5\r\nabc"),
        ] {
            let asked = read(format!("{head}{body}").as_bytes()).expect("a head");
            assert_eq!(asked.body, whole.as_bytes(), "{body}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "{}",
            "curl /a",
            "POST",
            "POST a",
            "POST /a HTTP/1.1 b",
            "post /a",
        ] {
            assert!(!is_one(text.as_bytes()), "{text}");
        }
        assert!(read(b"POST /a\nno header\n\n").is_err());
    }
}
