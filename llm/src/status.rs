//! The status for the client: `x-reflex-status` and `Cache-Status` (RFC 9211).

pub(crate) mod error;
pub(crate) mod reason;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString as _};

use crate::request::control::split_directive;
use crate::{Bypass, Directive, Shape};

/// The header with our own short word for the outcome.
pub const X_REFLEX_STATUS: &str = "x-reflex-status";
/// The header that RFC 9211 defines.
pub const CACHE_STATUS: &str = "cache-status";
/// Upper bound, in bytes, of the [`CACHE_STATUS`] of the provider and the caches before it: ours
/// replaces a longer list.
const OTHERS_BYTES_MAX: usize = 4096;

/// The header that says how many seconds ago a hit was stored.
pub const AGE: &str = "age";

/// The header that says how many tokens a hit saved: those that the answer cost when it was new.
pub const X_REFLEX_SAVED_TOKENS: &str = "x-reflex-saved-tokens";

/// The HTTP status of [`Status::Absent`], by RFC 9111.
pub const NOT_CACHED_STATUS: u16 = 504;

/// The text of the error of [`Status::Absent`].
const NOT_CACHED: &str = "reflex-edge: not in the cache, and the request said only-if-cached";

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// From the cache.
    Hit {
        /// For how many seconds more the answer stays; none if it never expires.
        ttl_seconds: Option<u64>,
    },
    /// From the cache, although expired, because the provider failed.
    Stale {
        /// The provider's status; none if it did not answer.
        fwd_status: Option<u16>,
        /// For how many seconds the answer had expired.
        expired_seconds: u64,
    },
    /// From the cache, shortly before its end, while the next answer is fetched in the background.
    Ahead {
        /// For how many seconds more the answer stays.
        ttl_seconds: u64,
    },
    /// From the cache, although expired, while the next answer is fetched in the background.
    Overdue {
        /// For how many seconds the answer had expired.
        expired_seconds: u64,
    },
    /// From the provider: a miss.
    Miss,
    /// From the provider, by another request's fill.
    Collapsed,
    /// From the provider, except the cached part of a batch.
    Partial,
    /// From the provider, because the client asked for that (`Cache-Control: no-cache`).
    Refresh,
    /// Our own 504: a miss, and the client wanted only a hit (`Cache-Control: only-if-cached`).
    Absent,
    /// By the provider, untouched.
    Bypass(Bypass),
}

impl Status {
    /// The value of [`X_REFLEX_STATUS`].
    pub const fn x_reflex_status(self) -> &'static str {
        match self {
            Self::Hit { .. } | Self::Ahead { .. } => "HIT_L1_EXACT",
            Self::Stale { .. } | Self::Overdue { .. } => "HIT_STALE",
            Self::Miss | Self::Collapsed | Self::Partial | Self::Refresh | Self::Absent => "MISS",
            Self::Bypass(_) => "BYPASS",
        }
    }

    /// The client's directive that kept the request from the cache, if it was obeyed.
    pub const fn directive(self) -> Option<Directive> {
        match self {
            Self::Refresh => Some(Directive::NoCache),
            Self::Bypass(Bypass::NoStore) => Some(Directive::NoStore),
            _ => None,
        }
    }

    /// The headers that tell the client: both statuses, and [`AGE`] for an answer from the cache.
    pub fn headers(
        self,
        age_seconds: Option<u64>,
    ) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
        let statuses = [
            (X_REFLEX_STATUS, self.x_reflex_status().into()),
            (CACHE_STATUS, self.cache_status()),
        ];
        let age = age_seconds.map(|age| (AGE, age.to_string().into()));
        statuses.into_iter().chain(age)
    }

    /// The value of [`CACHE_STATUS`].
    pub fn cache_status(self) -> Cow<'static, str> {
        match self {
            Self::Hit { ttl_seconds: None } => "reflex; hit".into(),
            Self::Hit {
                ttl_seconds: Some(ttl),
            } => with_number("reflex; hit; ttl=", ttl).into(),
            // By RFC 9211, a hit was not forwarded. This request was, because the entry was stale.
            Self::Stale {
                fwd_status,
                expired_seconds: expired,
            } => {
                let said = fwd_status.map(|status| format!("; fwd-status={status}"));
                let said = said.unwrap_or_default();
                let sign = sign_of_past(expired);
                format!("reflex; fwd=stale{said}; ttl={sign}{expired}").into()
            }
            Self::Ahead { ttl_seconds } => {
                format!("reflex; hit; ttl={ttl_seconds}; detail=renewing").into()
            }
            Self::Overdue { expired_seconds } => {
                let sign = sign_of_past(expired_seconds);
                format!("reflex; hit; ttl={sign}{expired_seconds}; detail=renewing").into()
            }
            Self::Miss => "reflex; fwd=miss".into(),
            Self::Collapsed => "reflex; fwd=miss; collapsed".into(),
            Self::Partial => "reflex; fwd=partial".into(),
            Self::Refresh => "reflex; fwd=request".into(),
            Self::Absent => r#"reflex; detail="only-if-cached""#.into(),
            // Tokens hold nothing that a quoted string would have to escape.
            Self::Bypass(bypass) => {
                format!(r#"reflex; fwd=bypass; detail="{}""#, bypass.detail()).into()
            }
        }
    }
}

/// Before a number of seconds that have passed: 0 has no sign in a structured field.
const fn sign_of_past(seconds: u64) -> &'static str {
    match seconds {
        0 => "",
        _ => "-",
    }
}

/// A text with a number behind it, in a string that has no room left. Each hit has one: formatting takes five
/// times as long, and room that is left costs who shares the string an allocation.
pub fn with_number(text: &str, number: u64) -> String {
    let mut digits = [0; DIGITS_MAX];
    let mut first = digits.len();
    let mut rest = number;
    while rest > 0 || first == digits.len() {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let digits = core::str::from_utf8(&digits[first..]).unwrap_or_default();
    let mut whole = String::with_capacity(text.len() + digits.len());
    whole.push_str(text);
    whole.push_str(digits);
    whole
}

/// Of the greatest `u64`.
const DIGITS_MAX: usize = 20;

impl Shape {
    /// The body of our own answer where nothing is cached and the client wanted only a hit. It has
    /// [`NOT_CACHED_STATUS`], the [`ERROR_HEADERS`](crate::ERROR_HEADERS), and the headers of
    /// [`Status::Absent`].
    pub fn not_cached_body(self) -> String {
        self.error_body(NOT_CACHED_STATUS, NOT_CACHED)
    }
}

/// The value of [`CACHE_STATUS`] of an answer that other caches have marked already. RFC 9211 has a
/// list, from the cache nearest the provider to the one nearest the client, which is `own`.
/// `others` are the existing values, in order. Values that readers could not separate from `own` (a
/// quote that never closes, bytes that are no text) are left out, and so is a list over 4096 bytes.
pub fn cache_status_after<'v>(others: impl Iterator<Item = &'v [u8]>, own: &str) -> String {
    let mut list = String::new();
    for value in others {
        let text = core::str::from_utf8(value).ok().map(str::trim);
        match text {
            Some("") => {}
            Some(text) if is_list(text) && list.len() + text.len() <= OTHERS_BYTES_MAX => {
                list.push_str(text);
                list.push_str(", ");
            }
            _ => return own.into(),
        }
    }
    list.push_str(own);
    list
}

/// The last member of a value of [`CACHE_STATUS`]: ours, where we have marked the answer. Empty if
/// the value is no list.
pub fn last_cache_status(value: &str) -> &str {
    let mut rest = value;
    while !rest.is_empty() {
        let Some((member, after)) = split_directive(rest.as_bytes()) else {
            return "";
        };
        // Both ends of a comma are at a character's.
        let at = rest.len() - after.len();
        if after.is_empty() {
            return rest[..member.len()].trim();
        }
        rest = &rest[at..];
    }
    ""
}

fn is_list(text: &str) -> bool {
    let is_field = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    is_field && !text.ends_with(',') && !last_cache_status(text).is_empty()
}
