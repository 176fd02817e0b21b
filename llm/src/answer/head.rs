//! Which headers of a provider's answer belong to the answer, and which to the one exchange that
//! fetched it.
//!
//! A hit has to look like its miss: a page reads an answer only with `access-control-allow-origin`,
//! a proxy in front passes a stream on undelayed only with `x-accel-buffering`. So headers that say
//! how the answer may be read, handled and stored are kept with it. Headers about one call (ids,
//! rate limits, timings, its price, cookies) are not: on a hit they would be wrong. An unlisted
//! name counts as one of these, because losing a header costs less than giving one client's header
//! to another.
//!
//! | [`Part`] | hit, follower of a good answer | follower of a failure | joined answer of a batch |
//! |---|---|---|---|
//! | `Answer` | yes | yes | yes |
//! | `Bytes` | yes | yes | no |
//! | `Exchange` | no | yes | yes |
//! | `Call` | no | yes | no |
//! | `Client` | no | no | yes |
//! | `Connection` | no | no | no |
//!
//! The client whose request was sent gets every header, as it came. `Origin` of a request is in its
//! key, so `access-control-allow-origin` is never replayed to a page of another origin.

/// Kept headers of one answer, names and values together, in bytes. Four times what the heads of
/// providers have in all; with it an answer's metadata stay below the cache's bound of 64 KiB. An
/// answer with more is not kept: a hit without some of them would not look like its miss.
pub const KEPT_BYTES_MAX: usize = 16 << 10;

/// The part of an exchange that a header belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How the answer may be read, handled and stored, for any client.
    Answer,
    /// These very bytes: a validator, a digest, whether ranges can be requested.
    Bytes,
    /// The exchange that fetched the answer: its ids, times, and the rest of a limit after it.
    Exchange,
    /// The provider's work in this call, and its cost.
    Call,
    /// The client that asked: its session, its account. Also headers that each cache sets anew.
    Client,
    /// The connection, and how the body is framed on it.
    Connection,
}

/// Answer: by name.
const ANSWER: &[&str] = &[
    "content-disposition",
    "content-language",
    "content-type",
    "link",
    // The version of the API that wrote it, and its deprecation.
    "api-deprecated-versions",
    "api-supported-versions",
    "deprecation",
    "openai-version",
    "sunset",
    "warning",
    "x-api-warning",
    // Whether the content filter ran.
    "x-ms-rai-invoked",
    // For browsers: what a page may do with it. See also the prefixes.
    "content-security-policy",
    "content-security-policy-report-only",
    "origin-agent-cluster",
    "permissions-policy",
    "referrer-policy",
    "strict-transport-security",
    "timing-allow-origin",
    "x-content-type-options",
    "x-download-options",
    "x-frame-options",
    "x-permitted-cross-domain-policies",
    "x-robots-tag",
    "x-xss-protection",
    // For caches and buffers on the way to the client. `expires` and `max-age` count from the first
    // answer, and `age` is taken off: a hit is never fresh for longer.
    "cache-control",
    "cache-tag",
    "cdn-cache-control",
    "expires",
    "pragma",
    "surrogate-control",
    "surrogate-key",
    "vary",
    "x-accel-buffering",
];

/// Answer: by how the name begins.
const ANSWER_PREFIXES: &[&str] = &["access-control-", "cross-origin-"];

/// Bytes: by name.
const BYTES: &[&str] = &[
    "accept-ranges",
    "content-digest",
    "content-md5",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
    "x-content-md5",
    "x-content-sha256",
    "x-goog-hash",
    "x-ms-content-crc64",
];

/// Bytes: by how the name begins.
const BYTES_PREFIXES: &[&str] = &["x-amz-checksum-"];

/// Call: by name. A signature covers headers that are not replayed, such as `date`.
const CALL: &[&str] = &["signature", "signature-input"];

/// Call: by a word of the name, unless it is about a limit.
const CALL_WORDS: &[&str] = &["billed", "characters", "cost", "price", "tokens", "usage"];

/// Words of a name for the rest of a limit: `x-ratelimit-remaining-tokens`.
const LIMIT_WORDS: &[&str] = &["limit", "quota", "rate", "ratelimit", "remaining", "reset"];

/// Client: by name. Accounts differ between the members of a group of tenants.
const CLIENT: &[&str] = &[
    "age",
    "anthropic-organization-id",
    "authentication-info",
    "cache-status",
    "openai-organization",
    "openai-project",
];

/// Client: by a word of the name.
const CLIENT_WORDS: &[&str] = &["cookie", "cookie2", "csrf", "session", "xsrf"];

/// Client: by how the name begins. Our own notes.
const CLIENT_PREFIXES: &[&str] = &["x-reflex-"];

/// Connection: by name.
const CONNECTION: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Part {
    /// The part that a header belongs to, by its name in lower case.
    pub fn of(name: &str) -> Self {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let has = |words: &[&str]| name.split(['-', '_']).any(|word| words.contains(&word));
        // HTTP/2's own fields, where a head has them.
        if CONNECTION.contains(&name) || name.starts_with(':') {
            Self::Connection
        } else if ANSWER.contains(&name) || begins(ANSWER_PREFIXES) {
            Self::Answer
        } else if BYTES.contains(&name) || begins(BYTES_PREFIXES) {
            Self::Bytes
        } else if CLIENT.contains(&name) || begins(CLIENT_PREFIXES) || has(CLIENT_WORDS) {
            Self::Client
        } else if CALL.contains(&name) || has(CALL_WORDS) && !has(LIMIT_WORDS) {
            Self::Call
        } else {
            Self::Exchange
        }
    }

    /// Whether it is kept with a stored answer, for hits and followers.
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Answer | Self::Bytes)
    }

    /// Whether followers see it when the provider fails: they get the failure with its
    /// `retry-after`, but not the leader's session.
    pub const fn is_followed(self) -> bool {
        matches!(
            self,
            Self::Answer | Self::Bytes | Self::Exchange | Self::Call
        )
    }

    /// Whether it stays true for another body: a batch joined from cached and new parts, or a
    /// text's part of such an answer.
    pub const fn survives_other_bytes(self) -> bool {
        matches!(self, Self::Answer | Self::Exchange | Self::Client)
    }
}

/// Whether a header, its name in lower case, is kept with a stored answer.
pub fn is_kept(name: &str) -> bool {
    Part::of(name).is_kept()
}
