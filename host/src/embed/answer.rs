//! The input of an insert beside the key, and the answer of a fetch.

use crate::cache::{Entry, Mark};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// How an answer is stored.
#[derive(Clone, Default)]
pub struct InsertOptions {
    /// `None`: the life that the cache gives. `Some(None)`: no expiry.
    pub(crate) ttl: Option<Option<Duration>>,
    pub(crate) metadata: Vec<u8>,
    pub(crate) since: Option<Mark>,
}

impl InsertOptions {
    /// As [`Builder::ttl`](crate::embed::Builder::ttl) says, and without metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// The life of the answer.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(Some(ttl));
        self
    }

    /// It does not expire.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.ttl = Some(None);
        self
    }

    /// When the answer was asked for, if that took time: from [`Cache::mark`](crate::embed::Cache::mark).
    /// A purge or a removal since then refuses it.
    #[must_use]
    pub fn since(mut self, mark: Mark) -> Self {
        self.since = Some(mark);
        self
    }

    /// Stored with the answer and not looked at; at most
    /// [`METADATA_BYTES_MAX`](crate::cache::METADATA_BYTES_MAX) bytes.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

/// Without the metadata: parts of an answer do not belong in logs.
impl fmt::Debug for InsertOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertOptions")
            .field("ttl", &self.ttl)
            .field("metadata_bytes", &self.metadata.len())
            .finish()
    }
}

/// The result of a fetch. Text and bytes convert into it.
///
/// ```
/// use reflex_host::{Fetched, InsertOptions};
/// use std::time::Duration;
///
/// let plain: Fetched = "an answer".into();
/// let short_lived = Fetched::new("today's answer")
///     .with(InsertOptions::new().ttl(Duration::from_secs(3600)));
/// let only_mine = Fetched::new("a refusal").not_kept();
/// # let _ = (plain, short_lived, only_mine);
/// ```
#[derive(Clone)]
pub struct Fetched {
    pub(crate) payload: Bytes,
    pub(crate) options: InsertOptions,
    pub(crate) is_kept: bool,
}

impl Fetched {
    /// An answer to be stored with the default options.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            options: InsertOptions::new(),
            is_kept: true,
        }
    }

    /// The same answer, stored with these options.
    #[must_use]
    pub fn with(mut self, options: InsertOptions) -> Self {
        self.options = options;
        self
    }

    /// An answer that is not stored, such as a cut, refused or failed one. It is for the leader
    /// only.
    #[must_use]
    pub fn not_kept(mut self) -> Self {
        self.is_kept = false;
        self
    }
}

impl<P: Into<Bytes>> From<P> for Fetched {
    fn from(payload: P) -> Self {
        Self::new(payload)
    }
}

/// Without contents.
impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("payload_bytes", &self.payload.len())
            .field("options", &self.options)
            .field("is_kept", &self.is_kept)
            .finish()
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was in the cache.
    Hit,
    /// This call has fetched it.
    Fetched,
    /// Another call was fetching it already.
    Joined,
}

/// An answer, from the cache or not. A clone copies nothing.
#[derive(Clone, Debug)]
pub struct Answer {
    origin: Origin,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Stored(Entry),
    NotStored(Fetched),
}

impl Answer {
    pub(crate) fn stored(entry: Entry, origin: Origin) -> Self {
        Self {
            origin,
            content: Content::Stored(entry),
        }
    }

    pub(crate) fn fetched(fetched: Fetched) -> Self {
        Self {
            origin: Origin::Fetched,
            content: Content::NotStored(fetched),
        }
    }

    /// The answer itself, without copying it.
    pub fn payload(&self) -> Bytes {
        match &self.content {
            Content::Stored(entry) => entry.payload(),
            Content::NotStored(fetched) => fetched.payload.clone(),
        }
    }

    /// The metadata stored with it.
    pub fn metadata(&self) -> &[u8] {
        match &self.content {
            Content::Stored(entry) => entry.metadata(),
            Content::NotStored(fetched) => &fetched.options.metadata,
        }
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The entry in the cache; none if the answer was fetched and not stored.
    pub fn entry(&self) -> Option<&Entry> {
        match &self.content {
            Content::Stored(entry) => Some(entry),
            Content::NotStored(_) => None,
        }
    }
}
