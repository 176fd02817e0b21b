//! The segment that records are added to: where the next one goes, and what was added so far.

use super::disk::DiskFile;
use super::format::{Contents, KEY_START_BYTES, Kind};
use super::keys::Keys;
use super::place::Place;
use super::record::NewRecord;
use super::segment::Segment;
use std::io;
use std::sync::Arc;

/// A segment gets its space in steps of this size: little space is held unused, and one call is
/// enough for very many records.
const ALLOCATED_BYTES: u64 = 1 << 20;

/// How much space a segment of `bytes` has when it is written up to `end`.
pub(crate) fn allocated_for(end: u64, bytes: u64) -> u64 {
    end.next_multiple_of(ALLOCATED_BYTES).min(bytes)
}

/// The segment that records are added to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next record goes. No slice given out reaches it or lies behind it.
    pub(crate) end: u64,
    /// Up to here the file has its space. Behind it are holes, which are never read.
    pub(crate) allocated: u64,
    /// The records so far.
    pub(crate) contents: Contents,
    /// Their keys.
    pub(crate) keys: Keys,
    /// Something was written since the file was last synced.
    pub(crate) is_dirty: bool,
}

impl Active {
    pub(crate) fn room(&self) -> u64 {
        self.segment.bytes.saturating_sub(self.end)
    }

    /// Gives the file space up to `end`, and some more.
    fn allocate(&mut self, end: u64) -> io::Result<()> {
        if end > self.allocated {
            let end = allocated_for(end, self.segment.bytes);
            self.file.preallocate(self.allocated..end)?;
            self.allocated = end;
        }
        Ok(())
    }

    /// Writes a record at the end. After an error the end is where it was, and the next record
    /// overwrites what this one may have left there.
    pub(crate) fn write(
        &mut self,
        record: &NewRecord<'_>,
        sequence: u64,
        previous: [u8; KEY_START_BYTES],
    ) -> io::Result<Place> {
        assert!(record.shape.record_bytes() <= self.room());
        let header = record.header(sequence, previous);
        let head = header.encode(self.segment.salt(), self.end);
        self.is_dirty = true;
        self.allocate(self.end + record.shape.record_bytes())?;
        self.file.write_at(
            [
                &head,
                record.metadata,
                record.payload,
                record.shape.padding(),
            ],
            self.end,
        )?;
        self.segment.note(&header);
        let offset = self.end;
        let place = Place::new(&self.segment, offset, &header);
        self.end += record.shape.record_bytes();
        self.contents.add(offset, &header, true);
        self.keys.add(&header);
        if record.kind == Kind::Tombstone {
            place.count_dead();
        }
        Ok(place)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::disk::{Disk, RealDisk};
    use super::super::format::{self, Salt};
    use super::super::place::Read;
    use super::super::segment::DiskUse;
    use super::*;

    const SIZE: u64 = 4096;
    const KEY: [u8; 32] = [1; 32];

    fn active() -> (tempfile::TempDir, Active, Arc<DiskUse>) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.set_len(SIZE).unwrap();
        let disk_use = Arc::default();
        let mapping = file.map(SIZE).unwrap();
        let active = Active {
            segment: Segment::new(
                1,
                Salt::NONE,
                (Arc::clone(&file), mapping),
                &disk_use,
                false,
            ),
            file,
            end: 0,
            allocated: 0,
            contents: Contents::default(),
            keys: Keys::default(),
            is_dirty: false,
        };
        (dir, active, disk_use)
    }

    #[test]
    fn a_place_gives_its_record_to_its_key_and_to_no_other() {
        let (_dir, mut active, _) = active();
        let record = NewRecord::entry(&KEY, &[2; 32], b"meta", b"payload", 3, 4);
        let place = active.write(&record, 1, [0; KEY_START_BYTES]).unwrap();
        assert!(matches!(place.read(&[9; 32]), Read::Damaged));
        let Read::Sound(bytes) = place.read(&KEY) else {
            panic!("not sound")
        };
        assert_eq!(&bytes[place.shape().metadata()], b"meta");
        assert_eq!(&bytes[place.shape().payload()], b"payload");
        assert_eq!(format::tenant_of(&bytes), [2; 32]);

        let tombstone = active.write(&NewRecord::tombstone(&KEY), 2, [1; KEY_START_BYTES]);
        assert!(matches!(tombstone.unwrap().read(&KEY), Read::Damaged));
    }

    #[test]
    fn the_space_counts_for_as_long_as_someone_reads() {
        let (_dir, mut active, disk_use) = active();
        let record = NewRecord::entry(&KEY, &[2; 32], b"", b"payload", 3, 4);
        let place = active.write(&record, 1, [0; KEY_START_BYTES]).unwrap();
        let Read::Sound(bytes) = place.read(&KEY) else {
            panic!("not sound")
        };
        drop(active);
        assert!(matches!(place.read(&KEY), Read::Gone));
        assert_eq!(disk_use.bytes(), SIZE);
        assert_eq!(&bytes[place.shape().payload()], b"payload");
        drop(bytes);
        assert_eq!(disk_use.bytes(), 0);
    }
}
