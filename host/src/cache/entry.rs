//! An entry as a lookup returns it: the record's bytes and its times.

use super::CacheKey;
use crate::store::{NEVER, NewRecord, Shape, shape_of, tenant_of, times_of};
use bytes::Bytes;
use std::fmt;

/// A stored answer. A clone costs a reference count, and nothing is copied: metadata and
/// payload are slices of the mapped segment, or of the copy in memory in which an encrypted record was
/// opened. They stay readable for as long as they are held, also
/// when the entry is evicted meanwhile.
#[derive(Clone)]
pub struct Entry {
    /// Header, metadata, payload and padding.
    record: Bytes,
    shape: Shape,
    stored_at_ms: u64,
    expires_at_ms: u64,
    tier: Tier,
}

/// Where a lookup found an entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In memory; the pages of a mapped segment that the system holds count as memory.
    Memory,
    /// On the disk, from which another thread had to read them; or they are encrypted and long, so that
    /// another thread opened them.
    Disk,
    /// In a cache that several processes share.
    Fleet,
}

impl Tier {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Fleet => "fleet",
        }
    }
}

impl Entry {
    /// `record` is what reading a place gave.
    pub(super) fn from_place(record: Bytes) -> Self {
        let (stored_at_ms, expires_at_ms) = times_of(&record);
        Self {
            shape: shape_of(&record),
            record,
            stored_at_ms,
            expires_at_ms,
            tier: Tier::Memory,
        }
    }

    /// An entry that lives in memory only.
    pub(super) fn in_memory(record: &NewRecord<'_>) -> Self {
        Self {
            record: record.to_bytes(),
            shape: record.shape(),
            stored_at_ms: record.stored_at_ms(),
            expires_at_ms: record.expires_at_ms(),
            tier: Tier::Memory,
        }
    }

    /// The record to write; the checksum comes from [`NewRecord::body_checksum`].
    pub(super) fn as_record<'a>(
        &'a self,
        key: &'a CacheKey,
        tenant: &'a [u8; 32],
        body_checksum: u64,
    ) -> NewRecord<'a> {
        NewRecord::summed(
            key.as_bytes(),
            tenant,
            self.metadata(),
            self.payload_slice(),
            (self.stored_at_ms, self.expires_at_ms),
            body_checksum,
        )
    }

    /// The same entry, which had to be read from the disk first.
    pub(super) fn read_from_disk(self) -> Self {
        Self {
            tier: Tier::Disk,
            ..self
        }
    }

    /// The same entry, which another process had shared.
    #[cfg(feature = "exchange")]
    pub(super) fn fetched(self) -> Self {
        Self {
            tier: Tier::Fleet,
            ..self
        }
    }

    /// Where the lookup found it. Lookups that wait for the disk on their own thread do not tell, and
    /// say [`Tier::Memory`].
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The metadata stored beside the payload.
    pub fn metadata(&self) -> &[u8] {
        &self.record[self.shape.metadata()]
    }

    /// The payload, without copying it.
    pub fn payload(&self) -> Bytes {
        self.record.slice(self.shape.payload())
    }

    fn payload_slice(&self) -> &[u8] {
        &self.record[self.shape.payload()]
    }

    /// Length of the payload in bytes.
    pub fn payload_bytes(&self) -> u64 {
        self.shape.payload_bytes.into()
    }

    /// The size of the entry's record in bytes, in memory or on disk.
    pub fn record_bytes(&self) -> u64 {
        self.shape.record_bytes()
    }

    /// When it was stored, in milliseconds since 1970.
    pub fn stored_at_ms(&self) -> u64 {
        self.stored_at_ms
    }

    /// When it expires, in milliseconds since 1970; `None` is never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        Some(self.expires_at_ms).filter(|at| *at != NEVER)
    }

    /// Whole seconds since it was stored, for the header `Age`; 0 if the clock was set back, which
    /// makes it [expired](Self::is_expired).
    pub fn age_seconds(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.stored_at_ms) / 1000
    }

    /// Whole seconds until it expires, 0 when it has; `None` is never.
    pub fn ttl_seconds(&self, now_ms: u64) -> Option<u64> {
        let at = self.expires_at_ms()?;
        Some(at.saturating_sub(now_ms) / 1000)
    }

    /// Whether it has expired: its time is over, or it was stored later than now. In that case the
    /// clock was set back, and would prolong its life by as much.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms || self.is_from_the_future(now_ms)
    }

    /// Whether it was stored later than now. No tolerance: a lookup that read the clock before the
    /// insert loses at most a hit of the same millisecond.
    pub(super) fn is_from_the_future(&self, now_ms: u64) -> bool {
        self.stored_at_ms > now_ms
    }

    /// Whose it is.
    pub fn tenant(&self) -> [u8; 32] {
        tenant_of(&self.record)
    }
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        self.payload_slice()
    }
}

impl fmt::Debug for Entry {
    /// Without contents: answers do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("metadata_bytes", &self.shape.metadata_bytes)
            .field("payload_bytes", &self.shape.payload_bytes)
            .field("stored_at_ms", &self.stored_at_ms)
            .field("expires_at_ms", &self.expires_at_ms())
            .finish()
    }
}
