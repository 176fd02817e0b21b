//! The bytes of the file `purge_marks`, and of `purge_marks.recent`, which holds the newest where there
//! are many. Earlier releases wrote the same bytes to `epochs` and `epochs.recent`.
//!
//! As many whole blocks as it takes; magic, version and features stand where every block has
//! them, and the checksum is the end of the last block.

use super::{BLOCK_BYTES, Reject, StoreId, close, open, put, take};
use std::collections::HashMap;

const MAGIC: [u8; 8] = *b"RFXEPOCH";
const RECENT_MAGIC: [u8; 8] = *b"RFXPURGE";

/// Feature of the file: the file of recent marks must exist.
const FEATURE_RECENT: u32 = 1;

const STORE_ID: usize = 16;
const TENANTS: usize = 32;
const ALL: usize = 40;
const FLOOR: usize = 48;
/// Here the tenants begin, one behind the other.
const MARKS: usize = 64;
const MARK_BYTES: usize = 40;
const CHECKSUM_BYTES: usize = 4;

/// Bound of the tenants with a purge mark of their own: 2.6 MB on disk. Of a file that claims to
/// hold more, only this much is read.
pub(crate) const TENANTS_MAX: usize = 1 << 16;

/// The longest such file.
pub(crate) const PURGE_MARKS_BYTES_MAX: usize = file_bytes(TENANTS_MAX);

const fn file_bytes(tenants: usize) -> usize {
    (MARKS + tenants * MARK_BYTES + CHECKSUM_BYTES).next_multiple_of(BLOCK_BYTES)
}

/// The purge marks: records up to and including these sequences are purged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MarksFile {
    /// The mark of all tenants.
    pub(crate) all: u64,
    /// Each tenant's.
    pub(crate) tenants: HashMap<[u8; 32], u64>,
    /// New records have higher sequences. It lies above those of records that could not be read, so
    /// that none of these counts as newer once it can be read again.
    pub(crate) floor: u64,
    /// Newer marks are in the file of recent ones, which must exist.
    pub(crate) has_recent: bool,
}

/// Bound of the tenants in the file of recent marks: 16 KiB.
pub(crate) const RECENT_TENANTS_MAX: usize = 400;

/// The longest file of recent marks.
pub(crate) const RECENT_BYTES_MAX: usize = file_bytes(RECENT_TENANTS_MAX);

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All marks, as of when it was written.
    All,
    /// Those of tenants since then.
    Recent,
}

impl Part {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::All => MAGIC,
            Self::Recent => RECENT_MAGIC,
        }
    }
}

impl MarksFile {
    pub(crate) fn encode(&self, part: Part, store: &StoreId) -> Vec<u8> {
        assert!(self.tenants.len() <= TENANTS_MAX);
        let mut bytes = vec![0; file_bytes(self.tenants.len())];
        put(&mut bytes, STORE_ID, &store.0);
        put(
            &mut bytes,
            TENANTS,
            &(self.tenants.len() as u64).to_le_bytes(),
        );
        put(&mut bytes, ALL, &self.all.to_le_bytes());
        put(&mut bytes, FLOOR, &self.floor.to_le_bytes());
        for (at, (tenant, sequence)) in (MARKS..).step_by(MARK_BYTES).zip(&self.tenants) {
            put(&mut bytes, at, tenant);
            put(&mut bytes, at + 32, &sequence.to_le_bytes());
        }
        let features = if self.has_recent { FEATURE_RECENT } else { 0 };
        close(&mut bytes, part.magic(), features);
        bytes
    }

    /// Adds those of the file of recent marks.
    pub(crate) fn add(&mut self, recent: &Self) {
        for (tenant, sequence) in &recent.tenants {
            let mark = self.tenants.entry(*tenant).or_default();
            *mark = (*mark).max(*sequence);
        }
    }

    /// Reads a file of this very store.
    pub(crate) fn decode(bytes: &[u8], part: Part, store: &StoreId) -> Result<Self, Reject> {
        if bytes.len() < BLOCK_BYTES || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return Err(Reject::Torn);
        }
        let features = open(bytes, part.magic(), FEATURE_RECENT)?;
        if take::<16>(bytes, STORE_ID) != store.0 {
            return Err(Reject::NotOurs);
        }
        let count = u64::from_le_bytes(take(bytes, TENANTS));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > TENANTS_MAX || file_bytes(count) != bytes.len() {
            return Err(Reject::Corrupt);
        }
        let marks = (MARKS..).step_by(MARK_BYTES).take(count);
        Ok(Self {
            all: u64::from_le_bytes(take(bytes, ALL)),
            floor: u64::from_le_bytes(take(bytes, FLOOR)),
            has_recent: features & FEATURE_RECENT != 0,
            tenants: marks
                .map(|at| (take(bytes, at), u64::from_le_bytes(take(bytes, at + 32))))
                .collect(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([3; 16]);

    fn file(tenants: u64) -> MarksFile {
        let tenant = |number: u64| {
            let mut tenant = [9; 32];
            tenant[..8].copy_from_slice(&number.to_le_bytes());
            (tenant, number + 5)
        };
        MarksFile {
            all: 4,
            tenants: (0..tenants).map(tenant).collect(),
            floor: 17,
            has_recent: tenants.is_multiple_of(2),
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        for tenants in [0, 1, 99, 100, 101, 102, 205, TENANTS_MAX as u64] {
            for part in [Part::All, Part::Recent] {
                let bytes = file(tenants).encode(part, &STORE);
                assert!(bytes.len() <= PURGE_MARKS_BYTES_MAX);
                assert_eq!(MarksFile::decode(&bytes, part, &STORE), Ok(file(tenants)));
            }
        }
        let other = MarksFile::decode(
            &file(1).encode(Part::All, &STORE),
            Part::All,
            &StoreId([4; 16]),
        );
        assert_eq!(other, Err(Reject::NotOurs));
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_refused() {
        let whole = file(150).encode(Part::All, &STORE);
        assert!(MarksFile::decode(&whole, Part::Recent, &STORE).is_err());
        assert_eq!(whole.len(), 2 * BLOCK_BYTES);
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(
                MarksFile::decode(&flipped, Part::All, &STORE).is_err(),
                "byte {at}"
            );
            assert!(
                MarksFile::decode(&whole[..at], Part::All, &STORE).is_err(),
                "cut {at}"
            );
        }
    }
}
