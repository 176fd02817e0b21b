//! An entry to store, and why it may not be.

use super::CacheKey;
use std::{error, fmt};

/// Metadata is status and headers; anything longer belongs into the payload.
pub const METADATA_BYTES_MAX: usize = 64 << 10;

/// An entry to store.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Its key; an entry of the same key is superseded.
    pub key: &'a CacheKey,
    /// Its tenant; stored with it, not looked at.
    pub tenant: &'a [u8; 32],
    /// Stored with the payload, not looked at; at most [`METADATA_BYTES_MAX`].
    pub metadata: &'a [u8],
    /// At most [`CacheOptions::entry_bytes_max`](super::CacheOptions::entry_bytes_max).
    pub payload: &'a [u8],
    /// When the answer was made, in milliseconds since 1970: now, or earlier if it comes from
    /// another cache.
    pub now_ms: u64,
    /// How long it lives from then on; `None`: it never expires.
    pub ttl_ms: Option<u64>,
}

/// Why an entry was not stored. It never is stored in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertError {
    /// The payload is longer than this limit.
    PayloadTooLarge(u64),
    /// The metadata is longer than this limit.
    MetadataTooLarge(u64),
    /// The disk does not keep up: the queue is full. Trying again later may help; the answer itself
    /// can be used.
    QueueFull,
    /// A purge covers the entry, and began after the entry was asked for.
    Purged,
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PayloadTooLarge(max) => write!(f, "payload longer than {max} bytes"),
            Self::MetadataTooLarge(max) => write!(f, "metadata longer than {max} bytes"),
            Self::QueueFull => f.write_str("the disk does not keep up"),
            Self::Purged => f.write_str("purged since it was asked for"),
        }
    }
}

impl error::Error for InsertError {}
