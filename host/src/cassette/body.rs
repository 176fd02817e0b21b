//! A body as a file has it: JSON, a list of events or text where the bytes can be restored from it, else base64.

use super::events::{Arrival, Events, FileEvent};
use super::redact::Redactor;
use super::text::{self, Style, styled};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::fmt::Write as _;

/// Characters of base64 in one line of a file.
const BASE64_LINE: usize = 96;

/// A body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Empty,
    /// JSON without white space, the style in which it came, and the white space behind it.
    Json {
        json: String,
        style: Style,
        tail: String,
    },
    Events(Events),
    Text(String),
    Bytes(Bytes),
}

/// The members of a file's object that are its body.
#[derive(Default)]
pub(super) struct FileBody<'f> {
    pub(super) json: Option<&'f RawValue>,
    pub(super) style: Option<String>,
    pub(super) tail: Option<String>,
    pub(super) events: Option<Vec<FileEvent<'f>>>,
    pub(super) newline: Option<String>,
    pub(super) text: Option<Vec<String>>,
    pub(super) base64: Option<Vec<String>>,
}

impl Body {
    /// An answer's body without what is redacted; none if it holds a credential and is no text.
    pub(super) fn of_answer(
        bytes: &Bytes,
        is_events: bool,
        arrivals: &[Arrival],
        redactor: &Redactor,
    ) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::Empty);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return (!redactor.is_in(bytes)).then(|| Self::Bytes(bytes.clone()));
        };
        if is_events {
            return Some(Self::Events(Events::read(text, arrivals, redactor)));
        }
        let trimmed = text.trim_end_matches(['\n', '\r', ' ']);
        if !text::is_json(trimmed) {
            return Some(Self::Text(redactor.text(text)));
        }
        let json = redactor.json(trimmed);
        Some(match Style::of(&json) {
            Some(style) => Self::Json {
                json: styled(&json, Style::Compact, ""),
                style,
                tail: text[trimmed.len()..].to_owned(),
            },
            None => Self::Text(format!("{json}{}", &text[trimmed.len()..])),
        })
    }

    /// Reads what a file has.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn of_file(body: FileBody<'_>) -> Result<Self, String> {
        let style = Style::from_name(body.style.as_deref()).ok_or("its style is unknown")?;
        let tail = body.tail.unwrap_or_default();
        if !tail.trim_matches(['\n', '\r', ' ']).is_empty() {
            return Err("tail is not white space".into());
        }
        match (body.json, body.events, body.text, body.base64) {
            (None, None, None, None) => Ok(Self::Empty),
            (Some(json), None, None, None) if text::is_shallow(json.get()) => Ok(Self::Json {
                json: styled(json.get(), Style::Compact, ""),
                style,
                tail,
            }),
            (None, Some(events), None, None) => {
                let events = Events::of_file(events, body.newline.as_deref(), style)?;
                Ok(Self::Events(events))
            }
            (None, None, Some(lines), None) => Ok(Self::Text(lines.concat())),
            (None, None, None, Some(lines)) => {
                let bytes = STANDARD.decode(lines.concat());
                let bytes = bytes.map_err(|_| "base64 is not base64")?;
                Ok(Self::Bytes(bytes.into()))
            }
            _ => Err("a body is one of json (not too deep), events, text and base64".into()),
        }
    }

    /// Writes the members of a file's object, each behind a comma.
    pub(super) fn write(&self, out: &mut String) {
        // Writing to a string does not fail.
        match self {
            Self::Empty => {}
            Self::Json { json, style, tail } => {
                if let Some(style) = style.name() {
                    let _ = write!(out, ",\n    \"style\": {}", text::quoted(style));
                }
                if !tail.is_empty() {
                    let _ = write!(out, ",\n    \"tail\": {}", text::quoted(tail));
                }
                let json = styled(json, Style::Indented, "    ");
                let _ = write!(out, ",\n    \"json\": {json}");
            }
            Self::Events(events) => events.write(out),
            Self::Text(text) => {
                write_lines("text", text.split_inclusive('\n'), out);
            }
            Self::Bytes(bytes) => {
                let text = STANDARD.encode(bytes);
                let lines = text.as_bytes().chunks(BASE64_LINE);
                // Base64 is ASCII.
                let lines = lines.map(|line| std::str::from_utf8(line).unwrap_or_default());
                write_lines("base64", lines, out);
            }
        }
    }

    /// The bytes, in parts, with the time of each after the one before in milliseconds.
    pub(super) fn restored(&self) -> Vec<(u64, Bytes)> {
        let whole: Bytes = match self {
            Self::Empty => return Vec::new(),
            Self::Json { json, style, tail } => {
                format!("{}{tail}", styled(json, *style, "")).into()
            }
            Self::Events(events) => return events.restored(),
            Self::Text(text) => text.clone().into(),
            Self::Bytes(bytes) => bytes.clone(),
        };
        vec![(0, whole)]
    }
}

fn write_lines<'l>(name: &str, lines: impl Iterator<Item = &'l str>, out: &mut String) {
    let _ = write!(out, ",\n    \"{name}\": [");
    for (number, line) in lines.enumerate() {
        out.push_str(match number {
            0 => "\n      ",
            _ => ",\n      ",
        });
        out.push_str(&text::quoted(line));
    }
    out.push_str("\n    ]");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cassette::file;
    use std::sync::Arc;

    fn check(bytes: &[u8], is_events: bool) -> Body {
        let bytes = Bytes::copy_from_slice(bytes);
        let redactor = Redactor::of_none();
        let body = Body::of_answer(&bytes, is_events, &[], &redactor).expect("a body");
        let restored: Vec<u8> = body
            .restored()
            .iter()
            .flat_map(|(_, it)| it.to_vec())
            .collect();
        assert_eq!(restored, bytes);
        assert_eq!(file::written_and_read(&body).as_ref(), Ok(&body));
        body
    }

    #[test]
    fn each_body_is_restored_to_the_byte() {
        for body in [
            &b""[..],
            b"{}",
            b"{\"a\":1.0,\"b\":[]}",
            b"{\"a\": 1, \"b\": []}",
            b"{\n  \"a\": [\n    1\n  ]\n}\n",
            b"{ \"a\":1}\r\n",
            b"<html>\n<body>\n",
            b"\xff\x00",
            b"\"a\" \n\n",
            b"{\"a\":1}{\"b\":2}",
        ] {
            check(body, false);
            check(body, true);
        }
        let body = check(&[0xfe; 300], false);
        assert!(matches!(body, Body::Bytes(_)));
        let body = check(b"{\n  \"a\": 1\n}\n", false);
        assert!(matches!(
            body,
            Body::Json {
                style: Style::Indented,
                ..
            }
        ));
    }

    #[test]
    fn a_credential_in_what_is_no_text_is_not_written() {
        let mut headers = http::HeaderMap::new();
        headers.insert(
            "x-api-key",
            http::HeaderValue::from_static("planted-secret"),
        );
        let redactor = Redactor::of(&Arc::default(), &headers, "/");
        let bytes = Bytes::from_static(b"\xff planted-secret");
        assert_eq!(Body::of_answer(&bytes, false, &[], &redactor), None);
    }
}
