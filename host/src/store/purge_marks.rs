//! The purge marks: the records of a tenant, or of all tenants, are purged up to a sequence.
//!
//! A record is older than a purge exactly if its sequence is not higher than the purge's. So keys
//! and records need no field for it: the sequence serves. Only the writer and recovery ask here;
//! readers learn of a purge from the segments.

use super::format::{MarksFile, TENANTS_MAX};

/// Whose records are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose<'a> {
    Everybody,
    Tenant(&'a [u8; 32]),
}

/// The purges so far, as the store writes them to disk.
#[derive(Debug, Default)]
pub(crate) struct PurgeMarks(MarksFile);

impl PurgeMarks {
    pub(crate) fn new(file: MarksFile) -> Self {
        Self(file)
    }

    /// The marks to write to disk.
    pub(super) fn file(&self) -> &MarksFile {
        &self.0
    }

    /// Purges records up to `sequence`. Marks below `oldest`, the lowest sequence that is still
    /// on disk, cover nothing any more and may be forgotten.
    pub(super) fn purge(&mut self, whose: Whose<'_>, sequence: u64, oldest: u64) {
        let file = &mut self.0;
        match whose {
            Whose::Everybody => {
                file.all = sequence;
                file.tenants.clear();
            }
            Whose::Tenant(tenant) => {
                file.make_room(tenant, oldest);
                file.tenants.insert(*tenant, sequence);
            }
        }
    }

    /// Forgets the tenants whose marks are below `oldest`, the lowest sequence that is still on
    /// disk: they cover nothing any more. Whether it forgot any.
    pub(super) fn forget(&mut self, oldest: u64) -> bool {
        let file = &mut self.0;
        let before = file.tenants.len();
        file.tenants.retain(|_, sequence| *sequence >= oldest);
        file.tenants.len() != before
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

    /// Makes room for one more tenant. Past the bound, the older half becomes one purge of all
    /// tenants: that loses entries, but no purged entry comes back.
    fn make_room(&mut self, tenant: &[u8; 32], oldest: u64) {
        if self.tenants.len() < TENANTS_MAX || self.tenants.contains_key(tenant) {
            return;
        }
        self.tenants.retain(|_, sequence| *sequence >= oldest);
        if self.tenants.len() < TENANTS_MAX {
            return;
        }
        let mut sequences: Vec<u64> = self.tenants.values().copied().collect();
        let (_, median, _) = sequences.select_nth_unstable(TENANTS_MAX / 2);
        self.all = self.all.max(*median);
        let all = self.all;
        self.tenants.retain(|_, sequence| *sequence > all);
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
        let covers = |marks: &PurgeMarks, tenant_number, sequence| {
            marks.file().covers(&tenant(tenant_number), sequence)
        };
        assert!(!covers(&marks, 1, 1));
        marks.purge(Whose::Tenant(&tenant(1)), 10, 1);
        assert!(covers(&marks, 1, 1) && covers(&marks, 1, 10));
        assert!(!covers(&marks, 1, 11) && !covers(&marks, 2, 1));
        marks.purge(Whose::Tenant(&tenant(1)), 20, 1);
        assert!(covers(&marks, 1, 20) && !covers(&marks, 1, 21));
        assert_eq!(marks.file().newest(), 20);
        marks.purge(Whose::Tenant(&tenant(2)), 25, 1);
        assert!(marks.forget(21) && !marks.forget(25));
        assert!(covers(&marks, 2, 25) && !covers(&marks, 1, 1));
        marks.purge(Whose::Everybody, 30, 1);
        assert!(covers(&marks, 1, 30) && covers(&marks, 2, 30) && !covers(&marks, 2, 31));
        assert_eq!(marks.file().newest(), 30);
        assert!(marks.file().tenants.is_empty());
    }

    #[test]
    fn however_many_are_purged_the_file_stays_bounded_and_none_comes_back() {
        let filled = |oldest| {
            let mut marks = PurgeMarks::default();
            let last = TENANTS_MAX as u64 + 100;
            for number in 1..=last {
                marks.purge(Whose::Tenant(&tenant(number)), number, oldest);
            }
            assert!(marks.file().tenants.len() <= TENANTS_MAX);
            (marks.0, last)
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
