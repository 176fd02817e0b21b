//! Shadow mode: clients get the provider's answers, metrics and the log say what would have been.
//!
//! A response carries its would-be status until it is counted. Then the client is told that the cache
//! was passed by: of every request that could have been a hit the same, so that the client
//! cannot tell a hit from its miss.

use crate::exchange::boxed::BoxBody;
use crate::exchange::miss::Looked;
use crate::exchange::reply::head::{CACHE_STATUS_NAME, STATUS_NAME};
use http::Response;
use http::header::{HeaderMap, HeaderValue};
use reflex_llm::status::last_cache_status;
use std::time::Duration;

/// Our member of `Cache-Status` (RFC 9211).
const OWN: &str = "reflex; fwd=bypass; detail=\"shadow\"";

/// The time of a would-be hit: that of its lookup. The answer itself took the provider's time.
pub(super) fn took(response: &Response<BoxBody>, elapsed: Duration) -> Duration {
    let headers = response.headers();
    let is_hit = headers
        .get(STATUS_NAME)
        .is_some_and(|status| status.as_bytes().starts_with(b"HIT"));
    let looked = response.extensions().get::<Looked>();
    looked.filter(|_| is_hit).map_or(elapsed, |looked| looked.0)
}

/// Puts `BYPASS` in place of a would-be status. Real bypasses keep their reason.
pub(super) fn hide(headers: &mut HeaderMap) {
    let last = headers.get_all(STATUS_NAME).iter().next_back();
    if last.is_none_or(|status| status == "BYPASS") {
        return;
    }
    headers.insert(STATUS_NAME, HeaderValue::from_static("BYPASS"));
    let all = headers.get(CACHE_STATUS_NAME);
    let all = all.and_then(|all| all.to_str().ok()).unwrap_or_default();
    // The members before ours are the provider's, and of caches before this one.
    let others = &all[..all.len() - last_cache_status(all).len()];
    let list = HeaderValue::try_from(format!("{others}{OWN}"));
    headers.insert(
        CACHE_STATUS_NAME,
        list.unwrap_or(HeaderValue::from_static(OWN)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::reply::head::tell;
    use reflex_llm::{Bypass, Status};

    #[test]
    fn a_would_be_hit_looks_like_its_miss() {
        let told = |before: Option<&'static str>, status: Status| {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(CACHE_STATUS_NAME, HeaderValue::from_static(before));
            }
            tell(&mut headers, status, None);
            hide(&mut headers);
            headers
        };
        for before in [
            None,
            Some("cdn; hit"),
            Some("a, b; detail=\"x,y\""),
            Some("\""),
        ] {
            let miss = told(before, Status::Miss);
            for status in [
                Status::Hit { ttl_seconds: None },
                Status::Hit {
                    ttl_seconds: Some(5),
                },
                Status::Partial,
                Status::Refresh,
                Status::Absent,
            ] {
                assert_eq!(told(before, status), miss, "{before:?} {status:?}");
            }
            assert_eq!(miss[STATUS_NAME], "BYPASS");
        }
        let listed = told(Some("cdn; hit"), Status::Miss);
        assert_eq!(listed[CACHE_STATUS_NAME], format!("cdn; hit, {OWN}"));
        let real = told(None, Status::Bypass(Bypass::Path));
        let detail = "reflex; fwd=bypass; detail=\"path\"";
        assert_eq!(real[CACHE_STATUS_NAME], detail);
    }
}
