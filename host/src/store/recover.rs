//! Reading a store again after the process ended, in whatever way it ended.
//!
//! Every segment is read from beginning to end, past the page cache's mapping so that a bad
//! sector is an error and not a signal, and every record is checked wholly. What cannot be
//! read is passed over; nothing on disk is changed, except that files of ours which never
//! came into use are removed.

use super::disk::{Disk, DiskFile};
use super::folder::{Folder, OpenError, SegmentName};
use super::format::{
    ALIGN, BLOCK_BYTES, EpochsFile, HEADER_BYTES, Header, Kind, Reject, SEGMENT_BYTES_LIMIT, Salt,
    Superblock,
};
use super::replay::{Last, Replay};
use super::segment::{Active, DiskUse, Place, Segment};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What a store was found to hold.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Oldest first, without the active one.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) active: Option<Active>,
    pub(crate) next_segment: u64,
    pub(crate) last: Last,
    /// Oldest first.
    pub(crate) live: Vec<([u8; 32], Place)>,
    /// Runs of bytes, and whole records, that were not as they were written. The torn end
    /// after a crash counts as one.
    pub(crate) damaged: u64,
}

/// A segment file that was found.
struct Found {
    id: u64,
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    folder: &Folder,
    quota: u64,
    disk_use: &Arc<DiskUse>,
    purged: &EpochsFile,
) -> Result<Recovered, OpenError> {
    let found = within_quota(disk, folder, quota, find(disk, folder)?)?;
    let newest = found.back().map(|found| found.id);
    let mut recovered = Recovered {
        segments: VecDeque::new(),
        active: None,
        next_segment: newest.map_or(1, |id| id.saturating_add(1)),
        last: Last::default(),
        live: Vec::new(),
        damaged: 0,
    };
    let mut replay = Replay::new(purged);
    let mut bytes = Vec::new();
    for Found {
        id,
        file,
        bytes: size,
    } in found
    {
        let path = folder.segment(id);
        let mapping = file.map(size).map_err(OpenError::io("map", &path))?;
        let salt = Salt::of_segment(&folder.store, id);
        let segment = Segment::new(id, salt, mapping, disk_use);

        bytes.resize(size as usize, 0);
        let unreadable = read_what_can_be(&*file, &mut bytes);
        let expected = Superblock {
            store: folder.store,
            segment: id,
            segment_bytes: size,
        };
        let superblock = Superblock::decode(&bytes);
        if let Err(Reject::Newer(version)) = superblock {
            return Err(OpenError::Newer(path, version));
        }
        // The superblock says nothing that we do not know from elsewhere, and each record
        // proves itself. So a damaged one costs no entries; but nothing more is written there.
        let is_intact = superblock == Ok(expected) && !unreadable;

        let scan = scan(&bytes, salt);
        for (offset, header, is_sound) in &scan.records {
            segment.note(header);
            let is_entry = *is_sound && header.kind == Kind::Entry;
            if !is_entry {
                segment.count_dead(header.shape());
            }
            replay.add(
                header,
                is_entry.then(|| Place::new(&segment, *offset, header)),
            );
        }
        let damaged = scan.damaged + u64::from(!is_intact);
        if damaged > 0 {
            tracing::warn!(path = %path.display(), damaged, "segment has damaged parts; passed over");
        }
        recovered.damaged += damaged;

        // Preallocated again, for a copy of the folder may have got holes.
        if Some(id) == newest && is_intact && file.preallocate(size).is_ok() {
            recovered.active = Some(Active {
                segment,
                file,
                end: scan.end,
                records: scan.records.len() as u64,
                is_dirty: true,
            });
        } else {
            recovered.segments.push_back(segment);
        }
    }
    (recovered.last, recovered.live) = replay.finish();
    Ok(recovered)
}

/// The segment files, oldest first.
fn find(disk: &dyn Disk, folder: &Folder) -> Result<VecDeque<Found>, OpenError> {
    let dir = folder.segments();
    let mut found = Vec::new();
    for name in disk.list(&dir).map_err(OpenError::io("read", &dir))? {
        let path = dir.join(&name);
        match name
            .to_str()
            .map_or(SegmentName::Foreign, SegmentName::parse)
        {
            SegmentName::Segment(id) => {
                let file = disk.open(&path).map_err(OpenError::io("open", &path))?;
                let bytes = file.size().map_err(OpenError::io("open", &path))?;
                if bytes > SEGMENT_BYTES_LIMIT {
                    return Err(OpenError::Damaged(path, "longer than any segment"));
                }
                found.push(Found { id, file, bytes });
            }
            SegmentName::Unfinished => disk
                .unlink(&path)
                .map_err(OpenError::io("remove unfinished", &path))?,
            SegmentName::Foreign => {
                tracing::warn!(path = %path.display(), "not a segment; left as it is");
            }
        }
    }
    found.sort_unstable_by_key(|found| found.id);
    Ok(found.into())
}

/// Removes the oldest while there are more than the quota allows: it may be smaller now.
fn within_quota(
    disk: &dyn Disk,
    folder: &Folder,
    quota: u64,
    mut found: VecDeque<Found>,
) -> Result<VecDeque<Found>, OpenError> {
    let mut total: u64 = found.iter().map(|found| found.bytes).sum();
    while total > quota
        && let Some(oldest) = found.pop_front()
    {
        let path = folder.segment(oldest.id);
        disk.unlink(&path).map_err(OpenError::io("remove", &path))?;
        total -= oldest.bytes;
    }
    Ok(found)
}

/// Fills `bytes` from the file; what cannot be read stays zero. True when something could not.
fn read_what_can_be(file: &dyn DiskFile, bytes: &mut [u8]) -> bool {
    let mut unreadable = false;
    for (index, chunk) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
        let start = (index * CHUNK_BYTES) as u64;
        if file.read_at(chunk, start).is_ok() {
            continue;
        }
        for (index, block) in chunk.chunks_mut(BLOCK_BYTES).enumerate() {
            if file
                .read_at(block, start + (index * BLOCK_BYTES) as u64)
                .is_err()
            {
                block.fill(0);
                unreadable = true;
            }
        }
    }
    unreadable
}

/// What the bytes of a segment hold.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Offset, header, and whether the body is sound too.
    pub(crate) records: Vec<(u64, Header, bool)>,
    /// Behind the last record.
    pub(crate) end: u64,
    pub(crate) damaged: u64,
}

/// Finds the records in the bytes of a segment. Where there is no valid header it goes on at
/// the next multiple of [`ALIGN`]; where there is one, its lengths are to be trusted.
pub(crate) fn scan(bytes: &[u8], salt: Salt) -> Scan {
    let mut scan = Scan {
        end: BLOCK_BYTES as u64,
        ..Scan::default()
    };
    let mut offset = BLOCK_BYTES;
    let mut in_damage = false;
    while let Some(rest) = bytes
        .get(offset..)
        .filter(|rest| rest.len() >= HEADER_BYTES)
    {
        match Header::decode(rest, salt, offset as u64) {
            Ok(header) => {
                let is_sound = header.check_body(rest).is_ok();
                scan.damaged += u64::from(!is_sound);
                scan.records.push((offset as u64, header, is_sound));
                let next = offset as u64 + header.shape().record_bytes();
                scan.end = next.min(bytes.len() as u64);
                offset = usize::try_from(next).unwrap_or(usize::MAX);
                in_damage = false;
            }
            Err(reject) => {
                // Free space is zeros; anything else was something once.
                let is_damage = reject != Reject::NotOurs || rest[..4] != [0; 4];
                scan.damaged += u64::from(is_damage && !in_damage);
                in_damage |= is_damage;
                offset += ALIGN as usize;
            }
        }
    }
    scan
}
