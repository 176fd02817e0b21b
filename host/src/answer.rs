//! An LLM answer as HTTP sees it, and its status and headers as the bytes that the cache keeps
//! as metadata.
//!
//! ```text
//! version u8 = 1 | status u16 | headers u16 | per header: name u16, value u32, name, value
//! ```
//!
//! Integers are little-endian. The decoder accepts any bytes: what a component stored under a
//! key of its own need not be an HTTP answer.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const VERSION: u8 = 1;

/// Status and headers of a stored answer; the body is the entry's payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnswerHead {
    /// `200` for everything that the recorder stores.
    pub(crate) status: StatusCode,
    /// Only what a client needs to read the body.
    pub(crate) headers: HeaderMap,
}

impl AnswerHead {
    /// The bytes to store beside the body. Headers that are too long for their length field, or
    /// too many, cannot occur: the recorder keeps a short list of short ones.
    pub(crate) fn encode(status: u16, headers: &[(String, Vec<u8>)]) -> Vec<u8> {
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
        bytes
    }

    /// `None` if the bytes are not an answer's head.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return None;
        }
        let status = StatusCode::from_u16(u16::from_le_bytes(take(&mut rest)?)).ok()?;
        let count = u16::from_le_bytes(take(&mut rest)?);
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = u16::from_le_bytes(take(&mut rest)?);
            let value = u32::from_le_bytes(take(&mut rest)?);
            let name = rest.split_off(..usize::from(name))?;
            let value = rest.split_off(..usize::try_from(value).ok()?)?;
            headers.append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            );
        }
        rest.is_empty().then_some(Self { status, headers })
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
        AnswerHead::encode(200, &headers)
    }

    #[test]
    fn what_was_encoded_comes_back() {
        let head = AnswerHead::decode(&whole()).expect("decodes");
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        assert_eq!(head.headers["content-language"], "en");
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let whole = whole();
        for cut in 0..whole.len() {
            assert_eq!(AnswerHead::decode(&whole[..cut]), None, "cut at {cut}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(AnswerHead::decode(&longer), None);
    }

    #[test]
    fn foreign_metadata_is_refused() {
        for bytes in [
            &b""[..],
            b"\x02\xc8\x00\x00\x00",
            b"\x01\x00\x00\x00\x00",
            b"{\"a\":1}",
        ] {
            assert_eq!(AnswerHead::decode(bytes), None, "{bytes:?}");
        }
    }
}
