//! The few file operations that the store uses, behind a trait, so that tests can use a disk that
//! fails, fills up or loses power. `RealDisk` is the operating system's.
//!
//! Nothing here interprets the bytes.

use super::mmap::Mapping;
use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Only the owner may read cached answers.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Bytes that one call checks for being in memory.
const PROBE_BYTES: usize = 64 << 10;

thread_local! {
    static PROBE: RefCell<Vec<u8>> = RefCell::new(vec![0; PROBE_BYTES]);
}

/// How many slices one write takes: header, metadata, payload and padding.
pub(crate) const WRITE_PARTS: usize = 4;

/// A file system, as far as the store needs one.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and its parents; existing ones are no error.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// At most `bytes_max` bytes from the beginning of a file.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// Takes the exclusive lock that this file stands for, and makes the file when absent.
    fn lock(&self, path: &Path) -> Result<DirLock, TryLockError>;
    /// Makes a new, empty file; an older file of the name is gone.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. All methods take `&self`: the store has only one writer.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Bytes that it takes on disk: its length without its holes.
    fn space(&self) -> io::Result<u64>;
    /// Sets the length of the file; the new part is a hole.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Allocates space for a part of the file. Its bytes stay.
    fn preallocate(&self, part: Range<u64>) -> io::Result<()>;
    /// Writes all parts one behind the other, in one system call where the system allows.
    fn write_at(&self, parts: [&[u8]; WRITE_PARTS], offset: u64) -> io::Result<()>;
    /// Fills `bytes` or fails.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Whether a part of the file is in memory, so that reading it does not wait for the medium.
    fn is_cached(&self, _part: Range<u64>) -> Cached {
        Cached::Unknown
    }
    /// Makes the contents durable. After a failure, the written bytes may be lost even if a second
    /// call succeeds.
    fn sync_data(&self) -> io::Result<()>;
    /// Maps the first `bytes` read-only; fails when the file is shorter.
    fn map(&self, bytes: u64) -> io::Result<Mapping>;
}

/// Whether bytes of a file are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    Yes,
    No,
    /// The system does not tell.
    Unknown,
}

/// The exclusive right to a data folder, given back when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    pub(super) file: File,
}

impl Drop for DirLock {
    /// Closing would not do: a child that another thread has just forked has the file open as
    /// well, until it runs its own program, and would keep the lock.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock of a data folder is given back late");
        }
    }
}

/// The operating system's files.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn lock(&self, path: &Path) -> Result<DirLock, TryLockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .mode(FILE_MODE)
            .truncate(false)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(DirLock { file })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .mode(FILE_MODE)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn space(&self) -> io::Result<u64> {
        // A block of this call is 512 bytes, whatever those of the file system are.
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn preallocate(&self, part: Range<u64>) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if part.is_empty() {
            return Ok(());
        }
        let bytes = part.end - part.start;
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), part.start, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Writing allocates space as well, or fails without harm.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn write_at(&self, parts: [&[u8]; WRITE_PARTS], mut offset: u64) -> io::Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(&self.0, left, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    offset += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    /// Reads it all, unless that would wait: 0.3 µs for a few kilobytes, without `unsafe`.
    fn is_cached(&self, part: Range<u64>) -> Cached {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        PROBE.with_borrow_mut(|probe| {
            let mut at = part.start;
            while at < part.end {
                let wanted = (part.end - at).min(PROBE_BYTES as u64) as usize;
                let mut into = [IoSliceMut::new(&mut probe[..wanted])];
                match preadv2(&self.0, &mut into, at, ReadWriteFlags::NOWAIT) {
                    Ok(0) => return Cached::No,
                    Ok(read) => at += read as u64,
                    Err(Errno::INTR) => {}
                    Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Cached::Unknown,
                    // To be read in full, which tells of an error.
                    Err(_) => return Cached::No,
                }
            }
            Cached::Yes
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        if self.size()? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Mapping::of(&self.0, bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_part_gets_its_space_and_keeps_what_it_holds() {
        const BYTES: u64 = 3 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = RealDisk.create(&path).unwrap();
        file.set_len(BYTES).unwrap();
        let allocated = || fs::metadata(&path).unwrap().blocks() * 512;
        assert!(allocated() < 1 << 20);
        file.write_at([b"a", b"b", b"", b""], 0).unwrap();
        file.preallocate(0..1 << 20).unwrap();
        file.preallocate(1 << 20..2 << 20).unwrap();
        file.preallocate(5..5).unwrap();
        assert!((2 << 20..BYTES).contains(&allocated()));
        assert_eq!(file.size().unwrap(), BYTES);
        let mut read = [0; 3];
        file.read_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"ab\0");
    }

    #[test]
    fn what_was_just_written_is_in_memory_and_what_is_not_there_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.write_at([&vec![1; 200_000], b"", b"", b""], 0)
            .unwrap();
        let found = [0..5, 5..200_000, 199_999..200_000].map(|part| file.is_cached(part));
        assert!(found.iter().all(|it| *it == found[0] && *it != Cached::No));
        assert_ne!(file.is_cached(199_999..200_001), Cached::Yes);
    }

    #[test]
    fn parts_are_written_one_behind_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        for parts in [
            [&b"ab"[..], b"", b"cde", b"f"],
            [b"", b"abc", b"def", b""],
            [b"", b"", b"", b"abcdef"],
        ] {
            file.write_at(parts, 3).unwrap();
            let mut read = [0; 6];
            file.read_at(&mut read, 3).unwrap();
            assert_eq!(&read, b"abcdef");
        }
        file.write_at([b""; WRITE_PARTS], 0).unwrap();
        assert_eq!(file.size().unwrap(), 9);
        assert!(file.map(10).is_err());
        assert_eq!(&file.map(9).unwrap().as_ref()[3..], b"abcdef");
    }
}
