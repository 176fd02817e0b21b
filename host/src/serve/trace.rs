//! The trace that a request is part of, by W3C's Trace Context.

use http::header::HeaderMap;

/// The trace of a request, and its place in it, in hexadecimal digits.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: String,
    /// The span that has made the request; none if the trace begins here.
    #[cfg(feature = "otlp")]
    pub(super) parent: Option<String>,
    /// Whether the trace is kept, as far as its beginning knew.
    #[cfg(feature = "otlp")]
    pub(super) is_sampled: bool,
}

impl Trace {
    /// The trace that a request's `traceparent` names: version, trace, parent and flags.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all("traceparent").iter();
        let value = all.next()?.to_str().ok()?.trim();
        if all.next().is_some() {
            return None;
        }
        let mut parts = value.split('-');
        let mut part = |length: usize| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let part = parts.next()?;
            (part.len() == length && part.bytes().all(is_digit)).then_some(part)
        };
        let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may have more parts.
        let is_valid = version != "ff"
            && (version != "00" || parts.next().is_none())
            && [trace, parent]
                .iter()
                .all(|id| id.bytes().any(|it| it != b'0'));
        // The lowest bit of the flags.
        let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        is_valid.then(|| Self::with(trace, parent, is_sampled))
    }

    #[cfg(feature = "otlp")]
    fn with(trace: &str, parent: &str, is_sampled: bool) -> Self {
        Self {
            id: trace.to_owned(),
            parent: Some(parent.to_owned()),
            is_sampled,
        }
    }

    /// The access log needs no more than the trace.
    #[cfg(not(feature = "otlp"))]
    fn with(trace: &str, _parent: &str, _is_sampled: bool) -> Self {
        Self {
            id: trace.to_owned(),
        }
    }

    /// A trace of this id, of which the request is the first part.
    #[cfg(feature = "otlp")]
    pub(super) fn begun_here(id: String) -> Self {
        Self {
            id,
            parent: None,
            is_sampled: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_a_valid_trace_is_taken() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let check = |value: &'static str, is_taken: bool| {
            let told = Trace::of(&headers(&[("traceparent", value)])).map(|trace| trace.id);
            assert_eq!(told.as_deref() == Some(trace), is_taken, "{value}");
        };
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            true,
        );
        check(
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            true,
        );
        for value in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            check(value, false);
        }
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let twice = headers(&[("traceparent", value), ("traceparent", value)]);
        assert!(Trace::of(&twice).is_none());
    }

    #[test]
    #[cfg(feature = "otlp")]
    fn the_beginning_of_a_trace_decides_whether_it_is_kept() {
        let check = |flags: &str, is_sampled: bool| {
            let value = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let mut map = HeaderMap::new();
            map.append("traceparent", value.parse().expect("a header"));
            let trace = Trace::of(&map).expect("a trace");
            assert_eq!(trace.is_sampled, is_sampled, "{flags}");
            assert_eq!(trace.parent.as_deref(), Some("00f067aa0ba902b7"));
        };
        check("00", false);
        check("01", true);
        check("02", false);
        check("ff", true);
    }
}
