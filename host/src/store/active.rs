//! The segment that records are added to: where the next one goes, and what was added so far.

use super::disk::DiskFile;
use super::format::{BLOCK_BYTES, Contents, KEY_START_BYTES, Kind, Seal, body_checksum};
use super::keys::NewKeys;
use super::place::Place;
use super::record::NewRecord;
use super::segment::Segment;
use std::io;
use std::sync::Arc;

/// A segment gets its space in at least this many steps, so that little space is unused.
const STEPS: u64 = 16;

/// The longest step: one call serves many records.
const STEP_BYTES_MAX: u64 = 1 << 20;

/// How much space a segment of `bytes` has when it is written up to `end`.
pub(crate) fn allocated_for(end: u64, bytes: u64) -> u64 {
    let step = (bytes / STEPS).next_multiple_of(BLOCK_BYTES as u64);
    let step = step.clamp(BLOCK_BYTES as u64, STEP_BYTES_MAX);
    end.next_multiple_of(step).min(bytes)
}

/// The segment that records are added to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next record goes. No slice given out reaches it or lies behind it.
    pub(crate) end: u64,
    /// The records so far.
    pub(crate) contents: Contents,
    /// Their keys.
    pub(crate) keys: NewKeys,
    /// Something was written since the file was last synced.
    pub(crate) is_dirty: bool,
}

impl Active {
    pub(crate) fn room(&self) -> u64 {
        self.segment.bytes.saturating_sub(self.end)
    }

    /// How much more space the file takes for a record of `bytes`.
    pub(crate) fn growth(&self, bytes: u64) -> u64 {
        let allocated = self.segment.allocated();
        match self.end + bytes > allocated {
            true => allocated_for(self.end + bytes, self.segment.bytes) - allocated,
            false => 0,
        }
    }

    /// The most that the file of its contents takes once all of its space is written to: a record
    /// takes less there than here.
    pub(crate) fn contents_bytes_max(&self) -> u64 {
        let unused = self.segment.allocated().saturating_sub(self.end);
        self.contents.file_bytes(unused)
    }

    /// Gives the file space for a record of `bytes`, and some more.
    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let growth = self.growth(bytes);
        if growth > 0 {
            let allocated = self.segment.allocated();
            self.file.preallocate(allocated..allocated + growth)?;
            self.segment.set_allocated(allocated + growth);
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
        let mut header = record.header(sequence, previous);
        let body = (record.metadata, record.payload);
        let sealed = match record.seal {
            Seal::None => None,
            Seal::Own | Seal::Common => Some(self.segment.seal(&header, body, self.end)?),
        };
        let (metadata, payload) = match &sealed {
            Some(sealed) => (&*sealed.metadata, &*sealed.payload),
            None => body,
        };
        if sealed.is_some() {
            header.body_checksum = body_checksum(metadata, payload);
        }
        let head = header.encode(self.segment.salt(), self.end);
        self.is_dirty = true;
        self.allocate(record.shape.record_bytes())?;
        let parts = [&head, metadata, payload, record.shape.padding()];
        let written = self.file.write_at(parts, self.end);
        // After an error, too: all of it may be there.
        self.segment.note(&header);
        self.keys.add(&header);
        written?;
        let offset = self.end;
        let place = Place::new(&self.segment, offset, &header);
        self.end += record.shape.record_bytes();
        self.contents.add(offset, &header, true);
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
    use super::super::log::Log;
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
                (1, Log::Small),
                Salt::NONE,
                (Arc::clone(&file), mapping),
                (0, &disk_use),
                false,
            ),
            file,
            end: 0,
            contents: Contents::default(),
            keys: NewKeys::default(),
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
