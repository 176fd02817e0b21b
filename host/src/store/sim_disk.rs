//! A disk for tests that loses power: unsynced writes survive in any subset, whole, torn or not at
//! all, names as well as contents. It also fails writes half way, fails syncs and then forgets
//! their writes, fills up, and fails reads, once or until it is repaired. A seed decides all of it,
//! so that a run can be repeated.
//!
//! Files are anonymous ones in memory, so that they are mapped as real ones are.

use super::disk::{DirLock, Disk, DiskFile, WRITE_PARTS};
use super::mmap::Mapping;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The unit that a disk reads or fails to read.
const BLOCK: u64 = 4096;

/// SplitMix64: the same numbers for the same seed, everywhere.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How often each operation fails, in percent of tries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) writes_fail: u64,
    pub(crate) syncs_fail: u64,
    pub(crate) is_full: u64,
    /// The next try may succeed.
    pub(crate) reads_fail: u64,
}

/// The disk. It outlives the caches that are opened on it.
#[derive(Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    dirs: BTreeMap<PathBuf, Dir>,
    rates: Rates,
    /// The steps until the power goes; `None` if it stays.
    steps_left: Option<u64>,
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<OsString, Arc<Mutex<Inode>>>,
    durable: BTreeMap<OsString, Arc<Mutex<Inode>>>,
    unsynced: Vec<DirChange>,
}

#[derive(Debug)]
enum DirChange {
    Link(OsString, Arc<Mutex<Inode>>),
    Unlink(OsString),
    Rename(OsString, OsString, Arc<Mutex<Inode>>),
}

impl DirChange {
    fn apply(self, names: &mut BTreeMap<OsString, Arc<Mutex<Inode>>>) {
        match self {
            Self::Link(name, inode) => drop(names.insert(name, inode)),
            Self::Unlink(name) => drop(names.remove(&name)),
            Self::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}

/// A file: the bytes that readers see, the durable bytes, and the changes between the two.
#[derive(Debug)]
struct Inode {
    file: File,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Up to here it takes space.
    allocated: u64,
    /// These cannot be read until the disk is repaired.
    bad_blocks: BTreeSet<u64>,
}

#[derive(Debug)]
enum Change {
    Grow(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Grow(length) => bytes.resize(bytes.len().max(*length), 0),
            Self::Write(offset, new) => {
                bytes.resize(bytes.len().max(offset + new.len()), 0);
                bytes[*offset..offset + new.len()].copy_from_slice(new);
            }
        }
    }

    /// Applies what is left of the change when the power goes: all, nothing, or some sectors.
    fn survive(&self, random: &mut Random, bytes: &mut Vec<u8>) {
        match (random.below(4), self) {
            (0, _) => {}
            (1, Self::Write(offset, new)) => {
                for (index, sector) in new.chunks(SECTOR).enumerate() {
                    if random.percent(50) {
                        Self::Write(offset + index * SECTOR, sector.to_vec()).apply(bytes);
                    }
                }
            }
            _ => self.apply(bytes),
        }
    }
}

impl Inode {
    fn new(bytes: Vec<u8>) -> Arc<Mutex<Self>> {
        let file: File = memfd_create("sim", MemfdFlags::CLOEXEC).unwrap().into();
        file.write_all_at(&bytes, 0).unwrap();
        Arc::new(Mutex::new(Self {
            file,
            allocated: bytes.len() as u64,
            durable: bytes,
            unsynced: Vec::new(),
            bad_blocks: BTreeSet::new(),
        }))
    }

    /// Whether a part of the file can be read.
    fn check_readable(&self, part: Range<u64>) -> io::Result<()> {
        let mut blocks = part.start / BLOCK..part.end.div_ceil(BLOCK);
        match blocks.any(|number| self.bad_blocks.contains(&number)) {
            true => Err(io::Error::other("bad block on purpose")),
            false => Ok(()),
        }
    }

    fn after_power_loss(&self, random: &mut Random) -> Arc<Mutex<Self>> {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            change.survive(random, &mut bytes);
        }
        let inode = Self::new(bytes);
        {
            let mut inode = inode.lock().unwrap();
            inode.allocated = inode.allocated.min(self.allocated);
        }
        inode
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            dirs: BTreeMap::new(),
            rates: Rates::default(),
            steps_left: None,
        })))
    }

    /// The same disk.
    pub(crate) fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    pub(crate) fn set_rates(&self, rates: Rates) {
        self.state().rates = rates;
    }

    /// Lets the power go after `steps`. Everything fails from then on.
    pub(crate) fn lose_power_after(&self, steps: u64) {
        self.state().steps_left = Some(steps);
    }

    pub(crate) fn keep_power(&self) {
        self.state().steps_left = None;
    }

    pub(crate) fn lost_power(&self) -> bool {
        self.state().steps_left == Some(0)
    }

    /// Restores the power, with the bytes that survived. No file may be open.
    pub(crate) fn restore_power(&self) {
        let mut state = self.state();
        let State { random, dirs, .. } = &mut *state;
        for dir in dirs.values_mut() {
            let mut names = std::mem::take(&mut dir.durable);
            for change in std::mem::take(&mut dir.unsynced) {
                if random.percent(50) {
                    change.apply(&mut names);
                }
            }
            for inode in names.values_mut() {
                let survivor = inode.lock().unwrap().after_power_loss(random);
                *inode = survivor;
            }
            dir.durable = names.clone();
            dir.names = names;
        }
        state.rates = Rates::default();
        state.steps_left = None;
    }

    /// Makes a block of a file in this folder unreadable, if the folder has one.
    pub(crate) fn spoil(&self, dir: &Path) {
        let mut state = self.state();
        let State { random, dirs, .. } = &mut *state;
        let Some(dir) = dirs.get(dir).filter(|dir| !dir.names.is_empty()) else {
            return;
        };
        let at = random.below(dir.names.len() as u64) as usize;
        let inode = dir.names.values().nth(at).unwrap();
        let mut inode = inode.lock().unwrap();
        let blocks = inode.file.metadata().unwrap().len().div_ceil(BLOCK);
        inode.bad_blocks.insert(random.below(blocks.max(1)));
    }

    /// Everything can be read again.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        state.rates.reads_fail = 0;
        for dir in state.dirs.values() {
            for inode in dir.names.values().chain(dir.durable.values()) {
                inode.lock().unwrap().bad_blocks.clear();
            }
        }
    }

    /// The space of all files in a folder, without their holes.
    pub(crate) fn bytes_in(&self, dir: &Path) -> u64 {
        let state = self.state();
        let Some(dir) = state.dirs.get(dir) else {
            return 0;
        };
        let space = |inode: &Arc<Mutex<Inode>>| inode.lock().unwrap().allocated;
        dir.names.values().map(space).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// One step forward, if there still is power.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn check_read(&mut self) -> io::Result<()> {
        let percent = self.rates.reads_fail;
        match self.fails(percent) {
            true => Err(io::Error::other("read failed on purpose")),
            false => Ok(()),
        }
    }

    fn fails(&mut self, percent: u64) -> bool {
        percent > 0 && self.random.percent(percent)
    }

    fn dir(&mut self, path: &Path) -> io::Result<(&mut Dir, OsString)> {
        let name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.dirs.get_mut(parent).ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, name))
    }

    fn inode(&mut self, path: &Path) -> io::Result<Arc<Mutex<Inode>>> {
        let (dir, name) = self.dir(path)?;
        Ok(Arc::clone(
            dir.names.get(&name).ok_or(io::ErrorKind::NotFound)?,
        ))
    }
}

impl Disk for SimDisk {
    /// Durable at once: the operator made the folder long ago, so this is not under test.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state();
        state.step()?;
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let folders = state.dirs.keys().filter(inside);
        let mut names: Vec<_> = folders
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect();
        let dir = state.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        names.extend(dir.names.keys().cloned());
        Ok(names)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(path)?;
        state.check_read()?;
        let inode = inode.lock().unwrap();
        let length = inode.file.metadata()?.len().min(bytes_max);
        inode.check_readable(0..length)?;
        let mut bytes = vec![0; length as usize];
        inode.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn lock(&self, path: &Path) -> Result<DirLock, TryLockError> {
        let file = self.create(path).map_err(TryLockError::Error)?;
        drop(file);
        let file: File = memfd_create("lock", MemfdFlags::CLOEXEC)
            .map_err(|errno| TryLockError::Error(errno.into()))?
            .into();
        Ok(DirLock { file })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        let inode = Inode::new(Vec::new());
        let (dir, name) = state.dir(path)?;
        dir.names.insert(name.clone(), Arc::clone(&inode));
        dir.unsynced.push(DirChange::Link(name, Arc::clone(&inode)));
        let disk = Arc::clone(&self.0);
        Ok(Arc::new(SimFile { disk, inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(path)?;
        let disk = Arc::clone(&self.0);
        Ok(Arc::new(SimFile { disk, inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.inode(from)?;
        let (dir, from) = state.dir(from)?;
        let to = to.file_name().unwrap_or(OsStr::new("")).to_owned();
        dir.names.remove(&from);
        dir.names.insert(to.clone(), Arc::clone(&inode));
        dir.unsynced.push(DirChange::Rename(from, to, inode));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let (dir, name) = state.dir(path)?;
        dir.names.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        dir.unsynced.push(DirChange::Unlink(name));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let percent = state.rates.syncs_fail;
        if state.fails(percent) {
            return Err(io::Error::other("sync of folder failed on purpose"));
        }
        let dir = state.dirs.get_mut(dir).ok_or(io::ErrorKind::NotFound)?;
        dir.unsynced.clear();
        dir.durable = dir.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<State>>,
    inode: Arc<Mutex<Inode>>,
}

impl SimFile {
    /// In this order, everywhere.
    fn both(&self) -> (MutexGuard<'_, State>, MutexGuard<'_, Inode>) {
        let state = self.disk.lock().unwrap();
        (state, self.inode.lock().unwrap())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let (mut state, inode) = self.both();
        state.step()?;
        Ok(inode.file.metadata()?.len())
    }

    fn space(&self) -> io::Result<u64> {
        let (mut state, inode) = self.both();
        state.step()?;
        Ok(inode.allocated)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (mut state, mut inode) = self.both();
        state.step()?;
        inode.file.set_len(bytes)?;
        inode.unsynced.push(Change::Grow(bytes as usize));
        Ok(())
    }

    fn preallocate(&self, part: Range<u64>) -> io::Result<()> {
        let (mut state, mut inode) = self.both();
        state.step()?;
        let percent = state.rates.is_full;
        if state.fails(percent) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = inode.file.metadata()?.len().max(part.end);
        inode.file.set_len(length)?;
        inode.allocated = inode.allocated.max(part.end);
        inode.unsynced.push(Change::Grow(length as usize));
        Ok(())
    }

    fn write_at(&self, parts: [&[u8]; WRITE_PARTS], offset: u64) -> io::Result<()> {
        let (mut state, mut inode) = self.both();
        let has_power = state.step();
        let percent = state.rates.writes_fail;
        let mut bytes = parts.concat();
        let whole = bytes.len();
        if has_power.is_err() || state.fails(percent) {
            let part = state.random.below(whole as u64 + 1);
            bytes.truncate(part as usize);
        }
        if has_power.is_ok() || state.steps_left == Some(0) {
            inode.file.write_all_at(&bytes, offset)?;
            let end = offset + bytes.len() as u64;
            inode.allocated = inode.allocated.max(end);
        }
        let is_whole = bytes.len() == whole;
        inode.unsynced.push(Change::Write(offset as usize, bytes));
        match is_whole && state.random.below(100) >= percent / 4 {
            true => has_power,
            // Also when everything was written: that cannot be known.
            false => Err(io::Error::other("write failed on purpose")),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut state, inode) = self.both();
        state.step()?;
        state.check_read()?;
        inode.check_readable(offset..offset + bytes.len() as u64)?;
        inode.file.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, mut inode) = self.both();
        let power = state.step();
        let percent = state.rates.syncs_fail;
        let fails = state.fails(percent);
        power?;
        let Inode {
            durable, unsynced, ..
        } = &mut *inode;
        for change in unsynced.drain(..) {
            match fails {
                // A change that does not survive is lost: it is not tried again.
                true => change.survive(&mut state.random, durable),
                false => change.apply(durable),
            }
        }
        match fails {
            true => Err(io::Error::other("sync failed on purpose")),
            false => Ok(()),
        }
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        let (mut state, inode) = self.both();
        state.step()?;
        if inode.file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Mapping::of(&inode.file, bytes as usize)
    }
}
