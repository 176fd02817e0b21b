//! A record to be written, to disk or as bytes for memory.

use super::format::{
    self, ENVELOPE_BYTES, Header, KEY_START_BYTES, Kind, METADATA_BYTES_LIMIT, NEVER, Salt, Seal,
    Shape,
};
use bytes::Bytes;

/// A record to be written. Its checksum is computed before the writer gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(super) kind: Kind,
    pub(super) seal: Seal,
    pub(super) key: &'a [u8; 32],
    pub(super) tenant: &'a [u8; 32],
    pub(super) metadata: &'a [u8],
    pub(super) payload: &'a [u8],
    /// With the envelope of a record that is to be sealed.
    pub(super) shape: Shape,
    pub(super) stored_at_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) body_checksum: u64,
}

impl<'a> NewRecord<'a> {
    /// `metadata` must be shorter than 16 MiB and `payload` than 4 GiB; the cache's limits ensure
    /// that.
    pub(crate) fn entry(
        key: &'a [u8; 32],
        tenant: &'a [u8; 32],
        metadata: &'a [u8],
        payload: &'a [u8],
        stored_at_ms: u64,
        expires_at_ms: u64,
    ) -> Self {
        let times = (stored_at_ms, expires_at_ms);
        let body_checksum = format::body_checksum(metadata, payload);
        Self::summed(key, tenant, metadata, payload, times, body_checksum)
    }

    /// As above, when the checksum is known already; `times` are when it was stored and when it
    /// expires.
    pub(crate) fn summed(
        key: &'a [u8; 32],
        tenant: &'a [u8; 32],
        metadata: &'a [u8],
        payload: &'a [u8],
        (stored_at_ms, expires_at_ms): (u64, u64),
        body_checksum: u64,
    ) -> Self {
        assert!(
            metadata.len() + ENVELOPE_BYTES < METADATA_BYTES_LIMIT
                && payload.len() <= u32::MAX as usize
        );
        Self {
            kind: Kind::Entry,
            seal: Seal::None,
            key,
            tenant,
            metadata,
            payload,
            shape: Shape {
                metadata_bytes: metadata.len() as u32,
                payload_bytes: payload.len() as u32,
            },
            stored_at_ms: format::time(stored_at_ms),
            expires_at_ms: format::expiry(expires_at_ms),
            body_checksum,
        }
    }

    pub(crate) fn body_checksum(&self) -> u64 {
        self.body_checksum
    }

    pub(crate) fn tombstone(key: &'a [u8; 32]) -> Self {
        Self {
            kind: Kind::Tombstone,
            ..Self::entry(key, &[0; 32], &[], &[], 0, NEVER)
        }
    }

    /// The same record, to be sealed when it is written.
    pub(super) fn with_seal(&self, seal: Seal) -> Self {
        let mut shape = self.shape;
        shape.metadata_bytes += ENVELOPE_BYTES as u32;
        Self {
            seal,
            shape,
            ..*self
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn key(&self) -> &'a [u8; 32] {
        self.key
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn stored_at_ms(&self) -> u64 {
        self.stored_at_ms
    }

    pub(crate) fn expires_at_ms(&self) -> u64 {
        self.expires_at_ms
    }

    pub(super) fn header(&self, sequence: u64, previous: [u8; KEY_START_BYTES]) -> Header {
        Header {
            kind: self.kind,
            seal: self.seal,
            metadata_bytes: self.shape.metadata_bytes,
            payload_bytes: self.shape.payload_bytes,
            sequence,
            stored_at_ms: self.stored_at_ms,
            expires_at_ms: self.expires_at_ms,
            body_checksum: self.body_checksum,
            previous,
            key: *self.key,
            tenant: *self.tenant,
        }
    }

    /// The record as bytes for memory, laid out as on disk so that one reader serves both.
    /// Purges take entries out of memory one by one, so its sequence may be any.
    pub(crate) fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.shape.record_bytes() as usize);
        bytes.extend_from_slice(&self.header(0, [0; KEY_START_BYTES]).encode(Salt::NONE, 0));
        bytes.extend_from_slice(self.metadata);
        bytes.extend_from_slice(self.payload);
        bytes.extend_from_slice(self.shape.padding());
        bytes.into()
    }
}
