//! Making appended records durable, and handling a segment whose sync failed.
//!
//! The flusher takes the files, waits for the medium without the store, and reports.

use super::unsynced::{ContentsFile, Unsynced};
use super::{Store, list};
use std::io;
use std::sync::Arc;

impl Store {
    /// The files to sync for everything appended so far to be durable. The caller has to
    /// [`abandon`](Self::abandon) each file whose sync fails, and to report when
    /// [`all are synced`](Self::all_synced).
    ///
    /// # Errors
    ///
    /// An earlier sync lost some of it, whether or not a caller waited for that sync.
    pub(crate) fn take_unsynced(&mut self) -> (Vec<Unsynced>, io::Result<()>) {
        self.is_syncing = true;
        self.is_sync_wanted = false;
        self.syncing = self.last;
        self.syncing_bytes += std::mem::take(&mut self.unsynced_bytes);
        let mut unsynced = std::mem::take(&mut self.unsynced);
        for active in self.actives.iter_mut().flatten() {
            if std::mem::take(&mut active.is_dirty) {
                unsynced.push(Unsynced {
                    id: active.segment.id,
                    file: Arc::clone(&active.file),
                    contents: None,
                });
            }
        }
        let lost = match std::mem::take(&mut self.is_lost) {
            true => Err(io::Error::other("an earlier sync failed")),
            false => Ok(()),
        };
        (unsynced, lost)
    }

    /// Whether it is time to sync: a sealed segment waits, or at least `bytes_max` bytes, or a segment
    /// that is to go.
    pub(crate) fn is_due(&self, bytes_max: u64) -> bool {
        !self.unsynced.is_empty() || self.unsynced_bytes >= bytes_max || self.is_sync_wanted
    }

    /// Of what was written and is not durable, whether or not a sync goes on.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes + self.syncing_bytes
    }

    /// Whether everything was taken to be synced, and was.
    #[cfg(test)]
    pub(crate) fn is_clean(&self) -> bool {
        let is_dirty = self.actives.iter().flatten().any(|active| active.is_dirty);
        !is_dirty && self.unsynced.is_empty() && !self.is_syncing
    }

    /// A sync failed, and no caller learned of it.
    pub(crate) fn note_lost(&mut self) {
        self.is_lost = true;
    }

    /// The files that were taken are synced or abandoned. Without the secrets that records are sealed with,
    /// none of that counts as durable before a later sync has them.
    pub(crate) fn all_synced(&mut self, has_secrets: bool) {
        self.is_syncing = false;
        self.syncing_bytes = 0;
        if has_secrets {
            self.durable = self.durable.max(self.syncing);
        }
    }

    /// After a failed sync it is unknown what of the segment reached the medium, and a second sync
    /// would claim that all did. So the segment is neither written to nor synced again; its
    /// readable records stay readable.
    pub(crate) fn abandon(&mut self, failed: &Unsynced) {
        self.abandon_segment(failed.id, failed.contents.as_ref());
    }

    /// `contents` are those of the segment, if a sync had taken them.
    pub(super) fn abandon_segment(&mut self, id: u64, contents: Option<&ContentsFile>) {
        self.poisonings += 1;
        // For the next process, whose own sync would succeed and hide the failure. A loss of power
        // that loses this file loses the records, too.
        let _ = self.disk.create(&self.folder.contents(id));
        for active in &mut self.actives {
            let Some(mut active) = active.take_if(|active| active.segment.id == id) else {
                continue;
            };
            // No sync has reported the records that came during this one.
            self.is_lost |= active.is_dirty;
            active.segment.set_keys(active.keys);
            self.tombstones.owe_all(&active.contents.take_tombstones());
            list(&mut self.segments, active.segment);
        }
        for segment in self.segments.iter().filter(|segment| segment.id == id) {
            segment.poison();
        }
        // Its removals stay, even if its entries are lost.
        let waiting = self.unsynced.extract_if(.., |unsynced| unsynced.id == id);
        let waiting: Vec<_> = waiting.collect();
        self.is_lost |= !waiting.is_empty();
        let waiting = waiting
            .iter()
            .filter_map(|waiting| waiting.contents.as_ref());
        for contents in waiting.chain(contents) {
            self.tombstones.owe_all(contents.tombstones());
        }
    }

    /// Removes the contents that were just written if their segment was reclaimed meanwhile.
    pub(crate) fn contents_written(&mut self, of: &Unsynced) {
        if !self.segments.iter().any(|segment| segment.id == of.id) {
            let _ = self.disk.unlink(&self.folder.contents(of.id));
        }
    }
}
