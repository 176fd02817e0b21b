//! Reading a store again after the process ended, in whatever way it ended.
//!
//! A sealed segment whose contents are written beside it is not read. Every other segment is read
//! from beginning to end, not through the mapping, so that a bad sector is an error and not a
//! signal. Every record is checked in full. Unreadable blocks are passed over.

use super::StoreOptions;
use super::active::{Active, allocated_for};
use super::disk::{Disk, DiskFile};
use super::encryption::Vault;
use super::folder::{Folder, OpenError, SegmentName};
use super::format::{
    ALIGN, BLOCK_BYTES, Contents, HEADER_BYTES, Header, KeyId, Kind, Listed, MarksFile, Reject,
    SEGMENT_BYTES_LIMIT, Salt, Superblock, contents_bytes_max,
};
use super::keys::NewKeys;
use super::log::Log;
use super::place::Place;
use super::replay::{Before, Replay, Replayed};
use super::segment::{DiskUse, Segment};
use super::unsynced::ContentsFile;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// What a record takes in the contents of a segment, as a rule, to know about how many there are.
const LISTED_BYTES: usize = 44;

/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The contents of a store, as found.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// In the order in which they were begun, without the active ones.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    /// By log.
    pub(crate) actives: [Option<Active>; 2],
    pub(crate) next_segment: u64,
    pub(crate) replayed: Replayed,
    /// Damaged runs of bytes, and damaged records. The torn end after a crash counts as one.
    pub(crate) damaged: u64,
    /// Not all records found could be made durable.
    pub(crate) is_unsynced: bool,
    /// Whether records with unknown headers may exist that could not be read.
    pub(crate) has_hidden: bool,
}

/// A segment file that was found.
struct Found {
    id: u64,
    file: Arc<dyn DiskFile>,
    /// Its length.
    bytes: u64,
    /// Its space on disk.
    space: u64,
    superblock: Result<Superblock, Reject>,
    /// Length of the file of contents, if it exists.
    contents: Option<u64>,
}

impl Found {
    /// With its contents.
    fn disk_bytes(&self) -> u64 {
        self.space + self.contents.unwrap_or_default()
    }

    /// The sequence of the last record of its log before it; 0 where the superblock does not say.
    fn before(&self) -> u64 {
        self.superblock.map_or(0, |superblock| superblock.before)
    }

    /// `None` where the superblock does not say.
    fn log(&self) -> Option<Log> {
        self.superblock.ok().map(|superblock| superblock.log)
    }

    /// `None` where the records are not encrypted, or the superblock does not say.
    fn key(&self) -> Option<KeyId> {
        self.superblock.ok().and_then(|superblock| superblock.key)
    }
}

/// The files in the folder of segments.
#[derive(Default)]
struct Files {
    /// Oldest first.
    segments: VecDeque<Found>,
    /// Contents without a segment, and unfinished files.
    useless: Vec<PathBuf>,
}

pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    folder: &Folder,
    options: &StoreOptions,
    disk_use: &Arc<DiskUse>,
    purged: &MarksFile,
    vault: Option<Arc<Vault>>,
) -> Result<Recovered, OpenError> {
    let files = find(&**disk, folder)?;
    // From here on nothing is refused, so files may be changed.
    let newest = files.segments.back().map(|found| found.id);
    let newest_of = Log::BOTH.map(|log| {
        let mut newest_first = files.segments.iter().rev();
        // One that may be of this log may be the newest, and is not written to.
        let newest = newest_first.find(|found| found.log().is_none_or(|it| it == log));
        newest.map(|found| found.id)
    });
    for path in files.useless {
        disk.unlink(&path)
            .map_err(OpenError::io("remove useless", &path))?;
    }
    // Names that were not durable when the last process ended would never be. A later sync of a
    // segment relies on its name, and on the names of the manifest and the purge marks.
    for dir in [folder.root(), &folder.segments()] {
        disk.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
    }
    let found = files.segments;
    // The room for new contents beside all existing files.
    let there: u64 = found.iter().map(Found::disk_bytes).sum();
    let mut spare = options.quota.saturating_sub(there);
    options.progress.begin(found.len());
    let mut recovered = Recovered {
        segments: VecDeque::new(),
        actives: [None, None],
        next_segment: newest.map_or(1, |id| id + 1),
        replayed: Replayed::default(),
        damaged: 0,
        is_unsynced: false,
        has_hidden: false,
    };
    let listed: u64 = found.iter().filter_map(|found| found.contents).sum();
    let mut replay = Replay::new(purged, listed as usize / LISTED_BYTES);
    let mut bytes = Vec::new();
    for found in found {
        options.progress.step();
        let path = folder.segment(found.id);
        let mapping = found.file.map(found.bytes);
        let mapping = mapping.map_err(OpenError::io("map", &path))?;
        let salt = Salt::of_segment(&folder.store, found.id);
        let file = Arc::clone(&found.file);
        let log = found.log();
        // A segment of an unknown log is never written to, so either log will do.
        let known_log = log.unwrap_or(Log::Main);
        let segment = Segment::new(
            (found.id, known_log),
            salt,
            (file, mapping),
            (found.space, disk_use),
            true,
        );
        segment.set_contents_bytes(found.contents.unwrap_or_default());
        if let Some(vault) = &vault {
            segment.encrypted(vault, found.key());
        }
        if found.contents == Some(0) {
            segment.poison();
        }

        // The superblock only repeats what is known from elsewhere, and each record has its own
        // checksums. So a damaged one costs no entries, but nothing more is written there.
        let expected = Superblock {
            store: folder.store,
            segment: found.id,
            segment_bytes: found.bytes,
            log: known_log,
            before: found.before(),
            key: found.key(),
        };
        let mut is_intact = found.superblock == Ok(expected);
        let listed = match is_intact {
            true => read_contents(&**disk, folder, &found, salt),
            false => None,
        };
        let is_listed = listed.is_some();
        let mut unreadable = Unreadable::default();
        let scan = listed.map_or_else(
            || {
                bytes.clear();
                bytes.resize(found.bytes as usize, 0);
                unreadable = read_what_can_be(&*found.file, &mut bytes);
                is_intact &= unreadable.is_empty();
                scan(&bytes, salt)
            },
            Scan::of,
        );
        if is_intact && scan.records.is_empty() && found.before() > replay.last_of(log) {
            // The last record before this segment is lost. The first one here would name the last
            // that was found in its place, and the next start would give that up.
            let removed = folder.remove_segment(&**disk, found.id);
            removed.map_err(OpenError::io("remove", &path))?;
            spare += found.disk_bytes();
            continue;
        }
        let mut keys = NewKeys::default();
        let mut end = BLOCK_BYTES as u64;
        // Above these are the sequences of the records that cannot be read.
        let mut hidden_above = None;
        for (index, (offset, header, is_sound)) in scan.records.iter().enumerate() {
            let hidden = unreadable.records_max(end..*offset);
            replay.hide(log, hidden);
            if hidden > 0 {
                hidden_above.get_or_insert(replay.last_of(log));
            }
            let before = match index {
                _ if *offset > end => Before::Gap,
                0 => Before::Nothing(found.before()),
                _ => Before::Record,
            };
            end = offset.saturating_add(header.shape().record_bytes());
            segment.note(header);
            keys.add(header);
            let is_entry = *is_sound && header.kind == Kind::Entry;
            if !is_entry {
                segment.count_dead(header.shape());
            }
            let place = is_entry.then(|| Place::new(&segment, *offset, header));
            replay.add((log, before), (&segment, *offset), header, place);
        }
        let behind = unreadable.records_max(end..found.bytes);
        replay.hide(log, behind);
        if behind > 0 {
            hidden_above.get_or_insert(replay.last_of(log));
        }
        let has_hidden = hidden_above.is_some();
        if let Some(above) = hidden_above {
            segment.note_hidden(above + 1..=u64::MAX);
            recovered.has_hidden = true;
        }
        let damaged = scan.damaged + u64::from(!is_intact);
        if damaged > 0 {
            tracing::warn!(path = %path.display(), damaged, "segment has damaged parts; passed over");
        }
        recovered.damaged += damaged;

        // Contents that list less than the segment holds must never be used. So nothing more is
        // written to a segment that has contents, in whatever state.
        // Each segment has one key.
        let is_closed = !is_intact
            || found.key() != vault.as_ref().map(|vault| vault.first())
            || found.contents.is_some()
            || Some(found.id) != newest_of[known_log as usize];
        // Allocated again, because a copy of the folder may have holes.
        let allocated = allocated_for(scan.end, found.bytes);
        segment.set_allocated(allocated);
        if !is_closed && found.file.preallocate(0..allocated).is_ok() {
            let mut contents = Contents::default();
            for (offset, header, is_sound) in &scan.records {
                contents.add(*offset, header, *is_sound);
            }
            recovered.actives[known_log as usize] = Some(Active {
                segment,
                file: found.file,
                end: scan.end,
                contents,
                keys,
                is_dirty: true,
            });
            continue;
        }
        if !has_hidden {
            segment.set_keys(keys);
        }
        // Without contents it is unknown whether the segment ever became durable. Empty contents
        // say that it did not; a sync that succeeds now would prove nothing. The last process may
        // not have reported that, so the next sync does.
        recovered.is_unsynced |= segment.is_poisoned() && !scan.records.is_empty();
        if !is_listed && !segment.is_poisoned() {
            match found.file.sync_data() {
                Ok(()) if is_intact => {
                    let old = found.contents.unwrap_or_default();
                    let new = write_contents(disk, folder, spare + old, &segment, &scan);
                    // Without new ones the old file stays.
                    let kept = if new == 0 { old } else { new };
                    segment.set_contents_bytes(kept);
                    spare = spare + old - kept;
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot sync");
                    segment.poison();
                    recovered.is_unsynced = true;
                }
            }
        }
        recovered.segments.push_back(segment);
    }
    recovered.replayed = replay.finish();
    Ok(recovered)
}

/// Looks at all files, and changes nothing.
fn find(disk: &dyn Disk, folder: &Folder) -> Result<Files, OpenError> {
    let dir = folder.segments();
    let mut files = Files::default();
    let mut contents = BTreeSet::new();
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
                let mut block = vec![0; BLOCK_BYTES.min(bytes as usize)];
                let space = file.space().map_err(OpenError::io("open", &path))?;
                let superblock = match file.read_at(&mut block, 0) {
                    Ok(()) => Superblock::decode(&block),
                    Err(_) => Err(Reject::Torn),
                };
                match superblock {
                    Err(Reject::Newer(version)) => return Err(OpenError::Newer(path, version)),
                    Err(Reject::Older(version)) => return Err(OpenError::Older(path, version)),
                    _ => {}
                }
                files.segments.push_back(Found {
                    id,
                    file,
                    bytes,
                    space: space.min(bytes),
                    superblock,
                    contents: None,
                });
            }
            SegmentName::Contents(id) => {
                contents.insert(id);
            }
            SegmentName::Unfinished => files.useless.push(path),
            SegmentName::Foreign => {
                tracing::warn!(path = %path.display(), "not a segment; left as it is");
            }
        }
    }
    files
        .segments
        .make_contiguous()
        .sort_unstable_by_key(|found| found.id);
    for found in &mut files.segments {
        if contents.remove(&found.id) {
            let path = folder.contents(found.id);
            let size = disk.open(&path).and_then(|file| file.size());
            found.contents = Some(size.map_err(OpenError::io("open", &path))?);
        }
    }
    let orphans = contents.into_iter().map(|id| folder.contents(id));
    files.useless.extend(orphans);
    Ok(files)
}

/// The contents beside a sealed segment, if they can be used: they must be whole and of this
/// segment, and the segment must end where they say.
fn read_contents(
    disk: &dyn Disk,
    folder: &Folder,
    found: &Found,
    salt: Salt,
) -> Option<Vec<Listed>> {
    found.contents?;
    let bytes_max = contents_bytes_max(found.bytes);
    let bytes = disk.read(&folder.contents(found.id), bytes_max).ok()?;
    let records = Contents::decode(&bytes, &folder.store, found.id, found.bytes);
    let records = match records {
        Ok(records) => records,
        Err(reject) => {
            let path = folder.contents(found.id);
            tracing::warn!(path = %path.display(), ?reject, "made anew from the segment");
            return None;
        }
    };
    // An unreadable header contradicts nothing.
    let header_at = |offset| {
        let mut bytes = [0; HEADER_BYTES];
        let read = found.file.read_at(&mut bytes, offset);
        read.map(|()| Header::decode(&bytes, salt, offset).ok())
    };
    let (offset, last, _) = records.last()?;
    let is_it = |there: Header| {
        there.sequence == last.sequence && there.key == last.key && there.shape() == last.shape()
    };
    let is_last = header_at(*offset).map_or(true, |there| there.is_some_and(is_it))
        && header_at(offset + last.shape().record_bytes()).map_or(true, |next| next.is_none());
    is_last.then_some(records)
}

/// Writes the contents of a segment beside it, if they fit into the spare bytes; returns their
/// size.
fn write_contents(
    disk: &Arc<dyn Disk>,
    folder: &Folder,
    spare: u64,
    segment: &Segment,
    scan: &Scan,
) -> u64 {
    let mut contents = Contents::default();
    for (offset, header, is_sound) in &scan.records {
        contents.add(*offset, header, *is_sound);
    }
    let file = ContentsFile::of(disk, folder, segment, contents);
    let bytes = file.bytes().len() as u64;
    match bytes <= spare && file.write() {
        true => bytes,
        false => 0,
    }
}

/// The records of a sealed segment, for the last time.
pub(crate) fn records_of(disk: &dyn Disk, folder: &Folder, segment: &Segment) -> Records {
    let contents = disk.read(
        &folder.contents(segment.id),
        contents_bytes_max(segment.bytes),
    );
    let listed = contents
        .ok()
        .and_then(|bytes| Contents::decode(&bytes, &folder.store, segment.id, segment.bytes).ok());
    if let Some(listed) = listed {
        return Records::all(listed);
    }
    let Ok(file) = disk.open(&folder.segment(segment.id)) else {
        return Records::default();
    };
    let mut bytes = vec![0; segment.bytes as usize];
    let unreadable = read_what_can_be(&*file, &mut bytes);
    let salt = Salt::of_segment(&folder.store, segment.id);
    Records {
        found: scan(&bytes, salt).records,
        are_all: unreadable.is_empty(),
    }
}

/// The records of a sealed segment, as far as it can be read.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) found: Vec<Listed>,
    /// Whether these are all records.
    pub(crate) are_all: bool,
}

impl Records {
    pub(crate) fn all(found: Vec<Listed>) -> Self {
        let are_all = true;
        Self { found, are_all }
    }
}

/// The blocks of a segment that cannot be read just now, by number, in order.
#[derive(Debug, Default)]
struct Unreadable(Vec<u64>);

impl Unreadable {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many records may begin within a part of the segment and not be found for that.
    fn records_max(&self, part: Range<u64>) -> u64 {
        let block_bytes = BLOCK_BYTES as u64;
        let meets = |number: &&u64| {
            part.start < (*number + 1) * block_bytes && *number * block_bytes < part.end
        };
        // A header reaches into a block from before it, or begins in it.
        let records_max = block_bytes / HEADER_BYTES as u64 + 2;
        self.0.iter().filter(meets).count() as u64 * records_max
    }
}

/// Fills `bytes` from the file; blocks that fail a second read too stay zero.
fn read_what_can_be(file: &dyn DiskFile, bytes: &mut [u8]) -> Unreadable {
    let mut unreadable = Unreadable::default();
    for (index, chunk) in bytes.chunks_mut(CHUNK_BYTES).enumerate() {
        let start = (index * CHUNK_BYTES) as u64;
        if file.read_at(chunk, start).is_ok() {
            continue;
        }
        for (index, block) in chunk.chunks_mut(BLOCK_BYTES).enumerate() {
            let at = start + (index * BLOCK_BYTES) as u64;
            if file.read_at(block, at).is_err() {
                block.fill(0);
                unreadable.0.push(at / BLOCK_BYTES as u64);
            }
        }
    }
    unreadable
}

/// The records found in the bytes of a segment.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Listed>,
    /// Behind the last record.
    pub(crate) end: u64,
    pub(crate) damaged: u64,
}

impl Scan {
    /// The records of a segment by its contents.
    fn of(records: Vec<Listed>) -> Self {
        let damaged = records.iter().filter(|(.., is_sound)| !is_sound).count() as u64;
        Self {
            records,
            end: 0,
            damaged,
        }
    }
}

/// Finds the records in the bytes of a segment. Without a valid header it goes on at the next
/// multiple of [`ALIGN`]; the lengths of a valid header are trusted.
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
                // Free space is zeros; any other bytes were written once.
                let is_damage = reject != Reject::NotOurs || rest[..4] != [0; 4];
                scan.damaged += u64::from(is_damage && !in_damage);
                in_damage |= is_damage;
                offset += ALIGN as usize;
            }
        }
    }
    scan
}
