//! Bytes that are not durable yet: a file that was written to, and the contents of a sealed
//! segment.
//!
//! Everything here waits for the medium, and so needs no lock on the store.

use super::disk::{Disk, DiskFile};
use super::folder::Folder;
use super::format::Contents;
use super::segment::Segment;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A segment file with records that may not be durable.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(super) id: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// When the segment is sealed.
    pub(super) contents: Option<ContentsFile>,
}

impl Unsynced {
    /// Makes the records durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the contents of a sealed segment beside it, once its records are durable; whether it
    /// had any. A failure only costs time at the next start.
    pub(crate) fn write_contents(&self) -> bool {
        self.contents.as_ref().is_some_and(ContentsFile::write)
    }
}

/// A file of contents that is to be written.
#[derive(Debug)]
pub(super) struct ContentsFile {
    disk: Arc<dyn Disk>,
    /// Its name until it is whole.
    unfinished: PathBuf,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Keys of the tombstones in there.
    tombstones: Vec<[u8; 32]>,
}

impl ContentsFile {
    /// The segment takes note of the space.
    pub(super) fn of(
        disk: &Arc<dyn Disk>,
        folder: &Folder,
        segment: &Segment,
        mut contents: Contents,
    ) -> Self {
        let tombstones = contents.take_tombstones();
        let bytes = contents.encode(&folder.store, segment.id, segment.bytes);
        segment.set_contents_bytes(bytes.len() as u64);
        Self {
            disk: Arc::clone(disk),
            unfinished: folder.unfinished_contents(segment.id),
            path: folder.contents(segment.id),
            bytes,
            tombstones,
        }
    }

    pub(super) fn tombstones(&self) -> &[[u8; 32]] {
        &self.tombstones
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it worked.
    pub(super) fn write(&self) -> bool {
        let written = self.try_write();
        if let Err(error) = &written {
            tracing::warn!(path = %self.path.display(), %error, "cannot write contents");
            let _ = self.disk.unlink(&self.unfinished);
        }
        written.is_ok()
    }

    fn try_write(&self) -> io::Result<()> {
        let file = self.disk.create(&self.unfinished)?;
        file.write_at([&self.bytes, b"", b"", b""], 0)?;
        file.sync_data()?;
        self.disk.rename(&self.unfinished, &self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new(""));
        self.disk.sync_dir(dir)
    }
}
