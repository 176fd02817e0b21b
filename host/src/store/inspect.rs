//! Inspects a data folder that no process uses, verifies every byte in it, and changes nothing.

use super::disk::Disk;
use super::encryption::{self, EncryptionKeys, Secrets, Unopened, Vault};
use super::folder::{Folder, OpenError, SegmentName};
use super::format::{
    Contents, Header, Kind, Listed, MarksFile, Reject, SEGMENT_BYTES_LIMIT, Salt, Sealing,
    Superblock, contents_bytes_max,
};
use super::recover::scan;
use std::collections::HashMap;
use std::path::Path;

/// The contents of a data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreReport {
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// Entries that would be found, expired ones included.
    pub entries: u64,
    /// Their payloads together.
    pub payload_bytes: u64,
    /// The bytes of their records on disk.
    pub live_bytes: u64,
    /// The space of the files in the folder of segments.
    pub disk_bytes: u64,
    /// How many tenants have a purge mark of their own that still covers records.
    pub tenants_purged: u64,
    /// Damage found, one line each. Damaged records are never served.
    pub findings: Vec<String>,
}

/// The contents of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// As in the file's name.
    pub id: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The part of it with records.
    pub used_bytes: u64,
    /// Records, tombstones included.
    pub records: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// The id of the key that its records are encrypted with.
    pub key: Option<String>,
    /// Whether it has contents beside it that are to be believed.
    pub has_contents: bool,
}

/// The newest record of a key.
struct Newest {
    sequence: u64,
    /// `None`: the key is not to be found.
    payload_bytes: Option<u64>,
    record_bytes: u64,
}

/// A torn end after a crash is no damage: the record counts as never written.
const CRASHED: &str = "bytes that are no record, as a crash leaves them";

/// With keys, each record is opened as well.
pub(crate) fn inspect(
    disk: &dyn Disk,
    root: &Path,
    keys: Option<&EncryptionKeys>,
) -> Result<StoreReport, OpenError> {
    let folder = Folder::inspect(disk, root)?;
    let vault = match keys {
        Some(keys) => Some(vault(disk, &folder, keys)?),
        None => None,
    };
    let mut report = StoreReport::default();
    let purged = folder.read_purge_marks(disk)?.unwrap_or_else(|| {
        let lost = "purge_marks: lost or damaged; everything counts as purged";
        report.findings.push(lost.into());
        MarksFile {
            all: u64::MAX,
            ..MarksFile::default()
        }
    });
    report.tenants_purged = purged.tenants.len() as u64;

    let dir = folder.segments();
    let mut ids = Vec::new();
    let names = disk.list(&dir).map_err(OpenError::io("read", &dir))?;
    for name in names.iter().filter_map(|name| name.to_str()) {
        match SegmentName::parse(name) {
            SegmentName::Segment(id) => ids.push(id),
            SegmentName::Contents(_) => {}
            SegmentName::Unfinished => report.findings.push(format!("{name}: never finished")),
            SegmentName::Foreign => report.findings.push(format!("{name}: not ours")),
        }
    }
    ids.sort_unstable();
    let mut newest: HashMap<[u8; 32], Newest> = HashMap::new();
    for id in ids {
        let path = folder.segment(id);
        let bytes = disk
            .read(&path, SEGMENT_BYTES_LIMIT + 1)
            .map_err(OpenError::io("read", &path))?;
        let mut records = segment(disk, &folder, id, &bytes, &mut report)?;
        if let Some(vault) = &vault {
            let is_purged = |header: &Header| purged.covers(&header.tenant, header.sequence);
            open_all(
                vault,
                (&folder, id),
                &bytes,
                (&mut records[..], is_purged),
                &mut report,
            );
        }
        for (_, header, is_sound) in records {
            let is_found = is_sound
                && header.kind == Kind::Entry
                && !purged.covers(&header.tenant, header.sequence);
            let record = Newest {
                sequence: header.sequence,
                payload_bytes: is_found.then_some(header.payload_bytes.into()),
                record_bytes: header.shape().record_bytes(),
            };
            match newest.get_mut(&header.key) {
                Some(there) if there.sequence > record.sequence => {}
                Some(there) => *there = record,
                None => drop(newest.insert(header.key, record)),
            }
        }
    }
    for record in newest.values() {
        if let Some(payload_bytes) = record.payload_bytes {
            report.entries += 1;
            report.payload_bytes += payload_bytes;
            report.live_bytes += record.record_bytes;
        }
    }
    Ok(report)
}

/// Takes a segment into the report and returns its records.
fn segment(
    disk: &dyn Disk,
    folder: &Folder,
    id: u64,
    bytes: &[u8],
    report: &mut StoreReport,
) -> Result<Vec<Listed>, OpenError> {
    let path = folder.segment(id);
    let name = format!("{id:016x}.seg");
    let length = bytes.len() as u64;
    let is_expected = |it: &Superblock| {
        it.store == folder.store && it.segment == id && it.segment_bytes == length
    };
    let superblock = Superblock::decode(bytes);
    match superblock {
        Ok(superblock) if is_expected(&superblock) => {}
        Err(Reject::Newer(version)) => return Err(OpenError::Newer(path, version)),
        Err(Reject::Older(version)) => return Err(OpenError::Older(path, version)),
        _ => report.findings.push(format!("{name}: superblock damaged")),
    }
    let scan = scan(bytes, Salt::of_segment(&folder.store, id));
    let mut damaged = 0;
    for (offset, header, is_sound) in &scan.records {
        if !is_sound {
            let record_bytes = header.shape().record_bytes();
            let what = format!("{name}: record at {offset}, {record_bytes} bytes, damaged");
            report.findings.push(what);
            damaged += 1;
        }
    }
    if scan.damaged > damaged {
        report.findings.push(format!("{name}: {CRASHED}"));
    }

    let contents = disk.read(&folder.contents(id), contents_bytes_max(length));
    let contents_bytes = contents.as_ref().map_or(0, |bytes| bytes.len() as u64);
    let listed = contents
        .ok()
        .map(|bytes| Contents::decode(&bytes, &folder.store, id, length));
    let has_contents = match listed {
        Some(Ok(listed)) if tells_the_same(&listed, &scan.records) => true,
        Some(_) if contents_bytes == 0 => {
            report.findings.push(format!("{name}: a sync failed once"));
            false
        }
        Some(_) => {
            let what = format!("{id:016x}.idx: not what the segment holds");
            report.findings.push(what);
            false
        }
        None => false,
    };
    let tombstones = scan.records.iter();
    report.segments.push(SegmentReport {
        id,
        bytes: length,
        used_bytes: scan.end,
        records: scan.records.len() as u64,
        tombstones: tombstones
            .filter(|(_, header, _)| header.kind == Kind::Tombstone)
            .count() as u64,
        key: superblock
            .ok()
            .and_then(|it| it.key)
            .map(|key| key.to_string()),
        has_contents,
    });
    let space = disk.open(&path).and_then(|file| file.space());
    report.disk_bytes += space.unwrap_or(length) + contents_bytes;
    Ok(scan.records)
}

/// With the secrets that are there. What is not sealed yet counts, too.
fn vault(disk: &dyn Disk, folder: &Folder, keys: &EncryptionKeys) -> Result<Vault, OpenError> {
    let keys = keys.clone().converting();
    let dirs = (folder.root(), &*folder.segments());
    encryption::check(disk, dirs, folder.sealing(), Some(&keys))?;
    let reads_plain = folder.sealing() != Sealing::All;
    let vault = Vault::new(folder.store, &keys, reads_plain);
    if folder.sealing() != Sealing::None {
        Secrets::open(disk, folder, &vault)?;
    }
    Ok(vault)
}

/// Opens each record that counts. One that cannot be opened is as good as damaged.
fn open_all(
    vault: &Vault,
    (folder, id): (&Folder, u64),
    bytes: &[u8],
    (records, is_purged): (&mut [Listed], impl Fn(&Header) -> bool),
    report: &mut StoreReport,
) {
    let salt = Salt::of_segment(&folder.store, id);
    for (offset, header, is_sound) in records {
        if !*is_sound || header.kind != Kind::Entry || is_purged(header) {
            continue;
        }
        let record = bytes.get(*offset as usize..).unwrap_or_default();
        if let Err(why) = vault.open(&header.key, record, salt, (id, *offset)) {
            *is_sound = false;
            let why = match why {
                Unopened::Damaged => "cannot be opened",
                Unopened::Forgotten => "has lost the secret of its tenant",
            };
            let what = format!("{id:016x}.seg: record at {offset} {why}");
            report.findings.push(what);
        }
    }
}

/// Compares all but bodies: contents have no checksums of bodies, and may be older than damage.
fn tells_the_same(listed: &[Listed], found: &[Listed]) -> bool {
    let same = |(listed, found): (&Listed, &Listed)| {
        listed.0 == found.0 && listed.1.key == found.1.key && listed.1.sequence == found.1.sequence
    };
    listed.len() == found.len() && listed.iter().zip(found).all(same)
}
