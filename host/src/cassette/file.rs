//! One exchange as a file: `docs/cassettes.md` describes the format.
//!
//! Written by hand, because a file is to be read in a diff: JSON bodies are indented, an event is a line.

use super::asked::Asked;
use super::body::{Body, FileBody};
use super::events::FileEvent;
use super::text;
use super::version::{VERSION, check_version};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Longest file: the longest answer in base64, and its request.
pub(super) const FILE_BYTES_MAX: u64 = 128 << 20;

/// A request and its answer.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) asked: Asked,
    pub(super) answer: Answer,
}

/// An answer of the provider.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body,
    /// The provider's connection broke off behind the body.
    pub(super) is_cut: bool,
}

/// A header with one value or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    All(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'f> {
    cassette: u32,
    #[serde(borrow)]
    request: Side<'f>,
    #[serde(borrow)]
    answer: Side<'f>,
}

/// The request or the answer of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Side<'f> {
    method: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    #[serde(default)]
    cut: bool,
    #[serde(borrow)]
    json: Option<&'f RawValue>,
    style: Option<String>,
    tail: Option<String>,
    #[serde(borrow)]
    events: Option<Vec<FileEvent<'f>>>,
    newline: Option<String>,
    text: Option<Vec<String>>,
    base64: Option<Vec<String>>,
}

impl Exchange {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with it.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let file: File<'_> = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        check_version(file.cassette)?;
        let (request, answer) = (file.request, file.answer);
        let (Some(method), Some(path), None, false) =
            (&request.method, &request.path, request.status, request.cut)
        else {
            return Err("its request has a method and a path, and no status".into());
        };
        if !path.starts_with('/') {
            return Err("the path of its request does not begin with a slash".into());
        }
        let (method, path) = (method.clone(), path.clone());
        let headers = request.all_headers();
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = headers.collect();
        let asked = Asked::of_file(method, path, headers, request.body()?);
        let (None, None, Some(status)) = (&answer.method, &answer.path, answer.status) else {
            return Err("its answer has a status, and neither a method nor a path".into());
        };
        let status = StatusCode::from_u16(status).ok();
        let status = status.filter(|status| !status.is_informational());
        let headers = answer.all_headers().map(|(name, value)| {
            let name: HeaderName = name.parse().ok()?;
            let value = HeaderValue::from_str(value).ok()?;
            (!is_of_connection(name.as_str())).then_some((name, value))
        });
        let headers: Option<Vec<_>> = headers.collect();
        let answer = Answer {
            status: status.ok_or("the status of its answer is none")?,
            headers: headers.ok_or("a header of its answer is none that may be sent")?,
            is_cut: answer.cut,
            body: answer.body()?,
        };
        Ok(Self { asked, answer })
    }

    /// The text of its file.
    pub(super) fn write(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write!(out, "{{\n  \"cassette\": {VERSION},\n  \"request\": {{");
        let (asked, answer) = (&self.asked, &self.answer);
        let _ = write!(out, "\n    \"method\": {}", text::quoted(asked.method()));
        let _ = write!(out, ",\n    \"path\": {}", text::quoted(asked.path()));
        let headers = asked.headers().iter();
        write_headers(
            headers.map(|(name, value)| (name.as_str(), value.as_str())),
            &mut out,
        );
        asked.body().write(&mut out);
        let _ = write!(out, "\n  }},\n  \"answer\": {{");
        let _ = write!(out, "\n    \"status\": {}", answer.status.as_u16());
        let headers = answer.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        write_headers(headers, &mut out);
        if answer.is_cut {
            out.push_str(",\n    \"cut\": true");
        }
        answer.body.write(&mut out);
        out.push_str("\n  }\n}\n");
        out
    }
}

impl<'f> Side<'f> {
    fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().flat_map(|(name, values)| {
            let values = match values {
                Values::One(value) => std::slice::from_ref(value),
                Values::All(values) => values.as_slice(),
            };
            values
                .iter()
                .map(move |value| (name.as_str(), value.as_str()))
        })
    }

    fn body(self) -> Result<Body, String> {
        Body::of_file(FileBody {
            json: self.json,
            style: self.style,
            tail: self.tail,
            events: self.events,
            newline: self.newline,
            text: self.text,
            base64: self.base64,
        })
    }
}

/// Whether a header is about how a body is sent: replaying decides that anew.
pub(super) fn is_of_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn write_headers<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>, out: &mut String) {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in headers {
        all.entry(name).or_default().push(value);
    }
    if all.is_empty() {
        return;
    }
    out.push_str(",\n    \"headers\": {");
    for (number, (name, values)) in all.iter().enumerate() {
        out.push_str(match number {
            0 => "\n      ",
            _ => ",\n      ",
        });
        let values = match values.as_slice() {
            [value] => text::quoted(value),
            values => {
                let values: Vec<String> = values.iter().map(|value| text::quoted(value)).collect();
                format!("[{}]", values.join(", "))
            }
        };
        let _ = write!(out, "{}: {values}", text::quoted(name));
    }
    out.push_str("\n    }");
}

/// A body as it is once it was written and read again.
#[cfg(test)]
pub(super) fn written_and_read(body: &Body) -> Result<Body, String> {
    let mut file = String::from("{\"status\": 200");
    body.write(&mut file);
    file.push('}');
    let side: Side<'_> = serde_json::from_str(&file).map_err(|error| error.to_string())?;
    side.body()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cassette::text::Style;

    const FILE: &str = r#"{
  "cassette": 1,
  "request": {
    "method": "POST",
    "path": "/v1/chat/completions",
    "headers": {
      "openai-beta": "a"
    },
    "json": {
      "messages": [
        {
          "content": "hi",
          "role": "user"
        }
      ],
      "model": "m"
    }
  },
  "answer": {
    "status": 200,
    "headers": {
      "content-type": "text/event-stream",
      "x-a": ["1", "2"]
    },
    "cut": true,
    "events": [
      { "after_ms": 10, "json": {"a":1} },
      { "after_ms": 0, "data": "[DONE]" }
    ]
  }
}
"#;

    #[test]
    fn a_file_is_written_as_it_was_read() {
        let exchange = Exchange::read(FILE.as_bytes()).expect("an exchange");
        assert_eq!(exchange.write(), FILE);
        let parts = exchange.answer.body.restored();
        let stream: Vec<u8> = parts.iter().flat_map(|(_, part)| part.to_vec()).collect();
        assert_eq!(stream, b"data: {\"a\":1}\n\ndata: [DONE]\n\n");
        // A formatter of JSON changes nothing.
        let other = text::styled(FILE.trim_end(), Style::Compact, "");
        let other = Exchange::read(other.as_bytes()).expect("an exchange");
        assert_eq!(other.write(), FILE);
    }

    #[test]
    fn a_broken_file_is_refused_with_one_line() {
        for (from, to) in [
            ("\"cassette\": 1", "\"cassette\": 2"),
            ("\"status\": 200", "\"status\": 7"),
            ("\"status\": 200", "\"status\": 101"),
            ("\"status\": 200,", ""),
            ("\"x-a\": [", "\"x a\": ["),
            ("[\"1\", \"2\"]", "\"1\\r\\nset-cookie: a\""),
            ("\"x-a\": [\"1\", \"2\"]", "\"content-length\": \"1\""),
            ("\"/v1/chat", "\"v1/chat"),
            ("\"cut\": true", "\"cut\": 1"),
            ("\"cut\": true", "\"other\": 1"),
            ("\"cut\": true", "\"text\": [\"a\"]"),
            ("\"cut\": true", "\"style\": \"odd\""),
            ("\"[DONE]\"", "\"a\\n\\ndata: b\""),
        ] {
            let file = FILE.replacen(from, to, 1);
            assert_ne!(file, FILE, "{from}");
            let error = Exchange::read(file.as_bytes()).expect_err(to);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        for end in 0..FILE.len() - 2 {
            assert!(Exchange::read(&FILE.as_bytes()[..end]).is_err(), "{end}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let file = FILE.replacen("{\"a\":1}", &deep, 1);
        assert!(Exchange::read(file.as_bytes()).is_err());
    }
}
