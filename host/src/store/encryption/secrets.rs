//! The secrets of tenants on disk, in the file `tenant_secrets`. The writer's; readers have the [`Vault`].
//!
//! A secret is written when its tenant's first record is, and synced before records are. It is forgotten by
//! zeros in its place.

use super::super::disk::{Disk, DiskFile};
use super::super::folder::{Folder, OpenError};
use super::super::format::{
    COMMON_SLOT, SECRETS_MAX, SLOT_BYTES, Seal, Slot, StoreId, encode_slot, slot_at,
};
use super::{Vault, aead};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

/// The file, and which tenant each slot of it belongs to.
#[derive(Debug)]
pub(crate) struct Secrets {
    file: Arc<dyn DiskFile>,
    store: StoreId,
    slots_max: usize,
    /// The slot of each tenant.
    numbers: HashMap<[u8; 32], u32>,
    has_common: bool,
    /// Below the first slot that was never used.
    free: BTreeSet<u32>,
    next: u32,
    /// To be written: a write or a sync of them failed, or they are to be zeros.
    unwritten: BTreeSet<u32>,
    /// Written, and not durable yet.
    unsynced: BTreeSet<u32>,
    /// The last process may have written some that it did not sync.
    is_inherited: bool,
}

impl Secrets {
    /// Reads the file, and tells the vault the secrets. `None` if it is lost.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Folder,
        vault: &Vault,
    ) -> Result<Option<Self>, OpenError> {
        let Some(slots) = folder.read_secrets(disk)? else {
            return Ok(None);
        };
        let mut secrets = Self {
            file: folder.open_secrets(disk)?,
            store: folder.store,
            slots_max: SECRETS_MAX,
            numbers: HashMap::new(),
            has_common: false,
            free: BTreeSet::new(),
            next: COMMON_SLOT + 1,
            unwritten: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            is_inherited: true,
        };
        for (number, slot) in (0..).zip(slots) {
            secrets.next = secrets.next.max(number + 1);
            match slot {
                Slot::Taken(_, secret) if number == COMMON_SLOT => {
                    secrets.has_common = true;
                    vault.keep(None, secret);
                }
                Slot::Taken(tenant, secret) if !secrets.numbers.contains_key(&tenant) => {
                    secrets.numbers.insert(tenant, number);
                    vault.keep(Some(&tenant), secret);
                }
                Slot::Free => secrets.free_slot(number),
                Slot::Taken(..) | Slot::Damaged => {
                    // Parts of a secret that was forgotten may be left.
                    secrets.unwritten.insert(number);
                    secrets.free_slot(number);
                }
            }
        }
        Ok(Some(secrets))
    }

    fn free_slot(&mut self, number: u32) {
        if number != COMMON_SLOT {
            self.free.insert(number);
        }
    }

    /// The seal for a tenant's records. Makes a secret for it if it has none. `None`: there is no room for
    /// one.
    pub(crate) fn seal_for(
        &mut self,
        tenant: &[u8; 32],
        vault: &Vault,
    ) -> io::Result<Option<Seal>> {
        if self.numbers.contains_key(tenant) {
            return Ok(Some(Seal::Own));
        }
        if self.numbers.len() >= self.slots_max {
            return Ok(None);
        }
        let number = self.free.first().copied().unwrap_or(self.next);
        self.write_new(number, Some(tenant), vault)?;
        self.free.remove(&number);
        self.next = self.next.max(number + 1);
        self.numbers.insert(*tenant, number);
        Ok(Some(Seal::Own))
    }

    /// The seal of tenants for which there is no room.
    pub(crate) fn common_seal(&mut self, vault: &Vault) -> io::Result<Seal> {
        if !self.has_common {
            self.write_new(COMMON_SLOT, None, vault)?;
            self.has_common = true;
        }
        Ok(Seal::Common)
    }

    /// Writes a new secret. After an error the slot is as before, or will be.
    fn write_new(
        &mut self,
        number: u32,
        tenant: Option<&[u8; 32]>,
        vault: &Vault,
    ) -> io::Result<()> {
        let mut secret = Vault::new_secret()?;
        let mut slot = encode_slot(&self.store, number, tenant.unwrap_or(&[0; 32]), &secret);
        // Until all of it is there.
        self.unwritten.insert(number);
        let written = self.write(number, &slot);
        if written.is_ok() {
            self.unwritten.remove(&number);
            self.unsynced.insert(number);
            vault.keep(tenant, secret);
        }
        aead::wipe(&mut secret);
        aead::wipe(&mut slot);
        written
    }

    fn write(&self, number: u32, slot: &[u8; SLOT_BYTES]) -> io::Result<()> {
        self.file.write_at([slot, b"", b"", b""], slot_at(number))
    }

    /// Forgets the secret of a tenant: for readers at once, and on disk once this is
    /// [settled](Self::settle). False if records of the tenant may be sealed with the common one.
    pub(crate) fn forget(&mut self, tenant: &[u8; 32], vault: &Vault) -> bool {
        vault.forget(Some(tenant));
        if let Some(number) = self.numbers.remove(tenant) {
            self.unsynced.remove(&number);
            self.unwritten.insert(number);
            self.free.insert(number);
        }
        !self.has_common
    }

    /// As [`forget`](Self::forget), of all that are `which`, and of the common one if `all` are meant.
    pub(crate) fn forget_where(
        &mut self,
        which: impl Fn(&[u8; 32]) -> bool,
        all: bool,
        vault: &Vault,
    ) {
        let tenants = self.numbers.keys().filter(|tenant| which(tenant));
        for tenant in tenants.copied().collect::<Vec<_>>() {
            self.forget(&tenant, vault);
        }
        if all && self.has_common {
            vault.forget(None);
            self.has_common = false;
            self.unsynced.remove(&COMMON_SLOT);
            self.unwritten.insert(COMMON_SLOT);
        }
    }

    /// Whether one was forgotten, and the disk has it yet.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Makes all of that durable.
    pub(crate) fn settle(&mut self, vault: &Vault) -> io::Result<()> {
        if self.unwritten.is_empty() && self.unsynced.is_empty() && !self.is_inherited {
            return Ok(());
        }
        let owners: HashMap<u32, [u8; 32]> = match self.unwritten.is_empty() {
            true => HashMap::new(),
            false => self
                .numbers
                .iter()
                .map(|(tenant, it)| (*it, *tenant))
                .collect(),
        };
        while let Some(number) = self.unwritten.first().copied() {
            let tenant = owners.get(&number);
            let is_taken = tenant.is_some() || number == COMMON_SLOT && self.has_common;
            let mut slot = [0; SLOT_BYTES];
            if let Some(mut secret) = vault.secret(tenant).filter(|_| is_taken) {
                slot = encode_slot(&self.store, number, tenant.unwrap_or(&[0; 32]), &secret);
                aead::wipe(&mut secret);
            }
            let written = self.write(number, &slot);
            aead::wipe(&mut slot);
            written?;
            self.unwritten.remove(&number);
            self.unsynced.insert(number);
        }
        match self.file.sync_data() {
            Ok(()) => {
                self.unsynced.clear();
                self.is_inherited = false;
                Ok(())
            }
            Err(error) => {
                // It is unknown what of them is durable, and a second sync would not tell.
                self.unwritten.append(&mut self.unsynced);
                if self.is_inherited {
                    self.unwritten.extend(self.numbers.values());
                    self.unwritten
                        .extend(self.has_common.then_some(COMMON_SLOT));
                }
                Err(error)
            }
        }
    }

    #[cfg(all(test, feature = "encryption"))]
    pub(crate) fn set_slots_max(&mut self, slots_max: usize) {
        self.slots_max = slots_max;
    }
}
