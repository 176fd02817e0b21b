//! What a component is refused, and the words for it.

use std::fmt;

/// Why a component was refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may not change anything.
    ReadOnly,
    /// It named another tenant than its own.
    Tenant,
    /// Its stored entries and the new one exceed the quota.
    Bytes,
    /// It has stored too many entries.
    Entries,
    /// It inserts too fast.
    Inserts,
    /// It holds too many entries at once.
    Open,
    /// Its entry is longer than allowed.
    Size,
}

impl Refusal {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::ReadOnly,
        Self::Tenant,
        Self::Bytes,
        Self::Entries,
        Self::Inserts,
        Self::Open,
        Self::Size,
    ];

    /// The word for it, in metrics and in the WIT's errors.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Tenant => "tenant",
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::Inserts => "inserts",
            Self::Open => "open",
            Self::Size => "size",
        }
    }
}

/// Why a call of a component did nothing. The same cases as `error` of `reflex:cache/cache`, in words
/// of the host's own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An argument is malformed. Names the argument.
    Invalid(String),
    /// The request has no key: its answer is not to be cached. The reason, as in `docs/reasons.md`.
    Bypass(String),
    /// Longer than any entry may be. The bound, in bytes.
    TooLarge(u64),
    /// The cache cannot take it now. Why, for a log.
    Unavailable(String),
    /// The grant does not allow it. The word of a [`Refusal`].
    Denied(String),
    /// The grant's quota or rate is used up. The word of a [`Refusal`].
    QuotaExceeded(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => write!(f, "invalid: {what}"),
            Self::Bypass(reason) => write!(f, "bypass: {reason}"),
            Self::TooLarge(most) => write!(f, "too large: at most {most} bytes"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
            Self::Denied(reason) => write!(f, "denied: {reason}"),
            Self::QuotaExceeded(reason) => write!(f, "over the quota: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
