//! Heads of answers on their way to a client: which headers are set, and which are removed where
//! the body is not the provider's. `reflex-llm` classifies the headers.

use http::header::{AGE, HeaderMap, HeaderName, HeaderValue};
use reflex_llm::status::{self, CACHE_STATUS, cache_status_after, with_number};
use reflex_llm::{Part, Status};
use std::borrow::Cow;

/// The names of our own headers, read once.
pub(crate) const STATUS_NAME: HeaderName = HeaderName::from_static(status::X_REFLEX_STATUS);
pub(crate) const CACHE_STATUS_NAME: HeaderName = HeaderName::from_static(CACHE_STATUS);

/// A header on its way into a head: its name, and its value as bytes.
pub(crate) type Header = (String, Vec<u8>);

/// Removes the headers named in `remove`, then replaces headers by those in `set`. `cache-status`
/// is a list: ours becomes its last member.
pub(crate) fn apply(map: &mut HeaderMap, remove: &[String], set: &[Header]) {
    for name in remove {
        map.remove(name.as_str());
    }
    for (name, value) in set {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        match str::from_utf8(value) {
            Ok(own) if name == CACHE_STATUS => set_cache_status(map, own),
            _ => {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    map.insert(name, value);
                }
            }
        }
    }
}

/// Says what the cache did: as [`status_headers`] does, without a copy of what never changes.
pub(crate) fn tell(map: &mut HeaderMap, status: Status, age_seconds: Option<u64>) {
    let short = HeaderValue::from_static(status.x_reflex_status());
    map.insert(STATUS_NAME, short);
    let own = status.cache_status();
    if map.contains_key(CACHE_STATUS_NAME) {
        set_cache_status(map, &own);
    } else if let Ok(own) = match own {
        Cow::Borrowed(own) => Ok(HeaderValue::from_static(own)),
        Cow::Owned(own) => HeaderValue::try_from(own),
    } {
        map.insert(CACHE_STATUS_NAME, own);
    }
    if let Some(age) = age_seconds {
        map.insert(AGE, number(age));
    }
}

/// A number as a value, in one allocation.
pub(crate) fn number(number: u64) -> HeaderValue {
    let digits = with_number("", number);
    HeaderValue::try_from(digits).unwrap_or_else(|_| HeaderValue::from(number))
}

/// The headers that tell the client, as a guest would set them.
pub(crate) fn status_headers(status: Status, age_seconds: Option<u64>) -> Vec<Header> {
    let headers = status.headers(age_seconds);
    headers
        .map(|(name, value)| (name.into(), value.into_owned().into_bytes()))
        .collect()
}

fn set_cache_status(map: &mut HeaderMap, own: &str) {
    let others = map.get_all(CACHE_STATUS_NAME).iter();
    let others = others.map(HeaderValue::as_bytes);
    if let Ok(list) = HeaderValue::try_from(cache_status_after(others, own)) {
        map.insert(CACHE_STATUS_NAME, list);
    }
}

/// The headers that satisfy a condition.
pub(crate) fn only(headers: &HeaderMap, is_wanted: impl Fn(Part) -> bool) -> HeaderMap {
    let wanted = headers
        .iter()
        .filter(|(name, _)| is_wanted(Part::of(name.as_str())));
    wanted
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        all.iter().map(header).collect()
    }

    #[test]
    fn the_providers_cache_status_stays_in_front_of_ours() {
        let mut map = head(&[
            ("cache-status", "a; hit"),
            ("cache-status", "b"),
            ("x", "1"),
        ]);
        apply(&mut map, &["x".into()], &status_headers(Status::Miss, None));
        let expected = head(&[
            ("cache-status", "a; hit, b, reflex; fwd=miss"),
            ("x-reflex-status", "MISS"),
        ]);
        assert_eq!(map, expected);
        // Invalid names and values change nothing.
        let set = [("a b".into(), b"1".to_vec()), ("y".into(), b"\n".to_vec())];
        apply(&mut map, &[], &set);
        assert_eq!(map, expected);
    }

    #[test]
    fn what_is_told_natively_is_what_a_guest_tells() {
        let statuses = [
            Status::Hit { ttl_seconds: None },
            Status::Hit {
                ttl_seconds: Some(60),
            },
            Status::Stale {
                fwd_status: Some(503),
                expired_seconds: 5,
            },
            Status::Miss,
            Status::Absent,
        ];
        let heads = [
            head(&[]),
            head(&[("cache-status", "a; hit"), ("age", "9")]),
            head(&[("cache-status", "a; hit"), ("cache-status", "\"")]),
            head(&[("x-reflex-status", "MISS"), ("cache-status", "reflex; hit")]),
        ];
        for status in statuses {
            for (before, age) in heads.iter().flat_map(|it| [(it, None), (it, Some(7))]) {
                let (mut native, mut guests) = (before.clone(), before.clone());
                tell(&mut native, status, age);
                apply(&mut guests, &[], &status_headers(status, age));
                assert_eq!(native, guests, "{status:?}");
            }
        }
    }

    #[test]
    fn a_number_is_the_value_that_http_would_make() {
        for it in [0, 9, 10, 3599, u64::MAX] {
            assert_eq!(number(it), HeaderValue::from(it));
        }
    }

    #[test]
    fn what_describes_other_bytes_goes() {
        let map = head(&[("etag", "e"), ("vary", "a"), ("vary", "b"), ("x-id", "1")]);
        assert_eq!(
            only(&map, Part::survives_other_bytes),
            head(&[("vary", "a"), ("vary", "b"), ("x-id", "1")])
        );
        assert_eq!(
            only(&map, Part::is_kept),
            head(&[("etag", "e"), ("vary", "a"), ("vary", "b")])
        );
    }
}
