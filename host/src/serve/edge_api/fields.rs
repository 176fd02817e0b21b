//! The headers of the edge API, and how they are read.

use super::refusal::Refusal;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use reflex_llm::status;

/// The longest name of a fill.
const FILL_ID_BYTES_MAX: usize = 64;

/// The position among purges.
pub(crate) const EPOCH: HeaderName = HeaderName::from_static("x-reflex-epoch");
/// The epoch since which a reply tells purges: that of the request.
pub(crate) const PURGED_SINCE: HeaderName = HeaderName::from_static("x-reflex-purged-since");
/// The purges since then, one by one.
pub(crate) const PURGED: HeaderName = HeaderName::from_static("x-reflex-purged");
/// The digest of the request, so that the client can match the reply.
pub(crate) const ENTRY: HeaderName = HeaderName::from_static("x-reflex-entry");
/// The outcome of asking to lead or to wait.
pub(crate) const FILL: HeaderName = HeaderName::from_static("x-reflex-fill");
/// The name of a fill, which its leader chooses.
pub(crate) const FILL_ID: HeaderName = HeaderName::from_static("x-reflex-fill-id");
/// How many milliseconds to wait for another request's fill.
pub(crate) const WAIT: HeaderName = HeaderName::from_static("x-reflex-wait");
/// Seconds that an answer has left.
pub(crate) const TTL: HeaderName = HeaderName::from_static("x-reflex-ttl");
/// In how many seconds an answer may not be served stale either.
pub(crate) const END: HeaderName = HeaderName::from_static("x-reflex-end");
/// The shape of an answer, in the words of `reflex-llm`.
pub(crate) const SHAPE: HeaderName = HeaderName::from_static("x-reflex-shape");
/// The model that was asked for.
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-reflex-model");
/// How many tokens an answer has cost.
pub(crate) const SAVED: HeaderName = HeaderName::from_static(status::X_REFLEX_SAVED_TOKENS);
/// Seconds since an answer was new: of a reply, or of an edge's `PUT`.
pub(crate) const AGE: HeaderName = HeaderName::from_static(status::AGE);

pub(crate) fn fill_id(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let id = text(headers, &FILL_ID, "fill")?;
    if id.is_some_and(|id| !(1..=FILL_ID_BYTES_MAX).contains(&id.len())) {
        let why = format!("x-reflex-fill-id is 1 to {FILL_ID_BYTES_MAX} visible characters");
        return Err(Refusal::bad("fill", why));
    }
    Ok(id)
}

pub(crate) fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let number = text(headers, name, "number")?.map(str::parse);
    number.transpose().map_err(|_| {
        let why = format!("{name} is not a whole number");
        Refusal::bad("number", why)
    })
}

/// The value of a header. An unreadable value is an error and does not count as missing: the client
/// meant it.
pub(crate) fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    reason: &'static str,
) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or_else(|| {
        let why = format!("{name} is there twice, or has other than visible characters");
        Refusal::bad(reason, why)
    })
}

pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // All values are ours: numbers, hexadecimal digits and words.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// As paths have it.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
