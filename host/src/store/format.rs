//! Every byte that the store keeps on disk: the manifest, the superblock of a segment and the
//! records in it. `docs/format.md` draws them.
//!
//! Only this file and its folder know offsets. The decoders accept any slice and never panic; their
//! results have been checked. This file opens no files and holds no state.

mod contents;
mod purge_marks;
mod salt;
mod sealed;
mod tenant_secrets;

pub(crate) use contents::{Contents, Listed, contents_bytes_max};
pub(crate) use purge_marks::{
    MarksFile, PURGE_MARKS_BYTES_MAX, Part, RECENT_BYTES_MAX, RECENT_TENANTS_MAX, TENANTS_MAX,
};

pub(crate) use salt::{Salt, body_checksum};
pub(crate) use sealed::{
    ENVELOPE_BYTES, Envelope, KeyId, SALT_BYTES, Seal, TAG_BYTES, open_record,
};
pub(crate) use tenant_secrets::{
    COMMON_SLOT, SECRETS_BYTES_MAX, SECRETS_MAX, SLOT_BYTES, Slot, encode_slot, secrets_head,
    slot_at, slots_of,
};

use super::log::Log;
use crc_fast::crc32_iscsi;

/// The version in every file. A reader refuses every other one: version 1 took 16 bytes more for
/// each record, and began each at a multiple of 64; version 2 had one log, in which the record before
/// is the one with the sequence before.
pub(crate) const FORMAT_VERSION: u32 = 3;

/// Records begin at multiples of this, so that a reader behind a damaged header tries few places to
/// find the next record, and so that places are small numbers. It costs some 8 bytes for each
/// record.
pub(crate) const ALIGN: u64 = 16;

/// Size of the manifest and of a superblock: what one sector of any current medium holds.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Size of a record header.
pub(crate) const HEADER_BYTES: usize = 112;

/// `expires_at_ms` of a record that never expires.
pub(crate) const NEVER: u64 = u64::MAX;

/// Times have 6 bytes: up to the year 10889. Later times become this, which as an expiry is never.
const TIME_MAX: u64 = (1 << 48) - 1;

/// The metadata's length has 3 bytes.
pub(crate) const METADATA_BYTES_LIMIT: usize = 1 << 24;

/// Length of the part of a key that the next record repeats.
pub(crate) const KEY_START_BYTES: usize = 4;

/// No segment is longer: recovery reads a whole one into memory, and offsets in units of
/// [`ALIGN`] and lengths in bytes are kept as `u32`.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

const MANIFEST_MAGIC: [u8; 8] = *b"RFXSTORE";
const SEGMENT_MAGIC: [u8; 8] = *b"RFXSEGMT";
const RECORD_MAGIC: [u8; 4] = *b"RFXR";
const RECORD_VERSION: u8 = 2;
const FLAG_TOMBSTONE: u8 = 1;

/// Feature of a manifest: some tenants were purged, as the file `epochs` says. Earlier releases called
/// the purge marks so.
const FEATURE_EPOCHS: u32 = 1;

/// Feature of a manifest: some tenants were purged, as the file `purge_marks` says.
const FEATURE_PURGE_MARKS: u32 = 2;

/// Feature of a manifest: records are sealed, and the file `tenant_secrets` must exist.
const FEATURE_SEALED: u32 = 4;

/// Feature of a manifest: some records are not sealed yet.
const FEATURE_SEALING: u32 = 8;

/// Feature of a superblock: the records of the segment are sealed under one key.
const FEATURE_SEGMENT_SEALED: u32 = 1;

/// Where each field of the manifest and the superblock lies. Magic, version and the checksum
/// at the end keep their places in all versions to come, so that every version recognises
/// every other.
mod block {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    /// Bits for features that a reader must know; a reader refuses unknown bits.
    pub(super) const FEATURES: usize = 12;
    pub(super) const STORE_ID: usize = 16;
    /// Superblock only; zero in the manifest.
    pub(super) const SEGMENT_ID: usize = 32;
    /// Superblock only; zero in the manifest.
    pub(super) const SEGMENT_BYTES: usize = 40;
    /// Superblock only: 0 small, 1 main; zero in the manifest.
    pub(super) const LOG: usize = 48;
    /// Superblock only: the sequence of the last record of the log before this segment.
    pub(super) const BEFORE: usize = 56;
    /// Superblock of a sealed segment only: the id of the key.
    pub(super) const KEY_ID: usize = 64;
    /// Here the zeros begin that fill the block up to its checksum.
    pub(super) const END: usize = 72;
    /// From the end.
    pub(super) const CHECKSUM_BYTES: usize = 4;
}

/// Where each field of a record header lies.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 4;
    pub(super) const FLAGS: usize = 5;
    pub(super) const STORED_AT: usize = 6;
    pub(super) const EXPIRES_AT: usize = 12;
    pub(super) const METADATA_BYTES: usize = 18;
    pub(super) const SEQUENCE: usize = 21;
    pub(super) const PAYLOAD_BYTES: usize = 28;
    pub(super) const CHECKSUM: usize = 32;
    pub(super) const PREVIOUS: usize = 36;
    pub(super) const BODY_CHECKSUM: usize = 40;
    pub(super) const KEY: usize = 48;
    pub(super) const TENANT: usize = 80;
    pub(super) const END: usize = 112;
}

const _: () = assert!(header::END == HEADER_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN as usize));
const _: () = assert!(BLOCK_BYTES.is_multiple_of(ALIGN as usize));
const _: () = assert!(header::METADATA_BYTES + 3 == header::SEQUENCE);
const _: () = assert!(header::SEQUENCE + 7 == header::PAYLOAD_BYTES);
const _: () = assert!(header::PREVIOUS + KEY_START_BYTES == header::BODY_CHECKSUM);
const _: () = assert!(header::KEY + 32 == header::TENANT && header::TENANT + 32 == header::END);
const _: () = assert!(block::END + block::CHECKSUM_BYTES <= BLOCK_BYTES);
const _: () = assert!(SEGMENT_BYTES_LIMIT.is_multiple_of(ALIGN));

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// Fewer bytes than promised: a torn write or a file cut short.
    Torn,
    /// No beginning of ours: free space, or the middle of a record.
    NotOurs,
    /// Begun by us, but the checksum differs.
    Corrupt,
    /// Written by an earlier release.
    Older(u32),
    /// Written by a later release.
    Newer(u32),
}

/// Tells one data folder from every other: random, chosen when the folder is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// The file that makes a folder ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    /// A release that does not know the name must not open the folder: it would serve purged entries.
    pub(crate) purge_marks: MarksName,
    pub(crate) sealing: Sealing,
}

/// Whether the records of a folder are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sealing {
    #[default]
    None,
    /// A conversion has begun, and older records are not sealed yet.
    Underway,
    All,
}

impl Sealing {
    fn features(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Underway => FEATURE_SEALED | FEATURE_SEALING,
            Self::All => FEATURE_SEALED,
        }
    }

    fn of(features: u32) -> Self {
        match (
            features & FEATURE_SEALED != 0,
            features & FEATURE_SEALING != 0,
        ) {
            (false, false) => Self::None,
            (_, true) => Self::Underway,
            (true, false) => Self::All,
        }
    }
}

/// The file of purge marks that must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MarksName {
    #[default]
    None,
    /// `epochs`, of an earlier release.
    Epochs,
    /// `purge_marks`.
    PurgeMarks,
}

impl MarksName {
    fn features(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Epochs => FEATURE_EPOCHS,
            Self::PurgeMarks => FEATURE_PURGE_MARKS,
        }
    }

    fn of(features: u32) -> Self {
        match features & (FEATURE_EPOCHS | FEATURE_PURGE_MARKS) {
            0 => Self::None,
            FEATURE_EPOCHS => Self::Epochs,
            // This name is the newer one, if a manifest should say both.
            _ => Self::PurgeMarks,
        }
    }
}

impl Manifest {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        put(&mut bytes, block::STORE_ID, &self.store.0);
        let features = self.purge_marks.features() | self.sealing.features();
        close(&mut bytes, MANIFEST_MAGIC, features);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let bytes: &[u8; BLOCK_BYTES] = bytes.first_chunk().ok_or(Reject::Torn)?;
        let marks = FEATURE_EPOCHS | FEATURE_PURGE_MARKS;
        let known = marks | FEATURE_SEALED | FEATURE_SEALING;
        let features = open(bytes, MANIFEST_MAGIC, known)?;
        Ok(Self {
            store: StoreId(take(bytes, block::STORE_ID)),
            purge_marks: MarksName::of(features),
            sealing: Sealing::of(features),
        })
    }
}

/// The first block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) store: StoreId,
    pub(crate) segment: u64,
    /// Length of the whole file, this block included.
    pub(crate) segment_bytes: u64,
    pub(crate) log: Log,
    /// The sequence of the last record of the log before this segment; 0 without one. If that record
    /// is lost, the first one here tells.
    pub(crate) before: u64,
    /// The key under which its records are sealed.
    pub(crate) key: Option<KeyId>,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        put(&mut bytes, block::STORE_ID, &self.store.0);
        put(&mut bytes, block::SEGMENT_ID, &self.segment.to_le_bytes());
        put(
            &mut bytes,
            block::SEGMENT_BYTES,
            &self.segment_bytes.to_le_bytes(),
        );
        put(&mut bytes, block::LOG, &(self.log as u64).to_le_bytes());
        put(&mut bytes, block::BEFORE, &self.before.to_le_bytes());
        let features = match &self.key {
            Some(key) => {
                put(&mut bytes, block::KEY_ID, &key.0);
                FEATURE_SEGMENT_SEALED
            }
            None => 0,
        };
        close(&mut bytes, SEGMENT_MAGIC, features);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        let bytes: &[u8; BLOCK_BYTES] = bytes.first_chunk().ok_or(Reject::Torn)?;
        let features = open(bytes, SEGMENT_MAGIC, FEATURE_SEGMENT_SEALED)?;
        let is_sealed = features & FEATURE_SEGMENT_SEALED != 0;
        Ok(Self {
            store: StoreId(take(bytes, block::STORE_ID)),
            segment: u64::from_le_bytes(take(bytes, block::SEGMENT_ID)),
            segment_bytes: u64::from_le_bytes(take(bytes, block::SEGMENT_BYTES)),
            log: match u64::from_le_bytes(take(bytes, block::LOG)) {
                0 => Log::Small,
                1 => Log::Main,
                _ => return Err(Reject::Corrupt),
            },
            before: u64::from_le_bytes(take(bytes, block::BEFORE)),
            key: is_sealed.then(|| KeyId(take(bytes, block::KEY_ID))),
        })
    }
}

/// Fills in what every file begins and ends with. `bytes` are whole blocks.
fn close(bytes: &mut [u8], magic: [u8; 8], features: u32) {
    put(bytes, block::MAGIC, &magic);
    put(bytes, block::VERSION, &FORMAT_VERSION.to_le_bytes());
    put(bytes, block::FEATURES, &features.to_le_bytes());
    let end = bytes.len() - block::CHECKSUM_BYTES;
    let checksum = crc32_iscsi(&bytes[..end]);
    put(bytes, end, &checksum.to_le_bytes());
}

/// Checks what [`close`] filled in and returns the features, which are all among `known`.
fn open(bytes: &[u8], magic: [u8; 8], known: u32) -> Result<u32, Reject> {
    assert!(bytes.len() >= BLOCK_BYTES);
    if take(bytes, block::MAGIC) != magic {
        return Err(Reject::NotOurs);
    }
    let end = bytes.len() - block::CHECKSUM_BYTES;
    if crc32_iscsi(&bytes[..end]) != u32::from_le_bytes(take(bytes, end)) {
        return Err(Reject::Corrupt);
    }
    let version = u32::from_le_bytes(take(bytes, block::VERSION));
    let features = u32::from_le_bytes(take(bytes, block::FEATURES));
    if version > FORMAT_VERSION || features & !known != 0 {
        return Err(Reject::Newer(version));
    }
    // Version 0 never existed.
    if version == 0 {
        return Err(Reject::NotOurs);
    }
    if version < FORMAT_VERSION {
        return Err(Reject::Older(version));
    }
    Ok(features)
}

/// The fields of a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Here is the answer for the key.
    Entry,
    /// The key was removed; whatever came before no longer counts.
    Tombstone,
}

/// A record's header. The record is the header, the metadata, the payload, and zeros up to
/// the next multiple of [`ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// The contents of a segment do not tell it: only the record does.
    pub(crate) seal: Seal,
    pub(crate) metadata_bytes: u32,
    pub(crate) payload_bytes: u32,
    /// Rises with each record of the store, over both logs and over restarts. The highest wins.
    pub(crate) sequence: u64,
    pub(crate) stored_at_ms: u64,
    /// [`NEVER`], or when the record stops being an answer.
    pub(crate) expires_at_ms: u64,
    /// From [`body_checksum`].
    pub(crate) body_checksum: u64,
    /// The first bytes of the key of the record before this one, in the same log. When a header
    /// is lost, this names the key whose older records must not be served any more.
    pub(crate) previous: [u8; KEY_START_BYTES],
    pub(crate) key: [u8; 32],
    pub(crate) tenant: [u8; 32],
}

impl Header {
    /// The bytes for a record at `offset` of the segment that `salt` belongs to.
    pub(crate) fn encode(&self, salt: Salt, offset: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = self.fields(salt);
        let checksum = crc32_iscsi(&bytes) ^ salt.header_at(offset);
        put(&mut bytes, header::CHECKSUM, &checksum.to_le_bytes());
        bytes
    }

    /// All but the checksum.
    fn fields(&self, salt: Salt) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let flags = match self.kind {
            Kind::Entry => 0,
            Kind::Tombstone => FLAG_TOMBSTONE,
        };
        put(&mut bytes, header::MAGIC, &RECORD_MAGIC);
        put(&mut bytes, header::VERSION, &[RECORD_VERSION]);
        put(&mut bytes, header::FLAGS, &[flags | self.seal.flags()]);
        for (at, length, field) in [
            (header::STORED_AT, 6, self.stored_at_ms.min(TIME_MAX)),
            (header::EXPIRES_AT, 6, self.expires_at_ms.min(TIME_MAX)),
            (header::METADATA_BYTES, 3, self.metadata_bytes.into()),
            (header::SEQUENCE, 7, self.sequence),
            (header::PAYLOAD_BYTES, 4, self.payload_bytes.into()),
            (header::BODY_CHECKSUM, 8, self.body_checksum ^ salt.body),
        ] {
            put(&mut bytes, at, &field.to_le_bytes()[..length]);
        }
        put(&mut bytes, header::PREVIOUS, &self.previous);
        put(&mut bytes, header::KEY, &self.key);
        put(&mut bytes, header::TENANT, &self.tenant);
        bytes
    }

    /// Reads a header from the beginning of `bytes`, which lie at `offset` of the segment that
    /// `salt` belongs to.
    pub(crate) fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Result<Self, Reject> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(Reject::Torn)?;
        if take(bytes, header::MAGIC) != RECORD_MAGIC {
            return Err(Reject::NotOurs);
        }
        let mut bytes = *bytes;
        let checksum = u32::from_le_bytes(take(&bytes, header::CHECKSUM));
        put(&mut bytes, header::CHECKSUM, &[0; 4]);
        if checksum != crc32_iscsi(&bytes) ^ salt.header_at(offset) {
            return Err(Reject::Corrupt);
        }

        let [version] = take(&bytes, header::VERSION);
        let [flags] = take(&bytes, header::FLAGS);
        let (kind, seal) = match flags {
            _ if version != RECORD_VERSION => return Err(Reject::Newer(version.into())),
            FLAG_TOMBSTONE => (Kind::Tombstone, Seal::None),
            _ => {
                let seal = Seal::of(flags).ok_or(Reject::Newer(version.into()))?;
                (Kind::Entry, seal)
            }
        };
        Ok(Self {
            kind,
            seal,
            metadata_bytes: number::<3>(&bytes, header::METADATA_BYTES) as u32,
            payload_bytes: number::<4>(&bytes, header::PAYLOAD_BYTES) as u32,
            sequence: number::<7>(&bytes, header::SEQUENCE),
            stored_at_ms: number::<6>(&bytes, header::STORED_AT),
            expires_at_ms: expiry(number::<6>(&bytes, header::EXPIRES_AT)),
            body_checksum: number::<8>(&bytes, header::BODY_CHECKSUM) ^ salt.body,
            previous: take(&bytes, header::PREVIOUS),
            key: take(&bytes, header::KEY),
            tenant: take(&bytes, header::TENANT),
        })
    }

    /// Where the record's parts lie.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            metadata_bytes: self.metadata_bytes,
            payload_bytes: self.payload_bytes,
        }
    }

    /// Checks the metadata and payload in `record`, which begins with this header.
    pub(crate) fn check_body(&self, record: &[u8]) -> Result<(), Reject> {
        let shape = self.shape();
        let (Some(metadata), Some(payload)) =
            (record.get(shape.metadata()), record.get(shape.payload()))
        else {
            return Err(Reject::Torn);
        };
        if body_checksum(metadata, payload) == self.body_checksum {
            Ok(())
        } else {
            Err(Reject::Corrupt)
        }
    }
}

/// Where the parts of a record lie in its bytes, by its two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) metadata_bytes: u32,
    pub(crate) payload_bytes: u32,
}

impl Shape {
    pub(crate) fn metadata(self) -> std::ops::Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.metadata_bytes as usize
    }

    pub(crate) fn payload(self) -> std::ops::Range<usize> {
        let start = self.metadata().end;
        start..start + self.payload_bytes as usize
    }

    /// Bytes that the record takes in its segment, padding included.
    pub(crate) fn record_bytes(self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.metadata_bytes) + u64::from(self.payload_bytes))
            .next_multiple_of(ALIGN)
    }

    /// The zeros behind the payload.
    pub(crate) fn padding(self) -> &'static [u8] {
        static ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        &ZEROS[..self.record_bytes() as usize - self.payload().end]
    }
}

/// The tenant that a record belongs to; zeros when `record` is shorter than a header.
pub(crate) fn tenant_of(record: &[u8]) -> [u8; 32] {
    match record.first_chunk::<HEADER_BYTES>() {
        Some(header) => take(header, header::TENANT),
        None => [0; 32],
    }
}

/// Where the parts of a record lie, as its header says; nothing when `record` is shorter than a header.
pub(crate) fn shape_of(record: &[u8]) -> Shape {
    match record.first_chunk::<HEADER_BYTES>() {
        Some(bytes) => Shape {
            metadata_bytes: number::<3>(bytes, header::METADATA_BYTES) as u32,
            payload_bytes: number::<4>(bytes, header::PAYLOAD_BYTES) as u32,
        },
        None => Shape {
            metadata_bytes: 0,
            payload_bytes: 0,
        },
    }
}

/// When a record was stored and when it expires; zeros when `record` is shorter than a header.
pub(crate) fn times_of(record: &[u8]) -> (u64, u64) {
    match record.first_chunk::<HEADER_BYTES>() {
        Some(bytes) => (
            number::<6>(bytes, header::STORED_AT),
            expiry(number::<6>(bytes, header::EXPIRES_AT)),
        ),
        None => (0, 0),
    }
}

/// When a record expires, told in as many bytes as the header has for it.
pub(crate) fn expiry(at_ms: u64) -> u64 {
    if at_ms >= TIME_MAX { NEVER } else { at_ms }
}

/// When a record was stored, in as many bytes as the header has for it.
pub(crate) fn time(at_ms: u64) -> u64 {
    at_ms.min(TIME_MAX)
}

/// A number of `N` bytes, at most 8.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field[..N].copy_from_slice(&take::<N>(bytes, at));
    u64::from_le_bytes(field)
}

/// Callers pass constants of this file, whose relations are asserted at compile time.
fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// As [`put`].
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
