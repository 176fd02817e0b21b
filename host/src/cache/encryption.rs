//! Other keys for an encrypted folder, while the cache is in use.

use super::{Cache, EncryptionKeys};
use std::io;

impl Cache {
    /// Uses these keys from now on: the first one for what is stored, all for what is read. Does nothing for a
    /// cache in memory. May wait for the disk.
    ///
    /// # Errors
    ///
    /// What is wrong, in words without a key: they lack one that entries on disk are encrypted with, or the
    /// folder is not encrypted. The keys stay as they were.
    pub fn set_encryption_keys(&self, keys: &EncryptionKeys) -> Result<(), String> {
        let shared = &*self.shared;
        let Some(mut writer) = shared.writer() else {
            if let Some(absence) = &shared.absence {
                absence.set_keys(keys);
            }
            // The folder may have been taken into use meanwhile.
            return shared
                .writer()
                .map_or(Ok(()), |mut writer| writer.store.set_keys(keys));
        };
        writer.store.set_keys(keys)
    }

    /// Writes all entries again that are encrypted with another key than the first one, durably, segment by
    /// segment; other threads can insert in between. Returns how many segments are left, because the quota
    /// has no room: making room for newer entries writes those again, too, or removes them.
    ///
    /// # Errors
    ///
    /// The disk fails. The work done until then holds, and nothing is lost, as with
    /// [`compact`](Self::compact).
    pub fn reencrypt(&self, now_ms: u64) -> io::Result<u64> {
        let shared = &*self.shared;
        let old = || {
            let writer = shared.writer();
            writer.map_or_else(Vec::new, |writer| writer.store.segments_of_old_keys())
        };
        shared.rewrite_segments(old(), now_ms, false, |_, _| {})?;
        Ok(old().len() as u64)
    }

    /// Whether the folder has entries that are not encrypted yet: see [`EncryptionKeys::converting`].
    pub fn is_converting(&self) -> bool {
        let writer = self.shared.writer();
        writer.is_some_and(|writer| writer.store.is_sealing())
    }

    /// Sets how many tenants have secrets of their own.
    #[cfg(all(test, feature = "encryption"))]
    pub(super) fn set_secrets_max(&self, most: usize) {
        if let Some(mut writer) = self.shared.writer() {
            writer.store.set_secrets_max(most);
        }
    }
}
