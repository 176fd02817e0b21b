//! The expiry that an answer states, for itself or for something that it refers to: a spoken
//! answer's id that the next request may name, a picture behind a link that is signed until some
//! time.

use crate::Rejected;
use crate::answer::date;
use crate::json::{Kind, Value};
use crate::name_set::NameSet;

/// The earliest end that an answer states.
#[derive(Debug, Default)]
pub(super) struct Expiry(Option<u64>);

impl Expiry {
    /// In seconds since 1970.
    pub(super) fn at(&self) -> Option<u64> {
        self.0
    }

    fn take(&mut self, at: u64) {
        self.0 = Some(self.0.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Where the client's own names stand: arguments of its tools, its schemas and notes, which some
/// APIs repeat in the answer. Log-probabilities are long and hold no names.
pub(super) static OPAQUE: NameSet<11> = NameSet::new([
    b"args",
    b"arguments",
    b"input",
    b"instructions",
    b"logprobs",
    b"metadata",
    b"parsed",
    b"prompt",
    b"schema",
    b"tool_choice",
    b"tools",
]);

/// Looks for ends in a document, and in all that is in it.
pub(super) fn look(value: Value<'_>, expiry: &mut Expiry) -> Result<(), Rejected> {
    for (key, inside) in value.members() {
        if let Some(key) = key {
            let name = &*key.name();
            if OPAQUE.has(name) {
                continue;
            }
            note(name, inside, expiry)?;
        }
        if matches!(inside.kind(), Kind::Array | Kind::Object) {
            look(inside, expiry)?;
        }
    }
    Ok(())
}

/// Milliseconds since 1970 were more than this many after three months; seconds are after the year
/// 5000.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Notes a member of an answer, if it states an expiry.
///
/// # Errors
///
/// It states one that is not understood.
pub(super) fn note(name: &[u8], value: Value<'_>, expiry: &mut Expiry) -> Result<(), Rejected> {
    match name {
        b"expires_at" | b"expiresAt" | b"expires_on" | b"expire_time" | b"expireTime"
        | b"expiration_time"
            if value.kind() != Kind::Null =>
        {
            expiry.take(stated(value).ok_or(Rejected::Expired)?);
        }
        b"url" | b"uri" | b"fileUri" | b"file_uri" | b"image" | b"image_url" | b"audio_url"
        | b"video_url" => {
            let link = value.string();
            if let Some(at) = link.as_deref().and_then(signed_until) {
                expiry.take(at.ok_or(Rejected::Expired)?);
            }
        }
        _ => {}
    }
    Ok(())
}

/// A time as a number, whole or not, of seconds or milliseconds since 1970; or as a date.
fn stated(value: Value<'_>) -> Option<u64> {
    let text = match value.kind() {
        Kind::Number => value.spelling().into(),
        Kind::String => value.name(),
        _ => return None,
    };
    seconds(&text).or_else(|| date::internet(&text))
}

fn seconds(text: &[u8]) -> Option<u64> {
    let whole = text.split(|&byte| byte == b'.').next()?;
    let count = core::str::from_utf8(whole).ok()?.parse::<u64>().ok()?;
    Some(match count {
        ..=SECONDS_MAX => count,
        _ => count / 1000,
    })
}

/// Until when a link is signed, as Amazon, Google, Azure, Alibaba and CloudFront write it. The
/// outer option is none if the link is not signed, the inner one if its end is not understood.
fn signed_until(link: &[u8]) -> Option<Option<u64>> {
    if !link.starts_with(b"http") {
        return None;
    }
    let (_, query) = split_once(link, b'?')?;
    let value = |wanted: &[u8]| {
        let pairs = query.split(|&byte| byte == b'&');
        let mut pairs = pairs.filter_map(|pair| split_once(pair, b'='));
        pairs.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
    };
    if let Some(at) = value(b"expires") {
        return Some(seconds(at));
    }
    for [from, life] in [
        [&b"x-amz-date"[..], b"x-amz-expires"],
        [b"x-goog-date", b"x-goog-expires"],
    ] {
        if let Some(life) = value(life) {
            let from = value(from).and_then(date::compact);
            return Some(
                from.zip(seconds(life))
                    .and_then(|(from, life)| from.checked_add(life)),
            );
        }
    }
    // Azure's, whose signature stands beside it.
    match (value(b"sig"), value(b"se")) {
        (Some(_), Some(end)) => Some(date::internet_in_query(end)),
        _ => None,
    }
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&byte| byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_links_say_until_when() {
        let check = |link: &str, expected: Option<Option<u64>>| {
            assert_eq!(signed_until(link.as_bytes()), expected, "{link}");
        };
        check("https://x.test/a.png", None);
        check("https://x.test/a.png?size=2", None);
        check("data:image/png;base64,AAAA?Expires=1", None);
        check(
            "https://oss.test/a.png?Expires=1767225600&OSSAccessKeyId=k&Signature=s",
            Some(Some(1_767_225_600)),
        );
        check("https://oss.test/a.png?Expires=soon", Some(None));
        check(
            "https://s3.test/a?X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-Signature=s",
            Some(Some(1_767_229_200)),
        );
        check("https://s3.test/a?X-Amz-Expires=3600", Some(None));
        check(
            "https://gcs.test/a?X-Goog-Date=20260101T000000Z&X-Goog-Expires=60",
            Some(Some(1_767_225_660)),
        );
        check(
            "https://blob.test/a?se=2026-01-01T00%3A00%3A00Z&sp=r&sig=s",
            Some(Some(1_767_225_600)),
        );
        check("https://x.test/a?se=north", None);
    }
}
