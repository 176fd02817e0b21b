//! An LLM answer as HTTP sees it, with its status and headers; `embed/kept_head.rs` has them as the
//! bytes that the cache keeps as metadata.

pub(crate) use crate::embed::kept_head::Notes;
use crate::embed::kept_head::{Beat, KeptHead, encode_head};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reflex_llm::{Shape, Usage};

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

impl AnswerHead {
    /// The bytes to store beside the body.
    pub(crate) fn encode_noting(
        status: u16,
        headers: &[(String, Vec<u8>)],
        notes: &Notes,
    ) -> Vec<u8> {
        encode_head(status, headers, notes)
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
    pub(crate) usage: Option<Usage>,
    pub(crate) model: Option<&'b str>,
    pub(crate) ends_at_ms: Option<u64>,
    pub(crate) digest: Option<&'b [u8; 32]>,
    kept: KeptHead<'b>,
}

impl<'b> StoredHead<'b> {
    /// `None` if the bytes are not an answer's head.
    pub(crate) fn read(bytes: &'b [u8]) -> Option<Self> {
        let kept = KeptHead::read(bytes)?;
        Some(Self {
            status: StatusCode::from_u16(kept.status()).ok()?,
            usage: kept.usage,
            model: kept.model,
            ends_at_ms: kept.ends_at_ms,
            digest: kept.digest,
            kept,
        })
    }

    /// The headers; none if one of them is no header.
    pub(crate) fn headers(&self) -> Option<HeaderMap> {
        let mut map = HeaderMap::with_capacity(self.kept.headers_count() + OWN_HEADERS);
        for (name, value) in self.kept.headers() {
            map.append(HeaderName::from_bytes(name).ok()?, value_of(value)?);
        }
        Some(map)
    }

    /// The API and the form of the answer; none if that was not noted, or is of a later release.
    pub(crate) fn shape(&self) -> Option<Shape> {
        self.kept.shape()
    }

    /// Whether the pace of a stream was recorded.
    pub(crate) fn has_pace(&self) -> bool {
        self.kept.has_pace()
    }

    /// The pace of a stream.
    pub(crate) fn pace(&self) -> Vec<Beat> {
        self.kept.pace()
    }
}

/// A value, without a copy of those that nearly all answers have.
fn value_of(bytes: &[u8]) -> Option<HeaderValue> {
    Some(match bytes {
        b"application/json" => HeaderValue::from_static("application/json"),
        b"text/event-stream" => HeaderValue::from_static("text/event-stream"),
        _ => HeaderValue::from_bytes(bytes).ok()?,
    })
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
