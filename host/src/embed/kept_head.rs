//! The head of an HTTP answer as the bytes that the cache keeps as an entry's metadata, so that the
//! daemon and programs that embed the cache read each other's answers.
//!
//! ```text
//! version u8 = 2 | status u16 | headers u16 | per header: name u16, value u32, name, value
//!                | until the end, notes: kind u8, length u32, bytes
//! ```
//!
//! Integers are little-endian. Version 1 is the same without notes. An unknown kind is passed over,
//! so that older releases can read the answers of a later one. The decoder accepts any bytes: an
//! entry of a component under a key of its own need not be an HTTP answer.

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

/// How much of a stream had come, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Bytes from the beginning.
    pub bytes: u32,
    /// Milliseconds since the head.
    pub ms: u32,
}

/// The cache's own notes about an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The cost that the answer states, if any.
    pub usage: Option<Usage>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The pace of a stream; empty if it was not recorded.
    pub pace: Vec<Beat>,
    /// From when on it is not served, not even in place of a failing provider's answer, in
    /// milliseconds since 1970; none where the operator's rule decides.
    pub ends_at_ms: Option<u64>,
    /// The API and the form of the answer; none for an answer that was not judged, or of a release that did
    /// not note it.
    pub shape: Option<Shape>,
    /// The digest of the request; none of a release that did not note it.
    pub digest: Option<[u8; 32]>,
}

/// The bytes to store beside the body. Headers that are too long for their length field, or
/// too many, cannot occur: the recorder keeps a short list of short ones.
pub fn encode_head(status: u16, headers: &[(String, Vec<u8>)], notes: &Notes) -> Vec<u8> {
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

/// The head of a stored answer, where it lies.
#[derive(Debug, Clone, Copy)]
pub struct KeptHead<'b> {
    status: u16,
    headers_count: u16,
    /// Each with the lengths of its name and its value, which have been compared with what is here.
    headers: &'b [u8],
    /// The cost that the answer states, if any.
    pub usage: Option<Usage>,
    /// The model that was asked for.
    pub model: Option<&'b str>,
    pace: &'b [[u8; MARK_BYTES]],
    /// As [`Notes::ends_at_ms`].
    pub ends_at_ms: Option<u64>,
    shape: Option<&'b str>,
    /// The digest of the request; none of a release that did not note it.
    pub digest: Option<&'b [u8; 32]>,
}

impl<'b> KeptHead<'b> {
    /// `None` if the bytes are not an answer's head.
    pub fn read(bytes: &'b [u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION && version != VERSION_WITHOUT_NOTES {
            return None;
        }
        let status = u16::from_le_bytes(take(&mut rest)?);
        if !(100..1000).contains(&status) {
            return None;
        }
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

    /// `200` for everything that the recorder stores; from 100 to 999 in any case.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How many headers there are.
    pub fn headers_count(&self) -> usize {
        self.headers_count.into()
    }

    /// The headers as they were kept, names and values; whether they are valid was not looked at.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let mut rest = self.headers;
        std::iter::from_fn(move || header(&mut rest))
    }

    /// The API and the form of the answer; none if that was not noted, or is of a later release.
    pub fn shape(&self) -> Option<Shape> {
        self.shape.and_then(Shape::from_token)
    }

    /// Whether the pace of a stream was recorded.
    pub fn has_pace(&self) -> bool {
        !self.pace.is_empty()
    }

    /// The pace of a stream.
    pub fn pace(&self) -> Vec<Beat> {
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
