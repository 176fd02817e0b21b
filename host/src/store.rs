//! The payload store: two logs of records in segment files.
//!
//! ```text
//! append ─► small: active segment ─► full: sealed ─► … ─► oldest: reclaimed
//!             │    main: active segment ─► full: sealed ─► … ─► oldest: reclaimed
//!             │      └ what was hit is written to main
//!             └► Place ─► read: the record, zero-copy from the mapping
//! ```
//!
//! A [`Store`] is the writer: it has one owner at a time. Readers need only its [`Index`], which
//! maps each key to its place, and no lock. `docs/format.md` describes the bytes, and what is
//! assumed of the medium.

mod active;
mod again;
mod debts;
mod disk;
mod disk_use;
mod encryption;
mod evict;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod faults;
mod folder;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ghosts;
mod hash;
mod index;
mod inspect;
mod keys;
mod leaving;
mod log;
mod mmap;
mod newest;
mod place;
mod policy;
mod progress;
mod purge_marks;
mod reclaim;
mod record;
mod recover;
mod replay;
mod sealing;
mod segment;
mod shares;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod sim_disk;
mod stats;
mod syncing;
mod tenant_bytes;
mod tombstones;
mod trouble;
mod unsynced;
mod views;

pub(crate) use disk::{Disk, RealDisk};
pub use encryption::EncryptionKeys;
pub use folder::OpenError;
pub(crate) use folder::is_in_use;
pub(crate) use format::{
    ALIGN, BLOCK_BYTES, ENVELOPE_BYTES, HEADER_BYTES, NEVER, SEGMENT_BYTES_LIMIT, Shape, shape_of,
    tenant_of, times_of,
};
pub(crate) use hash::KeyState;
pub(crate) use index::Index;
pub(crate) use inspect::inspect;
pub use inspect::{SegmentReport, StoreReport};
pub(crate) use place::{Place, Read};
pub(crate) use purge_marks::Whose;
pub(crate) use record::NewRecord;
pub(crate) use shares::Shares;
pub use shares::{Stored, StoredMax, TenantBounds};
pub(crate) use stats::StoreStats;
pub(crate) use trouble::StoreError;
pub(crate) use unsynced::Unsynced;

use active::{Active, allocated_for};
use folder::Folder;
use format::{Contents, KEY_START_BYTES, Kind, MarksFile, Salt, StoreId, Superblock};
use keys::NewKeys;
use log::Log;
use policy::Policy;
use progress::Progress;
use purge_marks::PurgeMarks;
use reclaim::Ahead;
use recover::Recovered;
use replay::{Replayed, start_of};
use sealing::Sealer;
use segment::{DiskUse, Segment};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tombstones::Tombstones;
use unsynced::ContentsFile;

/// Bound of the sealed segments that wait for [`Store::take_unsynced`], each with its file open and
/// its contents, a few megabytes at most, in memory. Past it, sealing syncs a segment itself.
const UNSYNCED_MAX: usize = 8;

/// A segment is at most this part of the whole, so that reclaiming one loses little.
pub(crate) const SEGMENTS_MIN: u64 = 8;

/// No segment has more records: listing them, before it is reclaimed, is one step under the lock. With
/// answers of 4 KiB that is 256 MiB.
const RECORDS_MAX: u64 = 1 << 16;

/// Sequences skipped when records could not be read, beside one for each such record: for purges
/// between them that never became durable.
const HIDDEN_PURGES_MAX: u64 = 1 << 24;

/// The mark while the real one is unknown: higher than any sequence.
const EVERYTHING: u64 = u64::MAX;

/// Where a store lies and how large it may be. The cache has checked that these fit together.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) dir: PathBuf,
    /// Upper bound of all segments, in bytes.
    pub(crate) quota: u64,
    /// A multiple of [`BLOCK_BYTES`], large enough for the largest record.
    pub(crate) segment_bytes: u64,
    /// Upper bound of the number of entries; at least 1.
    pub(crate) entries_max: u64,
    /// For how long after its expiry an entry is kept like any other.
    pub(crate) stale_ms_max: u64,
    /// Those of an encrypted folder.
    pub(crate) keys: Option<EncryptionKeys>,
    /// What each tenant has, and may have. Of this store alone.
    pub(crate) shares: Arc<Shares>,
    /// How far reading the folder is.
    pub(crate) progress: Arc<Progress>,
}

#[cfg(test)]
impl StoreOptions {
    /// A store of one tenant or of several without bounds, not encrypted, in the folder `data`.
    pub(crate) fn plain(quota: u64, segment_bytes: u64) -> Self {
        Self {
            dir: "data".into(),
            quota,
            segment_bytes,
            entries_max: 1 << 20,
            stale_ms_max: 0,
            keys: None,
            shares: Arc::default(),
            progress: Arc::default(),
        }
    }
}

/// The writer of a data folder.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    folder: Folder,
    quota: u64,
    segment_bytes: u64,
    entries_max: u64,
    stale_ms_max: u64,
    disk_use: Arc<DiskUse>,
    index: Arc<Index>,
    /// Sealed, of both logs, in the order in which they were begun.
    segments: VecDeque<Arc<Segment>>,
    /// By log.
    actives: [Option<Active>; 2],
    next_segment: u64,
    /// The highest sequence so far.
    last: u64,
    /// By log, the sequence of the last record, and the beginning of its key.
    ends: [(u64, [u8; KEY_START_BYTES]); 2],
    policy: Policy,
    purge_marks: PurgeMarks,
    /// Sealed, but perhaps not durable.
    unsynced: Vec<Unsynced>,
    /// Written since the last [`take_unsynced`](Self::take_unsynced).
    unsynced_bytes: u64,
    /// When the newest entry was stored: the time for calls that bring none.
    now_ms: u64,
    tombstones: Tombstones,
    /// An appended record will never be durable, and the next sync has to say so.
    is_lost: bool,
    /// In an encrypted folder.
    sealer: Option<Sealer>,
    /// The segment that is on its way out.
    ahead: Ahead,
    /// A segment is being reclaimed, and what is written for it must not reclaim another.
    is_reclaiming: bool,
    /// Files were taken to be synced, and the outcome is not known yet.
    is_syncing: bool,
    /// Records up to this sequence were in those files, or synced before.
    syncing: u64,
    /// Of what was taken and is not durable yet.
    syncing_bytes: u64,
    /// Records up to this sequence are durable, where their segment is not poisoned.
    durable: u64,
    /// A segment cannot go before the next sync.
    is_sync_wanted: bool,
    /// How often a sync failed.
    poisonings: u64,
    reclaimed: u64,
    moved_bytes: u64,
    evicted: u64,
    over_bounds: u64,
}

/// A store just opened, with its entries.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// Damaged parts.
    pub(crate) damaged: u64,
}

impl Store {
    pub(crate) fn open(disk: Arc<dyn Disk>, options: &StoreOptions) -> Result<Opened, OpenError> {
        let folder = Folder::claim(&*disk, &options.dir, random_id, options.keys.as_ref())?;
        let disk_use = DiskUse::of(&options.shares);
        let mut marks = folder.read_purge_marks(&*disk)?;
        let has_epochs = folder.has_epochs();
        let (sealer, purged) = Sealer::open(&*disk, &folder, options.keys.as_ref(), &mut marks)?;
        let vault = sealer.as_ref().map(|sealer| Arc::clone(&sealer.vault));
        // The purge marks or the secrets are lost, so all records count as purged.
        let is_lost = marks.is_none();
        let mut marks = marks.unwrap_or(MarksFile {
            all: EVERYTHING,
            ..MarksFile::default()
        });
        let Recovered {
            segments,
            actives,
            next_segment,
            replayed,
            damaged,
            is_unsynced,
            has_hidden,
        } = recover::recover(&disk, &folder, options, &disk_use, &marks, vault)?;
        let Replayed {
            last,
            ends,
            hidden,
            index,
            unburied,
            now_ms,
        } = replayed;
        // The sequence never falls behind a purge, or the purge would cover new records.
        let last = match is_lost {
            true => last.max(purged),
            false => last.max(marks.newest()),
        };
        let last = match hidden {
            0 => last,
            _ => last + hidden + HIDDEN_PURGES_MAX,
        };
        if hidden > 0 {
            marks.floor = last;
        }
        if is_lost {
            marks.all = last;
        }
        for segment in segments.iter().filter(|segment| segment.has_hidden()) {
            segment.note_last(last);
        }
        if has_hidden {
            index.set_hidden();
        }
        let mut store = Self {
            disk,
            folder,
            quota: options.quota,
            segment_bytes: options.segment_bytes,
            entries_max: options.entries_max,
            stale_ms_max: options.stale_ms_max,
            disk_use,
            index: Arc::new(index),
            segments,
            actives,
            next_segment,
            last,
            ends,
            policy: Policy::default(),
            purge_marks: PurgeMarks::new(marks, is_lost || hidden > 0 || has_epochs),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            now_ms,
            tombstones: Tombstones::of(unburied),
            is_lost: is_unsynced,
            sealer,
            ahead: Ahead::default(),
            is_reclaiming: false,
            is_syncing: false,
            syncing: 0,
            syncing_bytes: 0,
            durable: 0,
            is_sync_wanted: false,
            poisonings: 0,
            reclaimed: 0,
            moved_bytes: 0,
            evicted: 0,
            over_bounds: 0,
        };
        if hidden > 0 || has_epochs {
            // Before anything is written. The next process may not be able to read what is hidden
            // either, and has to know how far the sequence has come.
            let settled = store.settle_purge_marks();
            settled.map_err(StoreError::into_open_error)?;
        }
        if store.index.len() > store.entries_max || store.disk_use.bytes() > store.quota {
            // The record that shows a lost one may go with its segment. Otherwise that waits until a segment
            // goes: what cannot be read now may be readable at the next start.
            let buried = store.bury_lost();
            buried.map_err(StoreError::into_open_error)?;
        }
        if is_lost {
            // No record is found, and the sequence of the unreadable records is lost with the marks.
            store
                .settle_purge_marks()
                .map_err(StoreError::into_open_error)?;
            for segment in store.listed() {
                let path = store.folder.segment(segment.id);
                let removed = store.folder.remove_segment(&*store.disk, segment.id);
                removed.map_err(OpenError::io("remove", &path))?;
            }
            store.discard();
        }
        // Each may be less than when the entries were written.
        store.keep_bounds();
        store.keep_entries_max(0);
        store.keep_quota().map_err(StoreError::into_open_error)?;
        Ok(Opened {
            store,
            damaged: damaged + u64::from(is_lost),
        })
    }

    /// Another process may have the folder from now on. The owner of this store must not write with it any
    /// more; readers that hold records may go on, because no segment is written where records are.
    pub(crate) fn release(&mut self) {
        self.folder.release();
    }

    /// For how long after its expiry an entry is kept, from now on.
    pub(crate) fn keep_expired(&mut self, ms_max: u64) {
        self.stale_ms_max = ms_max;
    }

    /// What each tenant has.
    pub(crate) fn shares(&self) -> Arc<Shares> {
        Arc::clone(&self.disk_use.1)
    }

    /// For readers: where each key lies.
    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index)
    }

    /// Moves the places into an index that readers already have. It must be empty, and belongs to this
    /// store from now on.
    pub(crate) fn publish(&mut self, index: &Arc<Index>) {
        let own = std::mem::replace(&mut self.index, Arc::clone(index));
        let own = Arc::into_inner(own).expect("a store that is not published has no readers");
        index.take(own);
    }

    /// Removes all segments, after a durable purge of all tenants. A segment that cannot be removed
    /// stays until room is needed; it is never served.
    pub(crate) fn discard(&mut self) {
        self.unsynced.clear();
        self.ahead = Ahead::default();
        self.index.remove_where(|_| true);
        let actives = self.actives.iter_mut().filter_map(Option::take);
        self.segments.extend(actives.map(|active| active.segment));
        let folder = &self.folder;
        let disk = &self.disk;
        self.segments.retain(|segment| {
            let is_gone = folder.remove_segment(&**disk, segment.id).is_ok();
            self.reclaimed += u64::from(is_gone);
            !is_gone
        });
    }

    /// Writes a record behind the last one of its log, and adds it to the index. It can be read at
    /// once, and survives the end of the process; after the next sync it survives a loss of power.
    ///
    /// # Errors
    ///
    /// The store is as before, and the next call tries again.
    pub(crate) fn append(&mut self, record: &NewRecord<'_>) -> Result<Place, StoreError> {
        let log = self.log_for(record);
        if record.kind() == Kind::Entry {
            self.keep_entries_max(1);
        }
        let before = self.disk_use.bytes();
        let place = self.append_to(log, record)?;
        if record.kind() == Kind::Entry {
            self.now_ms = record.stored_at_ms();
        }
        self.keep_bounds();
        if self.is_making_room() || self.disk_use.bytes() > before {
            // After the record, which had room, so that the moved records come after it.
            self.make_room_ahead(record.shape().record_bytes());
        }
        Ok(place)
    }

    /// A newer answer goes to the log of the one that it supersedes, so that as a rule the older
    /// record is reclaimed first. A tombstone goes to the small log, where another record soon follows
    /// it: that tells of its loss.
    fn log_for(&mut self, record: &NewRecord<'_>) -> Log {
        if record.kind() == Kind::Tombstone {
            return Log::Small;
        }
        let superseded = self.index.find(record.key(), |place| {
            let mut listed = self.listed();
            listed.find(|segment| place.is_in(segment)).map(|it| it.log)
        });
        superseded.flatten().unwrap_or_else(|| {
            let bytes = record.shape().record_bytes();
            self.policy.log_for(record.key(), bytes, self.quota)
        })
    }

    /// As above, without making room ahead.
    fn append_to(&mut self, log: Log, record: &NewRecord<'_>) -> Result<Place, StoreError> {
        let record = &self.with_seal_of_tenant(record)?;
        let bytes = record.shape().record_bytes();
        let active = self.actives[log as usize].as_ref();
        if !active.is_some_and(|active| self.has_room(active, bytes)) {
            let full = self.actives[log as usize].take();
            full.map_or(Ok(()), |full| self.seal(full))?;
            self.actives[log as usize] = Some(self.begin_segment(log, bytes)?);
        }
        self.write(log, record)
    }

    /// Writes a record to the active segment of a log, which has room for it.
    fn write(&mut self, log: Log, record: &NewRecord<'_>) -> Result<Place, StoreError> {
        let bytes = record.shape().record_bytes();
        let active = self.actives[log as usize].as_ref();
        let growth = active.map_or(0, |active| active.growth(bytes));
        if growth > 0 {
            self.make_room(log, room_for(growth, bytes))?;
        }
        let (_, previous) = self.ends[log as usize];
        let Some(active) = &mut self.actives[log as usize] else {
            return Err(StoreError::Pinned(0));
        };
        // A record left by a failed write has a sequence of its own.
        self.last += 1;
        let id = active.segment.id;
        let written = active.write(record, self.last, previous);
        let place =
            written.map_err(|error| StoreError::io("write", &self.folder.segment(id))(error))?;
        self.ends[log as usize] = (self.last, start_of(record.key()));
        self.unsynced_bytes += bytes;
        match record.kind() {
            Kind::Entry => {
                let covers = self.index.find(record.key(), |_| ()).is_some();
                place.set_covers(covers);
                self.index.insert(record.key(), place.clone());
            }
            Kind::Tombstone => drop(self.index.remove(record.key())),
        }
        Ok(place)
    }

    fn has_room(&self, active: &Active, bytes: u64) -> bool {
        active.room() >= bytes && active.contents.records() < self.segment_records_max()
    }

    /// Entries leave by segments, so a segment must not hold more than a part of all.
    fn segment_records_max(&self) -> u64 {
        (self.entries_max / SEGMENTS_MIN).clamp(1, RECORDS_MAX)
    }

    /// The number of places in memory, including those that left the index and whose memory was not
    /// freed yet.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.listed().map(|segment| segment.places()).sum()
    }

    /// The segments that have a name on disk.
    fn listed(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let actives = self.actives.iter().flatten();
        let actives = actives.map(|active| &active.segment);
        self.segments.iter().chain(actives)
    }

    fn seal(&mut self, full: Active) -> Result<(), StoreError> {
        let id = full.segment.id;
        let contents = ContentsFile::of(&self.disk, &self.folder, &full.segment, full.contents);
        full.segment.set_keys(full.keys);
        list(&mut self.segments, full.segment);
        self.unsynced.push(Unsynced {
            id,
            file: full.file,
            contents: Some(contents),
        });
        while self.unsynced.len() > UNSYNCED_MAX {
            let oldest = self.unsynced.remove(0);
            let path = self.folder.segment(oldest.id);
            if let Err(error) = oldest.sync() {
                self.is_lost = true;
                self.abandon(&oldest);
                return Err(StoreError::io("sync", &path)(error));
            }
            oldest.write_contents();
        }
        Ok(())
    }

    /// Begins a segment with space for a record of `bytes`. Makes it under another name and renames
    /// it when it is whole, so that a crash leaves no partial segment.
    fn begin_segment(&mut self, log: Log, bytes: u64) -> Result<Active, StoreError> {
        let allocated = allocated_for(BLOCK_BYTES as u64 + bytes, self.segment_bytes);
        self.make_room(log, room_for(allocated, bytes))?;
        let id = self.next_segment;
        let unfinished = self.folder.unfinished_segment(id);
        let made = self.make_segment((id, log), allocated, &unfinished);
        if made.is_err() {
            // Under either name, or neither; what stays is found by the next process.
            let _ = self.disk.unlink(&unfinished);
            let _ = self.disk.unlink(&self.folder.segment(id));
        }
        let active = made.map_err(StoreError::io("make", &unfinished))?;
        self.next_segment += 1;
        Ok(active)
    }

    fn make_segment(
        &self,
        (id, log): (u64, Log),
        allocated: u64,
        unfinished: &Path,
    ) -> io::Result<Active> {
        let superblock = Superblock {
            store: self.folder.store,
            segment: id,
            segment_bytes: self.segment_bytes,
            log,
            before: self.ends[log as usize].0,
            key: self.segment_key(),
        };
        let file = self.disk.create(unfinished)?;
        file.set_len(self.segment_bytes)?;
        file.preallocate(0..allocated)?;
        file.write_at([&superblock.encode(), b"", b"", b""], 0)?;
        file.sync_data()?;
        let mapping = file.map(self.segment_bytes)?;
        self.disk.rename(unfinished, &self.folder.segment(id))?;
        self.disk.sync_dir(&self.folder.segments())?;
        let salt = Salt::of_segment(&self.folder.store, id);
        let opened = (Arc::clone(&file), mapping);
        let space = (allocated, &self.disk_use);
        let segment = Segment::new((id, log), salt, opened, space, false);
        if let Some(sealer) = &self.sealer {
            segment.encrypted(&sealer.vault, superblock.key);
        }
        Ok(Active {
            segment,
            file,
            end: BLOCK_BYTES as u64,
            contents: Contents::default(),
            keys: NewKeys::default(),
            is_dirty: false,
        })
    }
}

/// The room that a segment needs to grow by `growth` for a record of `bytes`. Later records in the new
/// space may take as much again in the contents.
fn room_for(growth: u64, bytes: u64) -> u64 {
    growth + growth.saturating_sub(bytes) + BLOCK_BYTES as u64
}

/// Adds a segment that is sealed now, where it belongs by its id.
fn list(segments: &mut VecDeque<Arc<Segment>>, segment: Arc<Segment>) {
    let at = segments.partition_point(|there| there.id < segment.id);
    segments.insert(at, segment);
}

/// `RandomState` is seeded by the operating system. That is random enough: the id only has to
/// differ from every other store's.
fn random_id() -> StoreId {
    let state = RandomState::new();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&state.hash_one(0).to_le_bytes());
    id[8..].copy_from_slice(&state.hash_one(1).to_le_bytes());
    StoreId(id)
}
