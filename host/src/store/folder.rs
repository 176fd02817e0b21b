//! The data folder and its owner: `manifest` makes it ours, `lock` makes it this process's,
//! `segments/` holds the records, and `purge_marks` says what was purged.
//!
//! A folder of another program is left exactly as it was, and so is a folder that is damaged or of
//! a later release.

use super::disk::{DirLock, Disk, DiskFile};
use super::encryption::{self, EncryptionKeys};
use super::format::{
    BLOCK_BYTES, FORMAT_VERSION, Manifest, MarksFile, MarksName, PURGE_MARKS_BYTES_MAX, Part,
    RECENT_BYTES_MAX, Reject, SECRETS_BYTES_MAX, Sealing, Slot, StoreId, secrets_head, slots_of,
};
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{error, fmt, io};

const MANIFEST: &str = "manifest";
/// The daemon's, which outlive a store that an operator removes.
const ADMIN_TOKEN: &str = "admin-token";
const HANDOVER: &str = "handover";
const FLEET: &str = "fleet";
const MANIFEST_UNFINISHED: &str = "manifest.tmp";
const PURGE_MARKS: &str = "purge_marks";
const PURGE_MARKS_UNFINISHED: &str = "purge_marks.tmp";
const RECENT_MARKS: &str = "purge_marks.recent";
const RECENT_MARKS_UNFINISHED: &str = "purge_marks.recent.tmp";
const SECRETS: &str = "tenant_secrets";
const SECRETS_UNFINISHED: &str = "tenant_secrets.tmp";
/// The names that earlier releases gave these files.
const EPOCHS: &str = "epochs";
const RECENT_EPOCHS: &str = "epochs.recent";
const LOCK: &str = "lock";
const SEGMENTS: &str = "segments";
/// A fresh ext4 file system has this in its topmost folder.
const LOST_AND_FOUND: &str = "lost+found";

const SEGMENT_SUFFIX: &str = ".seg";
const CONTENTS_SUFFIX: &str = ".idx";
const UNFINISHED_SUFFIX: &str = ".tmp";

/// Why a data folder could not be opened. Each displays as one line that names the folder or file.
/// Nothing in the folder was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process uses the folder. It has to end first.
    Locked(PathBuf),
    /// The folder holds files of another program. Name another folder.
    Foreign(PathBuf, &'static str),
    /// The file is ours, but damaged. Removing the folder gives an empty cache.
    Damaged(PathBuf, &'static str),
    /// The file was written by an earlier release, in this version of the format. Removing the
    /// folder gives an empty cache.
    Older(PathBuf, u32),
    /// The file was written by a later release, in this version of the format.
    Newer(PathBuf, u32),
    /// The folder is encrypted and a key is missing, or it is not encrypted and keys are given.
    Key(PathBuf, String),
    /// The sizes asked for contradict each other.
    Sizes(String),
    /// The quota has no room for an entry of the size that is allowed.
    Quota(String),
    /// The operating system refused something.
    Io {
        /// The step that failed, as in "cannot read".
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether the disk cannot be used: it fails, is full, read-only or too small. The other errors
    /// an operator has to fix.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        const EIO: i32 = 5;
        match self {
            Self::Quota(_) => true,
            Self::Io { source, .. } => {
                let no_room = matches!(
                    source.kind(),
                    io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                );
                no_room || source.raw_os_error() == Some(EIO)
            }
            _ => false,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "data folder {} is in use by another process",
                path.display()
            ),
            Self::Foreign(path, why) => write!(
                f,
                "{} is not a data folder of reflex-edge ({why}); left as it is",
                path.display()
            ),
            Self::Damaged(path, why) => {
                write!(f, "{} is damaged ({why}); left as it is", path.display())
            }
            Self::Older(path, version) => write!(
                f,
                "{} was written by an earlier release (format {version}, this one reads \
                 {FORMAT_VERSION}); left as it is. Keep it for that release, or remove the data folder \
                 for an empty cache: rm -r {}",
                path.display(),
                data_folder_of(path).display()
            ),
            Self::Newer(path, version) => write!(
                f,
                "{} was written by a later release (format {version}, this one reads up to \
                 {FORMAT_VERSION}); left as it is",
                path.display()
            ),
            Self::Key(path, why) => {
                write!(f, "data folder {} {why}; left as it is", path.display())
            }
            Self::Sizes(why) | Self::Quota(why) => f.write_str(why),
            Self::Io {
                doing,
                path,
                source,
            } => write!(f, "cannot {doing} {}: {source}", path.display()),
        }
    }
}

/// The data folder that a file of ours lies in.
fn data_folder_of(path: &Path) -> &Path {
    let folder = path.parent().unwrap_or(path);
    match folder.file_name().is_some_and(|name| name == SEGMENTS) {
        true => folder.parent().unwrap_or(folder),
        false => folder,
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A data folder that is ours, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    pub(crate) store: StoreId,
    /// The file of purge marks that the manifest on disk promises.
    purge_marks: MarksName,
    /// As the manifest on disk says.
    sealing: Sealing,
    /// `None` when a folder that was never opened is only inspected, and after a
    /// [`release`](Self::release).
    lock: Option<DirLock>,
}

/// The owner of a folder, by its files.
enum Owner {
    Unclaimed,
    Us(Manifest),
}

impl Folder {
    /// Makes the folder if it is missing; `new_id` is the id of a new store.
    pub(crate) fn claim(
        disk: &dyn Disk,
        root: &Path,
        new_id: impl FnOnce() -> StoreId,
        keys: Option<&EncryptionKeys>,
    ) -> Result<Self, OpenError> {
        disk.create_dir(root)
            .map_err(OpenError::io("make data folder", root))?;
        let segments = root.join(SEGMENTS);
        let owner = || -> Result<Owner, OpenError> {
            let owner = owner(disk, root)?;
            if let Owner::Us(manifest) = &owner {
                encryption::check(disk, (root, &segments), manifest.sealing, keys)?;
            }
            Ok(owner)
        };
        // Looked at before the lock, because taking the lock makes a file.
        owner()?;
        let lock = take_lock(disk, root)?;
        // And again after it: another process may have changed it in between.
        let manifest = match owner()? {
            Owner::Us(manifest) => manifest,
            Owner::Unclaimed => {
                let manifest = Manifest {
                    store: new_id(),
                    purge_marks: MarksName::None,
                    sealing: Sealing::None,
                };
                disk.create_dir(&segments)
                    .and_then(|()| write_manifest(disk, root, &manifest))
                    .map_err(OpenError::io("write manifest in", root))?;
                // The folder's own name, if possible: we may not be allowed to read the parent.
                if let Some(parent) = root.parent() {
                    let _ = disk.sync_dir(parent);
                }
                manifest
            }
        };
        let mut folder = Self {
            root: root.to_owned(),
            store: manifest.store,
            purge_marks: manifest.purge_marks,
            sealing: manifest.sealing,
            lock: Some(lock),
        };
        folder.remove_epochs(disk);
        if keys.is_some() && folder.sealing == Sealing::None {
            let begun = folder.begin_sealing(disk);
            begun.map_err(OpenError::io("begin to encrypt", root))?;
        }
        Ok(folder)
    }

    /// The file of secrets first: the manifest promises it.
    fn begin_sealing(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let is_empty = disk.list(&self.segments())?.is_empty();
        self.make_secrets(disk)?;
        self.set_sealing(
            disk,
            match is_empty {
                true => Sealing::All,
                false => Sealing::Underway,
            },
        )
    }

    pub(crate) fn sealing(&self) -> Sealing {
        self.sealing
    }

    /// Makes the manifest say this of the records.
    pub(crate) fn set_sealing(&mut self, disk: &dyn Disk, sealing: Sealing) -> io::Result<()> {
        if self.sealing != sealing {
            let manifest = Manifest {
                store: self.store,
                purge_marks: self.purge_marks,
                sealing,
            };
            write_manifest(disk, &self.root, &manifest)?;
            self.sealing = sealing;
        }
        Ok(())
    }

    /// The secrets of tenants. `None` if they are lost.
    pub(crate) fn read_secrets(&self, disk: &dyn Disk) -> Result<Option<Vec<Slot>>, OpenError> {
        let path = self.root.join(SECRETS);
        let bytes = match disk.read(&path, SECRETS_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), "the secrets of tenants are lost");
                return Ok(None);
            }
            // It may be readable again: without them, everything is lost.
            Err(error) => return Err(OpenError::io("read", &path)(error)),
        };
        match slots_of(&bytes, &self.store) {
            Ok(slots) => Ok(Some(slots)),
            Err(Reject::Newer(version)) => Err(OpenError::Newer(path, version)),
            Err(reject) => {
                tracing::warn!(path = %path.display(), ?reject, "the secrets of tenants are lost");
                Ok(None)
            }
        }
    }

    /// The file of the secrets, which is there.
    pub(crate) fn open_secrets(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = self.root.join(SECRETS);
        disk.open(&path).map_err(OpenError::io("open", &path))
    }

    /// Makes the file of the secrets anew, without any.
    pub(crate) fn reset_secrets(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let made = self.make_secrets(disk);
        made.map_err(OpenError::io("write secrets of tenants in", &self.root))
    }

    fn make_secrets(&self, disk: &dyn Disk) -> io::Result<()> {
        let names = (SECRETS_UNFINISHED, SECRETS);
        replace(disk, &self.root, names, &secrets_head(&self.store))
    }

    /// A folder that is ours already, to be looked at. Nothing is made in it.
    pub(crate) fn inspect(disk: &dyn Disk, root: &Path) -> Result<Self, OpenError> {
        let names = disk.list(root).map_err(OpenError::io("read", root))?;
        let lock = match names.iter().any(|name| name == LOCK) {
            true => Some(take_lock(disk, root)?),
            false => None,
        };
        match owner(disk, root)? {
            Owner::Us(manifest) => Ok(Self {
                root: root.to_owned(),
                store: manifest.store,
                purge_marks: manifest.purge_marks,
                sealing: manifest.sealing,
                lock,
            }),
            Owner::Unclaimed => {
                let why = "it has no manifest";
                Err(OpenError::Foreign(root.to_owned(), why))
            }
        }
    }

    /// The purge marks. `None` if they were written and are lost.
    pub(crate) fn read_purge_marks(&self, disk: &dyn Disk) -> Result<Option<MarksFile>, OpenError> {
        let Some(mut marks) = self.read_marks(disk, Part::All)? else {
            return Ok(None);
        };
        if marks.has_recent {
            let Some(recent) = self.read_marks(disk, Part::Recent)? else {
                return Ok(None);
            };
            marks.add(&recent);
        }
        Ok(Some(marks))
    }

    fn read_marks(&self, disk: &dyn Disk, part: Part) -> Result<Option<MarksFile>, OpenError> {
        let (name, bytes_max) = match (part, self.has_epochs()) {
            (Part::All, false) => (PURGE_MARKS, PURGE_MARKS_BYTES_MAX),
            (Part::All, true) => (EPOCHS, PURGE_MARKS_BYTES_MAX),
            (Part::Recent, false) => (RECENT_MARKS, RECENT_BYTES_MAX),
            (Part::Recent, true) => (RECENT_EPOCHS, RECENT_BYTES_MAX),
        };
        let is_promised = self.purge_marks != MarksName::None;
        let path = self.root.join(name);
        let bytes = match disk.read(&path, bytes_max as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_promised => {
                return Ok(Some(MarksFile::default()));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the purge marks");
                return Ok(None);
            }
        };
        match MarksFile::decode(&bytes, part, &self.store) {
            Ok(file) => Ok(Some(file)),
            Err(Reject::Newer(version)) => Err(OpenError::Newer(path, version)),
            Err(reject) => {
                tracing::warn!(path = %path.display(), ?reject, "cannot decode the purge marks");
                Ok(None)
            }
        }
    }

    /// Makes the purge marks durable. Writes each file before the one that promises it: in the other
    /// order, a crash between the two would look like a loss. `had_recent`: the file on disk promises
    /// one of recent marks, all of which are among `marks` now.
    pub(crate) fn write_purge_marks(
        &mut self,
        disk: &dyn Disk,
        marks: &MarksFile,
        had_recent: bool,
    ) -> io::Result<()> {
        let none = MarksFile::default();
        if marks.has_recent && !had_recent {
            self.write_recent_marks(disk, &none)?;
        }
        let bytes = marks.encode(Part::All, &self.store);
        let names = (PURGE_MARKS_UNFINISHED, PURGE_MARKS);
        replace(disk, &self.root, names, &bytes)?;
        if had_recent {
            self.write_recent_marks(disk, &none)?;
        }
        if self.purge_marks != MarksName::PurgeMarks {
            let manifest = Manifest {
                store: self.store,
                purge_marks: MarksName::PurgeMarks,
                sealing: self.sealing,
            };
            write_manifest(disk, &self.root, &manifest)?;
            self.purge_marks = MarksName::PurgeMarks;
            self.remove_epochs(disk);
        }
        Ok(())
    }

    /// Whether an earlier release wrote the purge marks, under their former name. Then they are to be
    /// written again: only that gives them the new name.
    pub(crate) fn has_epochs(&self) -> bool {
        self.purge_marks == MarksName::Epochs
    }

    /// Removes the files with the former names once they count for nothing. They may stay: no release
    /// that reads the manifest reads them, and the next start tries again.
    fn remove_epochs(&self, disk: &dyn Disk) {
        if !self.has_epochs() {
            for name in [EPOCHS, RECENT_EPOCHS] {
                let _ = disk.unlink(&self.root.join(name));
            }
        }
    }

    /// Makes the marks of a few tenants durable, once the file of all promises this one.
    pub(crate) fn write_recent_marks(&self, disk: &dyn Disk, recent: &MarksFile) -> io::Result<()> {
        let bytes = recent.encode(Part::Recent, &self.store);
        let names = (RECENT_MARKS_UNFINISHED, RECENT_MARKS);
        replace(disk, &self.root, names, &bytes)
    }

    /// Another process may have the folder from now on; this one must not change it any more.
    pub(crate) fn release(&mut self) {
        self.lock = None;
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join(SEGMENTS)
    }

    pub(crate) fn segment(&self, id: u64) -> PathBuf {
        self.segments().join(format!("{id:016x}{SEGMENT_SUFFIX}"))
    }

    /// Removes a segment and its contents, durably: removing the next segment is safe only if this
    /// one does not come back with older records. A missing segment is no error.
    pub(crate) fn remove_segment(&self, disk: &dyn Disk, id: u64) -> io::Result<()> {
        for path in [self.segment(id), self.contents(id)] {
            match disk.unlink(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        disk.sync_dir(&self.segments())
    }

    /// The file of the segment's contents, which spares reading the segment.
    pub(crate) fn contents(&self, id: u64) -> PathBuf {
        self.segments().join(format!("{id:016x}{CONTENTS_SUFFIX}"))
    }

    /// Where contents are written before they get their name.
    pub(crate) fn unfinished_contents(&self, id: u64) -> PathBuf {
        self.segments()
            .join(format!("{id:016x}{CONTENTS_SUFFIX}{UNFINISHED_SUFFIX}"))
    }

    /// Where a segment is made before it gets its name.
    pub(crate) fn unfinished_segment(&self, id: u64) -> PathBuf {
        self.segments()
            .join(format!("{id:016x}{SEGMENT_SUFFIX}{UNFINISHED_SUFFIX}"))
    }
}

/// The meaning of a name in the folder of segments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SegmentName {
    Segment(u64),
    Contents(u64),
    /// Left by a crash before it was in use.
    Unfinished,
    /// A file of another program; it stays.
    Foreign,
}

impl SegmentName {
    pub(crate) fn parse(name: &str) -> Self {
        let (name, finished) = match name.strip_suffix(UNFINISHED_SUFFIX) {
            Some(name) => (name, false),
            None => (name, true),
        };
        let (digits, named): (_, fn(u64) -> Self) = match name.strip_suffix(SEGMENT_SUFFIX) {
            Some(digits) => (digits, Self::Segment),
            None => match name.strip_suffix(CONTENTS_SUFFIX) {
                Some(digits) => (digits, Self::Contents),
                None => return Self::Foreign,
            },
        };
        let is_digit = |b| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        match u64::from_str_radix(digits, 16) {
            // The last id is never reached, so each id has a next one.
            Ok(id) if digits.len() == 16 && digits.bytes().all(is_digit) && id < u64::MAX => {
                match finished {
                    true => named(id),
                    false => Self::Unfinished,
                }
            }
            _ => Self::Foreign,
        }
    }
}

/// Whether a process has the folder. Takes its lock for a moment.
pub(crate) fn is_in_use(disk: &dyn Disk, root: &Path) -> bool {
    // Taking the lock would make the file.
    let has_lock = disk
        .list(root)
        .is_ok_and(|names| names.iter().any(|name| name == LOCK));
    has_lock && matches!(take_lock(disk, root), Err(OpenError::Locked(_)))
}

fn take_lock(disk: &dyn Disk, root: &Path) -> Result<DirLock, OpenError> {
    let lock = root.join(LOCK);
    disk.lock(&lock).map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked(root.to_owned()),
        TryLockError::Error(source) => OpenError::io("lock", &lock)(source),
    })
}

fn owner(disk: &dyn Disk, root: &Path) -> Result<Owner, OpenError> {
    let path = root.join(MANIFEST);
    let bytes = match disk.read(&path, BLOCK_BYTES as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return unclaimed(disk, root).map(|()| Owner::Unclaimed);
        }
        Err(error) => return Err(OpenError::io("read", &path)(error)),
    };
    match Manifest::decode(&bytes) {
        Ok(manifest) => Ok(Owner::Us(manifest)),
        Err(Reject::NotOurs) => Err(OpenError::Foreign(
            root.to_owned(),
            "its manifest is another program's",
        )),
        Err(Reject::Newer(version)) => Err(OpenError::Newer(path, version)),
        Err(Reject::Older(version)) => Err(OpenError::Older(path, version)),
        Err(Reject::Torn) => Err(OpenError::Damaged(path, "cut short")),
        Err(Reject::Corrupt) => Err(OpenError::Damaged(path, "its checksum differs")),
    }
}

/// A folder without a manifest is free for us if it holds only what we make before the manifest, or
/// nothing.
fn unclaimed(disk: &dyn Disk, root: &Path) -> Result<(), OpenError> {
    let list = |dir: &Path| disk.list(dir).map_err(OpenError::io("read", dir));
    for name in list(root)? {
        let is_ours = match name.to_str() {
            Some(LOCK | MANIFEST_UNFINISHED | LOST_AND_FOUND) => true,
            Some(ADMIN_TOKEN | HANDOVER | FLEET) => true,
            Some(SEGMENTS) => list(&root.join(SEGMENTS))?.is_empty(),
            _ => false,
        };
        if !is_ours {
            let why = "it has files in it but no manifest";
            return Err(OpenError::Foreign(root.to_owned(), why));
        }
    }
    Ok(())
}

fn write_manifest(disk: &dyn Disk, root: &Path, manifest: &Manifest) -> io::Result<()> {
    let names = (MANIFEST_UNFINISHED, MANIFEST);
    replace(disk, root, names, &manifest.encode())
}

/// Writes a file under its first name and renames it to the second when it is whole, durably.
fn replace(
    disk: &dyn Disk,
    dir: &Path,
    (unfinished, name): (&str, &str),
    bytes: &[u8],
) -> io::Result<()> {
    let unfinished = dir.join(unfinished);
    let file = disk.create(&unfinished)?;
    file.write_at([bytes, b"", b"", b""], 0)?;
    file.sync_data()?;
    disk.rename(&unfinished, &dir.join(name))?;
    disk.sync_dir(dir)
}
