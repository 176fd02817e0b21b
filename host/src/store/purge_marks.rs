//! The purge marks: the records of a tenant, or of all tenants, are purged up to a sequence.
//!
//! A record is older than a purge exactly if its sequence is not higher than the purge's. So keys
//! and records need no field for it: the sequence suffices. Only the writer and recovery use this;
//! readers learn of a purge from the segments.

use super::disk::Disk;
use super::folder::Folder;
use super::format::{MarksFile, RECENT_TENANTS_MAX, TENANTS_MAX};
use std::io;

/// Whose records are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    All,
    Tenant(&'a [u8; 32]),
}

/// The purges so far, and what of them the disk does not have yet.
///
/// With many tenants, the file of all marks is written only every [`RECENT_TENANTS_MAX`] purges, and a
/// small file beside it for each purge. So the cost of a purge does not grow with earlier ones.
#[derive(Debug, Default)]
pub(crate) struct PurgeMarks {
    all: MarksFile,
    /// Of the tenants since the file of all was written.
    recent: MarksFile,
    owed: Owed,
}

/// The file to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owed {
    #[default]
    Nothing,
    Recent,
    All,
}

impl PurgeMarks {
    /// As read from disk; `is_owed`: the disk does not have them all.
    pub(crate) fn new(all: MarksFile, is_owed: bool) -> Self {
        // Recent ones that were read are among them, and no longer known as such.
        let is_owed = is_owed || all.has_recent;
        Self {
            all,
            recent: MarksFile::default(),
            owed: if is_owed { Owed::All } else { Owed::Nothing },
        }
    }

    /// Writes what is owed, if anything is.
    pub(super) fn settle(&mut self, disk: &dyn Disk, folder: &mut Folder) -> io::Result<()> {
        match self.owed {
            Owed::Nothing => return Ok(()),
            Owed::Recent => folder.write_recent_marks(disk, &self.recent)?,
            Owed::All => {
                let had_recent = self.all.has_recent;
                let mut all = std::mem::take(&mut self.all);
                all.has_recent = all.tenants.len() > RECENT_TENANTS_MAX;
                let written = folder.write_purge_marks(disk, &all, had_recent);
                if written.is_err() {
                    all.has_recent = had_recent;
                }
                self.all = all;
                written?;
                self.recent = MarksFile::default();
            }
        }
        self.owed = Owed::Nothing;
        Ok(())
    }

    /// Purges records up to `sequence`. Marks below `oldest`, the lowest sequence that is still
    /// on disk, cover nothing any more and may be forgotten.
    pub(super) fn purge(&mut self, whose: Whose<'_>, sequence: u64, oldest: u64) {
        let is_recent = match whose {
            Whose::All => {
                self.all.all = sequence;
                self.all.tenants.clear();
                false
            }
            Whose::Tenant(tenant) => {
                let made_room = self.all.make_room(tenant, oldest);
                self.all.tenants.insert(*tenant, sequence);
                let fits = self.recent.tenants.len() < RECENT_TENANTS_MAX;
                let is_recent = self.all.has_recent && fits && !made_room;
                if is_recent {
                    self.recent.tenants.insert(*tenant, sequence);
                }
                is_recent
            }
        };
        self.owed = match self.owed {
            Owed::Nothing | Owed::Recent if is_recent => Owed::Recent,
            _ => Owed::All,
        };
    }

    /// Purges all records up to `sequence`, and no others.
    pub(super) fn purge_up_to(&mut self, sequence: u64) {
        let all = self.all.all.max(sequence);
        self.all.all = all;
        self.all.tenants.retain(|_, mark| *mark > all);
        self.owed = Owed::All;
    }

    /// Forgets the tenants whose marks are below `oldest`, the lowest sequence that is still on
    /// disk: they cover nothing any more. No file names them once this is settled.
    pub(super) fn forget(&mut self, oldest: u64) {
        let tenants = &mut self.all.tenants;
        let before = tenants.len();
        tenants.retain(|_, sequence| *sequence >= oldest);
        if tenants.len() != before {
            self.owed = Owed::All;
        }
    }
}

impl MarksFile {
    pub(crate) fn covers(&self, tenant: &[u8; 32], sequence: u64) -> bool {
        sequence <= self.all
            || self
                .tenants
                .get(tenant)
                .is_some_and(|mark| sequence <= *mark)
    }

    /// A new record's sequence has to exceed this: then no purge covers the record, and no record
    /// that could not be read supersedes it.
    pub(crate) fn newest(&self) -> u64 {
        let tenants = self.tenants.values().copied();
        let purged = tenants.max().unwrap_or_default().max(self.all);
        purged.max(self.floor)
    }

    /// Makes room for one more tenant; whether any mark was changed for that. Past the bound, the older
    /// half becomes one purge of all tenants: that loses entries, but no purged entry comes back.
    fn make_room(&mut self, tenant: &[u8; 32], oldest: u64) -> bool {
        if self.tenants.len() < TENANTS_MAX || self.tenants.contains_key(tenant) {
            return false;
        }
        self.tenants.retain(|_, sequence| *sequence >= oldest);
        if self.tenants.len() < TENANTS_MAX {
            return true;
        }
        let mut sequences: Vec<u64> = self.tenants.values().copied().collect();
        let (_, median, _) = sequences.select_nth_unstable(TENANTS_MAX / 2);
        self.all = self.all.max(*median);
        let all = self.all;
        self.tenants.retain(|_, sequence| *sequence > all);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u64) -> [u8; 32] {
        let mut tenant = [0; 32];
        tenant[..8].copy_from_slice(&number.to_le_bytes());
        tenant
    }

    #[test]
    fn a_purge_covers_what_came_before_and_nothing_else() {
        let mut marks = PurgeMarks::default();
        let covers = |marks: &PurgeMarks, number, sequence| {
            let all = &marks.all;
            all.covers(&tenant(number), sequence)
        };
        assert!(!covers(&marks, 1, 1));
        marks.purge(Whose::Tenant(&tenant(1)), 10, 1);
        assert!(covers(&marks, 1, 1) && covers(&marks, 1, 10));
        assert!(!covers(&marks, 1, 11) && !covers(&marks, 2, 1));
        marks.purge(Whose::Tenant(&tenant(1)), 20, 1);
        assert!(covers(&marks, 1, 20) && !covers(&marks, 1, 21));
        assert_eq!(marks.all.newest(), 20);
        marks.purge(Whose::Tenant(&tenant(2)), 25, 1);
        marks.forget(21);
        assert!(!covers(&marks, 1, 1));
        marks.forget(25);
        assert!(covers(&marks, 2, 25) && !covers(&marks, 1, 1));
        marks.purge(Whose::All, 30, 1);
        assert!(covers(&marks, 1, 30) && covers(&marks, 2, 30) && !covers(&marks, 2, 31));
        assert_eq!(marks.all.newest(), 30);
        assert!(marks.all.tenants.is_empty());
    }

    #[test]
    fn however_many_are_purged_the_file_stays_bounded_and_none_comes_back() {
        let filled = |oldest| {
            let mut marks = PurgeMarks::default();
            let last = TENANTS_MAX as u64 + 100;
            for number in 1..=last {
                marks.purge(Whose::Tenant(&tenant(number)), number, oldest);
            }
            assert!(marks.all.tenants.len() <= TENANTS_MAX);
            (marks.all, last)
        };
        let (file, last) = filled(1);
        assert!((1..=last).all(|number| file.covers(&tenant(number), number)));
        assert!((1..=last).all(|number| !file.covers(&tenant(number), last + 1)));
        // Marks that cover nothing on disk need not be remembered.
        let (file, _) = filled(60_000);
        assert_eq!(file.all, 0);
        assert!(file.tenants.len() < 10_000);
    }
}
