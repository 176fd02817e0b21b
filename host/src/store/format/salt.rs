//! The salt that ties a record's checksums to its place.

use super::{ALIGN, StoreId, put};
use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

/// Mixed into the checksums of a segment's records, so that bytes of another store, segment or
/// place are never taken for a record here.
///
/// It is mixed in by XOR instead of being fed to the CRC. The two are equally strong (a CRC is
/// linear), and with XOR the payload can be summed before its place is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt {
    pub(super) header: u32,
    pub(super) body: u64,
}

impl Salt {
    pub(crate) fn of_segment(store: &StoreId, segment: u64) -> Self {
        let mut bytes = [0; 24];
        put(&mut bytes, 0, &store.0);
        put(&mut bytes, 16, &segment.to_le_bytes());
        Self {
            header: crc32_iscsi(&bytes),
            body: crc_fast::crc64_nvme(&bytes),
        }
    }

    /// For records that live in memory and never meet others.
    pub(crate) const NONE: Self = Self { header: 0, body: 0 };

    pub(super) fn header_at(self, offset: u64) -> u32 {
        self.header ^ (offset / ALIGN) as u32
    }
}

/// CRC-64/NVME over the metadata and then the payload, not salted yet.
pub(crate) fn body_checksum(metadata: &[u8], payload: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(metadata);
    digest.update(payload);
    digest.finalize()
}
