//! The bytes of a sealed record: what it has beside its header, and what its tags cover.
//!
//! ```text
//! header 112 │ key id 8, salt 24, tag of the metadata 16, tag of the payload 16 │ metadata │ payload │ 0 … 0
//!            └ the header counts these 64 bytes as metadata ──────────────────────────────┘
//! ```
//!
//! So nothing but reading and writing an entry knows whether a record is sealed.

use super::{HEADER_BYTES, Header, Salt, StoreId, header, put, take};
use std::fmt;

const FLAG_SEALED: u8 = 2;
const FLAG_COMMON: u8 = 4;

/// What a sealed record has before its metadata.
pub(crate) const ENVELOPE_BYTES: usize = 64;
pub(crate) const SALT_BYTES: usize = 24;
pub(crate) const TAG_BYTES: usize = 16;

const KEY_ID: usize = 0;
const SALT: usize = 8;
const METADATA_TAG: usize = SALT + SALT_BYTES;
const PAYLOAD_TAG: usize = METADATA_TAG + TAG_BYTES;

const _: () = assert!(PAYLOAD_TAG + TAG_BYTES == ENVELOPE_BYTES);

/// Store, segment, place, and the header without its checksums.
pub(crate) const BOUND_BYTES: usize = 16 + 8 + 8 + HEADER_BYTES;

/// Tells one key of the operator's from another: a hash of it. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a record is sealed, and with whose secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seal {
    #[default]
    None,
    /// With the secret of its tenant.
    Own,
    /// With the secret that all tenants share for whom there was no room.
    Common,
}

impl Seal {
    pub(super) fn flags(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Own => FLAG_SEALED,
            Self::Common => FLAG_SEALED | FLAG_COMMON,
        }
    }

    pub(super) fn of(flags: u8) -> Option<Self> {
        [Self::None, Self::Own, Self::Common]
            .into_iter()
            .find(|seal| seal.flags() == flags)
    }
}

/// What a sealed record has before its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) key: KeyId,
    /// Random, and never used for a second record.
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) metadata_tag: [u8; TAG_BYTES],
    pub(crate) payload_tag: [u8; TAG_BYTES],
}

impl Envelope {
    pub(crate) fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        put(&mut bytes, KEY_ID, &self.key.0);
        put(&mut bytes, SALT, &self.salt);
        put(&mut bytes, METADATA_TAG, &self.metadata_tag);
        put(&mut bytes, PAYLOAD_TAG, &self.payload_tag);
        bytes
    }

    /// From the beginning of what the header counts as metadata. `None` if that is shorter.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENVELOPE_BYTES] = bytes.first_chunk()?;
        Some(Self {
            key: KeyId(take(bytes, KEY_ID)),
            salt: take(bytes, SALT),
            metadata_tag: take(bytes, METADATA_TAG),
            payload_tag: take(bytes, PAYLOAD_TAG),
        })
    }
}

impl Header {
    /// What the tags of a record cover beside its bytes: the header, but for its checksums, and where
    /// the record lies. So it counts nowhere else, and no field of it can be altered.
    pub(crate) fn bound_to(&self, store: &StoreId, segment: u64, offset: u64) -> [u8; BOUND_BYTES] {
        let mut bytes = [0; BOUND_BYTES];
        put(&mut bytes, 0, &store.0);
        put(&mut bytes, 16, &segment.to_le_bytes());
        put(&mut bytes, 24, &offset.to_le_bytes());
        let fields = Self {
            body_checksum: 0,
            ..*self
        };
        put(&mut bytes, 32, &fields.fields(Salt::NONE));
        bytes
    }
}

/// The header of a sealed record as that of the same record in memory, opened: it counts no envelope.
pub(crate) fn open_record(header: &[u8; HEADER_BYTES], metadata_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = *header;
    put(&mut bytes, header::FLAGS, &[0]);
    let length = metadata_bytes.to_le_bytes();
    put(&mut bytes, header::METADATA_BYTES, &length[..3]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_read_as_it_was_written_and_none_that_is_cut() {
        let envelope = Envelope {
            key: KeyId([1; 8]),
            salt: [2; SALT_BYTES],
            metadata_tag: [3; TAG_BYTES],
            payload_tag: [4; TAG_BYTES],
        };
        let bytes = envelope.encode();
        assert_eq!(Envelope::decode(&bytes), Some(envelope));
        for cut in 0..ENVELOPE_BYTES {
            assert_eq!(Envelope::decode(&bytes[..cut]), None);
        }
        assert_eq!(envelope.key.to_string(), "0101010101010101");
    }

    #[test]
    fn other_flags_are_no_seal() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|it| Seal::of(*it).is_some()).collect();
        assert_eq!(known, [0, FLAG_SEALED, FLAG_SEALED | FLAG_COMMON]);
    }
}
