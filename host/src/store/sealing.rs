//! The part of the store that seals records: which secret, which key, and what becomes of old ones.

use super::disk::Disk;
use super::encryption::{EncryptionKeys, Secrets, Vault};
use super::folder::{Folder, OpenError};
use super::format::{ENVELOPE_BYTES, KeyId, Kind, MarksFile, Sealing};
use super::record::NewRecord;
use super::segment::Segment;
use super::{Log, Store, StoreError};
use std::io;
use std::sync::Arc;

/// What the writer of an encrypted folder has.
#[derive(Debug)]
pub(super) struct Sealer {
    pub(super) vault: Arc<Vault>,
    secrets: Secrets,
    /// How many segments had been reclaimed when secrets without records were looked for.
    looked_at: Option<u64>,
}

impl Sealer {
    /// Reads the secrets of a folder that is encrypted. If they are lost, its records are lost, and so are
    /// the purge marks then: the second value is the newest of them.
    pub(super) fn open(
        disk: &dyn Disk,
        folder: &Folder,
        keys: Option<&EncryptionKeys>,
        marks: &mut Option<MarksFile>,
    ) -> Result<(Option<Self>, u64), OpenError> {
        let Some(keys) = keys else {
            return Ok((None, 0));
        };
        // Once a conversion has ended, what is not sealed is not ours, whatever the keys say.
        let reads_plain = folder.sealing() == Sealing::Underway;
        let vault = Arc::new(Vault::new(folder.store, keys, reads_plain));
        let mut purged = 0;
        let secrets = match Secrets::open(disk, folder, &vault)? {
            Some(secrets) => Some(secrets),
            None => {
                purged = marks.take().map_or(0, |marks| marks.newest());
                folder.reset_secrets(disk)?;
                Secrets::open(disk, folder, &vault)?
            }
        };
        let sealer = secrets.map(|secrets| Self {
            vault,
            secrets,
            looked_at: None,
        });
        Ok((sealer, purged))
    }
}

impl Store {
    /// The record as it is to be written: sealed, if the folder is encrypted.
    pub(super) fn with_seal_of_tenant<'a>(
        &mut self,
        record: &NewRecord<'a>,
    ) -> Result<NewRecord<'a>, StoreError> {
        let Some(sealer) = &mut self.sealer else {
            return Ok(*record);
        };
        if record.kind() == Kind::Tombstone {
            return Ok(*record);
        }
        match sealer.secrets.seal_for(record.tenant, &sealer.vault) {
            Ok(Some(seal)) => Ok(record.with_seal(seal)),
            Ok(None) => self.sealed_without_room(record),
            Err(error) => Err(self.no_secret(error)),
        }
    }

    fn no_secret(&self, error: io::Error) -> StoreError {
        let doing = "write secrets of tenants in";
        StoreError::io(doing, self.folder.root())(error)
    }

    /// There is no room for the secret of one more tenant: those without a record go, or it gets the common
    /// one.
    fn sealed_without_room<'a>(
        &mut self,
        record: &NewRecord<'a>,
    ) -> Result<NewRecord<'a>, StoreError> {
        let segments: Vec<_> = self.listed().cloned().collect();
        let Some(sealer) = &mut self.sealer else {
            return Ok(*record);
        };
        let Sealer {
            vault,
            secrets,
            looked_at,
        } = sealer;
        // Only a segment that has gone makes room.
        if *looked_at != Some(self.reclaimed) {
            *looked_at = Some(self.reclaimed);
            let is_unused = |tenant: &[u8; 32]| {
                let mut segments = segments.iter();
                !segments.any(|it| it.views.live(Some(tenant)).0 > 0)
            };
            secrets.forget_where(is_unused, false, vault);
        }
        let seal = match secrets.seal_for(record.tenant, vault) {
            Ok(Some(seal)) => Ok(seal),
            Ok(None) => secrets.common_seal(vault),
            Err(error) => Err(error),
        };
        match seal {
            Ok(seal) => Ok(record.with_seal(seal)),
            Err(error) => Err(self.no_secret(error)),
        }
    }

    /// How much longer an entry of this segment becomes when it is written again.
    pub(super) fn growth_by_sealing(&self, segment: &Segment) -> u64 {
        match self.sealer.is_some() && segment.key().is_none() {
            true => ENVELOPE_BYTES as u64,
            false => 0,
        }
    }

    /// The key of a new segment.
    pub(super) fn segment_key(&self) -> Option<KeyId> {
        self.sealer.as_ref().map(|sealer| sealer.vault.first())
    }

    /// Makes the secrets durable that were written or forgotten.
    pub(crate) fn settle_secrets(&mut self) -> Result<(), StoreError> {
        let Some(sealer) = &mut self.sealer else {
            return Ok(());
        };
        let settled = sealer.secrets.settle(&sealer.vault);
        settled.map_err(|error| self.no_secret(error))
    }

    /// As [`settle_secrets`](Self::settle_secrets), if secrets were forgotten.
    pub(crate) fn settle_forgotten(&mut self) -> Result<(), StoreError> {
        let sealer = self.sealer.as_ref();
        match sealer.is_some_and(|sealer| sealer.secrets.has_unwritten()) {
            true => self.settle_secrets(),
            false => Ok(()),
        }
    }

    /// Forgets the secret of a tenant, after a purge of it: no record of the tenant can be opened any more,
    /// once this is settled. False if some may not be sealed with a secret of its own.
    pub(crate) fn forget_secret(&mut self, tenant: &[u8; 32]) -> bool {
        let is_plain = |it: &Arc<Segment>| it.key().is_none();
        let has_plain = self.listed().any(is_plain);
        let Some(sealer) = &mut self.sealer else {
            return false;
        };
        sealer.secrets.forget(tenant, &sealer.vault) && !has_plain
    }

    /// Forgets all secrets, after a durable purge of everything.
    pub(crate) fn forget_secrets(&mut self) -> Result<(), StoreError> {
        if let Some(sealer) = &mut self.sealer {
            sealer.secrets.forget_where(|_| true, true, &sealer.vault);
        }
        self.settle_secrets()
    }

    /// Uses other keys: the first one for what is written from now on.
    ///
    /// # Errors
    ///
    /// They lack a key that records are sealed under, or the folder is not encrypted. Nothing has changed.
    pub(crate) fn set_keys(&mut self, keys: &EncryptionKeys) -> Result<(), String> {
        let Some(sealer) = &self.sealer else {
            return Err("the data folder is not encrypted".into());
        };
        let vault = Arc::clone(&sealer.vault);
        let missing = self
            .listed()
            .filter_map(|segment| segment.key())
            .find(|id| !keys.has(id));
        if let Some(id) = missing {
            return Err(format!("records are still encrypted with the key {id}"));
        }
        let before = vault.first();
        vault.set_keys(keys);
        if vault.first() != before {
            for log in Log::BOTH {
                // One that could not be synced is sealed all the same.
                if let Err(error) = self.seal_for_room(log) {
                    tracing::warn!(%error, "a segment under the earlier key");
                }
            }
        }
        Ok(())
    }

    /// The segments that are not sealed under the first key.
    pub(crate) fn segments_of_old_keys(&self) -> Vec<u64> {
        let Some(sealer) = &self.sealer else {
            return Vec::new();
        };
        let first = Some(sealer.vault.first());
        let old = self.listed().filter(|segment| segment.key() != first);
        old.map(|segment| segment.id).collect()
    }

    /// Ends a conversion, if nothing is left that is not sealed.
    pub(crate) fn end_sealing(&mut self) -> Result<(), StoreError> {
        let is_plain = |it: &Arc<Segment>| it.key().is_none();
        if self.sealer.is_none() || self.listed().any(is_plain) {
            return Ok(());
        }
        let ended = self.folder.set_sealing(&*self.disk, Sealing::All);
        ended.map_err(StoreError::io("write manifest in", self.folder.root()))
    }

    /// Whether a conversion has not ended.
    pub(crate) fn is_sealing(&self) -> bool {
        self.folder.sealing() == Sealing::Underway
    }

    #[cfg(all(test, feature = "encryption"))]
    pub(crate) fn set_secrets_max(&mut self, most: usize) {
        if let Some(sealer) = &mut self.sealer {
            sealer.secrets.set_slots_max(most);
        }
    }
}
