//! The value of `accept`. SDKs send `application/json`, curl sends `*/*`, axios a list. The answer
//! is the same: JSON, or the events that the body or the query asked for.

/// Whether these values of `accept` name only what every client of an LLM takes: JSON, anything,
/// text where JSON is named too, and events.
pub(super) fn is_common<'v>(values: impl Iterator<Item = &'v [u8]> + Clone) -> bool {
    if values.clone().all(is_usual) {
        return true;
    }
    let takes_json = ranges(values.clone()).any(|range| matches!(range, Range::Json));
    let is_common = |range: Range| match range {
        Range::Json | Range::Events => true,
        Range::Text => takes_json,
        Range::Other => false,
    };
    ranges(values).all(is_common)
}

/// Whether these headers ask for events and do not accept JSON. A server may then stream although
/// the body does not say so.
pub(crate) fn wants_events_only(headers: &[(&str, &[u8])]) -> bool {
    let accept = |&&(name, _): &&(&str, &[u8])| name == "accept";
    let values = headers.iter().filter(accept).map(|&(_, value)| value);
    if values.clone().any(is_usual) {
        return false;
    }
    let mut events = false;
    for range in ranges(values) {
        match range {
            Range::Json => return false,
            Range::Events => events = true,
            Range::Text | Range::Other => {}
        }
    }
    events
}

/// Whether a value is that of nearly all clients.
fn is_usual(value: &[u8]) -> bool {
    matches!(value, b"*/*" | b"application/json")
}

/// One member of the list.
#[derive(Clone, Copy)]
enum Range {
    /// JSON, or a range that holds it.
    Json,
    /// Server-sent events.
    Events,
    /// Plain text.
    Text,
    /// Anything else, and whatever has parameters that are not known.
    Other,
}

fn ranges<'v>(values: impl Iterator<Item = &'v [u8]>) -> impl Iterator<Item = Range> {
    let members = values.flat_map(|value| value.split(|&byte| byte == b','));
    let members = members.map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty()).map(range)
}

fn range(member: &[u8]) -> Range {
    let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    if !parts.all(is_harmless) {
        return Range::Other;
    }
    if is("application/json") || is("*/*") || is("application/*") {
        Range::Json
    } else if is("text/event-stream") {
        Range::Events
    } else if is("text/plain") {
        Range::Text
    } else {
        Range::Other
    }
}

/// The charset that JSON has anyway, and a quality that is not zero: zero is a refusal.
fn is_harmless(parameter: &[u8]) -> bool {
    let is = |other: &str| parameter.eq_ignore_ascii_case(other.as_bytes());
    let quality = |text: &[u8]| {
        let digits = text
            .iter()
            .all(|&byte| byte == b'.' || byte.is_ascii_digit());
        digits && text.iter().any(|byte| (b'1'..=b'9').contains(byte))
    };
    let value = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="));
    is("charset=utf-8") || is("charset=\"utf-8\"") || value.is_some_and(quality)
}
