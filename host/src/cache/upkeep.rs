//! An operator's work on a data folder: inspect it, compact it, erase a tenant from it.

use super::{Cache, EncryptionKeys, Shared, lock};
use crate::store::{self, OpenError, RealDisk, StoreReport};
use std::io;
use std::path::Path;

impl StoreReport {
    /// Inspects a data folder that no process uses, and verifies every byte in it. Changes nothing;
    /// reads all of it.
    ///
    /// # Errors
    ///
    /// A process uses the folder, it is not ours, of a later release, or it cannot be read.
    /// Damage inside is no error but in [`findings`](Self::findings).
    pub fn of(data_dir: &Path) -> Result<Self, OpenError> {
        store::inspect(&RealDisk, data_dir, None)
    }

    /// As [`of`](Self::of), of an encrypted folder: opens each record as well.
    ///
    /// # Errors
    ///
    /// As of [`of`](Self::of), or the folder has records under another key.
    pub fn of_encrypted(data_dir: &Path, keys: &EncryptionKeys) -> Result<Self, OpenError> {
        store::inspect(&RealDisk, data_dir, Some(keys))
    }
}

impl Cache {
    /// Writes all live entries again, durably, and removes the rest, segment by segment; other
    /// threads can insert in between. Returns by how many bytes the store has become smaller. Stops
    /// when the quota has no room for another segment: then little is dead.
    ///
    /// # Errors
    ///
    /// The disk fails. The work done until then holds, and nothing is lost. If power is lost before the next
    /// sync, what was just written again may be lost.
    pub fn compact(&self, now_ms: u64) -> io::Result<u64> {
        self.compact_telling(now_ms, |_, _| {})
    }

    /// As [`compact`](Self::compact). Calls `tell` before each segment, with how many are done and how many
    /// there are.
    ///
    /// # Errors
    ///
    /// As of [`compact`](Self::compact).
    pub fn compact_telling(&self, now_ms: u64, tell: impl FnMut(u64, u64)) -> io::Result<u64> {
        let before = self.stats().disk_bytes;
        self.shared.rewrite(now_ms, false, tell)?;
        Ok(before.saturating_sub(self.stats().disk_bytes))
    }

    /// As [`purge_tenant`](Self::purge_tenant), and for good against readers of the files, too.
    ///
    /// With [`encryption_keys`](super::CacheOptions::encryption_keys), the tenant's secret is forgotten: at
    /// once, no key opens its answers any more. Hashes of its name and of its requests, times and lengths stay
    /// until their segments make room; [`compact`](Self::compact) removes them.
    ///
    /// Without encryption, everything else is written again, so that no byte of the tenant is left in any
    /// file, its name included. That takes as long as writing the whole store. It is the same for a tenant that
    /// came when 65,536 others had secrets of their own, and as long as a folder is being encrypted.
    ///
    /// Bytes that readers hold stay until the readers are done.
    ///
    /// # Errors
    ///
    /// The disk fails. The purge may still hold; calling this again goes on.
    pub fn erase_tenant(&self, tenant: &[u8; 32], now_ms: u64) -> io::Result<()> {
        self.erase_tenant_telling(tenant, now_ms, |_, _| {})
    }

    /// As [`erase_tenant`](Self::erase_tenant), and calls `tell` as
    /// [`compact_telling`](Self::compact_telling) does.
    ///
    /// # Errors
    ///
    /// As of [`erase_tenant`](Self::erase_tenant).
    pub fn erase_tenant_telling(
        &self,
        tenant: &[u8; 32],
        now_ms: u64,
        tell: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        match self.purge_and_forget(tenant)? {
            true => Ok(()),
            false => self.shared.rewrite(now_ms, true, tell),
        }
    }
}

impl Shared {
    fn rewrite(
        &self,
        now_ms: u64,
        by_all_means: bool,
        tell: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        let Some(mut writer) = self.writer() else {
            return Ok(());
        };
        self.write_all(&mut writer);
        let segments = writer.store.seal_all()?;
        drop(writer);
        self.rewrite_segments(segments, now_ms, by_all_means, tell)
    }

    /// Writes the live entries of these segments again, and removes the segments. `tell` gets how many are
    /// done, and of how many.
    pub(super) fn rewrite_segments(
        &self,
        segments: Vec<u64>,
        now_ms: u64,
        by_all_means: bool,
        mut tell: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        let all = segments.len() as u64;
        for (done, id) in (0..).zip(segments) {
            tell(done, all);
            // Waits for a flush under way, because all entries have to be durable.
            let _no_flush = lock(&self.syncing);
            let Some(mut writer) = self.writer() else {
                break;
            };
            if !writer.store.rewrite(id, now_ms, by_all_means)? {
                break;
            }
        }
        self.writer().map_or(Ok(()), |mut writer| {
            writer.store.end_sealing()?;
            Ok(writer.store.forget_purges()?)
        })
    }
}
