//! A disk for tests: the real one, with faults switched on and off.

use super::disk::{Cached, DirLock, Disk, DiskFile, RealDisk, WRITE_PARTS};
use super::mmap::Mapping;
use std::ffi::OsString;
use std::fs::TryLockError;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

/// Held exclusively while a test starts another process. Between its fork and its exec that
/// process has a copy of every lock of this one, also of locks released meanwhile. So no test may
/// take a lock then.
pub(crate) static SPAWNING: RwLock<()> = RwLock::new(());

/// A gate: while it is closed, threads wait at it.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Waits until a thread waits at the gate.
    pub(crate) fn wait_for_one(&self) {
        let state = self.state.lock().unwrap();
        let no_waiter = |state: &mut (bool, usize)| state.1 == 0;
        drop(self.changed.wait_while(state, no_waiter).unwrap());
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.0).unwrap();
        state.1 -= 1;
    }
}

/// The faults in force, and the operations tried.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Making folders and files fails, and so does taking the lock.
    pub(crate) is_read_only: AtomicBool,
    /// Nothing stays in the page cache.
    pub(crate) is_evicting: AtomicBool,
    /// No new file finds space.
    pub(crate) is_full: AtomicBool,
    /// A write leaves half of its bytes and fails.
    pub(crate) tears_writes: AtomicBool,
    /// So many writes succeed before that begins.
    pub(crate) writes_until_torn: AtomicU64,
    /// Nothing is made durable.
    pub(crate) fails_syncs: AtomicBool,
    /// Syncs fail for files with more than a block written to them, so that segments can still be
    /// made.
    pub(crate) fails_data_syncs: AtomicBool,
    /// No file can be removed.
    pub(crate) keeps_files: AtomicBool,
    /// Reading fails wherever this block is concerned; 0 is none.
    pub(crate) bad_block: AtomicU64,
    /// Reads hang.
    pub(crate) reads: Gate,
    /// Writes hang.
    pub(crate) writes: Gate,
    /// Syncs hang.
    pub(crate) waits: Gate,
    /// Files synced.
    pub(crate) syncs: AtomicU64,
    /// Gets a message for each file synced, for tests that wait for one.
    pub(crate) synced: Mutex<Option<Sender<()>>>,
    /// Writes and preallocations tried.
    pub(crate) tries: AtomicU64,
}

impl Faults {
    fn check(&self, fault: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
        if fault.load(Relaxed) {
            Err(kind.into())
        } else {
            Ok(())
        }
    }
}

/// The real disk with [`Faults`].
#[derive(Debug, Default)]
pub(crate) struct FaultDisk {
    pub(crate) faults: Arc<Faults>,
}

impl FaultDisk {
    fn check_writable(&self) -> io::Result<()> {
        let faults = &self.faults;
        faults.check(&faults.is_read_only, io::ErrorKind::ReadOnlyFilesystem)
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let faults = Arc::clone(&self.faults);
        let bytes_written = AtomicU64::new(0);
        Arc::new(FaultFile {
            file,
            faults,
            bytes_written,
        })
    }
}

impl Disk for FaultDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.check_writable()?;
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        RealDisk.read(path, bytes_max)
    }

    fn lock(&self, path: &Path) -> Result<DirLock, TryLockError> {
        let _nobody_spawns = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
        self.check_writable().map_err(TryLockError::Error)?;
        RealDisk.lock(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check_writable()?;
        Ok(self.file(RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let faults = &self.faults;
        faults.check(&faults.keeps_files, io::ErrorKind::ReadOnlyFilesystem)?;
        RealDisk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
    bytes_written: AtomicU64,
}

impl DiskFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn space(&self) -> io::Result<u64> {
        self.file.space()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn preallocate(&self, part: Range<u64>) -> io::Result<()> {
        let faults = &self.faults;
        faults.tries.fetch_add(1, Relaxed);
        faults.check(&faults.is_full, io::ErrorKind::StorageFull)?;
        self.file.preallocate(part)
    }

    fn write_at(&self, parts: [&[u8]; WRITE_PARTS], offset: u64) -> io::Result<()> {
        let faults = &self.faults;
        faults.writes.pass();
        faults.tries.fetch_add(1, Relaxed);
        let spare = |left: u64| left.checked_sub(1);
        let is_spared = || {
            let left = &faults.writes_until_torn;
            left.fetch_update(Relaxed, Relaxed, spare).is_ok()
        };
        if faults.tears_writes.load(Relaxed) && !is_spared() {
            let whole = parts.concat();
            let half = &whole[..whole.len() / 2];
            self.file.write_at([half, b"", b"", b""], offset)?;
            return Err(io::Error::other("torn on purpose"));
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes_written.fetch_add(bytes as u64, Relaxed);
        self.file.write_at(parts, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.reads.pass();
        let bad = self.faults.bad_block.load(Relaxed) * 4096;
        if bad > 0 && offset < bad + 4096 && bad < offset + bytes.len() as u64 {
            return Err(io::Error::other("bad block on purpose"));
        }
        self.file.read_at(bytes, offset)
    }

    fn is_cached(&self, _: Range<u64>) -> Cached {
        match self.faults.is_evicting.load(Relaxed) {
            true => Cached::No,
            false => Cached::Unknown,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let faults = &self.faults;
        faults.waits.pass();
        faults.check(&faults.fails_syncs, io::ErrorKind::Other)?;
        if self.bytes_written.load(Relaxed) > 4096 {
            faults.check(&faults.fails_data_syncs, io::ErrorKind::Other)?;
        }
        self.file.sync_data()?;
        faults.syncs.fetch_add(1, Relaxed);
        let synced = faults.synced.lock().unwrap();
        if let Some(synced) = &*synced {
            let _ = synced.send(());
        }
        Ok(())
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        self.file.map(bytes)
    }
}
