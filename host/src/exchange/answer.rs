//! An LLM answer as HTTP sees it, and its status and headers as the bytes that the cache keeps
//! as metadata.
//!
//! ```text
//! version u8 = 2 | status u16 | headers u16 | per header: name u16, value u32, name, value
//!                | until the end, notes: kind u8, length u32, bytes
//! ```
//!
//! Integers are little-endian. Version 1 is the same without notes. An unknown kind is passed over,
//! so that older releases can read the answers of a later one. The decoder accepts any bytes: an
//! entry of a component under a key of its own need not be an HTTP answer.

use crate::exchange::reply::pace::Beat;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reflex_llm::{Shape, Usage};

const VERSION: u8 = 2;
const VERSION_WITHOUT_NOTES: u8 = 1;

/// Input, output and all tokens, `u64` each.
const USAGE: u8 = 1;
/// The model that was asked for, UTF-8.
const MODEL: u8 = 2;
/// The pace of a stream: bytes and milliseconds, `u32` each, per mark.
const PACE: u8 = 3;
/// From when on it is not served stale either: milliseconds since 1970, `u64`.
const END: u8 = 4;
/// The API and the form of the answer, as [`Shape::token`](reflex_llm::Shape::token) spells it.
const SHAPE: u8 = 5;
/// The digest of the request that the key was made of, 32 bytes.
const DIGEST: u8 = 6;

/// One mark of a pace.
const MARK_BYTES: usize = 8;

/// Room for the headers that a hit gets on top.
const OWN_HEADERS: usize = 5;

/// Status and headers of a stored answer; the body is the entry's payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnswerHead {
    /// `200` for everything that the recorder stores.
    pub(crate) status: StatusCode,
    /// Those kept with the answer, as `reflex-llm` decides.
    pub(crate) headers: HeaderMap,
    pub(crate) notes: Notes,
}

/// The cache's own notes about an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The cost that the answer states, if any.
    pub(crate) usage: Option<Usage>,
    /// The model that was asked for.
    pub(crate) model: Option<String>,
    /// The pace of a stream; empty if it was not recorded.
    pub(crate) pace: Vec<Beat>,
    /// From when on it is not served, not even in place of a failing provider's answer, in
    /// milliseconds since 1970; none where the operator's rule decides.
    pub(crate) ends_at_ms: Option<u64>,
    /// The API and the form of the answer; none for an answer that was not judged, or of a release that did
    /// not note it.
    pub(crate) shape: Option<Shape>,
    /// The digest of the request; none of a release that did not note it.
    pub(crate) digest: Option<[u8; 32]>,
}

impl AnswerHead {
    /// The bytes to store beside the body. Headers that are too long for their length field, or
    /// too many, cannot occur: the recorder keeps a short list of short ones.
    pub(crate) fn encode_noting(
        status: u16,
        headers: &[(String, Vec<u8>)],
        notes: &Notes,
    ) -> Vec<u8> {
        let fits = |(name, value): &&(String, Vec<u8>)| {
            u16::try_from(name.len()).is_ok() && u32::try_from(value.len()).is_ok()
        };
        let headers: Vec<_> = headers
            .iter()
            .filter(fits)
            .take(usize::from(u16::MAX))
            .collect();

        let mut bytes = vec![VERSION];
        bytes.extend(status.to_le_bytes());
        bytes.extend((headers.len() as u16).to_le_bytes());
        for (name, value) in headers {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(value);
        }
        notes.encode(&mut bytes);
        bytes
    }

    /// `None` if the bytes are not an answer's head.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = StoredHead::read(bytes)?;
        Some(Self {
            status: stored.status,
            headers: stored.headers()?,
            notes: Notes {
                usage: stored.usage,
                model: stored.model.map(str::to_owned),
                pace: stored.pace(),
                ends_at_ms: stored.ends_at_ms,
                shape: stored.shape(),
                digest: stored.digest.copied(),
            },
        })
    }
}

/// The same where it lies: a hit copies nothing of it but its headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredHead<'b> {
    pub(crate) status: StatusCode,
    headers_count: u16,
    /// Each with the lengths of its name and its value, which have been compared with what is here.
    headers: &'b [u8],
    pub(crate) usage: Option<Usage>,
    pub(crate) model: Option<&'b str>,
    pace: &'b [[u8; MARK_BYTES]],
    pub(crate) ends_at_ms: Option<u64>,
    shape: Option<&'b str>,
    pub(crate) digest: Option<&'b [u8; 32]>,
}

impl<'b> StoredHead<'b> {
    /// `None` if the bytes are not an answer's head.
    pub(crate) fn read(bytes: &'b [u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION && version != VERSION_WITHOUT_NOTES {
            return None;
        }
        let status = StatusCode::from_u16(u16::from_le_bytes(take(&mut rest)?)).ok()?;
        let headers_count = u16::from_le_bytes(take(&mut rest)?);
        let mut headers = rest;
        for _ in 0..headers_count {
            header(&mut rest)?;
        }
        headers = headers.split_off(..headers.len() - rest.len())?;
        if version == VERSION_WITHOUT_NOTES && !rest.is_empty() {
            return None;
        }
        let mut stored = Self {
            status,
            headers_count,
            headers,
            usage: None,
            model: None,
            pace: &[],
            ends_at_ms: None,
            shape: None,
            digest: None,
        };
        while !rest.is_empty() {
            let [kind] = take(&mut rest)?;
            let length = u32::from_le_bytes(take(&mut rest)?);
            let note = rest.split_off(..usize::try_from(length).ok()?)?;
            stored.note(kind, note)?;
        }
        Some(stored)
    }

    fn note(&mut self, kind: u8, mut note: &'b [u8]) -> Option<()> {
        match kind {
            USAGE => {
                let mut number = || take(&mut note).map(u64::from_le_bytes);
                self.usage = Some(Usage {
                    input_tokens: number()?,
                    output_tokens: number()?,
                    total_tokens: number()?,
                });
                note.is_empty().then_some(())
            }
            PACE => {
                let (marks, rest) = note.as_chunks();
                self.pace = marks;
                rest.is_empty().then_some(())
            }
            END => {
                self.ends_at_ms = Some(take(&mut note).map(u64::from_le_bytes)?);
                note.is_empty().then_some(())
            }
            MODEL => {
                self.model = Some(str::from_utf8(note).ok()?);
                Some(())
            }
            SHAPE => {
                self.shape = Some(str::from_utf8(note).ok()?);
                Some(())
            }
            DIGEST => {
                self.digest = Some(note.try_into().ok()?);
                Some(())
            }
            _ => Some(()),
        }
    }

    /// The headers; none if one of them is no header.
    pub(crate) fn headers(&self) -> Option<HeaderMap> {
        let mut map = HeaderMap::with_capacity(usize::from(self.headers_count) + OWN_HEADERS);
        let mut rest = self.headers;
        for _ in 0..self.headers_count {
            let (name, value) = header(&mut rest)?;
            map.append(HeaderName::from_bytes(name).ok()?, value_of(value)?);
        }
        Some(map)
    }

    /// The API and the form of the answer; none if that was not noted, or is of a later release.
    pub(crate) fn shape(&self) -> Option<Shape> {
        self.shape.and_then(Shape::from_token)
    }

    /// Whether the pace of a stream was recorded.
    pub(crate) fn has_pace(&self) -> bool {
        !self.pace.is_empty()
    }

    /// The pace of a stream.
    pub(crate) fn pace(&self) -> Vec<Beat> {
        let marks = self.pace.iter().map(|mark| {
            let [a, b, c, d, e, f, g, h] = *mark;
            Beat {
                bytes: u32::from_le_bytes([a, b, c, d]),
                ms: u32::from_le_bytes([e, f, g, h]),
            }
        });
        marks.collect()
    }
}

/// Takes a header's name and value.
fn header<'b>(rest: &mut &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
    let name = u16::from_le_bytes(take(rest)?);
    let value = u32::from_le_bytes(take(rest)?);
    let name = rest.split_off(..usize::from(name))?;
    let value = rest.split_off(..usize::try_from(value).ok()?)?;
    Some((name, value))
}

/// A value, without a copy of those that nearly all answers have.
fn value_of(bytes: &[u8]) -> Option<HeaderValue> {
    Some(match bytes {
        b"application/json" => HeaderValue::from_static("application/json"),
        b"text/event-stream" => HeaderValue::from_static("text/event-stream"),
        _ => HeaderValue::from_bytes(bytes).ok()?,
    })
}

impl Notes {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let mut note = |kind: u8, parts: &[&[u8]]| {
            let length = parts.iter().map(|part| part.len()).sum::<usize>();
            // A model's name has at most 256 bytes, and numbers have few.
            let Ok(length) = u32::try_from(length) else {
                return;
            };
            bytes.push(kind);
            bytes.extend(length.to_le_bytes());
            parts.iter().for_each(|part| bytes.extend(*part));
        };
        if let Some(usage) = &self.usage {
            let numbers = [usage.input_tokens, usage.output_tokens, usage.total_tokens];
            let numbers = numbers.map(u64::to_le_bytes);
            note(USAGE, &[&numbers[0], &numbers[1], &numbers[2]]);
        }
        if let Some(model) = &self.model {
            note(MODEL, &[model.as_bytes()]);
        }
        if !self.pace.is_empty() {
            let numbers = self.pace.iter().flat_map(|mark| [mark.bytes, mark.ms]);
            let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
            note(PACE, &[&bytes]);
        }
        if let Some(end) = self.ends_at_ms {
            note(END, &[&end.to_le_bytes()]);
        }
        if let Some(shape) = self.shape {
            note(SHAPE, &[shape.token().as_bytes()]);
        }
        if let Some(digest) = &self.digest {
            note(DIGEST, &[digest]);
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<u8> {
        let headers = [
            ("content-type".to_string(), b"text/event-stream".to_vec()),
            ("content-language".to_string(), b"en".to_vec()),
        ];
        AnswerHead::encode_noting(200, &headers, &notes())
    }

    fn notes() -> Notes {
        Notes {
            usage: Some(Usage {
                input_tokens: 3,
                output_tokens: 4,
                total_tokens: 9,
            }),
            model: Some("mock".into()),
            pace: vec![Beat { bytes: 5, ms: 7 }],
            ends_at_ms: Some(11),
            shape: Shape::from_token("chat-completions"),
            digest: Some([7; 32]),
        }
    }

    #[test]
    fn what_was_encoded_comes_back() {
        let head = AnswerHead::decode(&whole()).expect("decodes");
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        assert_eq!(head.headers["content-language"], "en");
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.notes, notes());
        let bare = AnswerHead::decode(&AnswerHead::encode_noting(200, &[], &Notes::default()))
            .expect("decodes");
        assert_eq!(bare.notes, Notes::default());
    }

    #[test]
    fn every_cut_is_refused_but_between_two_notes() {
        let whole = whole();
        let notes = (5 + 24) + (5 + 4) + (5 + 8) + (5 + 8) + (5 + 16) + (5 + 32);
        let bare = whole.len() - notes;
        for cut in 0..whole.len() {
            let usage = bare + 5 + 24;
            let model = usage + 5 + 4;
            let end = model + 5 + 8 + 5 + 8;
            let between = [bare, usage, model, model + 5 + 8, end, end + 5 + 16].contains(&cut);
            let decoded = AnswerHead::decode(&whole[..cut]);
            assert_eq!(decoded.is_some(), between, "cut at {cut}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(AnswerHead::decode(&longer), None);
    }

    #[test]
    fn version_1_is_still_read() {
        let stored = b"\x01\xc8\x00\x01\x00\x03\x00\x02\x00\x00\x00ageno";
        let head = AnswerHead::decode(stored).expect("decodes");
        assert_eq!(head.headers["age"], "no");
        assert_eq!(head.notes, Notes::default());
        let longer = [&stored[..], b"x"].concat();
        assert_eq!(AnswerHead::decode(&longer), None);
    }

    #[test]
    fn notes_of_a_later_release_are_passed_over() {
        let later = [&whole()[..], b"\xff\x02\x00\x00\x00??"].concat();
        let head = AnswerHead::decode(&later).expect("decodes");
        assert_eq!(head.notes, notes());
    }

    #[test]
    fn foreign_metadata_is_refused() {
        for bytes in [
            &b""[..],
            b"\x03\xc8\x00\x00\x00",
            b"\x01\x00\x00\x00\x00",
            b"{\"a\":1}",
        ] {
            assert_eq!(AnswerHead::decode(bytes), None, "{bytes:?}");
        }
    }
}
