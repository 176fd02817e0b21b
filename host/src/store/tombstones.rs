//! The ledger of tombstones that the store owes the disk: keys whose records there must not come back
//! with a restart.
//!
//! A key gets into it when its record was removed, superseded in memory, or found damaged, and when the
//! record that stands in for a tombstone may not last. It leaves it with a tombstone, or with a
//! newer entry on disk.

use std::collections::HashSet;

/// Keys that need a tombstone.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    /// Their places were in the index, and used more memory there than the keys do here. A disk in
    /// trouble puts none in, so that what the index once held bounds them.
    known: HashSet<[u8; 32]>,
    /// The disk may hold a record, or none. The caller bounds them.
    in_doubt: HashSet<[u8; 32]>,
    of_lost: OfLost,
}

/// Whether some are of keys whose newest record was lost with the power. Only its neighbours on the disk tell
/// that there was one: with their segment, an older record of the key would count again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OfLost {
    /// None, or they are durable.
    #[default]
    None,
    Owed,
    /// They are being written.
    Underway,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) known: usize,
    pub(crate) in_doubt: usize,
}

impl Tombstones {
    /// Of keys whose newest record cannot be served, after a start.
    pub(super) fn of(known: Vec<[u8; 32]>) -> Self {
        let of_lost = match known.is_empty() {
            true => OfLost::None,
            false => OfLost::Owed,
        };
        Self {
            known: known.into_iter().collect(),
            in_doubt: HashSet::new(),
            of_lost,
        }
    }

    pub(super) fn of_lost(&mut self) -> &mut OfLost {
        &mut self.of_lost
    }

    /// Owes one for a key. `was_there`: the index knew a record of it.
    pub(super) fn owe(&mut self, key: &[u8; 32], was_there: bool) {
        match was_there {
            true => self.known.insert(*key),
            false => self.in_doubt.insert(*key),
        };
    }

    pub(super) fn owe_all(&mut self, keys: &[[u8; 32]]) {
        self.known.extend(keys);
    }

    pub(super) fn owed(&self) -> Owed {
        Owed {
            known: self.known.len(),
            in_doubt: self.in_doubt.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.in_doubt.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Self {
        Self {
            known: std::mem::take(&mut self.known),
            in_doubt: std::mem::take(&mut self.in_doubt),
            of_lost: OfLost::None,
        }
    }

    /// Puts back what another one is left with.
    pub(super) fn put_back(&mut self, left: Self) {
        self.known.extend(left.known);
        self.in_doubt.extend(left.in_doubt);
    }

    /// Pays each. What is not paid because of an error stays.
    pub(super) fn pay<E>(
        &mut self,
        mut pay: impl FnMut(&[u8; 32]) -> Result<(), E>,
    ) -> Result<(), E> {
        for keys in [&mut self.known, &mut self.in_doubt] {
            let mut failed = None;
            for key in keys.extract_if(|_| true) {
                if let Err(error) = pay(&key) {
                    failed = Some((key, error));
                    break;
                }
            }
            if let Some((key, error)) = failed {
                keys.insert(key);
                return Err(error);
            }
        }
        Ok(())
    }
}
